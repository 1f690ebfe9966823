"""Pages of lists: where the next one starts is told by a cursor that only this query can use."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field

from gatekeeper.management.operation import Wire
from gatekeeper.management.problems import Code, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST: Final = 500
_FINGERPRINT_CHARS: Final = 12

Position = list[str | int]


class PageQuery(Wire):
    """What every list takes."""

    limit: Annotated[int, Field(ge=1, le=MOST)] = 100
    """At most so many items are returned."""
    cursor: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,2048}$")] | None = None
    """`next_cursor` of the page before, to go on from there with the same filters."""


def next_cursor(query: PageQuery, last: Sequence[str | int]) -> str:
    """Return the cursor of what comes after ``last``, the place of the last item in its order."""
    text = json.dumps([_fingerprint(query), *last], separators=(",", ":"), ensure_ascii=True)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def position(query: PageQuery, shape: str) -> Position | Problem | None:
    """Return the place a cursor names; ``shape`` has a letter for each part: ``s`` text, ``i`` int.

    A cursor is no secret: it holds a place in a list that its reader may read anyway. One that is
    damaged or belongs to a query with other filters is a problem.
    """
    if query.cursor is None:
        return None
    wrong = Problem(
        Code.INVALID_CURSOR,
        "Use `next_cursor` as it was given, with the filters of the page it came with.",
    )
    padded = query.cursor + "=" * (-len(query.cursor) % 4)
    try:
        found = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return wrong
    if not isinstance(found, list) or len(found) != len(shape) + 1:
        return wrong
    if found[0] != _fingerprint(query):
        return wrong
    for part, letter in zip(found[1:], shape, strict=True):
        if letter == "i" and (not isinstance(part, int) or not 0 <= part < 1 << 62):
            return wrong
        if letter == "s" and not _plain(part):
            return wrong
    return found[1:]


def _plain(part: object) -> bool:
    return isinstance(part, str) and part.isprintable()


def _fingerprint(query: PageQuery) -> str:
    """Tell queries apart by their filters."""
    filters = query.model_dump_json(exclude={"limit", "cursor"})
    named = f"{type(query).__name__}{filters}".encode()
    return hashlib.blake2b(named, digest_size=8).hexdigest()[:_FINGERPRINT_CHARS]
