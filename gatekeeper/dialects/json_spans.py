"""Finds and cuts pieces of JSON text (RFC 8259) in place: every other byte stays as it came.

Re-encoding would change numbers, escapes and spaces that are not ours to change. The text must be
JSON, as a decoder has found or will find; where it is not, :class:`NotJsonError` is raised or a
span is wrong within its value, never outside the text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SPACE: Final = re.compile(rb"[ \t\n\r]*+")
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SCALAR: Final = re.compile(rb"[-+.0-9A-Za-z]++")
_STRUCTURE: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[{]|[\]}]', re.DOTALL)
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
        yield Member(_read(name[0]), place, value, end)
        place = skip_space(text, end)
        if text[place : place + 1] == b"}":
            return
        if text[place : place + 1] != b",":
            raise NotJsonError
        place = skip_space(text, place + 1)


def _read(name: bytes) -> bytes:
    if b"\\" not in name:
        return name[1:-1]
    try:
        return msgspec.json.decode(name, type=str).encode()
    except (msgspec.DecodeError, UnicodeError):
        raise NotJsonError from None


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
    edits: list[Edit] = []
    kept_end: int | None = None
    cut_from: int | None = None  # leading members are cut up to the first that stays
    last_end = 0
    for member in found:
        if member.name not in names:
            if cut_from is not None:
                edits.append(Edit(cut_from, member.start))
                cut_from = None
            kept_end = member.end
        elif kept_end is None:
            cut_from = member.start if cut_from is None else cut_from
        else:
            edits.append(Edit(kept_end, member.end))
            kept_end = member.end
        last_end = member.end
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
