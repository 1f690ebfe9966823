"""What images, documents and recordings inside a prompt can cost, as their sizes are not looked at.

Only parts with the right ``type`` and shape are media: base64 in a text is text. An image is held
for the most that its vendor's formula can reach, whatever it shows. That of a document cannot be
told from its bytes (a few kilobytes can be a hundred pages); it is held for what usual ones cost,
and charged for what the upstream reports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Part = Mapping[str, memoryview]
    """Fields of a content part: name to JSON text."""

ANTHROPIC_IMAGE_TOKENS: Final = 4_784
"""Anthropic's "Vision": an image of 2,576 pixels a side; older models scale to 1,600 tokens."""
OPENAI_IMAGE_TOKENS: Final = 12_000
"""OpenAI's "Images and vision": 10,000 patches times 1.2, with ``detail: original``, which ``auto``
may mean."""
OPENAI_DETAILED_TOKENS: Final = 3_800
"""``detail: high``: 1,536 patches times 2.46, or 2,500 times 1.2, or eight tiles."""
OPENAI_COARSE_TOKENS: Final = 2_833
"""``detail: low``, of which gpt-4o-mini counts the most."""
OPENAI_MINI_TOKENS: Final = 48_200
"""gpt-4o-mini: 2,833 and 5,667 for each of eight tiles."""
PAGE_TOKENS: Final = 7_800
"""A page of a document: 3,000 of text and an image (Anthropic's "PDF support")."""
MOST_DOCUMENT_TOKENS: Final = 1_000_000
"""No model takes more."""
PDF_BYTES_PER_TOKEN: Final = 8
FILE_BYTES_PER_TOKEN: Final = 3
"""Base64 characters of other documents that make a token: four are three bytes of text."""
AUDIO_BYTES_PER_TOKEN: Final = 16
"""Base64 characters; ten tokens a second, and no codec needs less than 120 bytes for those."""
RECORDING_TOKENS: Final = 7_800
"""A recording or film of which only the address is known: a page's worth."""

_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_WORD: Final = msgspec.json.Decoder(str)
_LONGEST_WORD: Final = 64
_DATA: Final = ("url", "data", "file_data", "file_url", "file_id")
_INLINE: Final = frozenset({"data", "file_data"})
_DATA_URL: Final = b'"data:'
_PDF: Final = b"JVBERi"
"""``%PDF-`` in base64."""
_HEAD_BYTES: Final = 256


class Medium(NamedTuple):
    """An image or file found in a content part."""

    field: str
    """The field of the part that holds it."""
    tokens: int


class _Source(NamedTuple):
    data: memoryview
    """JSON string: base64, a data URL, a URL or an id."""
    name: str
    """Its field."""
    detail: str

    @property
    def inline(self) -> bool:
        """Whether the bytes themselves are there."""
        return self.name in _INLINE or bytes(self.data[: len(_DATA_URL)]) == _DATA_URL


def attached(part: Part, model: bytes) -> Medium | None:
    """Return the image or file in a content part, if it is one that an upstream would read."""
    kind = _word(part.get("type"))
    if kind not in _PARTS:
        return None
    price, fields = _PARTS[kind]
    for field in fields:
        if field in part and (source := _source(part, field)) is not None:
            return Medium(field, price(source, model))
    return None


def _source(part: Part, field: str) -> _Source | None:
    held = part[field]
    if _is_text(held):
        return _Source(held, field, _word(part.get("detail")))
    if bytes(held[:1]) != b"{":
        return None
    inner = {name: memoryview(raw) for name, raw in _OBJECT.decode(held).items()}
    if _word(inner.get("type")) == "text":  # a document given as text
        return None
    detail = _word(inner.get("detail")) or _word(part.get("detail"))
    for name in _DATA:
        if name in inner and _is_text(inner[name]):
            return _Source(inner[name], name, detail)
    return None


def _is_text(value: memoryview) -> bool:
    return bytes(value[:1]) == b'"'


def _word(value: memoryview | None) -> str:
    """Return a short JSON string; empty for anything else."""
    if value is None or not _is_text(value) or len(value) > _LONGEST_WORD:
        return ""
    try:
        return _WORD.decode(value)
    except (msgspec.DecodeError, UnicodeError):
        return ""


def _anthropic_image(_source: _Source, _model: bytes) -> int:
    return ANTHROPIC_IMAGE_TOKENS


def _openai_image(source: _Source, model: bytes) -> int:
    if source.detail == "low":
        return OPENAI_COARSE_TOKENS
    if b"4o-mini" in model:
        return OPENAI_MINI_TOKENS
    return OPENAI_DETAILED_TOKENS if source.detail == "high" else OPENAI_IMAGE_TOKENS


def _document(source: _Source, _model: bytes) -> int:
    if not source.inline:
        return PAGE_TOKENS
    if _PDF in bytes(source.data[:_HEAD_BYTES]):
        by_size = len(source.data) // PDF_BYTES_PER_TOKEN
        return min(max(by_size, PAGE_TOKENS), MOST_DOCUMENT_TOKENS)
    return min(len(source.data) // FILE_BYTES_PER_TOKEN, MOST_DOCUMENT_TOKENS)


def _recording(source: _Source, _model: bytes) -> int:
    if not source.inline:
        return RECORDING_TOKENS
    return min(len(source.data) // AUDIO_BYTES_PER_TOKEN, MOST_DOCUMENT_TOKENS)


_PARTS: Final[dict[str, tuple[Callable[[_Source, bytes], int], tuple[str, ...]]]] = {
    "image": (_anthropic_image, ("source",)),
    "image_url": (_openai_image, ("image_url",)),
    "input_image": (_openai_image, ("image_url", "file_id")),
    "computer_screenshot": (_openai_image, ("image_url", "file_id")),
    "document": (_document, ("source",)),
    "file": (_document, ("file",)),
    "input_file": (_document, ("file_data", "file_url", "file_id")),
    "input_audio": (_recording, ("input_audio",)),
    "audio_url": (_recording, ("audio_url",)),
    "video_url": (_recording, ("video_url",)),
}
