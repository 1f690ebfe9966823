"""HTTP as bytes on both sides of a gate: a caller and an upstream that know no HTTP library.

Both do exactly what a test says, malformed things included, and keep what they received unread.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from support.gates import SOON_S, rules_text

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

    from support.gates import Gates, RunningGate

CHAT = "/v1/chat/completions"
ASK = b'{"model":"demo-small","max_tokens":50,"messages":[{"role":"user","content":"hi"}]}'
ASK_STREAM = ASK.replace(b'"max_tokens"', b'"stream":true,"max_tokens"')
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
_NO_BODY = frozenset({204, 304})


class IncompleteError(Exception):
    """A message ended before its end; ``so_far`` is what came of its body."""

    def __init__(self, so_far: bytes) -> None:
        super().__init__(f"ended after {len(so_far)} bytes of body")
        self.so_far = so_far


@dataclass(frozen=True)
class Head:
    """First line and fields of a message, exactly as they came."""

    raw: bytes
    line: str
    fields: list[tuple[str, str]]

    @property
    def status(self) -> int:
        """Status code of an answer."""
        return int(self.line.split(" ")[1])

    @property
    def target(self) -> str:
        """Target of a request."""
        return self.line.split(" ")[1]

    def all(self, name: str) -> list[str]:
        """Return every value of a field."""
        return [value for each, value in self.fields if each.lower() == name.lower()]

    def one(self, name: str) -> str | None:
        """Return the only value of a field, if it is there."""
        found = self.all(name)
        assert len(found) < 2, found
        return found[0] if found else None


@dataclass(frozen=True)
class Message:
    """A whole request or answer."""

    head: Head
    body: bytes
    connection: int = 0
    """Which connection of the upstream it came by."""

    @property
    def status(self) -> int:
        """Status code of an answer."""
        return self.head.status


async def read_head(reader: asyncio.StreamReader) -> Head:
    """Read one head; strict, so that a gate's own mistakes are seen."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        raise IncompleteError(error.partial) from error
    lines = raw[:-4].split(b"\r\n")
    fields = []
    for line in lines[1:]:
        name, colon, value = line.partition(b": ")
        assert colon, line
        assert re.fullmatch(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name), line
        fields.append((name.decode("ascii"), value.decode("utf-8", "surrogateescape")))
    assert b"\n" not in raw.replace(b"\r\n", b""), raw
    return Head(raw, lines[0].decode("ascii"), fields)


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    """Read one chunk of a chunked body, empty at its end."""
    try:
        size = int((await reader.readuntil(b"\r\n"))[:-2], 16)
        data = await reader.readexactly(size + 2)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise IncompleteError(getattr(error, "partial", b"")) from error
    assert data.endswith(b"\r\n")
    return data[:-2]


async def read_chunked(reader: asyncio.StreamReader) -> bytes:
    """Read a whole chunked body."""
    body = b""
    while True:
        try:
            chunk = await read_chunk(reader)
        except IncompleteError as error:
            raise IncompleteError(body + error.so_far) from error
        if not chunk:
            return body
        body += chunk


async def read_sized(reader: asyncio.StreamReader, size: int) -> bytes:
    """Read a body of a known size."""
    body = b""
    while len(body) < size:
        try:
            piece = await reader.read(size - len(body))
        except ConnectionError as error:
            raise IncompleteError(body) from error
        if not piece:
            raise IncompleteError(body)
        body += piece
    return body


class Caller:
    """One connection to a gate."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    @classmethod
    async def connect(
        cls,
        port: int,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        receive_buffer_bytes: int | None = None,
    ) -> Caller:
        """Open a connection."""
        named = None if tls is None else "localhost"
        if receive_buffer_bytes is None:
            return cls(*await asyncio.open_connection(host, port, ssl=tls, server_hostname=named))
        own = socket.socket()
        own.setblocking(False)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        await asyncio.get_running_loop().sock_connect(own, (host, port))
        return cls(*await asyncio.open_connection(sock=own))

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._writer.write(data)

    async def write_out(self, data: bytes) -> None:
        """Send bytes as a piece of their own."""
        self._writer.write(data)
        await self._writer.drain()
        for _ in range(3):  # rounds of the loop in which the gate reads them
            await asyncio.sleep(0)

    async def head(self) -> Head:
        """Read the head of an answer."""
        async with asyncio.timeout(SOON_S):
            return await read_head(self.reader)

    async def answer(self, *, to_head: bool = False) -> Message:
        """Read a whole answer; raises :class:`IncompleteError` when it is cut."""
        async with asyncio.timeout(SOON_S):
            head = await read_head(self.reader)
            if to_head or head.status in _NO_BODY or head.status < 200:
                return Message(head, b"")
            return await self.rest_of(head)

    async def rest_of(self, head: Head) -> Message:
        """Read the body that belongs to a head."""
        async with asyncio.timeout(SOON_S):
            length, coding = head.one("content-length"), head.one("transfer-encoding")
            assert length is None or coding is None, head
            if coding is not None:
                return Message(head, await read_chunked(self.reader))
            if length is not None:
                return Message(head, await read_sized(self.reader, int(length)))
            assert head.one("connection") == "close" or head.line.startswith("HTTP/1.0")
            try:
                return Message(head, await self.reader.read())
            except ConnectionError as error:
                raise IncompleteError(b"") from error

    async def ask(self, data: bytes) -> Message:
        """Send a request and read its answer."""
        self.write(data)
        return await self.answer()

    async def chunk(self) -> bytes:
        """Read one chunk of an answer."""
        async with asyncio.timeout(SOON_S):
            return await read_chunk(self.reader)

    async def closed(self) -> bytes:
        """Wait until the gate closes the connection; return what still came."""
        async with asyncio.timeout(SOON_S):
            rest = b""
            with contextlib.suppress(ConnectionError):
                while piece := await self.reader.read(65_536):
                    rest += piece
            return rest

    async def flood(self, data: bytes) -> None:
        """Send the same again and again, as fast as it is taken."""
        while True:
            self._writer.write(data)
            await self._writer.drain()

    def stop_reading(self) -> None:
        """Read nothing from here on, so that the buffers on the way fill."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    def reset(self) -> None:
        """Close with a reset, as a caller does that dies."""
        reset(self._writer)

    async def close(self) -> None:
        """Close; may be called twice."""
        await _close(self._writer)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with a reset (RFC 9293, 3.10.7.4)."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


class Exchange:
    """One request at the upstream; a script answers it."""

    def __init__(
        self,
        upstream: RawUpstream,
        connection: int,
        head: Head,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.head = head
        self.connection = connection
        self.reader = reader
        self._upstream = upstream
        self._writer = writer

    async def body(self) -> bytes:
        """Read the whole body and enter the request into the book."""
        if self.head.one("transfer-encoding") is not None:
            body = await read_chunked(self.reader)
        else:
            body = await read_sized(self.reader, int(self.head.one("content-length") or 0))
        self._upstream.book.append(Message(self.head, body, self.connection))
        return body

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self._writer.write(data)
        await self._writer.drain()

    async def event(self, text: bytes) -> None:
        """Send one server-sent event as one chunk."""
        data = b"data: " + text + b"\n\n"
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def go_on(self) -> None:
        """Wait for the test's word."""
        await self._upstream.going.wait()

    def reset(self) -> None:
        """Break the connection."""
        reset(self._writer)

    def close(self) -> None:
        """Close the connection in order."""
        self._writer.close()

    async def gone(self) -> None:
        """Wait until the gate lets go of the connection."""
        async with asyncio.timeout(SOON_S):
            with contextlib.suppress(ConnectionError):
                while await self.reader.read(65_536):
                    pass


async def say_ok(exchange: Exchange) -> None:
    """Answer 200."""
    await exchange.body()
    await exchange.send(OK[:-2] if exchange.head.line.startswith("HEAD ") else OK)


def always(answer: bytes, *, then_close: bool = False) -> Callable[[Exchange], Awaitable[None]]:
    """Return a script that sends these bytes."""

    async def script(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(answer)
        if then_close:
            exchange.close()

    return script


SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)


@dataclass
class RawUpstream:
    """An upstream that plays scripts and keeps a book of what reached it."""

    script: Callable[[Exchange], Awaitable[None]] = say_ok
    book: list[Message] = field(default_factory=list)
    received: list[bytearray] = field(default_factory=list)
    """Every byte, by connection."""
    going: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by a test for scripts that wait for its word."""
    port: int = 0
    scheme: str = "http"
    host: str = "127.0.0.1"
    _server: asyncio.Server | None = None
    _tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)
    failures: list[BaseException] = field(default_factory=list)
    """What went wrong in scripts; tests end with none."""

    @property
    def url(self) -> str:
        """Base URL."""
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._tasks)

    @property
    def connections(self) -> int:
        """How many connections were opened."""
        return len(self.received)

    async def start(self, tls: ssl.SSLContext | None = None) -> RawUpstream:
        """Listen on a free port, or on the one it had."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]
        if tls is not None:
            self.scheme, self.host = "https", "localhost"
        return self

    async def stop(self) -> None:
        """Stop listening and break what is open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task, writer in self._tasks.items():
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = writer
        book = bytearray()
        self.received.append(book)
        feed = reader.feed_data

        def note(data: bytes) -> None:
            book.extend(data)
            feed(data)

        reader.feed_data = note  # type: ignore[method-assign]
        try:
            await self._play(len(self.received) - 1, reader, writer)
        except (IncompleteError, ConnectionError, asyncio.CancelledError):
            pass  # the gate hung up, or the test is over
        except Exception as error:  # noqa: BLE001 - told to the test, which must fail
            self.failures.append(error)
        finally:
            del self._tasks[task]
            await _close(writer)

    async def _play(
        self, connection: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while not writer.is_closing():
            head = await read_head(reader)
            await self.script(Exchange(self, connection, head, reader, writer))


def request(
    method: str = "GET",
    target: str = "/v1/models",
    *fields: str,
    body: bytes | None = None,
    key: str | None = "sk-one",
    version: str = "HTTP/1.1",
) -> bytes:
    """Return a well-formed request, apart from what is asked for."""
    lines = [f"{method} {target} {version}", "Host: gate.example"]
    if key is not None:
        lines.append(f"Authorization: Bearer {key}")
    if body is not None and not any(each.lower().startswith("transfer-") for each in fields):
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join([*lines, *fields]) + "\r\n\r\n"
    return head.encode("utf-8", "surrogateescape") + (body or b"")


def ask(*fields: str, body: bytes = ASK, key: str | None = "sk-one") -> bytes:
    """Return a chat completion request."""
    return request("POST", CHAT, "Content-Type: application/json", *fields, body=body, key=key)


@dataclass
class Wired:
    """A gate between bytes and bytes."""

    gate: RunningGate
    upstream: RawUpstream
    callers: list[Caller] = field(default_factory=list)

    async def caller(
        self,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        receive_buffer_bytes: int | None = None,
    ) -> Caller:
        """Open a connection to the gate."""
        port = self.gate.app.ports[0]
        caller = await Caller.connect(port, host, tls, receive_buffer_bytes)
        self.callers.append(caller)
        return caller

    async def ask(self, data: bytes) -> Message:
        """Send one request on a connection of its own."""
        caller = await self.caller()
        return await caller.ask(data)

    def count(self, name: str, *labels: str) -> float:
        """Return a counter of the gate."""
        return self.gate.app.metrics.value(name, *labels)

    async def decision(self, head: Head) -> dict[str, Any]:
        """Return the record of the decision on the call of this answer."""
        return await self.gate.decision(head.one("gatekeeper-decision") or "")

    async def outcome(self, head: Head) -> dict[str, Any]:
        """Return how the call of this answer ended."""
        return await self.gate.outcome(head.one("gatekeeper-decision") or "")

    async def only_outcome(self) -> dict[str, Any]:
        """Wait for the first outcome in the book and return it."""
        async with asyncio.timeout(SOON_S):
            while True:
                found = [each for each in self.gate.book() if each["kind"] == "outcome"]
                if found:
                    assert len(found) == 1
                    return found[0]
                await asyncio.sleep(0.005)


async def until(true: Callable[[], bool]) -> None:
    """Wait for a condition that must come true soon."""
    async with asyncio.timeout(SOON_S):
        while not true():  # noqa: ASYNC110 - what is waited for knows no event
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def wired(
    gates: Gates, upstream: RawUpstream | None = None, rules: str = "", **options: object
) -> AsyncIterator[Wired]:
    """Start a gate with opaque keys before a raw upstream."""
    raw = upstream or RawUpstream()
    if raw.port == 0:
        await raw.start()
    named = {"urls": (raw.url,), **options.pop("upstream_fields", {})}  # type: ignore[dict-item]
    chosen = {"credentials": ("opaque",), "upstream": named, **options}
    gate = await gates(rules=rules_text(rules), **chosen)  # type: ignore[arg-type]
    between = Wired(gate, raw)
    try:
        yield between
    finally:
        for caller in between.callers:
            await caller.close()
        await gate.stop()
        await raw.stop()
    assert raw.failures == []
