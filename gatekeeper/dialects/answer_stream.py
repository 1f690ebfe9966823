"""Reads along streamed answers, and changes in them what must be changed, event by event."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import msgspec

from gatekeeper.dialects.base import AnswerError
from gatekeeper.dialects.reports import FINISH, REPORT, TIMINGS, read_event
from gatekeeper.dialects.sse import EventCutter, EventSplitter, data_of
from gatekeeper.policy.model import Usage

if TYPE_CHECKING:
    from gatekeeper.dialects.base import AnswerPlan, Ask
    from gatekeeper.dialects.family import Family, Shaper
    from gatekeeper.dialects.usage import Counts

HEAVY_BYTES: Final = 32_768
"""What may take more than 5 ms to shape (a megabyte of log probabilities takes about 100)."""
_BATCH_BYTES: Final = 4_096
"""How much of a stream is read at a time; until then it is kept, for every open stream."""


class Stream:
    """Server-sent events, passed on as they come."""

    changes = whole = shapes = heavy = stopped = False

    def __init__(self, family: Family, ask: Ask, counts: Counts) -> None:
        self._family = family
        self._choices = ask.choices
        self._counts = counts
        self._splitter = EventSplitter(family.most_event_bytes)
        self._last_marks = tuple(word.encode() for word in family.last_types)
        self._finished: set[int] = set()
        self._ended = False
        self._closed = False
        self._unread: list[bytes] = []
        self._unread_bytes = 0

    @property
    def unread(self) -> bool:
        """Whether some of it was too long to be read."""
        return self._splitter.dropped > 0

    @property
    def complete(self) -> bool:
        """Whether its last event was seen, or every choice has finished."""
        self.close()
        return self._ended or len(self._finished) >= self._choices

    @property
    def mid_event(self) -> bool:
        """Whether the last event is still open."""
        self.catch_up()
        return self._splitter.mid_event

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes; see :class:`~gatekeeper.dialects.base.AnswerReader`."""
        self.note(chunk)
        return chunk

    def end(self) -> bytes:
        """Return nothing: all was passed on."""
        return b""

    def close(self) -> None:
        """Read an event that lacks its closing blank line, once: some servers end so."""
        self.catch_up()
        if not self._closed:
            self._closed = True
            self.take(self._splitter.rest)

    def note(self, passed: bytes) -> None:
        """Take what is passed on, to be read with what follows: many looks cost more than one."""
        self._unread.append(passed)
        self._unread_bytes += len(passed)
        if self._unread_bytes > _BATCH_BYTES:
            self.catch_up()

    def catch_up(self) -> None:
        """Read what was passed on up to now."""
        if not self._unread:
            return
        events = self._splitter.feed(b"".join(self._unread))
        self._unread.clear()
        self._unread_bytes = 0
        together = b"\n\n".join(events)
        start = self._first_mark(together)
        if start is None:
            self._deliver(together)
            return
        plain, _, telling = together[:start].rpartition(b"\n\n")
        self._deliver(plain)
        for event in (telling + together[start:]).split(b"\n\n"):
            self.take(event)

    def _deliver(self, events: bytes) -> None:
        for text in self._family.text.findall(events):
            self._counts.deliver(text)

    def _first_mark(self, events: bytes) -> int | None:
        """Return where more than a piece of text may stand, or ``None``."""
        if self._family.own is not None:
            return 0
        searched = (REPORT.search(events), FINISH.search(events))
        starts = [found.start() for found in searched if found is not None]
        marks = self._last_marks or (b"[DONE]",)
        starts += [place for mark in marks if (place := events.find(mark)) >= 0]
        return min(starts, default=None)

    def take(self, event: bytes) -> None:
        """Read one event; only those that say more than a piece of text are parsed."""
        marks = self._last_marks
        if self._family.own is not None:
            ended = self._family.own(data_of(event), self._counts)
            if ended is not None:
                self._finished.add(ended)
        self._deliver(event)
        if b'"usage"' in event and REPORT.search(event):
            self._study(data_of(event))
        elif marks:
            if any(mark in event for mark in marks):
                self._study(data_of(event))
        elif FINISH.search(event):
            self._study(data_of(event))
        elif b"[DONE]" in event and data_of(event).strip() == b"[DONE]":
            self._ended = True

    def _study(self, data: bytes) -> None:
        event = read_event(data)
        if event is None:
            return
        if event.type in self._family.last_types:
            self._ended = True
        if not self._family.last_types:
            self._finished.update(
                choice.index for choice in event.choices or () if choice.finish_reason
            )
        timings = bytes(event.timings)
        if timings and event.choices:
            self._measure(timings, event.choices[0].index)
        if event.message is not None and event.message.usage is not None:
            self._counts.report(event.message.usage, final=False)
        for usage in (event.usage, event.response.usage if event.response else None):
            if usage is not None:
                self._counts.report(usage, final=True)

    def _measure(self, timings: bytes, index: int) -> None:
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            found = TIMINGS.decode(timings)
            given = 0 if index else found.prompt_n + found.cache_n  # one prompt for all choices
            self._counts.report_result(index, max(0, given), max(0, found.predicted_n))


class ChangedStream(Stream):
    """Server-sent events, each held back until it is whole and then changed."""

    changes = True
    mid_event = False  # only whole events are passed on

    def __init__(
        self, family: Family, ask: Ask, counts: Counts, plan: AnswerPlan, shaper: Shaper | None
    ) -> None:
        super().__init__(family, ask, counts)
        self._ask = ask
        self._plan = plan
        self._shaper = shaper
        self.shapes = shaper is not None
        self._broken = False
        self._cutter = EventCutter(family.most_event_bytes)
        self._hide = family.hide_usage if plan.hide_usage else None
        self._budget = plan.budget_tokens
        self._stopper = None
        if plan.budget_tokens is not None and family.stopper is not None:
            self._stopper = family.stopper(ask)
        self.stopped = False

    @property
    def heavy(self) -> bool:  # type: ignore[override]
        """Whether what is pending may take long to change."""
        return self.shapes and self._cutter.pending_bytes > HEAVY_BYTES

    def feed(self, chunk: bytes) -> bytes:
        """Return the events that are whole now, changed; raises :class:`AnswerError`."""
        if self.stopped:
            return b""
        if self._broken:
            raise AnswerError
        events = self._cutter.feed(chunk)
        if len(events) == 1:
            return self._pass(events[0])
        passed: list[bytes] = []
        for event in events:
            try:
                passed.append(self._pass(event))
            except AnswerError:  # what stands before it is passed on, wherever the chunk was cut
                self._broken = True
                break
            if self.stopped:
                break
        if self._broken and not passed:
            raise AnswerError
        return b"".join(passed)

    def end(self) -> bytes:
        """Return the last event, if it lacks its blank line; raises :class:`AnswerError`."""
        if self._broken:
            raise AnswerError
        rest = b"" if self.stopped else self._cutter.rest
        return self._pass(rest) if rest else b""

    def _pass(self, event: bytes) -> bytes:
        """Read an event, and return what is passed on of it."""
        self.note(event)
        stopper = self._stopper
        if stopper is not None:
            self.catch_up()
            if self._counts.delivered_tokens > (self._budget or 0):
                self.stopped = self._ended = True
                return stopper.last_events(self._stopped_usage())
        if self._hide is not None:
            event = self._hide(event)
        if event and self._shaper is not None:
            event = self._shaper.event(event)
        if event and stopper is not None:
            stopper.see(event)
        return event

    def _stopped_usage(self) -> Usage:
        found = self._counts.usage(self._ask)
        return Usage(found.input_tokens, self._budget or 0, estimated=True, parts=found.parts)
