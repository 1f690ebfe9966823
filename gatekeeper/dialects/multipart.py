"""Reads ``multipart/form-data`` (RFC 7578) in place, as every upstream would: one meaning, or none.

Fields that bill stand beside files of many megabytes, so nothing is copied but the small fields. A
form that two parsers read differently is refused: a field twice, a name in two ways, a delimiter
that only some would see.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_PARTS: Final = 100
MOST_FIELD_BYTES: Final = 1_048_576
"""Longest value of a field that is no file."""
_MOST_HEAD_BYTES: Final = 8_192
_BOUNDARY: Final = re.compile(
    r"""multipart/form-data\s*;\s*boundary=(?:"([A-Za-z0-9'()+_,./:=?-]{1,70})"|"""
    r"""([A-Za-z0-9'+_.-]{1,70}))\s*""",
    re.IGNORECASE,
)
_DISPOSITION: Final = re.compile(
    rb"""content-disposition:[ \t]*form-data;[ \t]*name="([A-Za-z0-9_.\[\]-]{1,64})"""
    rb""""(;[ \t]*filename="[^"\r\n]{0,1024}")?[ \t]*""",
    re.IGNORECASE,
)
_PLAIN_ENCODINGS: Final = frozenset({b"binary", b"8bit", b"7bit"})


class Part(NamedTuple):
    """One part of a form: where its value stands in the body."""

    name: str
    start: int
    end: int
    file: bool

    @property
    def size(self) -> int:
        """Length of the value in bytes."""
        return self.end - self.start


class _WrongFormError(ValueError):
    """The form is malformed, or parsers would disagree about it."""


def read_form(body: bytes, content_type: str) -> list[Part] | str:
    """Return the parts of a form in their order, or say what is wrong with it."""
    found = _BOUNDARY.fullmatch(content_type.strip())
    if found is None:
        return "The content-type must be multipart/form-data with a boundary."
    try:
        parts = list(_parts(body, b"--" + (found[1] or found[2]).encode()))
    except _WrongFormError as wrong:
        return str(wrong)
    names: set[str] = set()
    for part in parts:
        if part.name in names and not part.name.endswith("[]"):
            return "The form names a field twice."
        names.add(part.name)
        if not part.file and part.size > MOST_FIELD_BYTES:
            return f"A field of the form that is no file is longer than {MOST_FIELD_BYTES} bytes."
    return parts


def text_of(body: bytes, parts: list[Part], name: str) -> str | None:
    """Return the value of a field that is no file; ``None`` when there is none, or it is no text.

    The value of a field that bills may not be sent as a file: only some servers would read it.
    """
    part = next((each for each in parts if each.name == name), None)
    if part is None or part.file:
        return None
    try:
        return body[part.start : part.end].decode()
    except UnicodeDecodeError:
        return None


def _parts(body: bytes, delimiter: bytes) -> Iterator[Part]:
    if not body.startswith(delimiter):
        raise _WrongFormError("The form must begin with its boundary.")
    between = b"\r\n" + delimiter
    if body.count(b"\n" + delimiter) != body.count(between):
        raise _WrongFormError("The form holds its boundary where only some would see a part end.")
    place, count = len(delimiter), 0
    while body[place : place + 2] == b"\r\n":
        count += 1
        if count > MOST_PARTS:
            raise _WrongFormError(f"The form has more than {MOST_PARTS} parts.")
        head_end = body.find(b"\r\n\r\n", place, place + _MOST_HEAD_BYTES)
        start = head_end + 4
        end = -1 if head_end < 0 else body.find(between, start)
        if end < 0:
            raise _WrongFormError("The form is cut short, or the head of a part is too long.")
        yield _part(body[place + 2 : head_end], start, end)
        place = end + len(between)
    if body[place:] not in {b"--", b"--\r\n"}:
        raise _WrongFormError("The form does not end with its boundary.")


def _part(head: bytes, start: int, end: int) -> Part:
    named: re.Match[bytes] | None = None
    for line in head.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon:
            raise _WrongFormError("The head of a part of the form is malformed.")
        kind = name.lower()
        if kind == b"content-disposition":
            again, named = named is not None, _DISPOSITION.fullmatch(line)
            if again or named is None:
                raise _WrongFormError("A part of the form has no plain name.")
        coded = kind == b"content-transfer-encoding"
        if coded and value.strip().lower() not in _PLAIN_ENCODINGS:
            raise _WrongFormError("Parts of the form must not be encoded.")
    if named is None:
        raise _WrongFormError("A part of the form has no plain name.")
    return Part(named[1].decode(), start, end, named[2] is not None)
