"""WebSocket on the wire: what is taken, what is refused, and what never reaches the other side."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from support.frames import (
    ACCEPT,
    HANDSHAKE,
    TEXT,
    accept_of,
    frame,
)
from support.gates import SOON_S, eventually
from support.realtime import limits
from support.sockets import EVIL, OTHER, accept, received, switched
from support.wire import Exchange, RawUpstream, request, until, wired

from gatekeeper.policy.words import Unit
from gatekeeper.storage.limiter_memory import MemoryLimiter

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.gates import Gates

    from gatekeeper.policy.model import Moment, Usage
    from gatekeeper.storage.limiter import Reservation


async def test_the_handshake(gates: Gates) -> None:
    """Each half has its own key; what is of one connection stays there; ours is beside theirs."""
    async with wired(gates, RawUpstream(accept)) as w:
        caller = await w.caller()
        fields = (
            "Sec-WebSocket-Extensions: permessage-deflate",
            "Sec-WebSocket-Protocol: one, two",
            "X-Mine: kept",
        )
        caller.write(request("GET", f"{OTHER}?a=%2F", *HANDSHAKE, *fields))
        head = await caller.head()
        assert head.status == 101
        assert head.one("sec-websocket-accept") == ACCEPT
        assert head.one("sec-websocket-extensions") is None
        assert head.one("sec-websocket-protocol") is None
        assert head.one("gatekeeper-decision")
        assert head.one("connection") == "upgrade"
        asked = w.upstream.book[0].head
        assert asked.line == f"GET {OTHER}?a=%2F HTTP/1.1"
        assert asked.one("sec-websocket-key") not in {None, HANDSHAKE[2].partition(": ")[2]}
        assert asked.one("sec-websocket-extensions") is None
        assert asked.one("sec-websocket-protocol") == "one, two"
        assert asked.one("authorization") == "Bearer sk-one"
        assert asked.one("x-mine") == "kept"
        assert asked.one("content-length") is None


async def test_headers_of_the_upstream_come_along(gates: Gates) -> None:
    """But those of its connection, and what is not ASCII."""

    async def script(exchange: Exchange) -> None:
        await exchange.body()
        key = exchange.head.one("sec-websocket-key") or ""
        fields = (
            "X-Request-Id: req_1",
            "X-Odd: \udcff",
            "Keep-Alive: 5",
            "Connection: x-hop",
            "X-Hop: 1",
        )
        await exchange.send(switched(key, *fields))
        await exchange.gone()

    async with wired(gates, RawUpstream(script)) as w:
        caller = await w.caller()
        caller.write(request("GET", OTHER, *HANDSHAKE))
        head = await caller.head()
        assert head.status == 101
        assert head.one("x-request-id") == "req_1"
        assert head.all("x-odd") == head.all("keep-alive") == head.all("x-hop") == []


BAD_HANDSHAKES = {
    "no key": (HANDSHAKE[0], HANDSHAKE[1], HANDSHAKE[3]),
    "short key": (HANDSHAKE[0], HANDSHAKE[1], "Sec-WebSocket-Key: x", HANDSHAKE[3]),
    "odd key": (*HANDSHAKE[:2], "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==", HANDSHAKE[3]),
    "two keys": (*HANDSHAKE, HANDSHAKE[2]),
    "old version": (*HANDSHAKE[:3], "Sec-WebSocket-Version: 8"),
    "two versions": (*HANDSHAKE, HANDSHAKE[3]),
    "not nominated": ("Connection: keep-alive", *HANDSHAKE[1:]),
    "two protocols": (HANDSHAKE[0], "Upgrade: websocket, h2c", *HANDSHAKE[2:]),
    "two upgrades": (*HANDSHAKE, "Upgrade: h2c"),
    "h2c too": (*HANDSHAKE, "HTTP2-Settings: AAMAAABkAAQAAP__"),
    "odd subprotocol": (*HANDSHAKE, "Sec-WebSocket-Protocol: a b"),
    "subprotocol twice": (*HANDSHAKE, "Sec-WebSocket-Protocol: a, a"),
    "body": (*HANDSHAKE, "Content-Length: 5"),
    "chunks": (*HANDSHAKE, "Transfer-Encoding: chunked"),
}


@pytest.mark.parametrize("fields", BAD_HANDSHAKES.values(), ids=BAD_HANDSHAKES)
async def test_h8_an_unsound_handshake_is_refused(gates: Gates, fields: tuple[str, ...]) -> None:
    """Nothing goes upstream, the connection ends, and bytes behind it are no calls."""
    async with wired(gates, RawUpstream(accept)) as w:
        caller = await w.caller()
        caller.write(request("GET", OTHER, *fields) + b"hello" + EVIL * 2)
        answer = await caller.answer()
        assert answer.status == 400
        assert await caller.closed() == b""
        assert w.upstream.connections == 0
        assert len([each for each in w.gate.book() if each["kind"] == "decision"]) <= 1


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "DELETE", "OPTIONS"])
async def test_h8_only_get_is_upgraded(gates: Gates, method: str) -> None:
    """RFC 6455, 4.1."""
    async with wired(gates, RawUpstream(accept)) as w:
        caller = await w.caller()
        caller.write(request(method, OTHER, *HANDSHAKE) + EVIL)
        assert (await caller.answer(to_head=method == "HEAD")).status == 400
        assert await caller.closed() == b""
        assert w.upstream.connections == 0


async def test_h8_http_1_0_is_not_upgraded(gates: Gates) -> None:
    """RFC 6455, 4.1."""
    async with wired(gates, RawUpstream(accept)) as w:
        caller = await w.caller()
        caller.write(request("GET", OTHER, *HANDSHAKE, version="HTTP/1.0") + EVIL)
        assert (await caller.answer()).status == 400
        assert w.upstream.connections == 0


async def refuse(exchange: Exchange) -> None:
    """Refuse the upgrade as an ordinary answer."""
    await exchange.body()
    await exchange.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nX-Why: no\r\n\r\nno")


async def test_h8_refused_upstream_then_pipelined_bytes(gates: Gates) -> None:
    """The upstream's own answer comes back, once; what follows the handshake is never a call."""
    async with wired(gates, RawUpstream(refuse)) as w:
        caller = await w.caller()
        caller.write(request("GET", OTHER, *HANDSHAKE) + EVIL * 3)
        answer = await caller.answer()
        assert (answer.status, answer.body, answer.head.one("x-why")) == (403, b"no", "no")
        assert answer.head.one("connection") == "close"
        assert await caller.closed() == b""
        assert len(w.upstream.book) == 1
        assert bytes(w.upstream.received[0]).count(b"evil") == 0
        outcome = await w.only_outcome()
        assert (outcome["status"], outcome["ending"]) == (403, "complete")


async def test_h25_a_refusal_upstream_is_recorded_whenever_its_caller_leaves(
    gates: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it hangs up while the store takes the slot back."""
    asked, going = asyncio.Event(), asyncio.Event()
    settle = MemoryLimiter.settle

    async def slow(self: MemoryLimiter, held: Reservation, used: Usage, at: Moment) -> None:
        if any(claim.quota.unit is Unit.CONCURRENCY for claim in held.claims):
            asked.set()
            await going.wait()
        await settle(self, held, used, at)

    monkeypatch.setattr(MemoryLimiter, "settle", slow)
    limit = (
        "limits: [{id: slots, description: S., unit: concurrency, per: [account], slots: 2,"
        " lease: 60 seconds}]"
    )
    async with wired(gates, RawUpstream(refuse), limit) as w:
        caller = await w.caller()
        caller.write(request("GET", OTHER, *HANDSHAKE))
        await asyncio.wait_for(asked.wait(), SOON_S)
        caller.reset()

        async def gone() -> bool:
            return any(task.cancelling() for task in asyncio.all_tasks())

        await eventually(gone)
        going.set()
        outcome = await w.only_outcome()
        assert outcome["status"] == 403


async def test_h8_refused_by_the_gate_then_pipelined_bytes(gates: Gates) -> None:
    """An ordinary refusal ends the connection too."""
    async with wired(gates, RawUpstream(accept)) as w:
        caller = await w.caller()
        caller.write(request("GET", OTHER, *HANDSHAKE, key=None) + EVIL * 3)
        assert (await caller.answer()).status == 401
        assert await caller.closed() == b""
        assert w.upstream.connections == 0
        assert len(w.gate.book()) <= 1


async def test_h8_a_call_before_the_handshake_is_answered_first(gates: Gates) -> None:
    """Pipelining up to the handshake is HTTP as ever."""

    async def script(exchange: Exchange) -> None:
        if exchange.head.one("upgrade") is not None:
            await accept(exchange)
            return
        await exchange.body()
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with wired(gates, RawUpstream(script)) as w:
        caller = await w.caller()
        caller.write(request() + request("GET", OTHER, *HANDSHAKE) + frame(TEXT, b"early"))
        assert (await caller.answer()).body == b"ok"
        assert (await caller.head()).status == 101
        assert len(await received(w, 11)) == 11  # the same message, masked anew


WRONG_101 = {
    "wrong accept": lambda key: switched("x" + key[1:]),
    "no accept": lambda key: switched(key).replace(b"Sec-WebSocket-Accept", b"X-Accept"),
    "two accepts": lambda key: switched(key, f"Sec-WebSocket-Accept: {accept_of(key)}"),
    "another protocol": lambda key: switched(key).replace(b"websocket", b"h2c"),
    "no upgrade": lambda key: switched(key).replace(b"Upgrade: websocket\r\n", b""),
    "extension": lambda key: switched(key, "Sec-WebSocket-Extensions: permessage-deflate"),
    "subprotocol": lambda key: switched(key, "Sec-WebSocket-Protocol: never-offered"),
}


@pytest.mark.parametrize("answer", WRONG_101.values(), ids=WRONG_101)
async def test_h8_a_101_that_was_not_asked_for(
    gates: Gates, answer: Callable[[str], bytes]
) -> None:
    """Whatever the upstream thinks it agreed on, the caller gets 502 and no tunnel."""

    async def script(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(answer(exchange.head.one("sec-websocket-key") or ""))
        await exchange.gone()

    async with wired(gates, RawUpstream(script)) as w:
        caller = await w.caller()
        caller.write(request("GET", OTHER, *HANDSHAKE) + EVIL)
        refused = await caller.answer()
        assert refused.status == 502
        assert b"upstream_invalid" in refused.body
        assert await caller.closed() == b""
        assert b"evil" not in bytes(w.upstream.received[0])


async def test_an_upstream_that_cannot_be_reached(gates: Gates) -> None:
    """502, nothing is charged, and no slot stays taken."""
    gone = await RawUpstream(accept).start()
    await gone.stop()
    async with wired(gates, gone, rules=limits(requests=1, concurrency=1)) as w:
        for _ in range(2):
            caller = await w.caller()
            caller.write(request("GET", OTHER, *HANDSHAKE))
            assert (await caller.answer()).status == 502


async def test_plain_routes_can_be_refused(gates: Gates) -> None:
    """`plain_http: refuse` holds for WebSockets of no known family."""
    async with wired(gates, RawUpstream(accept), plain_http="refuse") as w:
        caller = await w.caller()
        caller.write(request("GET", OTHER, *HANDSHAKE))
        assert (await caller.answer()).status == 404
        assert w.upstream.connections == 0


async def test_h25_a_caller_that_leaves_during_the_handshake(gates: Gates) -> None:
    """The upstream is let go of, nothing stays held, and the record says so."""

    async def slow(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.gone()

    rules = limits(requests=10, output_tokens=5_000, concurrency=1)
    async with wired(gates, RawUpstream(slow), rules=rules) as w:
        caller = await w.caller()
        caller.write(request("GET", "/v1/realtime?model=demo-small", *HANDSHAKE))
        await until(lambda: bool(w.upstream.book))
        caller.reset()
        outcome = await w.only_outcome()
        assert (outcome["ending"], outcome["usage"]["output_tokens"]) == ("client_gone", 0)
        await until(lambda: w.upstream.open == 0)
        await until(lambda: not w.gate.app.gate._parts.limiter._open)  # type: ignore[attr-defined]
