"""Reads along an answer: what it consumed, whether it is whole, and what must be changed in it.

One reader serves all families: they differ in the names of things, which :class:`Family` holds.
Model output cannot forge a report: inside JSON strings every quote is escaped, and what a pattern
finds is parsed and taken only from its proper place. Where nothing is changed the bytes that came
are passed on as they came; what is changed is changed in place, event by event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from gatekeeper.dialects.answer_document import ChangedDocument, Document, Opaque, Withheld
from gatekeeper.dialects.answer_stream import ChangedStream, Stream
from gatekeeper.dialects.base import UNCHANGED, AnswerError
from gatekeeper.dialects.inflate import Inflater
from gatekeeper.dialects.usage import Counts
from gatekeeper.policy.model import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.dialects.base import AnswerPlan, Ask
    from gatekeeper.dialects.family import Family


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
        if isinstance(self._reader, Opaque):
            return Usage() if _costs_nothing(self._ask) else None
        self._reader.close()
        gave_up = self._inflater is not None and self._inflater.gave_up
        unread = gave_up or (self._reader.unread and self._ask.generates)
        if unread and not self._counts.exact(self._ask.choices):
            return None
        return self._counts.usage(self._ask, most_output)


_Reader: TypeAlias = "Stream | Document | Opaque"


def _reader_for(family: Family, ask: Ask, kind: str, plan: AnswerPlan, counts: Counts) -> _Reader:
    shaper = None
    if plan.shaping is not None and family.shaper is not None:
        shaper = family.shaper(plan)
    if kind == "text/event-stream":
        hidden = plan.hide_usage and family.hide_usage is not None
        if hidden or plan.budget_tokens is not None or shaper is not None:
            return ChangedStream(family, ask, counts, plan, shaper)
        return Stream(family, ask, counts)
    if kind == "application/json" or kind.endswith("+json"):
        if shaper is not None:
            return ChangedDocument(family, counts, shaper)
        return Opaque() if _costs_nothing(ask) else Document(family, counts)
    if shaper is not None:
        return Withheld()
    return Opaque()


def _costs_nothing(ask: Ask) -> bool:
    return ask.input_tokens == 0 and ask.max_output_tokens == 0
