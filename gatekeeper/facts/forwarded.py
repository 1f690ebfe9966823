"""The hops that forwarded headers name, read from the right: the nearest proxy's word first.

Only the text is handled here; whom to believe is decided in :mod:`gatekeeper.facts.address`.
Reading from the right matters for ``Forwarded``: whatever a caller wrote to the left (an open
quote, say) cannot change how the part that a trusted proxy appended is read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_HOPS: Final = 32
"""Hops read at most; nobody has a chain of trusted proxies that long."""

_PAIR: Final = re.compile(  # one pair, or none: RFC 7239 lets a pair be left out
    r"""[ \t]*(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)=("[^"\\]*"|[^\s",;\\]*))?[ \t]*"""
)
_NODE: Final = re.compile(
    r"""
    (?: \[ (?P<v6>[0-9A-Fa-f:.]{2,45}) \] | (?P<v4>[0-9.]{7,15}) )
    (?: : (?: [0-9]{1,5} | _[A-Za-z0-9._-]{1,64} ) )?
    """,
    re.VERBOSE,
)


def x_forwarded_for_hops(lines: Sequence[str]) -> Iterator[str]:
    """Yield the hops of ``X-Forwarded-For``, nearest first, :data:`MAX_HOPS` at most."""
    if not lines:
        return
    hops = ",".join(lines).rsplit(",", MAX_HOPS)
    for hop in list(reversed(hops))[:MAX_HOPS]:
        yield hop.strip(" \t")


def forwarded_hops(lines: Sequence[str]) -> Iterator[str | None]:
    """Yield the ``for`` addresses of ``Forwarded`` (RFC 7239), nearest first.

    ``None`` is a hop that names no address: ``unknown``, an obfuscated identifier, or text that
    the grammar does not allow.
    """
    if not lines:
        return
    text = ",".join(lines)
    end: int | None = len(text)
    for _ in range(MAX_HOPS):
        if end is None:
            return
        start = _element_start(text, end)
        if start is None:
            yield None
            return
        yield _node(text[start:end])
        end = start - 1 if start else None


def _element_start(text: str, end: int) -> int | None:
    """Find where the element that stops at ``end`` begins; ``None`` if a quote stays open."""
    quoted = False
    for at in range(end - 1, -1, -1):
        character = text[at]
        if character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            return at + 1
        elif character == "\\":
            # An escape can hide a quote. No address needs one, so nothing is lost by refusing.
            return None
    return None if quoted else 0


def _node(element: str) -> str | None:
    """Return the address text of the only ``for`` in one forwarded-element."""
    found: str | None = None
    at = 0
    while at <= len(element):
        pair = _PAIR.match(element, at)
        if pair is None or element[pair.end() : pair.end() + 1] not in {"", ";"}:
            return None
        at = pair.end() + 1
        if pair[1] is not None and pair[1].lower() == "for":
            if found is not None:
                return None
            found = pair[2]
    node = None if found is None else _NODE.fullmatch(found.strip('"'))
    return None if node is None else node["v6"] or node["v4"]
