"""Reads along an answer: what it consumed, whether it is whole, and what must be changed in it.

One reader serves all families: they differ in the names of things, which :class:`Family` holds.
Model output cannot forge a report: inside JSON strings every quote is escaped, and what a pattern
finds is parsed and taken only from its proper place. Where nothing is changed the bytes that came
are passed on as they came; what is changed is changed in place, event by event.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import msgspec

from gatekeeper.dialects.base import UNCHANGED, AnswerError
from gatekeeper.dialects.inflate import Inflater
from gatekeeper.dialects.json_spans import NotJsonError, members
from gatekeeper.dialects.sse import MOST_EVENT_BYTES, EventCutter, EventSplitter, data_of
from gatekeeper.dialects.usage import Counts, Reported
from gatekeeper.policy.model import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gatekeeper.dialects.base import AnswerPlan, Ask

MOST_JSON_BYTES: Final = 2_097_152
MOST_SHAPED_BYTES: Final = 33_554_432
"""Largest document that is held back to be changed; a larger one is refused."""
_TAIL_BYTES: Final = 65_536
_HEAVY_BYTES: Final = 32_768
"""What may take more than 5 ms to shape (a megabyte of log probabilities takes about 100)."""
_MOST_TRIED: Final = 4
"""Places in a tail at which usage may be told."""
_BATCH_BYTES: Final = 4_096
"""How much of a stream is read at a time; until then it is kept, for every open stream."""


class Shaper(Protocol):
    """Takes out of one answer what its shaping asks for; keeps count from event to event."""

    def event(self, event: bytes) -> bytes:
        """Return an event, changed; empty to leave it out. Raises :class:`AnswerError`."""
        ...

    def document(self, body: bytes) -> bytes:
        """Return a whole answer, changed. Raises :class:`AnswerError`."""
        ...


class Stopper(Protocol):
    """Knows how to end a stream early, from what it has seen of it."""

    def see(self, event: bytes) -> None:
        """Look at an event that is passed on, as the caller gets it."""
        ...

    def last_events(self, usage: Usage) -> bytes:
        """Return the events that end the stream as if its bound on output had been reached."""
        ...


@dataclass(frozen=True, slots=True)
class Family:
    """What answers of one API family look like, and how they are changed."""

    text: re.Pattern[bytes]
    """Finds generated text in an event; group 1 is the inside of the JSON string."""
    last_types: frozenset[str]
    """Values of ``type`` on the event that ends a stream; empty: ``[DONE]`` or finish reasons."""
    hide_usage: Callable[[bytes], bytes] | None = None
    """Takes out of an event the report that only we asked for; ``None``: reports come unasked."""
    document_text: re.Pattern[bytes] | None = None
    """As ``text``, in a whole document, where streams say things twice; ``None``: the same."""
    own: Callable[[bytes, Counts], int | None] | None = None
    """Reads each event (or document) in the family's own way; returns what it ends, by index."""
    shaper: Callable[[AnswerPlan], Shaper | None] | None = None
    """Returns what changes an answer that is shaped, or ``None`` where the plan asks for nothing
    that answers of the family hold."""
    stopper: Callable[[Ask], Stopper] | None = None
    most_event_bytes: int = MOST_EVENT_BYTES


class _Holder(msgspec.Struct):
    usage: Reported | None = None


class _Timings(msgspec.Struct):
    """What llama.cpp tells at the end of each choice, usage or not."""

    prompt_n: int
    predicted_n: int
    cache_n: int = 0


class _Choice(msgspec.Struct):
    index: int = 0
    finish_reason: str | None = None


class _Kind(msgspec.Struct):
    """What tells an end, where the rest of an event is not as it should be."""

    type: str | None = None
    choices: list[_Choice] | None = None


class _Event(msgspec.Struct):
    type: str | None = None
    usage: Reported | None = None
    message: _Holder | None = None
    """Anthropic ``message_start``: what is known before the first token."""
    response: _Holder | None = None
    """OpenAI responses: the whole answer inside its last event."""
    choices: list[_Choice] | None = None
    timings: msgspec.Raw = msgspec.Raw()


_EVENT: Final = msgspec.json.Decoder(_Event)
_KIND: Final = msgspec.json.Decoder(_Kind)
_TIMINGS: Final = msgspec.json.Decoder(_Timings)
_ANSWER: Final = msgspec.json.Decoder(_Holder)
_REPORT: Final = re.compile(rb'"usage"\s*:\s*\{')
_FINISH: Final = re.compile(rb'"finish_reason"\s*:\s*"')
_USAGE: Final = msgspec.json.Decoder(Reported)


class _Stream:
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
        self.close()
        return self._ended or len(self._finished) >= self._choices

    @property
    def mid_event(self) -> bool:
        self.catch_up()
        return self._splitter.mid_event

    def feed(self, chunk: bytes) -> bytes:
        self.note(chunk)
        return chunk

    def end(self) -> bytes:
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
        if self._tells_more(together):
            for event in events:
                self.take(event)
        else:
            self._deliver(together)

    def _deliver(self, events: bytes) -> None:
        for text in self._family.text.findall(events):
            self._counts.deliver(text)

    def _tells_more(self, events: bytes) -> bool:
        """Tell whether there may be more than pieces of text in some events."""
        if self._family.own is not None or _REPORT.search(events):
            return True
        if self._last_marks:
            return any(mark in events for mark in self._last_marks)
        return b"[DONE]" in events or _FINISH.search(events) is not None

    def take(self, event: bytes) -> None:
        """Read one event; only those that say more than a piece of text are parsed."""
        marks = self._last_marks
        if self._family.own is not None:
            ended = self._family.own(data_of(event), self._counts)
            if ended is not None:
                self._finished.add(ended)
        self._deliver(event)
        if b'"usage"' in event and _REPORT.search(event):
            self._study(data_of(event))
        elif marks:
            if any(mark in event for mark in marks):
                self._study(data_of(event))
        elif _FINISH.search(event):
            self._study(data_of(event))
        elif b"[DONE]" in event and data_of(event).strip() == b"[DONE]":
            self._ended = True

    def _study(self, data: bytes) -> None:
        event = _read_event(data)
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
        with contextlib.suppress(msgspec.DecodeError):
            found = _TIMINGS.decode(timings)
            given = 0 if index else found.prompt_n + found.cache_n  # one prompt for all choices
            self._counts.report_result(index, max(0, given), max(0, found.predicted_n))


def _read_event(data: bytes) -> _Event | None:
    """Return an event; of one that is not as it should be, only what tells an end."""
    try:
        return _EVENT.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    try:
        found = _KIND.decode(data)
        return _Event(type=found.type, choices=found.choices)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


class _ChangedStream(_Stream):
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
        return self.shapes and self._cutter.pending_bytes > _HEAVY_BYTES

    def feed(self, chunk: bytes) -> bytes:
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


class _Document:
    """One JSON body; kept whole up to a bound, beyond it only its tail."""

    changes = whole = shapes = heavy = mid_event = stopped = False

    def __init__(self, family: Family, counts: Counts) -> None:
        self._family = family
        self._counts = counts
        self._kept = bytearray()
        self._whole = True
        self._read = False
        self._valid = False

    @property
    def unread(self) -> bool:
        """Whether it was too long to be read as a whole."""
        return not self._whole

    @property
    def complete(self) -> bool:
        self.close()
        return self._valid

    def feed(self, chunk: bytes) -> bytes:
        kept = self._kept
        kept += chunk
        self._read = False
        if len(kept) > MOST_JSON_BYTES:
            self._whole = False
            del kept[:-_TAIL_BYTES]
        return chunk

    def end(self) -> bytes:
        return b""

    def close(self) -> None:
        """Read what there is, once; again only when more has come."""
        if self._read:
            return
        self._read = True
        body = bytes(self._kept)
        if not self._whole:
            self._valid = body.rstrip().endswith(b"}")
            self._read_tail(body)
            return
        self._valid = self.read(body)

    def read(self, body: bytes) -> bool:
        """Take the usage of a whole document; tell whether it is JSON."""
        try:
            found = _ANSWER.decode(body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            valid = _is_json(body)
            if not valid:  # cut short, perhaps behind its report
                self._read_cut(body)
        else:
            valid = True
            if found.usage is not None:
                self._counts.report(found.usage, final=True)
        if self._family.own is not None:
            self._family.own(body, self._counts)
        self._counts.forget_text()
        if not self._counts.final:
            pattern = self._family.document_text or self._family.text
            texts = pattern.findall(body) if valid else None
            for text in texts or [body]:  # cut anywhere: no less than all that came
                self._counts.deliver(text)
        return valid

    def _read_cut(self, body: bytes) -> None:
        """Take the usage of a document that was cut short behind it: only from its top level."""
        with contextlib.suppress(NotJsonError, msgspec.DecodeError, UnicodeError):
            for member in members(body):
                if member.name == b"usage":
                    usage = _USAGE.decode(body[member.value : member.end])
                    self._counts.report(usage, final=True)

    def _read_tail(self, body: bytes) -> None:
        """Take the usage from the end of a document, only if it stands at the top level there.

        That shows in what follows: with it, it makes one whole object. A model that fills in an
        object of the same name writes it deeper.
        """
        for found in [*_REPORT.finditer(body)][: -_MOST_TRIED - 1 : -1]:
            with contextlib.suppress(msgspec.DecodeError, UnicodeError, RecursionError):
                usage = _ANSWER.decode(b"{" + body[found.start() :]).usage
                if usage is not None:
                    self._counts.report(usage, final=True)
                    return


class _ChangedDocument(_Document):
    """One JSON body that is held back to its end and then changed."""

    changes = whole = True

    def __init__(self, family: Family, counts: Counts, shaper: Shaper) -> None:
        super().__init__(family, counts)
        self._shaper = shaper

    @property
    def heavy(self) -> bool:  # type: ignore[override]
        return len(self._kept) > _HEAVY_BYTES

    def feed(self, chunk: bytes) -> bytes:
        self._kept += chunk
        self._read = False
        if len(self._kept) > MOST_SHAPED_BYTES:
            raise AnswerError
        return b""

    def end(self) -> bytes:
        if not self.complete:
            raise AnswerError
        return self._shaper.document(bytes(self._kept))


class _Opaque:
    """A body that cannot be read: only its framing tells whether it is whole."""

    changes = whole = shapes = heavy = mid_event = stopped = False
    complete = unread = True

    def feed(self, chunk: bytes) -> bytes:
        """Look at nothing."""
        return chunk

    def end(self) -> bytes:
        """Nothing was held back."""
        return b""

    def close(self) -> None:
        """Nothing was kept."""


class _Withheld(_Opaque):
    """A body that would have to be changed and cannot be read: nothing of it is passed on."""

    changes = whole = True

    def feed(self, chunk: bytes) -> bytes:  # noqa: ARG002 - as the others
        """Refuse it."""
        raise AnswerError

    def end(self) -> bytes:
        """Refuse an empty one too."""
        raise AnswerError


class AnswerReader:
    """Reads along one 2xx answer; see :class:`gatekeeper.dialects.base.AnswerReader`."""

    __slots__ = (
        "_ask",
        "_counts",
        "_inflater",
        "_reader",
        "changes",
        "may_stop",
        "shapes",
        "whole",
    )

    def __init__(
        self,
        family: Family,
        ask: Ask,
        headers: Mapping[str, str],
        plan: AnswerPlan = UNCHANGED,
    ) -> None:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        coding = headers.get("content-encoding", "").strip().lower()
        self._ask = ask
        self._counts = Counts(plan.count)
        self._inflater = Inflater() if coding in {"gzip", "x-gzip", "deflate"} else None
        readable = self._inflater is not None or coding in {"", "identity"}
        self._reader = _reader_for(family, ask, kind if readable else "", plan, self._counts)
        self.changes = self._reader.changes
        self.shapes = self._reader.shapes
        self.whole = self._reader.whole
        self.may_stop = plan.budget_tokens is not None

    @property
    def complete(self) -> bool:
        """Whether the answer's own end was seen; true where only the framing can tell."""
        unread = self._inflater is not None and self._inflater.gave_up
        return unread or self._reader.complete

    @property
    def heavy(self) -> bool:
        """Whether ``feed`` or ``end`` may now take so long that they belong on a thread."""
        return self._reader.heavy

    @property
    def mid_event(self) -> bool:
        """Whether a stream stands inside an event, or is coded so that nothing can be put in."""
        coded = self._inflater is not None and not self.changes
        return coded or self._reader.mid_event

    @property
    def stopped(self) -> bool:
        """Whether the budget is used up: what was returned last ends the answer properly."""
        return self._reader.stopped

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes of the body, cut anywhere, content coding included."""
        if self._inflater is None:
            return self._reader.feed(chunk)
        passed = [self._reader.feed(piece) for piece in self._inflater.feed(chunk)]
        if not self.changes:
            return chunk
        if self._inflater.gave_up:
            raise AnswerError
        return b"".join(passed)

    def end(self) -> bytes:
        """Return what was held back, once the body has come to its proper end."""
        return self._reader.end()

    def result(self, most_output: int | None = None) -> Usage | None:
        """Return the usage up to now; ``None`` when some of the body cannot be read."""
        if isinstance(self._reader, _Opaque):
            return Usage() if _costs_nothing(self._ask) else None
        self._reader.close()
        gave_up = self._inflater is not None and self._inflater.gave_up
        unread = gave_up or (self._reader.unread and self._ask.generates)
        if unread and not self._counts.exact(self._ask.choices):
            return None
        return self._counts.usage(self._ask, most_output)


_Reader: TypeAlias = "_Stream | _Document | _Opaque"


def _reader_for(family: Family, ask: Ask, kind: str, plan: AnswerPlan, counts: Counts) -> _Reader:
    shaper = None
    if plan.shaping is not None and family.shaper is not None:
        shaper = family.shaper(plan)
    if kind == "text/event-stream":
        hidden = plan.hide_usage and family.hide_usage is not None
        if hidden or plan.budget_tokens is not None or shaper is not None:
            return _ChangedStream(family, ask, counts, plan, shaper)
        return _Stream(family, ask, counts)
    if kind == "application/json" or kind.endswith("+json"):
        if shaper is not None:
            return _ChangedDocument(family, counts, shaper)
        return _Opaque() if _costs_nothing(ask) else _Document(family, counts)
    if shaper is not None:
        return _Withheld()
    return _Opaque()


def _costs_nothing(ask: Ask) -> bool:
    return ask.input_tokens == 0 and ask.max_output_tokens == 0


def _is_json(body: bytes) -> bool:
    """Tell whether ``body`` is JSON at all: other than expected, but not cut short."""
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True
