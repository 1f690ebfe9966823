"""What the shapers of all families share: where the JSON of an event stands, and when to look."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from gatekeeper.dialects.base import AnswerError
from gatekeeper.dialects.json_spans import (
    Edit,
    NotJsonError,
    applied,
    cuts,
    items_within,
    members_within,
    skip_space,
    unquoted,
)
from gatekeeper.dialects.shaping.logprobs import Blur
from gatekeeper.policy.words import LogprobsChange

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.dialects.base import AnswerPlan
    from gatekeeper.dialects.json_spans import Member

_SPACE: Final = b" \t\n\r"
NULL: Final = b"null"
OPEN_OBJECT: Final = ord("{")
OPEN_ARRAY: Final = ord("[")
_OPEN_STRING: Final = ord('"')

MOST_DROPPED: Final = 4_096
"""Most blocks or items that are left out of one stream."""

_DATA: Final = re.compile(
    rb"(?:\A(?:\xef\xbb\xbf)?|(?<=[\r\n]))data(?:: ?([^\r\n]*+)|(?=[\r\n])|\Z)"
)
"""A data line (WHATWG HTML, 9.2.6); a byte order mark may stand before the first."""


class DroppedError(Exception):
    """The event is to be left out as a whole."""


class Shaper(ABC):
    """Changes the events, or the whole document, of one answer; keeps count from event to event."""

    def __init__(self, plan: AnswerPlan) -> None:
        shaping = plan.shaping
        change = None if shaping is None else shaping.logprobs
        blurs = change in {LogprobsChange.ROUND, LogprobsChange.NOISE}
        self.drops_reasoning = shaping is not None and shaping.drop_reasoning
        self.removes = change is LogprobsChange.REMOVE
        self.blur = Blur(shaping, plan.seed) if shaping is not None and blurs else None
        self._dropped: set[int] = set()

    def event(self, event: bytes) -> bytes:
        """Return an event with what is asked for changed in it; empty to leave it out.

        Raises :class:`AnswerError` for one whose JSON is spread over lines or is none.
        """
        found = list(_DATA.finditer(event))
        if not found:
            return event
        if len(found) > 1:
            raise AnswerError
        start, end = found[0].span(1)
        if start < 0 or not self.concerns(event):
            return event
        try:
            return event[:start] + self._changed(event[start:end], whole=False) + event[end:]
        except DroppedError:
            return b""

    def document(self, body: bytes) -> bytes:
        """Return a whole JSON answer, changed. Raises :class:`AnswerError`."""
        return self._changed(body, whole=True) if self.concerns(body) else body

    def _changed(self, text: bytes, *, whole: bool) -> bytes:
        try:
            start = skip_space(text, 0)
            end = len(text.rstrip(_SPACE))
            if not (is_object(text, start) or is_array(text, start)):
                raise AnswerError
            return applied(text, self.edits(text, start, end, whole=whole))
        except NotJsonError:
            raise AnswerError from None

    @property
    def has_dropped(self) -> bool:
        """Whether a block or item of the stream was left out, so that others close up."""
        return bool(self._dropped)

    def drop(self, index: int) -> None:
        """Leave out this event and all others with its index, as the upstream counts them."""
        if len(self._dropped) >= MOST_DROPPED:
            raise AnswerError
        self._dropped.add(index)
        raise DroppedError

    def closed_up(self, text: bytes, found: list[Member], name: bytes) -> list[Edit]:
        """Return the edit that lowers an event's index by what was dropped before it."""
        edits = []
        for each in found:
            if each.name == name:
                index = number_of(text, each)
                if index in self._dropped:
                    raise DroppedError
                before = sum(dropped < index for dropped in self._dropped)
                edits += [Edit(each.value, each.end, b"%d" % (index - before))] if before else []
        return edits

    @abstractmethod
    def concerns(self, text: bytes) -> bool:
        """Tell quickly whether there can be anything to change in an event or document.

        What is looked for are the names of members, in which no server writes escapes.
        """

    @abstractmethod
    def edits(self, text: bytes, start: int, end: int, *, whole: bool) -> list[Edit]:
        """Return what to change in JSON from ``start`` to ``end``: a ``whole`` answer, or an event.

        Raises :class:`DroppedError` to leave an event out.
        """


def value_of(text: bytes, member: Member) -> bytes:
    """Return the JSON text of a member's value."""
    return text[member.value : member.end]


def is_object(text: bytes, start: int) -> bool:
    """Tell whether an object begins there."""
    return text[start] == OPEN_OBJECT


def is_array(text: bytes, start: int) -> bool:
    """Tell whether an array begins there."""
    return text[start] == OPEN_ARRAY


def string_of(text: bytes, member: Member) -> bytes:
    """Return a member's text; empty when it is none."""
    value = value_of(text, member)
    return unquoted(value) if value[0] == _OPEN_STRING else b""


def number_of(text: bytes, member: Member) -> int:
    """Return a member's whole number; raises :class:`AnswerError` for anything else."""
    try:
        return int(value_of(text, member))
    except ValueError:
        raise AnswerError from None


def index_of(text: bytes, found: list[Member], name: bytes, otherwise: int = 0) -> int:
    """Return the whole number that the member called ``name`` holds."""
    return next((number_of(text, each) for each in found if each.name == name), otherwise)


def has_type(text: bytes, start: int, end: int, types: frozenset[bytes]) -> bool:
    """Tell whether the value is an object whose ``type`` is one of ``types``."""
    if not is_object(text, start):
        return False
    return any(
        member.name == b"type" and string_of(text, member) in types
        for member in members_within(text, start, end)
    )


def without_types(
    text: bytes,
    member: Member,
    types: frozenset[bytes],
    kept: Callable[[int, int, int], list[Edit]] | None = None,
) -> list[Edit]:
    """Return the edits that take items of ``types`` out of a member's array.

    ``kept`` gives the edits within an item that stays, from its index and where it stands.
    """
    spans = []
    edits: list[Edit] = []
    for index, (begins, ends) in enumerate(items_within(text, member.value, member.end)):
        cut = has_type(text, begins, ends, types)
        spans.append((begins, ends, cut))
        if not cut and kept is not None:
            edits += kept(index, begins, ends)
    return edits + cuts(spans)
