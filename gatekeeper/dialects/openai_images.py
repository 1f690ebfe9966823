"""OpenAI images: made, edited and varied. Billed by tokens where reported, else by the piece."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from gatekeeper.dialects.answer import AnswerReader
from gatekeeper.dialects.base import UNCHANGED, Ask
from gatekeeper.dialects.body import (
    MOST_CHOICES,
    choices_of,
    flag,
    is_model,
    model_of,
    read_fields,
    rewritten,
)
from gatekeeper.dialects.family import Family
from gatekeeper.dialects.json_spans import Edit, applied
from gatekeeper.dialects.multipart import read_form, text_of
from gatekeeper.dialects.openai import NO_MODEL, OpenAIErrors
from gatekeeper.policy.model import UsageParts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.dialects.base import AnswerPlan, Changes, Incoming

_GENERATIONS: Final = "/images/generations"
_ROUTES: Final = (_GENERATIONS, "/images/edits", "/images/variations")
_NO_TEXT: Final = re.compile(rb"(?!)()")
"""Matches nothing: an image is no text whose tokens could be counted."""
_FAMILY: Final = Family(
    _NO_TEXT,
    frozenset({"image_generation.completed", "image_edit.completed"}),
    most_event_bytes=33_554_432,
)
DEFAULT_MODEL: Final = "gpt-image-1"
"""For calls that name none: what they cost at most."""
MOST_IMAGE_TOKENS: Final = 16_384
"""Output tokens of one image of a size or quality that is not in the table."""
_IMAGE_TOKENS: Final = {"low": 408, "medium": 1_584, "high": 6_240}
"""Output tokens of the largest of the three common sizes (OpenAI, image generation guide)."""
_SIZES: Final = frozenset({"1024x1024", "1024x1536", "1536x1024"})
_PARTIAL_TOKENS: Final = 100
"""Output tokens of each image that is shown before it is done."""
_MOST_PARTIALS: Final = 3
_DIGITS: Final = re.compile(r"[0-9]{1,6}", re.ASCII)
INPUT_IMAGE_TOKENS: Final = 6_500
"""Input tokens of one image that is edited, at high fidelity."""


class OpenAIImages(OpenAIErrors):
    """``POST .../images/{generations,edits,variations}``, as JSON or as a form."""

    __slots__ = ()
    name: Final = "openai_images"
    reads_body: Final = True

    def matches(self, method: str, path: str) -> bool:
        """Match by the end of the path, whatever prefix an upstream has."""
        return method == "POST" and path.lower().rstrip("/").endswith(_ROUTES)

    def read(self, incoming: Incoming) -> Ask | str:
        """Read a body; what is not said of an image is taken for the dearest."""
        kind = incoming.content_type.partition(";")[0].strip().lower()
        return _read_form(incoming) if kind == "multipart/form-data" else _read_json(incoming)

    def rewrite(self, incoming: Incoming, ask: Ask, changes: Changes) -> bytes:  # noqa: ARG002 - the protocol's signature
        """Return the body with fewer images asked for; nothing bounds the tokens of one."""
        most = changes.max_choices
        if most is None:
            return incoming.body
        parts = read_form(incoming.body, incoming.content_type)
        if isinstance(parts, str):
            return rewritten(incoming.body, changes, "")
        edits = [
            Edit(part.start, part.end, str(most).encode())
            for part in parts
            if part.name == "n" and _number(text_of(incoming.body, parts, "n")) > most
        ]
        return applied(incoming.body, edits)

    def reader(
        self, ask: Ask, headers: Mapping[str, str], plan: AnswerPlan = UNCHANGED
    ) -> AnswerReader:
        """Return a reader for a 2xx answer with these headers."""
        return AnswerReader(_FAMILY, ask, headers, plan)


def _read_json(incoming: Incoming) -> Ask | str:
    fields = read_fields(incoming.body)
    if isinstance(fields, str):
        return fields
    model = model_of(fields)
    if model is None and "model" in fields:
        return NO_MODEL
    stream = flag(fields, "stream")
    if isinstance(stream, str):
        return stream
    images = choices_of(fields)
    if isinstance(images, str):
        return images
    words = {name: _word(fields.get(name, b"")) for name in ("quality", "size", "partial_images")}
    pictures = fields.get("images", b"").count(b"{") + fields.get("mask", b"").count(b"{")
    asked = _Asked(model, stream, images, words, incoming.count(fields.get("prompt", b"")))
    return asked.ask(pictures)


def _read_form(incoming: Incoming) -> Ask | str:
    body = incoming.body
    parts = read_form(body, incoming.content_type)
    if isinstance(parts, str):
        return parts
    names = {part.name for part in parts}
    model = text_of(body, parts, "model")
    if "model" in names and not is_model(model):
        return NO_MODEL
    images = _number(text_of(body, parts, "n")) if "n" in names else 1
    if not 0 < images <= MOST_CHOICES:
        return f"The field `n` must be a whole number from 1 to {MOST_CHOICES}."
    stream = text_of(body, parts, "stream")
    if stream not in {None, "true", "false"}:
        return "The field `stream` must be true or false."
    words = {
        name: text_of(body, parts, name) or "" for name in ("quality", "size", "partial_images")
    }
    prompt = incoming.count((text_of(body, parts, "prompt") or "").encode())
    asked = _Asked(model, stream == "true", images, words, prompt)
    return asked.ask(sum(part.file for part in parts))


class _Asked(NamedTuple):
    """What both forms of a body say."""

    model: str | None
    stream: bool
    images: int
    words: Mapping[str, str]
    prompt_tokens: int

    def ask(self, pictures: int) -> Ask:
        """Return the worst case, with so many pictures to start from."""
        words = self.words
        one = _IMAGE_TOKENS.get(words["quality"], MOST_IMAGE_TOKENS)
        if words["size"] not in _SIZES:
            one = MOST_IMAGE_TOKENS
        partials = _number(words["partial_images"]) if words["partial_images"] else 0
        if not 0 <= partials <= _MOST_PARTIALS:
            partials = _MOST_PARTIALS
        output = self.images * (one + partials * _PARTIAL_TOKENS)
        pictured = pictures * INPUT_IMAGE_TOKENS
        return Ask(
            self.model or DEFAULT_MODEL,
            self.stream,
            self.prompt_tokens + pictured,
            output,
            choices=self.images,
            parts=UsageParts(
                image_input_tokens=pictured, image_output_tokens=output, images=self.images
            ),
            fixed_output=True,
        )


def _number(text: str | None) -> int:
    """Return a whole number as every server would read it; -1 for anything else."""
    return int(text) if text is not None and _DIGITS.fullmatch(text) else -1


def _word(value: bytes) -> str:
    return value.decode(errors="replace").strip('"')
