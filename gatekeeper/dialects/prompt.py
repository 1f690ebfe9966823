"""Counts what a body sends to the model: text with a counter, images and files by their price.

The count is what the call is held for, so it is a worst case. Text is counted string by string,
names of fields among them, with a token for each object. A chat message has as much around its text
in every known chat format: the names ``role`` and ``content`` and the object are three tokens.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from gatekeeper.dialects.body import BILLING
from gatekeeper.dialects.json_text import SLICE_BYTES, slices_of
from gatekeeper.dialects.media import attached

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.dialects.body import Fields
    from gatekeeper.dialects.json_text import Json

_NO_PROMPT: Final = BILLING | {
    "frequency_penalty",
    "logit_bias",
    "presence_penalty",
    "seed",
    "service_tier",
    "temperature",
    "top_p",
    "user",
}
"""Fields that never reach the model as text. A field that is not known here is counted."""
_WITH_MEDIA: Final = frozenset({"messages", "input", "prompt", "system"})
"""Fields in which images and files are looked for; elsewhere they are text."""
_ESCAPED_LETTER: Final = re.compile(rb"\\u00[4-7]")
_DEEPEST: Final = 16
_BEGUN_ANSWER: Final = 3
"""Tokens that chat formats put before the answer, once a call."""
_NAMED: Final = 8
"""Bytes around the name and value of a field, at least."""
_UNNAMED: Final = 1_024
"""Bytes of an object that may belong to none of its fields: white space, or a name twice."""

_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def input_tokens(fields: Fields, count: Callable[[bytes], int]) -> int:
    """Return the tokens of everything in the body that may reach the model.

    ``count`` counts the tokens of UTF-8 text; it is never given much more than a slice.
    """
    model = fields.get("model", b"")
    total = 0
    for name, value in fields.items():
        if name in _NO_PROMPT:
            continue
        if name in _WITH_MEDIA and _may_hold_media(value):
            total += _Reader(count, model).tokens(value)
        else:
            total += text_tokens(value, count)
    return total + _BEGUN_ANSWER if total else 0


def text_tokens(value: Json, count: Callable[[bytes], int]) -> int:
    """Return the tokens of the strings in a JSON value, and of what stands between them."""
    total = 0
    for found in slices_of(value):
        total += count(found.text) + found.objects
        if found.rest.strip(b","):
            total += count(found.rest)
    return total


def _may_hold_media(value: bytes) -> bool:
    """Look for the words of media, whose letters may be escaped."""
    if b"\\u00" in value and _ESCAPED_LETTER.search(value):
        return True
    return b'"type"' in value and (
        b'"image' in value
        or b'"input_' in value
        or b'_url"' in value
        or b'"file"' in value
        or b'"document"' in value
        or b'"computer_' in value
    )


class _Reader:
    """Walks down a value to the images and files in it, without copying what it passes."""

    __slots__ = ("_count", "_model")

    def __init__(self, count: Callable[[bytes], int], model: bytes) -> None:
        self._count = count
        self._model = model

    def tokens(self, value: Json, depth: int = 0) -> int:
        """Return the tokens of a value. What cannot be taken apart is text."""
        opening = bytes(value[:1])
        if depth > _DEEPEST or opening not in {b"[", b"{"}:
            return text_tokens(value, self._count)
        if len(value) <= SLICE_BYTES:
            value = bytes(value)
            if not _may_hold_media(value):
                return text_tokens(value, self._count)
        try:
            if opening == b"[":
                return self._list(_ITEMS.decode(value), depth)
            return self._object(value, depth)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return text_tokens(value, self._count)

    def _list(self, items: list[msgspec.Raw], depth: int) -> int:
        """Count items without media together: most of a conversation has none."""
        total = 0
        plain: list[bytes] = []
        for item in items:
            view = memoryview(item)
            if len(view) <= SLICE_BYTES and not _may_hold_media(text := bytes(view)):
                plain.append(text)
            else:
                total += self.tokens(view, depth + 1)
        return total + text_tokens(b",".join(plain), self._count)

    def _object(self, value: Json, depth: int) -> int:
        part = {name: memoryview(raw) for name, raw in _OBJECT.decode(value).items()}
        named = sum(len(name) + len(child) + _NAMED for name, child in part.items())
        if len(value) > named + _UNNAMED:
            return text_tokens(value, self._count)
        medium = attached(part, self._model)
        total = 1 if medium is None else 1 + medium.tokens
        for name, child in part.items():
            if medium is None or name != medium.field:
                total += self._count(name.encode()) + self.tokens(child, depth + 1)
        return total
