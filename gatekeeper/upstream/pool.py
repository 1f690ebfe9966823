"""A lean client on aiohttp's own protocol and C parser: pooled connections, nothing else.

``ClientSession`` does much that a proxy must switch off again (redirects, cookies, codings,
headers of its own, tracing); on the request path that costs more than the rest of the gate.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from aiohttp import ClientError, ClientOSError, SocketTimeoutError
from aiohttp.http import HttpVersion11, StreamWriter
from aiohttp.http_exceptions import HttpProcessingError

from gatekeeper.policy.words import Reason
from gatekeeper.upstream.client import Switched
from gatekeeper.upstream.connection import Connection

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable

    from aiohttp import StreamReader
    from aiohttp.http import RawResponseMessage
    from multidict import CIMultiDictProxy
    from yarl import URL

    from gatekeeper.settings import Deadlines
    from gatekeeper.upstream.client import Answer, Outgoing, Sink
    from gatekeeper.upstream.connection import Body

_IDLE_S: Final = 4.0
"""Below the 5 s after which uvicorn, and so vLLM, closes an idle connection."""
_JOINED_BYTES: Final = 65_536
"""Up to here head and body leave in one write; a larger body is not copied for it."""
_REPEATABLE: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""Methods that may be sent again when a pooled connection turns out closed (RFC 9110, 9.2.2)."""
_WITHOUT_BODY: Final = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
"""Methods from which no server expects a body (RFC 9110, 8.6)."""
_SWITCHING: Final = 101
_OK: Final = 200
_GOODBYE_S: Final = 2.0
"""How long what was written last may take to go out."""
_READ_AHEAD_BYTES: Final = 65_536

_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

_Key = tuple[str, int, "ssl.SSLContext | None"]
_Asked = tuple["RawResponseMessage", "StreamReader", "asyncio.Task[None] | None"]


class PoolClient:
    """Sends requests over pooled connections. Deadlines of reading are timers of the protocol."""

    def __init__(self, deadlines: Deadlines, *, max_field_bytes: int) -> None:
        self._deadlines = deadlines
        self._max_field_bytes = max_field_bytes
        self._idle: dict[_Key, deque[tuple[Connection, float]]] = {}
        self._open: set[Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None

    async def send(self, outgoing: Outgoing) -> Answer | Reason:
        """Send a request and wait for the head of its answer; failures come back as reasons."""
        url = outgoing.url
        tls = outgoing.tls if url.scheme == "https" else None
        key = (url.host or "", url.port or 0, tls)
        connection = self._take(key)
        if connection is not None and outgoing.method in _REPEATABLE:
            again = outgoing.body is None or isinstance(outgoing.body, bytes)
            answer = await self._ask(connection, key, outgoing)
            if answer is not Reason.UPSTREAM_UNREACHABLE or not again:
                return answer
            connection = None  # it was closed while it lay idle
        if connection is None:
            opened = await self._connect(key, secure=url.scheme == "https")
            if isinstance(opened, Reason):
                return opened
            connection = opened
        return await self._ask(connection, key, outgoing)

    async def upgrade(self, outgoing: Outgoing) -> Switched | Answer | Reason:
        """Ask to leave HTTP, on a connection of its own: it never goes back to the pool."""
        url = outgoing.url
        key = (url.host or "", url.port or 0, outgoing.tls)
        connection = await self._connect(key, secure=url.scheme == "https")
        if isinstance(connection, Reason):
            return connection
        asked = await self._exchange(connection, outgoing)
        if isinstance(asked, Reason):
            return asked
        message = asked[0]
        if message.code == _SWITCHING and _clean(message):
            leave, drop = partial(self._leave, connection), partial(self.drop, connection)
            return Switched(connection, message.headers, leave, drop)
        return self._answer(connection, key, *asked)

    async def close(self) -> None:
        """Close every connection."""
        if self._sweep is not None:
            self._sweep.cancel()
        self._idle.clear()
        for connection in list(self._open):
            self.drop(connection)

    def give_back(self, key: _Key, connection: Connection) -> None:
        """Pool a connection whose answer was read to its end."""
        loop = asyncio.get_running_loop()
        self._idle.setdefault(key, deque()).append((connection, loop.time()))
        if self._sweep is None:
            self._sweep = loop.call_later(_IDLE_S, self._close_idle)

    def drop(self, connection: Connection) -> None:
        """Close a connection that cannot be used again."""
        self._open.discard(connection)
        connection.abort()

    def _take(self, key: _Key) -> Connection | None:
        """Return the connection that was used last, if it is still open and fresh enough."""
        idle = self._idle.get(key)
        oldest = asyncio.get_running_loop().time() - _IDLE_S
        while idle:
            connection, since = idle.pop()
            if connection.is_connected() and not connection.should_close and since > oldest:
                return connection
            self.drop(connection)
        return None

    def _close_idle(self) -> None:
        loop = asyncio.get_running_loop()
        oldest = loop.time() - _IDLE_S
        for key, idle in list(self._idle.items()):
            while idle and (idle[0][1] <= oldest or not idle[0][0].is_connected()):
                self.drop(idle.popleft()[0])
            if not idle:
                del self._idle[key]
        self._sweep = loop.call_later(_IDLE_S, self._close_idle) if self._idle else None

    async def _connect(self, key: _Key, *, secure: bool) -> Connection | Reason:
        host, port, tls = key
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._deadlines.connect_s):
                _, connection = await loop.create_connection(
                    lambda: Connection(loop), host, port, ssl=(tls or True) if secure else None
                )
        except (TimeoutError, OSError):  # name, route, refusal and certificate alike
            return Reason.UPSTREAM_UNREACHABLE
        self._open.add(connection)
        return connection

    async def _ask(self, connection: Connection, key: _Key, outgoing: Outgoing) -> Answer | Reason:
        asked = await self._exchange(connection, outgoing)
        return asked if isinstance(asked, Reason) else self._answer(connection, key, *asked)

    async def _exchange(self, connection: Connection, outgoing: Outgoing) -> _Asked | Reason:
        """Send a request and wait for the head of what comes back."""
        sending = None
        # A timer for the whole head: the connection's own would start anew with each byte.
        late = asyncio.get_running_loop().call_later(
            self._deadlines.first_byte_s, connection.set_exception, SocketTimeoutError()
        )
        try:
            sending = self._write(connection, outgoing)
            return *await _read_head(connection), sending
        except BaseException as error:
            if sending is not None:
                sending.cancel()
            self.drop(connection)
            reason = _reason(error)
            if reason is None:
                raise
            return reason
        finally:
            late.cancel()

    def _answer(
        self,
        connection: Connection,
        key: _Key,
        message: RawResponseMessage,
        payload: StreamReader,
        sending: asyncio.Task[None] | None,
    ) -> Answer | Reason:
        connection.read_timeout = self._deadlines.idle_s
        if not payload.is_eof():
            connection.start_timeout()
        done = partial(self._done, key, connection, sending)
        answer = _PoolAnswer(done, message, connection.follow(payload))
        if not _usable(message):
            answer.close()
            return Reason.UPSTREAM_INVALID
        return answer

    def _write(self, connection: Connection, outgoing: Outgoing) -> asyncio.Task[None] | None:
        """Send a request; what streams is sent by a task, whose failure ends the connection."""
        body, transport = outgoing.body, connection.transport
        if transport is None:
            raise ConnectionResetError
        connection.set_response_params(
            skip_payload=outgoing.method == "HEAD",
            read_until_eof=True,
            auto_decompress=False,
            read_bufsize=_READ_AHEAD_BYTES,
            max_line_size=self._max_field_bytes,
            max_field_size=self._max_field_bytes,
        )
        head, sending = _head(outgoing), None
        if isinstance(body, bytes) and len(body) <= _JOINED_BYTES:
            transport.write(head + body)
        else:
            transport.write(head)
            if isinstance(body, bytes):
                transport.write(body)
            elif body is not None:
                chunked = "content-length" not in outgoing.headers
                sending = asyncio.create_task(_send_body(connection, body, chunked=chunked))
        return sending

    def _leave(self, connection: Connection) -> None:
        """Close a connection that left HTTP; what it does not take in time is given up."""
        transport = connection.transport
        if transport is None:
            self.drop(connection)
            return
        self._open.discard(connection)
        asyncio.get_running_loop().call_later(_GOODBYE_S, transport.abort)
        connection.close()

    def _done(
        self,
        key: _Key,
        connection: Connection,
        sending: asyncio.Task[None] | None,
        *,
        reusable: bool,
    ) -> None:
        """Take a connection back, or drop it when anything of its last call is left over."""
        if sending is not None and not sending.done():
            sending.cancel()
            reusable = False
        if reusable and not connection.should_close:
            self.give_back(key, connection)
        else:
            self.drop(connection)


class _PoolAnswer:
    """An answer whose connection goes back to the pool once it was read to its end."""

    __slots__ = ("_body", "_done", "_persistent", "headers", "reason", "status")

    def __init__(self, done: Callable[..., None], message: RawResponseMessage, body: Body) -> None:
        self._done: Callable[..., None] | None = done
        self._body = body
        self._persistent = message.version == HttpVersion11 and not message.should_close
        self.status = message.code
        self.reason: str | None = message.reason
        self.headers: CIMultiDictProxy[str] = message.headers

    def read_ready(self) -> bytes:
        return self._body.take()

    async def pour(self, sink: Sink) -> bool:
        return await self._body.pour(sink)

    async def read_chunk(self) -> bytes:
        pieces: list[bytes] = []

        def keep(piece: bytes) -> bool:
            pieces.append(piece)
            return False

        try:
            await self._body.pour(keep)
        except asyncio.CancelledError:  # perhaps in the turn in which a piece came
            self._body.came[:0] = pieces
            raise
        return b"".join(pieces)

    def close(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(reusable=self._persistent and self._body.read)


def _reason(error: BaseException) -> Reason | None:
    """Tell why there is no answer; ``None`` for what is no failure of the upstream."""
    if isinstance(error, TimeoutError):
        return Reason.UPSTREAM_TIMEOUT
    if isinstance(error, (ClientError, OSError)):
        return Reason.UPSTREAM_UNREACHABLE
    return Reason.UPSTREAM_INVALID if isinstance(error, HttpProcessingError) else None


def _usable(message: RawResponseMessage) -> bool:
    """Tell whether an answer can be passed on; aiohttp reads answers leniently (H32)."""
    return message.code != _SWITCHING and _clean(message)  # nobody asked for a 101


def _clean(message: RawResponseMessage) -> bool:
    return _CONTROL.search(" ".join((message.reason or "", *message.headers.values()))) is None


def _head(outgoing: Outgoing) -> bytes:
    """Serialise a request head; values come from aiohttp's parser or checked settings."""
    url, headers = outgoing.url, outgoing.headers
    lines = [f"{outgoing.method} {url.raw_path_qs} HTTP/1.1\r\nHost: {_authority(url)}\r\n"]
    lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
    if "content-length" not in headers:
        lines.append(_framing(outgoing))
    lines.append("\r\n")
    return "".join(lines).encode("utf-8", "surrogateescape")


def _framing(outgoing: Outgoing) -> str:
    """Return the field that tells where the body ends; without one its bytes would be a request."""
    body = outgoing.body
    if isinstance(body, bytes):
        return f"Content-Length: {len(body)}\r\n"
    if body is not None:
        return "Transfer-Encoding: chunked\r\n"
    return "" if outgoing.method in _WITHOUT_BODY else "Content-Length: 0\r\n"


def _authority(url: URL) -> str:
    return url.raw_authority.rpartition("@")[2]


async def _read_head(connection: Connection) -> tuple[RawResponseMessage, StreamReader]:
    """Wait for a final head, past interim ones."""
    while True:
        message, payload = await connection.read()
        if message.code >= _OK or message.code == _SWITCHING:
            return message, payload


async def _send_body(connection: Connection, body: AsyncIterator[bytes], *, chunked: bool) -> None:
    """Send a body piece by piece; when it fails, the upstream must not take it for whole."""
    writer = StreamWriter(connection, asyncio.get_running_loop())
    if chunked:
        writer.enable_chunking()
    try:
        async for chunk in body:
            await writer.write(chunk)
        await writer.write_eof()
    except Exception as error:  # noqa: BLE001 - whatever stopped it, whoever waits must know
        connection.set_exception(ClientOSError(), error)
        connection.abort()
