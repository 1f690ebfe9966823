"""Entity tags: a digest of the representation, so that a change by anybody is noticed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from gatekeeper.management.problems import Code, Problem

if TYPE_CHECKING:
    from gatekeeper.management.operation import Asked, Wire


def etag_of(body: Wire) -> str:
    """Return the strong entity tag of a representation."""
    return f'"{hashlib.blake2b(body.model_dump_json().encode(), digest_size=12).hexdigest()}"'


def is_known(asked: Asked, etag: str) -> bool:
    """Tell whether the caller has this representation (``If-None-Match``, compared weakly)."""
    tags = _tags(asked.if_none_match)
    return etag in {tag.removeprefix("W/") for tag in tags} or tags == ["*"]


def unmet(asked: Asked, current: Wire | None, etag: str | None = None) -> Problem | None:
    """Return the problem when ``If-Match`` or ``If-None-Match`` forbids a change of ``current``.

    Only in the transaction of the change does the answer still hold when the change is made.
    """
    found = None if current is None else etag or etag_of(current)
    if asked.if_match is not None:
        wanted = _tags(asked.if_match)
        if found is None or (wanted != ["*"] and found not in wanted):
            return Problem(
                Code.PRECONDITION_FAILED,
                "Read it again, apply your change to what is there now, and send its new ETag.",
            )
    if asked.if_none_match is not None and found is not None and is_known(asked, found):
        return Problem(
            Code.PRECONDITION_FAILED, "It exists already; leave If-None-Match out to change it."
        )
    return None


def _tags(header: str | None) -> list[str]:
    return [tag.strip() for tag in (header or "").split(",") if tag.strip()]
