"""Finds and cuts pieces of JSON text (RFC 8259) in place: every other byte stays as it came.

Re-encoding would change numbers, escapes and spaces that are not ours to change. The text must be
JSON, as a decoder has found or will find; where it is not, :class:`NotJsonError` is raised or a
span is wrong within its value, never outside the text.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")

_QUOTED: Final = rb'"(?:[^"\\]++|\\.)*+"'
_SPACE: Final = re.compile(rb"[ \t\n\r]*+")
_STRING: Final = re.compile(_QUOTED, re.DOTALL)
_SCALAR: Final = re.compile(rb"[-+.0-9A-Za-z]++")

_STRUCTURE: Final = re.compile(_QUOTED + rb"|[\[{]|[\]}]", re.DOTALL)
_HEAD: Final = re.compile(
    rb"[ \t\n\r]*+[{,][ \t\n\r]*+(%b)[ \t\n\r]*+:[ \t\n\r]*+" % _QUOTED, re.DOTALL
)
_TAIL: Final = re.compile(rb"[ \t\n\r]*+(?:\{[ \t\n\r]*+)?\}")
_BETWEEN: Final = re.compile(rb"[ \t\n\r]*+[\[,][ \t\n\r]*+")
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])
_OPENING: Final = frozenset(b"[{")
_QUOTE: Final = ord('"')


class NotJsonError(ValueError):
    """The text is not JSON where it was looked at."""


class Member(NamedTuple):
    """One member of an object: where its name begins, and where its value stands."""

    name: bytes
    """As it reads: without quotes, escapes undone."""
    start: int
    value: int
    end: int


class Edit(NamedTuple):
    """Put ``text`` where ``start`` to ``end`` stood."""

    start: int
    end: int
    text: bytes = b""


def skip_space(text: bytes, start: int) -> int:
    """Return where the next token begins."""
    found = _SPACE.match(text, start)
    return start if found is None else found.end()


def end_of_value(text: bytes, start: int) -> int:
    """Return where the value that begins at ``start`` ends."""
    if start >= len(text):
        raise NotJsonError
    first = text[start]
    if first in _OPENING:
        return _end_of_container(text, start)
    found = (_STRING if first == _QUOTE else _SCALAR).match(text, start)
    if found is None:
        raise NotJsonError
    return found.end()


def _end_of_container(text: bytes, start: int) -> int:
    depth = 0
    for found in _STRUCTURE.finditer(text, start):
        first = text[found.start()]
        if first == _QUOTE:
            continue
        depth += 1 if first in _OPENING else -1
        if not depth:
            return found.end()
    raise NotJsonError


def members(text: bytes, start: int = 0) -> Iterator[Member]:
    """Yield the members of the object that begins at ``start``, in their order."""
    place = skip_space(text, start)
    if text[place : place + 1] != b"{":
        raise NotJsonError
    place = skip_space(text, place + 1)
    if text[place : place + 1] == b"}":
        return
    while True:
        name = _STRING.match(text, place)
        if name is None:
            raise NotJsonError
        colon = skip_space(text, name.end())
        if text[colon : colon + 1] != b":":
            raise NotJsonError
        value = skip_space(text, colon + 1)
        end = end_of_value(text, value)
        yield Member(unquoted(name[0]), place, value, end)
        place = skip_space(text, end)
        if text[place : place + 1] == b"}":
            return
        if text[place : place + 1] != b",":
            raise NotJsonError
        place = skip_space(text, place + 1)


def members_within(text: bytes, start: int, end: int) -> list[Member]:
    """Return the members of the object that stands from ``start`` to ``end``, many times faster.

    What the parser does not take, or has a name twice, is gone through by :func:`members`.
    """
    try:
        values = _OBJECT.decode(memoryview(text)[start:end])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _slowly(members, text, start, end)
    found: list[Member] = []
    place = start
    for name, value in values.items():
        head = _HEAD.match(text, place)
        if head is None or not text.startswith(value, head.end()):
            return _slowly(members, text, start, end)
        place = head.end() + len(memoryview(value))
        found.append(Member(name.encode(), head.start(1), head.end(), place))
    if _TAIL.match(text, place, end) is None:
        return _slowly(members, text, start, end)
    return found


def items_within(text: bytes, start: int, end: int) -> list[tuple[int, int]]:
    """Return where each item of the array from ``start`` to ``end`` stands, many times faster."""
    try:
        values = _LIST.decode(memoryview(text)[start:end])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _slowly(items, text, start, end)
    found: list[tuple[int, int]] = []
    place = start
    for value in values:
        between = _BETWEEN.match(text, place)
        begins = place if between is None else between.end()
        place = begins + len(memoryview(value))
        found.append((begins, place))
    return found


def _slowly(
    found_in: Callable[[bytes, int], Iterator[T]], text: bytes, start: int, end: int
) -> list[T]:
    if end_of_value(text, start) != end:
        raise NotJsonError
    return list(found_in(text, start))


def unquoted(text: bytes) -> bytes:
    """Return what a string reads as, in UTF-8; half a surrogate pair, as tokens may be, stays one.

    Raises :class:`NotJsonError`.
    """
    if b"\\" not in text:
        return text[1:-1]
    try:
        read: str = json.loads(text)
    except ValueError:
        raise NotJsonError from None
    return read.encode(errors="surrogatepass")


def items(text: bytes, start: int = 0) -> Iterator[tuple[int, int]]:
    """Yield where each item of the array that begins at ``start`` begins and ends."""
    place = skip_space(text, start)
    if text[place : place + 1] != b"[":
        raise NotJsonError
    place = skip_space(text, place + 1)
    if text[place : place + 1] == b"]":
        return
    while True:
        end = end_of_value(text, place)
        yield place, end
        place = skip_space(text, end)
        if text[place : place + 1] == b"]":
            return
        if text[place : place + 1] != b",":
            raise NotJsonError
        place = skip_space(text, place + 1)


def without(found: Iterable[Member], names: frozenset[bytes]) -> list[Edit]:
    """Return the edits that take the members called ``names`` out of an object, commas included."""
    return cuts((member.start, member.end, member.name in names) for member in found)


def cuts(spans: Iterable[tuple[int, int, bool]]) -> list[Edit]:
    """Return the edits that take out the members or items told by true, commas included."""
    edits: list[Edit] = []
    kept_end: int | None = None
    cut_from: int | None = None  # leading ones are cut up to the first that stays
    last_end = 0
    for start, end, cut in spans:
        if not cut:
            if cut_from is not None:
                edits.append(Edit(cut_from, start))
                cut_from = None
            kept_end = end
        elif kept_end is None:
            cut_from = start if cut_from is None else cut_from
        else:
            edits.append(Edit(kept_end, end))
            kept_end = end
        last_end = end
    if cut_from is not None:
        edits.append(Edit(cut_from, last_end))
    return edits


def applied(text: bytes, edits: Iterable[Edit]) -> bytes:
    """Return ``text`` with ``edits``, which do not overlap, made."""
    pieces: list[bytes | memoryview] = []
    view, place = memoryview(text), 0
    for edit in sorted(edits):
        pieces += (view[place : edit.start], edit.text)
        place = edit.end
    pieces.append(view[place:])
    return b"".join(pieces)
