"""Passes an upstream's answer on, chunk by chunk, and tells how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from aiohttp.web import StreamResponse

from gatekeeper.dialects.base import AnswerError
from gatekeeper.upstream.apart import apart
from gatekeeper.upstream.client import AnswerBrokenError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.http import StreamWriter
    from aiohttp.web import BaseRequest
    from aiohttp.web_protocol import RequestHandler
    from multidict import CIMultiDict, CIMultiDictProxy

    from gatekeeper.dialects.base import AnswerReader, Dialect
    from gatekeeper.settings import Deadlines
    from gatekeeper.upstream.client import Answer, Sink

_DROPPED: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "alt-svc",
    }
)
_BODILESS: Final = frozenset({204, 304})
_OF_THE_BYTES: Final = (
    "content-length",
    "content-encoding",
    "content-md5",
    "content-digest",
    "repr-digest",
    "digest",
    "etag",
    "accept-ranges",
)
"""Headers that do not hold for an answer in which bytes are changed."""


class Ending(StrEnum):
    """How an answer ended."""

    COMPLETE = "complete"
    STOPPED = "stopped"
    """Ended by the gate, as a whole answer, because its budget was used up."""
    UPSTREAM_BROKE = "upstream_broke"
    UPSTREAM_SILENT = "upstream_silent"
    CLIENT_GONE = "client_gone"
    CLIENT_STALLED = "client_stalled"
    CLIENT_BROKE = "client_broke"
    """The caller of a WebSocket sent what is no sound frame."""
    TIMED_OUT = "timed_out"
    """A WebSocket was silent for too long, or lasted too long."""
    RESTARTED = "restarted"
    """A WebSocket was ended because the gate stops."""


_PROPER: Final = frozenset({Ending.COMPLETE, Ending.STOPPED})
_LEFT: Final = frozenset({Ending.CLIENT_GONE, Ending.CLIENT_STALLED})


class Drained(StrEnum):
    """How it ended that an answer was read on after its caller left."""

    COMPLETE = "complete"
    BROKEN = "broken"
    CUT = "cut"
    """At a bound of the settings, or because the gate ends."""


class Relay:
    """One answer on its way to the caller; ``ending`` and ``bytes_sent`` hold at every moment."""

    __slots__ = ("_answer", "_dialect", "_keeps", "_reader", "bytes_sent", "ending", "left_open")

    def __init__(
        self, answer: Answer, dialect: Dialect, reader: AnswerReader | None, *, keeps: bool = False
    ) -> None:
        """Take an answer; with ``keeps`` it stays open when its caller leaves, to be read on."""
        self._answer = answer
        self._dialect = dialect
        self._keeps = keeps
        self._reader = reader
        self.left_open = False
        """Whether the answer was kept, as its caller has left."""
        self.ending = Ending.CLIENT_GONE  # until proven otherwise: a cancelled task stops anywhere
        self.bytes_sent = 0

    async def run(
        self, request: BaseRequest, ours: Mapping[str, str], deadlines: Deadlines
    ) -> StreamResponse | None:
        """Send head and body; ``ours`` are headers of the gate, which win over the upstream's.

        A broken answer never looks complete: the dialect's error event is sent where the stream
        has one, and the connection is closed without a proper end (H32). ``None`` when the answer
        must be changed and cannot be, and nothing of it was sent.
        """
        answer, reader = self._answer, self._reader
        headers = pass_on(answer.headers, ours)
        if reader is not None and reader.changes:
            for name in _OF_THE_BYTES:
                headers.popall(name, None)
            if reader.whole and answer.status not in _BODILESS:
                body = await self._changed()
                return None if body is None else await self._send_whole(request, headers, body)
        response = _PassedOn(status=answer.status, reason=answer.reason, headers=headers)
        try:
            await response.prepare(request)
            if request.method != "HEAD" and answer.status not in _BODILESS:
                await self._body(request, deadlines)
            else:
                self.ending = Ending.COMPLETE
        except ConnectionError:
            self.ending = Ending.CLIENT_GONE
        finally:
            self.left_open = self._keeps and self.ending in _LEFT
            if not self.left_open:
                answer.close()
        if self.ending not in _PROPER:
            await self._break_off(request, response, deadlines.write_s)
        return response

    async def _changed(self) -> bytes | None:
        """Return a whole answer with what must be changed in it, or ``None`` when it cannot be."""
        answer, reader = self._answer, cast("AnswerReader", self._reader)
        try:
            await answer.pour(lambda chunk: not reader.feed(chunk))
            return await apart(reader.end) if reader.heavy else reader.end()
        except (AnswerBrokenError, AnswerError, TimeoutError):
            return None
        except asyncio.CancelledError:
            self.left_open = self._keeps
            raise
        finally:
            if not self.left_open:
                answer.close()

    def close(self) -> None:
        """Let go of an answer that was kept."""
        self._answer.close()

    async def read_on(self, most_bytes: int) -> Drained:
        """Read the rest of an answer that was kept, for its usage alone."""
        answer, reader = self._answer, self._reader
        try:
            while chunk := await answer.read_chunk():
                if reader is not None:
                    await _fed(reader, chunk)
                most_bytes -= len(chunk)
                if most_bytes < 0:
                    return Drained.CUT
                if reader is not None and reader.stopped:
                    return Drained.COMPLETE
            if reader is not None:
                reader.end()
        except (AnswerBrokenError, AnswerError, TimeoutError):
            return Drained.BROKEN
        finally:
            answer.close()
        return Drained.COMPLETE if reader is None or reader.complete else Drained.BROKEN

    async def _send_whole(
        self, request: BaseRequest, headers: CIMultiDict[str], body: bytes
    ) -> StreamResponse:
        response = _PassedOn(
            status=self._answer.status, reason=self._answer.reason, headers=headers
        )
        response.content_length = len(body)
        try:
            await response.prepare(request)
            if request.method != "HEAD":
                await response.write(body)
                self.bytes_sent = len(body)
            await response.write_eof()
        except ConnectionError:
            self.ending = Ending.CLIENT_GONE
        else:
            self.ending = Ending.COMPLETE
        return response

    async def _body(self, request: BaseRequest, deadlines: Deadlines) -> None:
        """Pass the body on; silence of the upstream ends it by the client's own timer."""
        try:
            shapes = self._reader is not None and self._reader.shapes
            passed = self._shaped if shapes else self._chunks
            self.ending = await passed(request, deadlines.write_s)
        except TimeoutError:
            self.ending = Ending.UPSTREAM_SILENT
        except _StalledError:
            self.ending = Ending.CLIENT_STALLED
        except (AnswerBrokenError, AnswerError):
            self.ending = Ending.UPSTREAM_BROKE

    async def _chunks(self, request: BaseRequest, write_s: float) -> Ending:
        answer, reader = self._answer, self._reader
        writer = cast("StreamWriter", request.writer)
        chunk = answer.read_ready()
        if chunk and reader is not None:
            chunk = reader.feed(chunk)
        if chunk:
            await writer.write(chunk, drain=False)
            self.bytes_sent += len(chunk)
        else:
            writer.send_headers()  # the body is still to come: the head must not wait for it
        sink = self._sink(writer, request.protocol)
        while reader is None or not reader.stopped:
            if await answer.pour(sink):
                return await self._end(writer)
            await self._drain(request, write_s)
        return Ending.STOPPED

    async def _shaped(self, request: BaseRequest, write_s: float) -> Ending:
        """Pass on a stream whose events may take long to change: those are changed on a thread."""
        answer, reader = self._answer, cast("AnswerReader", self._reader)
        writer = cast("StreamWriter", request.writer)
        writer.send_headers()
        while chunk := await answer.read_chunk():
            if passed := await _fed(reader, chunk):
                await writer.write(passed, drain=False)
                self.bytes_sent += len(passed)
                if request.protocol.writing_paused:
                    await self._drain(request, write_s)
            if reader.stopped:
                return Ending.STOPPED
        return await self._end(writer)

    async def _end(self, writer: StreamWriter) -> Ending:
        """Pass on what was held back, and tell whether it was all of the answer."""
        reader = self._reader
        if reader is None:
            return Ending.COMPLETE
        if rest := reader.end():
            await writer.write(rest, drain=False)
            self.bytes_sent += len(rest)
        return Ending.COMPLETE if reader.complete else Ending.UPSTREAM_BROKE

    def _sink(self, writer: StreamWriter, protocol: RequestHandler) -> Sink:
        """Return what passes a piece on, and tells whether another one may follow at once.

        It frames pieces itself: aiohttp's writer does so only for a task.
        """
        reader, transport, framed = self._reader, protocol.transport, writer.chunked
        stoppable = reader if reader is not None and reader.may_stop else None

        def pass_on(chunk: bytes) -> bool:
            if reader is not None:
                chunk = reader.feed(chunk)
            if not chunk:
                return stoppable is None or not stoppable.stopped
            if transport is None or transport.is_closing():
                raise ConnectionResetError
            transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if framed else chunk)
            self.bytes_sent += len(chunk)
            # Anything that stays in the buffer pauses the protocol (GateProtocol).
            held_back = transport.get_write_buffer_size() > 0
            return not held_back and (stoppable is None or not stoppable.stopped)

        return pass_on

    async def _drain(self, request: BaseRequest, write_s: float) -> None:
        try:
            async with asyncio.timeout(write_s):
                await request.writer.drain()
        except TimeoutError:
            raise _StalledError from None

    async def _break_off(
        self, request: BaseRequest, response: StreamResponse, write_s: float
    ) -> None:
        transport = request.transport
        if transport is None:
            return
        response.force_close()
        upstream_died = self.ending in {Ending.UPSTREAM_BROKE, Ending.UPSTREAM_SILENT}
        streamed = response.headers.get("content-type", "").startswith("text/event-stream")
        reader = self._reader
        if upstream_died and streamed and reader is not None and not reader.mid_event:
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(write_s):
                    await response.write(self._dialect.stream_error())
        framed = "transfer-encoding" in response.headers or "content-length" in response.headers
        if upstream_died and framed:
            transport.close()  # the missing end tells; what was sent still arrives
        else:
            _reset(transport)  # the only way to tell, or the caller reads no more


async def _fed(reader: AnswerReader, chunk: bytes) -> bytes:
    """Let a reader take a piece, on a thread where that may take long."""
    return await apart(partial(reader.feed, chunk)) if reader.heavy else reader.feed(chunk)


def _reset(transport: asyncio.WriteTransport) -> None:
    """Close a connection so that its other end sees an error, not an end (RFC 9293, 3.10.7.4)."""
    connected = transport.get_extra_info("socket")
    if connected is not None:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class _StalledError(Exception):
    """The caller has stopped reading."""


class _PassedOn(StreamResponse):
    """An answer with the upstream's headers, and none that aiohttp would add for it."""

    _send_headers_immediately = False  # head and first bytes leave in one packet

    async def _prepare_headers(self) -> None:
        typed = "content-type" in self.headers
        await super()._prepare_headers()
        if not typed:
            self.headers.popall("content-type", None)

    async def _write_headers(self) -> None:
        await super()._write_headers()
        if all(map(str.isascii, self.headers.values())):
            return
        # aiohttp would drop bytes that are not UTF-8, which it read as lone surrogates.
        writer = cast("StreamWriter", self._payload_writer)
        kept = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        line, _, _ = cast("bytes", writer._headers_buf).partition(b"\r\n")  # noqa: SLF001 - as above
        head = b"%b\r\n%b\r\n" % (line, kept.encode("utf-8", "surrogateescape"))
        writer._headers_buf = head  # noqa: SLF001


def pass_on(theirs: CIMultiDictProxy[str], ours: Mapping[str, str]) -> CIMultiDict[str]:
    """Return the headers of an answer: the upstream's, but those of its connection, and ours."""
    headers = theirs.copy()
    nominated = ",".join(headers.getall("connection", ()))
    dropped = _DROPPED
    if nominated:
        dropped = dropped | {token.strip().lower() for token in nominated.split(",")}
    for name in dropped:
        headers.popall(name, None)
    varies = ", ".join(headers.getall("vary", ()))
    headers.update(ours)
    if varies and "vary" in ours:
        headers["Vary"] = f"{varies}, {ours['vary']}"
    return headers
