"""Splits server-sent events (WHATWG HTML, 9.2) out of chunks that are cut anywhere."""

from __future__ import annotations

import re
from typing import Final

from gatekeeper.dialects.base import AnswerError

MOST_EVENT_BYTES: Final = 4_194_304


class EventSplitter:
    """Turns chunks into whole events; an event beyond the bound is dropped and remembered."""

    __slots__ = ("_after_cr", "_most", "_pending", "_searched", "_skipping", "dropped")

    def __init__(self, most_event_bytes: int = MOST_EVENT_BYTES) -> None:
        self._most = most_event_bytes
        self._pending = bytearray()
        self._searched = 0
        self._after_cr = False
        self._skipping = False
        self.dropped = 0
        """How many events were too long to be read."""

    @property
    def mid_event(self) -> bool:
        """Whether the last event is still open."""
        return self._skipping or bool(self._pending.strip(b"\n"))

    @property
    def rest(self) -> bytes:
        """What has come of an event that is still open."""
        return b"" if self._skipping else bytes(self._pending)

    def feed(self, chunk: bytes) -> list[bytes]:
        r"""Return the events that ``chunk`` completes: their lines, joined by ``\n``."""
        if b"\r" in chunk or self._after_cr:
            chunk = self._plain_newlines(chunk)
        if self._pending or self._skipping:
            return self._feed_slowly(chunk)
        events = chunk.split(b"\n\n")
        self._keep(events.pop())
        return events

    def _plain_newlines(self, chunk: bytes) -> bytes:
        if self._after_cr and chunk.startswith(b"\n"):  # the second half of a \r\n cut in two
            chunk = chunk[1:]
            self._after_cr = False
        if chunk:
            self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _feed_slowly(self, chunk: bytes) -> list[bytes]:
        pending = self._pending
        pending += chunk
        end = pending.find(b"\n\n", self._searched)
        if end < 0:
            self._bound()
            return []
        *events, rest = bytes(pending).split(b"\n\n")
        if self._skipping:
            self._skipping = False
            del events[0]
        pending.clear()
        self._keep(rest)
        return events

    def _keep(self, rest: bytes) -> None:
        rest = rest.lstrip(b"\n")
        self._searched = 0
        if rest:
            self._pending += rest
            self._bound()

    def _bound(self) -> None:
        """Remember how far was searched, and let go of an event that is too long."""
        pending = self._pending
        if len(pending) > self._most:
            self.dropped += not self._skipping
            self._skipping = True
            del pending[:-1]
        self._searched = max(0, len(pending) - 1)


def data_of(event: bytes) -> bytes:
    r"""Return the data of an event: its ``data`` lines, joined by ``\n``."""
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = []
    for line in event.split(b"\n"):
        if line.startswith(b"data:"):
            value = line[5:]
            lines.append(value[1:] if value.startswith(b" ") else value)
    return b"\n".join(lines)


_BLANK: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n|\r\n\r(?!\n)")


class EventCutter:
    r"""Cuts chunks into whole events, byte for byte, each with the blank line that ends it.

    A blank line may be written with ``\n``, ``\r\n`` or ``\r``.
    """

    __slots__ = ("_most", "_pending", "_searched")

    def __init__(self, most_event_bytes: int = MOST_EVENT_BYTES) -> None:
        self._most = most_event_bytes
        self._pending = bytearray()
        self._searched = 0

    @property
    def rest(self) -> bytes:
        """What has come of an event that is still open."""
        return bytes(self._pending)

    @property
    def pending_bytes(self) -> int:
        """How much has come of it."""
        return len(self._pending)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the events that ``chunk`` completes.

        Raises :class:`AnswerError` on an event beyond the bound.
        """
        pending = self._pending
        if not pending and chunk.endswith(b"\n\n") and b"\r" not in chunk:
            if chunk.find(b"\n") == len(chunk) - 2:  # the usual chunk: one event of one line
                return [chunk]
            whole = chunk.split(b"\n\n")
            if not whole.pop():
                return [event + b"\n\n" for event in whole]
        pending += chunk
        events: list[bytes] = []
        place = 0
        search = self._searched
        while (found := _BLANK.search(pending, search)) is not None:
            end = found.end()
            if end == len(pending) and pending.endswith(b"\r"):  # a line feed may follow
                break
            events.append(bytes(pending[place:end]))
            place = search = end
        del pending[:place]
        self._searched = max(0, len(pending) - 4)
        if len(pending) > self._most:
            raise AnswerError
        return events
