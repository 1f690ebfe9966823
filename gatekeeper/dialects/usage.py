"""Reads the usage that an answer reports, and estimates what it does not.

One reader serves all families: they differ in the names of things, which :class:`Family` holds.
Model output cannot forge a report: inside JSON strings every quote is escaped, and what a pattern
finds is parsed and taken only from its proper place.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from gatekeeper.dialects.estimate import estimate_tokens, without_escapes
from gatekeeper.dialects.inflate import Inflater
from gatekeeper.dialects.sse import EventSplitter, data_of
from gatekeeper.policy.model import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.dialects.base import Ask

MOST_JSON_BYTES: Final = 2_097_152
_TAIL_BYTES: Final = 65_536
_TEXT_BATCH: Final = 8_192
_Count = Annotated[int, msgspec.Meta(ge=0, le=10**12)]


@dataclass(frozen=True, slots=True)
class Family:
    """What streams of one API family look like."""

    text: re.Pattern[bytes]
    """Finds generated text in an event; group 1 is the inside of the JSON string."""
    last_types: frozenset[str]
    """Values of ``type`` on the event that ends a stream; empty: ``[DONE]`` or finish reasons."""


def text_pattern(*keys: str) -> re.Pattern[bytes]:
    """Return a pattern for the string values of ``keys``."""
    names = b"|".join(key.encode() for key in keys)
    return re.compile(rb'"(?:' + names + rb')"\s*:\s*"((?:[^"\\]++|\\.)*+)', re.DOTALL)


class _Reported(msgspec.Struct):
    """Usage in the words of every family."""

    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    input_tokens: _Count | None = None
    output_tokens: _Count | None = None
    cache_creation_input_tokens: _Count | None = None
    cache_read_input_tokens: _Count | None = None


class _Holder(msgspec.Struct):
    usage: _Reported | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    finish_reason: str | None = None


class _Event(msgspec.Struct):
    type: str | None = None
    usage: _Reported | None = None
    message: _Holder | None = None
    """Anthropic ``message_start``: what is known before the first token."""
    response: _Holder | None = None
    """OpenAI responses: the whole answer inside its last event."""
    choices: list[_Choice] | None = None


_EVENT: Final = msgspec.json.Decoder(_Event)
_ANSWER: Final = msgspec.json.Decoder(_Holder)
_REPORT: Final = re.compile(rb'"usage"\s*:\s*\{')
_FINISH: Final = re.compile(rb'"finish_reason"\s*:\s*"')
_PLAIN_DECODER: Final = json.JSONDecoder()


class _Counts:
    """Reported numbers and, for the missing ones, the text delivered.

    Reports are cumulative, so a repeated one counts once and the largest of each is the last.
    """

    __slots__ = ("_delivered", "_seen", "_text", "final")

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._delivered = 0
        self._text = bytearray()
        self.final = False
        """Whether the output was reported, rather than only what is known before it."""

    def report(self, reported: _Reported, *, final: bool) -> None:
        for name in _Reported.__struct_fields__:
            number = getattr(reported, name)
            if number is not None:
                self._seen[name] = max(number, self._seen.get(name, 0))
                if final and name in {"completion_tokens", "output_tokens"}:
                    self.final = True

    def deliver(self, text: bytes) -> None:
        self._text += text
        if len(self._text) > _TEXT_BATCH:
            self._weigh()

    def forget_text(self) -> None:
        self._text.clear()
        self._delivered = 0

    def _weigh(self) -> None:
        text = bytes(self._text)
        quoted = without_escapes(b'"%b"' % text)
        self._delivered += estimate_tokens(quoted[1:-1])
        self._text.clear()

    def usage(self, ask: Ask) -> Usage:
        seen = self._seen
        known = seen.get("prompt_tokens")
        if known is None and "input_tokens" in seen:
            known = sum(
                seen.get(name, 0)
                for name in (
                    "input_tokens",
                    "cache_creation_input_tokens",
                    "cache_read_input_tokens",
                )
            )
        output = seen.get("completion_tokens", seen.get("output_tokens", 0))
        silent = ask.max_output_tokens == 0
        if not self.final and not silent:
            self._weigh()
            output = max(output, self._delivered)
        return Usage(
            ask.input_tokens if known is None else known,
            output,
            estimated=(known is None and ask.input_tokens > 0) or not (self.final or silent),
        )


class _Stream:
    """Server-sent events."""

    def __init__(self, family: Family, ask: Ask, counts: _Counts) -> None:
        self._family = family
        self._choices = ask.choices
        self._counts = counts
        self._splitter = EventSplitter()
        self._last_marks = tuple(word.encode() for word in family.last_types)
        self._finished: set[int] = set()
        self._ended = False
        self._closed = False

    @property
    def complete(self) -> bool:
        self.close()
        return self._ended or len(self._finished) >= self._choices

    @property
    def mid_event(self) -> bool:
        return self._splitter.mid_event

    def feed(self, chunk: bytes) -> None:
        for event in self._splitter.feed(chunk):
            self._take(event)

    def close(self) -> None:
        """Read an event that lacks its closing blank line, once: some servers end so."""
        if not self._closed:
            self._closed = True
            self._take(self._splitter.rest)

    def _take(self, event: bytes) -> None:
        """Read one event; only those that say more than a piece of text are parsed."""
        counts, marks = self._counts, self._last_marks
        if not counts.final:
            for text in self._family.text.findall(event):
                counts.deliver(text)
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
        try:
            event = _EVENT.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return
        if event.type in self._family.last_types:
            self._ended = True
        if not self._family.last_types:
            self._finished.update(
                choice.index for choice in event.choices or () if choice.finish_reason
            )
        if event.message is not None and event.message.usage is not None:
            self._counts.report(event.message.usage, final=False)
        for usage in (event.usage, event.response.usage if event.response else None):
            if usage is not None:
                self._counts.report(usage, final=True)


class _Document:
    """One JSON body; kept whole up to a bound, beyond it only its tail."""

    mid_event = False

    def __init__(self, family: Family, counts: _Counts) -> None:
        self._family = family
        self._counts = counts
        self._kept = bytearray()
        self._whole = True
        self._read = False
        self._valid = False

    @property
    def complete(self) -> bool:
        self.close()
        return self._valid

    def feed(self, chunk: bytes) -> None:
        kept = self._kept
        kept += chunk
        self._read = False
        if len(kept) > MOST_JSON_BYTES:
            self._whole = False
            del kept[:-_TAIL_BYTES]

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
        try:
            found = _ANSWER.decode(body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            self._valid = _is_json(body)
        else:
            self._valid = True
            if found.usage is not None:
                self._counts.report(found.usage, final=True)
        self._counts.forget_text()
        if not self._counts.final:
            for text in self._family.text.findall(body):
                self._counts.deliver(text)

    def _read_tail(self, body: bytes) -> None:
        starts = [found.end() - 1 for found in _REPORT.finditer(body)]
        if not starts:
            return
        text = body[starts[-1] :].decode(errors="replace")
        try:
            value, _ = _PLAIN_DECODER.raw_decode(text)
            self._counts.report(msgspec.convert(value, _Reported), final=True)
        except (ValueError, RecursionError, msgspec.ValidationError):
            return


class _Opaque:
    """A body that cannot be read: only its framing tells whether it is whole."""

    mid_event = False
    complete = True

    def feed(self, chunk: bytes) -> None:
        """Look at nothing."""

    def close(self) -> None:
        """Nothing was kept."""


class AnswerReader:
    """Reads along one 2xx answer; see :class:`gatekeeper.dialects.base.UsageReader`."""

    __slots__ = ("_ask", "_counts", "_inflater", "_reader")

    def __init__(self, family: Family, ask: Ask, headers: Mapping[str, str]) -> None:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        coding = headers.get("content-encoding", "").strip().lower()
        self._ask = ask
        self._counts = _Counts()
        self._inflater = Inflater() if coding in {"gzip", "x-gzip", "deflate"} else None
        self._reader: _Stream | _Document | _Opaque
        if self._inflater is None and coding not in {"", "identity"}:
            self._reader = _Opaque()
        elif kind == "text/event-stream":
            self._reader = _Stream(family, ask, self._counts)
        elif (kind == "application/json" or kind.endswith("+json")) and not _costs_nothing(ask):
            self._reader = _Document(family, self._counts)
        else:
            self._reader = _Opaque()

    @property
    def complete(self) -> bool:
        """Whether the answer's own end was seen; true where only the framing can tell."""
        unread = self._inflater is not None and self._inflater.gave_up
        return unread or self._reader.complete

    @property
    def mid_event(self) -> bool:
        """Whether a stream stands inside an event, or is coded so that nothing can be put in."""
        return self._inflater is not None or self._reader.mid_event

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body, cut anywhere, content coding included."""
        if self._inflater is None:
            self._reader.feed(chunk)
            return
        for piece in self._inflater.feed(chunk):
            self._reader.feed(piece)

    def result(self) -> Usage | None:
        """Return the usage up to now; ``None`` when the body cannot be read."""
        if isinstance(self._reader, _Opaque):
            return Usage() if _costs_nothing(self._ask) else None
        self._reader.close()
        if self._inflater is not None and self._inflater.gave_up and not self._counts.final:
            return None
        return self._counts.usage(self._ask)


def _costs_nothing(ask: Ask) -> bool:
    return ask.input_tokens == 0 and ask.max_output_tokens == 0


def _is_json(body: bytes) -> bool:
    """Tell whether ``body`` is JSON at all: other than expected, but not cut short."""
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True
