"""Takes out of a stream the report of usage that only the gate asked for."""

from __future__ import annotations

import re
from typing import Final

from gatekeeper.dialects.json_spans import NotJsonError, applied, members, without

_USAGE: Final = frozenset({b"usage"})
_NO_CHOICES: Final = re.compile(rb"\[[ \t\n\r]*\]")
_DATA: Final = b"data:"
_NAMED: Final = b'"usage"'
_LAST_NULL: Final = re.compile(
    rb',"usage":null((?:,"(?!usage")\w++":(?:"[^"\\]*+"|[-+.\w]++))*+}\s*+)'
)
"""A null report behind which only plain members stand, so that it is one of the outer object's."""


def hide_usage(event: bytes) -> bytes:
    """Take out of a chunk what is there only because usage was asked for.

    With ``stream_options.include_usage`` every chunk has ``usage``, ``null`` until a last one that
    has no choices and would not be sent otherwise.
    """
    return _without_usage(event, b"")


def hide_running_usage(event: bytes) -> bytes:
    """Take the reports out of the chunks of a stream, but leave its last one."""
    return _without_usage(event, event)


def _without_usage(event: bytes, last: bytes) -> bytes:
    """Return an event without the report in it; ``last`` in place of the one that is all report."""
    place = event.find(_NAMED)
    if place < 0 or not event.startswith(_DATA):
        return event
    # Nearly every event of a stream is this one; the long way costs as much as all of the rest.
    usual = _LAST_NULL.fullmatch(event, place - 1)
    if usual is not None:
        return event[: place - 1] + usual[1]
    try:
        found = list(members(event, len(_DATA)))
    except NotJsonError:
        return event
    named = {each.name: event[each.value : each.end] for each in found}
    if named.get(b"usage", b"null") != b"null" and _NO_CHOICES.fullmatch(
        named.get(b"choices", b"")
    ):
        return last
    return applied(event, without(found, _USAGE))
