"""Takes the text out of JSON, a slice at a time, so that no step holds the interpreter for long.

Large bodies are read in a thread (H12). That lets others run only between two operations in C, so
none of them gets more than a slice.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

Json: TypeAlias = "bytes | memoryview"
SLICE_BYTES: Final = 16_384
"""An exact tokenizer takes about a millisecond for it."""
MOST_PARTS: Final = 500_000
"""Objects, lists and quotation marks; 20,000 messages have 200,000."""
_LOOK_BACK: Final = 2_048
_LOOK_AHEAD: Final = 1_048_576

_WORD_END: Final = re.compile(
    rb"(?<=[^\\]{5}[A-Za-z0-9])(?=[ -&(-/:-@\[\]-`{-~])"
    rb"|(?<=[\xe4-\xe9][\x80-\xbf]{2})(?=\xef\xbc[\x81\x8c\x9a\x9b\x9f]|\xe3\x80[\x81\x82])"
)
"""Between a word and a sign that cannot belong to it, where o200k_base always parts: the tokens on
both sides add up to those of the whole. No apostrophe, and no letter that ends an escape."""
_WHOLE: Final = re.compile(
    rb"(?:[^\\]++|\\[^u]|\\u(?![Dd][89ABab])[0-9A-Fa-f]{4}|(?:\\u[0-9A-Fa-f]{4}){2})*+", re.DOTALL
)
"""Ends before an escape, or a pair of surrogates, that is cut."""
_STRING: Final = msgspec.json.Decoder(str)
# Bytes that UTF-8 never has stand for two escapes while strings are found; of the same length, as
# such a replacement takes half the time.
_BACKSLASH: Final = b"\xff\xff"
_QUOTE: Final = b"\xfe\xfe"
_SYNTAX: Final = b" \t\r\n{}[]:"
_SIGNS: Final = (b'"', b"{", b"[")


class Slice(NamedTuple):
    """What a slice of JSON holds."""

    text: bytes
    """Its strings, names among them, a line each, without escapes."""
    rest: bytes
    """Numbers and words between them, with their commas."""
    objects: int
    parts: int
    """Objects, lists and quotation marks."""


def slices_of(value: Json) -> Iterator[Slice]:
    """Yield what valid JSON holds, in order; a long string is parted where words end."""
    inside = 0
    for piece in pieces_of(value):
        escaped = b"\\" in piece
        if escaped:
            piece = piece.replace(b"\\\\", _BACKSLASH).replace(b'\\"', _QUOTE)  # noqa: PLW2901
        parts = piece.split(b'"')
        strings, between = parts[1 - inside :: 2], b"".join(parts[inside::2])
        inside ^= (len(parts) - 1) & 1
        if escaped:
            text = rb"\n".join(strings)
            text = text.replace(_BACKSLASH, b"\\\\").replace(_QUOTE, b'\\"')
            text = unescaped(text)
        else:
            text = b"\n".join(strings)
        objects = between.count(b"{")
        count = objects + between.count(b"[") + len(parts) - 1
        yield Slice(text, between.translate(None, _SYNTAX), objects, count)


def has_too_many_parts(body: bytes) -> bool:
    """Tell whether a body is so finely divided that a parser would take long over it.

    Looks closer only where the signs of parts, those inside of strings included, are many.
    """
    if len(body) <= MOST_PARTS:
        return False
    signs = sum(
        body.count(sign, at, at + _LOOK_AHEAD)
        for at in range(0, len(body), _LOOK_AHEAD)
        for sign in _SIGNS
    )
    if signs <= MOST_PARTS:
        return False
    parts = 0
    for each in slices_of(body):
        parts += each.parts
        if parts > MOST_PARTS:
            return True
    return False


def unescaped(text: bytes) -> bytes:
    """Return the inside of a JSON string without its escapes.

    What cannot be decoded, such as a lone surrogate, comes back as it is: escapes only weigh more.
    """
    if b"\\" not in text:
        return text
    try:
        return _STRING.decode(b'"%b"' % text).encode()
    except (msgspec.DecodeError, UnicodeError):
        return text


def pieces_of(value: Json) -> Iterator[bytes]:
    """Yield JSON or other text in pieces of at most a slice."""
    start = 0
    while len(value) - start > SLICE_BYTES:
        end = _cut(value, start, start + SLICE_BYTES)
        yield bytes(value[start:end])
        start = end
    yield bytes(value[start:]) if start or not isinstance(value, bytes) else value


def _cut(value: Json, start: int, end: int) -> int:
    """Return where to part before ``end``: behind a word, or at least not within a character."""
    if (word := _WORD_END.search(value, end - _LOOK_BACK, end)) is not None:
        return word.end()
    whole = _WHOLE.match(value, start, end)
    cut = end if whole is None else whole.end()
    while cut > start and value[cut] & 0xC0 == 0x80:  # noqa: PLR2004 - a byte that continues
        cut -= 1
    return cut if cut > start else end
