"""An endpoint of OpenAI realtime for tests: real sockets, a book of events, turns on demand."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web
from support.gates import SOON_S, rules_text
from support.wire import until

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

    from multidict import CIMultiDict
    from support.gates import Gates, RunningGate

    Script = Callable[["Session"], Awaitable[None]]

PATH = "/v1/realtime"
MODEL = "demo-small"
WORDS = [" cat", " dog", " house", " tree"]
"""One token each."""


def usage(read: int, written: int, **details: Any) -> dict[str, Any]:
    """Return usage as the API words it."""
    return {"input_tokens": read, "output_tokens": written, **details}


@dataclass
class Session:
    """One connection at the endpoint; a script plays it."""

    socket: web.WebSocketResponse
    headers: CIMultiDict[str]
    query: dict[str, str]
    events: list[dict[str, Any]] = field(default_factory=list)
    closed: int | None = None
    """Code with which the gate closed, 1006 when it broke off."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def waiting(self) -> int:
        """How many messages have come that the script has not read."""
        assert self.socket._reader is not None
        return len(self.socket._reader._buffer)

    async def say(self, kind: str, **fields: Any) -> None:
        """Send an event."""
        await self.socket.send_str(json.dumps({"type": kind, **fields}))

    async def next(self) -> dict[str, Any] | None:
        """Return the next event, ``None`` when the connection is over."""
        message = await self.socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            return None
        event: dict[str, Any] = json.loads(message.data)
        self.events.append(event)
        return event

    async def turn(
        self, response_id: str, words: list[str], reported: dict[str, Any] | None
    ) -> None:
        """Play a whole response."""
        await self.say("response.created", response={"id": response_id})
        for word in words:
            await self.say("response.output_text.delta", response_id=response_id, delta=word)
        response = {"id": response_id, "status": "completed", "usage": reported}
        await self.say("response.done", response=response)


async def answer_all(session: Session) -> None:
    """Answer each ``response.create`` with a turn of 10 tokens read and 5 written."""
    count = 0
    await session.say("session.created", session={"model": MODEL})
    while (event := await session.next()) is not None:
        if event["type"] == "response.create":
            count += 1
            await session.turn(f"resp_{count}", [" a"] * 5, usage(10, 5))


@dataclass
class RealtimeUpstream:
    """A running endpoint."""

    script: Script = answer_all
    sessions: list[Session] = field(default_factory=list)
    url: str = ""
    protocols: tuple[str, ...] = ("realtime",)
    failures: list[BaseException] = field(default_factory=list)
    _runner: web.AppRunner | None = None

    async def start(self, tls: ssl.SSLContext | None = None) -> RealtimeUpstream:
        """Listen on a free port."""
        app = web.Application()
        app.router.add_get(PATH, self._serve)
        app.router.add_get("/other", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=tls).start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}" if tls is None else f"https://localhost:{port}"
        return self

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def session(self, number: int = 0) -> Session:
        """Return a connection once it is there."""
        async with asyncio.timeout(SOON_S):
            while len(self.sessions) <= number:  # noqa: ASYNC110 - sockets set no event
                await asyncio.sleep(0.002)
        return self.sessions[number]

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=self.protocols, autoping=True)
        await socket.prepare(request)
        session = Session(socket, request.headers.copy(), dict(request.query))
        self.sessions.append(session)
        try:
            await self.script(session)
            while not socket.closed:
                await socket.receive()
        except (ConnectionError, asyncio.CancelledError):
            pass  # the gate hung up, or the test is over
        except Exception as error:  # noqa: BLE001 - told to the test, which must fail
            self.failures.append(error)
        finally:
            session.closed = socket.close_code
            session.ended.set()
        return socket


@dataclass
class Talking:
    """A gate between a real client and the endpoint."""

    gate: RunningGate
    upstream: RealtimeUpstream

    async def connect(self, path: str = f"{PATH}?model={MODEL}", **options: Any) -> Client:
        """Open a WebSocket through the gate; raises ``WSServerHandshakeError`` when refused."""
        headers = options.pop("headers", None)
        socket = await self.gate.http.ws_connect(
            path, headers=self.gate.headers() if headers is None else headers, **options
        )
        return Client(socket)

    async def outcome(self) -> dict[str, Any]:
        """Wait for the only outcome of a conversation and return it."""
        async with asyncio.timeout(SOON_S):
            while True:
                found = [each for each in self.gate.book() if each["kind"] == "outcome"]
                if found:
                    assert len(found) == 1
                    return found[0]
                await asyncio.sleep(0.005)

    def turns(self) -> list[dict[str, Any]]:
        """Return the turns recorded so far."""
        return [each for each in self.gate.book() if each["kind"] == "turn"]

    def used(self, unit: str) -> float:
        """Return how much of the only limit of a unit is taken."""
        limiter = self.gate.app.gate._parts.limiter
        cells = [
            cell
            for (key, _), cell in limiter._cells.items()  # type: ignore[attr-defined]
            if key.endswith(f":{unit}")
        ]
        assert len(cells) <= 1, cells
        return sum(cell.used for cell in cells) / 1_000_000 if cells else 0.0

    async def settled(self) -> dict[str, Any]:
        """Wait until the only conversation is over and all that it held is settled."""
        outcome = await self.outcome()
        await until(lambda: self.held() == 0)
        return outcome

    def held(self) -> int:
        """Return how many reservations are open."""
        return len(self.gate.app.gate._parts.limiter._open)  # type: ignore[attr-defined]


class Client:
    """A caller: aiohttp's client, which speaks the protocol by the book."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def say(self, kind: str, **fields: Any) -> None:
        """Send an event."""
        await self.socket.send_str(json.dumps({"type": kind, **fields}))

    async def hear(self) -> dict[str, Any]:
        """Return the next event."""
        async with asyncio.timeout(SOON_S):
            event: dict[str, Any] = json.loads((await self.socket.receive()).data)
            return event

    async def hear_till(self, kind: str) -> dict[str, Any]:
        """Return the next event of a kind, past all others."""
        while (event := await self.hear())["type"] != kind:
            pass
        return event

    async def closed(self) -> int | None:
        """Wait for the end, past all events, and return its code."""
        async with asyncio.timeout(SOON_S):
            while True:
                message = await self.socket.receive()
                if message.type is not aiohttp.WSMsgType.TEXT:
                    return self.socket.close_code

    def cut(self) -> None:
        """Break off without a word."""
        transport = self.socket._response.connection.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.abort()


SLOW = "1/month"
"""A rate at which nothing flows back while a test runs."""


def limits(**bursts: int) -> str:
    """Return a section with a limit per unit, that of the account, which hardly flows back."""
    lines = ["limits:"]
    for unit, burst in bursts.items():
        if unit == "concurrency":
            lines.append(
                f"  - {{id: of-{unit}, description: D., unit: {unit}, per: [account], "
                f"slots: {burst}, lease: 10 minutes}}"
            )
            continue
        lines.append(
            f"  - {{id: of-{unit.replace('_', '-')}, description: D., unit: {unit}, "
            f"per: [account], rate: {SLOW}, burst: {burst}}}"
        )
    return "\n".join(lines)


PLENTY = limits(
    requests=1_000,
    input_tokens=1_000_000,
    output_tokens=1_000_000,
    cost=1_000_000,
    bytes=100_000_000,
    concurrency=50,
)


@asynccontextmanager
async def talking(
    gates: Gates,
    script: Script = answer_all,
    rules: str = PLENTY,
    tls: ssl.SSLContext | None = None,
    **options: Any,
) -> AsyncIterator[Talking]:
    """Start a gate before a realtime endpoint."""
    upstream = await RealtimeUpstream(script).start(tls)
    named = {"urls": (upstream.url,), **options.pop("upstream", {})}
    gate = await gates(rules=rules_text(rules), upstream=named, **options)
    try:
        yield Talking(gate, upstream)
    finally:
        await gate.stop()
        await upstream.stop()
    assert upstream.failures == []
