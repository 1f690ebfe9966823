"""One connection to an upstream: aiohttp's client protocol, with what it lacks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp import ClientError, StreamReader
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

from gatekeeper.upstream.client import AnswerBrokenError

if TYPE_CHECKING:
    from gatekeeper.upstream.client import Sink

_MOST_WAITING_BYTES: Final = 131_072
"""How much of a body may wait for its sink before no more is read from the socket."""


class Connection(ResponseHandler):
    """A connection whose failure reaches the body under way, which aiohttp leaves waiting.

    Its read timer looks when it runs out, where aiohttp's is made anew for each packet.
    """

    body: Body | None = None
    """Body of the last answer."""
    held = False
    """Whether nothing is read, because too much of the body waits."""
    _seen_s = 0.0

    def follow(self, payload: StreamReader) -> Body:
        """Take over the body of an answer whose head was read."""
        self.body = body = Body(self, payload)
        return body

    def data_received(self, data: bytes) -> None:
        """Parse what came, and hand on what it holds of a body."""
        super().data_received(data)
        if self.body is not None:
            self.body.flow()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the body under way, whole or not."""
        super().connection_lost(exc)
        if self.body is not None:
            self.body.flow()
            self.body = None  # each knows the other, and would wait for the collector

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        """Fail whoever waits for a head, or for more of a body."""
        super().set_exception(exc, exc_cause or exc)
        payload = self._payload
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            payload.set_exception(exc, exc_cause or exc)
        if self.body is not None:
            self.body.flow()

    def hold(self) -> None:
        """Read no more for now; the parser is not paused, which would need to be fed again."""
        if self.transport is not None:
            self.held = True
            self.transport.pause_reading()
            self._drop_timeout()

    def go_on(self) -> None:
        """Read again."""
        self.held = False
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
            self._reschedule_timeout()

    def _reschedule_timeout(self) -> None:
        self._seen_s = self._loop.time()
        if self._read_timeout and self._read_timeout_handle is None:
            self._arm(self._read_timeout)

    def _on_read_timeout(self) -> None:
        self._read_timeout_handle = None
        left_s = self._seen_s + (self._read_timeout or 0.0) - self._loop.time()
        if left_s > 0:
            self._arm(left_s)
        else:
            super()._on_read_timeout()

    def _arm(self, after_s: float) -> None:
        self._read_timeout_handle = self._loop.call_later(after_s, self._on_read_timeout)


class Body:
    """The body of one answer, handed on in the turn of the loop in which it comes.

    Waking a task for each chunk costs more than all else that is done with it.
    """

    __slots__ = ("_connection", "_failure", "_over", "_sink", "_whole", "came")

    def __init__(self, connection: Connection, payload: StreamReader) -> None:
        self._connection = connection
        self.came: list[bytes] = []
        """Pieces from the parser that nobody took yet."""
        self._sink: Sink | None = None
        self._over: asyncio.Future[bool | BaseException] | None = None
        self._failure = payload.exception()
        while self._failure is None and not payload.at_eof() and (piece := payload.read_nowait()):
            self.came.append(piece)
        self._whole = payload.is_eof()
        if type(payload) is StreamReader:  # the parser makes no other
            payload.__class__ = _Straight

    @property
    def read(self) -> bool:
        """Whether all of it has come and was taken."""
        return self._whole and not self.came

    def take(self) -> bytes:
        """Return what waits; see :meth:`gatekeeper.upstream.client.Answer.read_ready`."""
        came = self.came
        if self._failure is not None and not came:
            raise _told(self._failure)
        pieces = came[0] if len(came) == 1 else b"".join(came)
        came.clear()
        if self._connection.held:
            self._connection.go_on()
        return pieces

    async def pour(self, sink: Sink) -> bool:
        """See :meth:`gatekeeper.upstream.client.Answer.pour`."""
        if self._whole and not self.came and self._failure is None:
            return True
        self._sink = sink
        over: asyncio.Future[bool | BaseException] = asyncio.get_running_loop().create_future()
        self._over = over
        self.flow()
        try:
            ended = await over
        finally:
            self._sink = self._over = None
        if isinstance(ended, BaseException):
            raise ended
        return ended

    def flow(self) -> None:
        """Hand on what has come, and the end or the failure if there is one."""
        sink = self._sink
        if sink is None:
            self._bound()
            return
        if self.came:
            pieces = self.take()
            try:
                more = sink(pieces)
            except Exception as error:  # noqa: BLE001 - it is for whoever pours
                self._end(error)
                return
            if not more:
                self._end(False)  # noqa: FBT003 - what pour returns
                return
        if self._failure is not None:
            self._end(_told(self._failure))
        elif self._whole:
            self._end(True)  # noqa: FBT003 - as above

    def _bound(self) -> None:
        """Let no more come than may wait."""
        connection = self._connection
        if self.came and not connection.held and sum(map(len, self.came)) > _MOST_WAITING_BYTES:
            connection.hold()

    def end(self, failure: BaseException | None = None) -> None:
        """Note that the parser has seen the end, or that it will see none."""
        self._failure = failure
        self._whole = failure is None

    def _end(self, ended: bool | BaseException) -> None:  # noqa: FBT001 - as above
        self._sink = None
        if self._over is not None and not self._over.done():
            self._over.set_result(ended)


class _Straight(StreamReader):
    """A payload that keeps nothing: what the parser cuts goes to the body of the connection."""

    __slots__ = ()
    _protocol: Connection

    def feed_data(self, data: bytes, size: int = 0) -> bool:  # noqa: ARG002 - as inherited
        body = self._protocol.body
        if body is not None:
            body.came.append(data)
        return False

    def feed_eof(self) -> None:
        super().feed_eof()
        if self._protocol.body is not None:
            self._protocol.body.end()

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        super().set_exception(exc, exc_cause or exc)
        if self._protocol.body is not None:
            self._protocol.body.end(exc)

    def begin_http_chunk_receiving(self) -> None:
        """Keep no account of where chunks end: nobody asks."""

    end_http_chunk_receiving = begin_http_chunk_receiving


def _told(failure: BaseException) -> BaseException:
    """Return what a failure of the connection is called here."""
    if isinstance(failure, TimeoutError):
        return failure
    if isinstance(failure, (ClientError, OSError, HttpProcessingError)):
        broken = AnswerBrokenError()
        broken.__cause__ = failure
        return broken
    return failure
