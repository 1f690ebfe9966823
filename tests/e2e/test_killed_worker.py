"""A worker that dies, and one that is told to go: what it held at a store that outlives it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from redis.asyncio import Redis
from support.families import CHAT, WORDS
from support.gates import eventually, rules_text
from support.served import served
from support.valkey import serving
from support.wire import SSE_HEAD, Caller, Exchange, RawUpstream, request, until

from gatekeeper.settings import Deadlines

if TYPE_CHECKING:
    from pathlib import Path

    from support.valkey import Server

    from gatekeeper.settings import Geoip

RULES = rules_text("""
limits:
  - {id: output, description: O., unit: output_tokens, per: [model], rate: 10000/month}
  - {id: slots, description: S., unit: concurrency, per: [model], slots: 2, lease: 8 seconds}
""")
HELD = 400
PREFIX = "{gatekeeper}:1:"


async def pausing(exchange: Exchange) -> None:
    """Send half of a stream, and the rest at the test's word."""
    await exchange.body()
    await exchange.send(SSE_HEAD)
    half = len(CHAT.events) // 2
    for number, event in enumerate(CHAT.events):
        if number == half:
            await exchange.go_on()
        await exchange.send(b"%x\r\n%b\r\n" % (len(event), event))
    await exchange.send(b"0\r\n\r\n")


async def charged(store: Redis) -> float:
    """Return what the output limit stands at; hardly anything drains during a test."""
    packed = await store.hget(f"{PREFIX}c:output:output_tokens:demo-small", "s")
    return 0.0 if packed is None else round(struct.unpack("<dddddd", packed)[0] / 1_000_000, 1)


async def keys(store: Redis, kind: str) -> list[bytes]:
    """Return the keys of one kind."""
    found: list[bytes] = await store.keys(f"{PREFIX}{kind}:*")
    return found


async def begin(port: int) -> Caller:
    """Start a stream and read its first events."""
    caller = await Caller.connect(port)
    caller.write(request("POST", CHAT.target, body=CHAT.request(stream=True)))
    assert (await caller.head()).status == 200
    assert await caller.chunk()
    return caller


async def status(port: int) -> int:
    """Return what a call gets now."""
    caller = await Caller.connect(port)
    caller.write(request("POST", CHAT.target, body=CHAT.request(stream=True)))
    found = (await caller.head()).status
    await caller.close()
    return found


async def test_h29_a_killed_worker_gives_no_refund_and_keeps_no_slot(
    tmp_path: Path, small_geoip: Geoip
) -> None:
    """Its hold stays charged for good, its slots come back with their leases, to a new worker."""
    upstream = await RawUpstream(pausing).start()
    async with serving(tmp_path / "valkey") as server, Redis(port=server.port) as store:
        options = at(server)
        async with served(
            tmp_path / "one", small_geoip, upstream.url, rules=RULES, **options
        ) as one:
            callers = [await begin(one.port) for _ in range(2)]
            assert await charged(store) == 2 * HELD
            assert len(await keys(store, "h")) == 2
            assert await status(one.port) == 429
            one.kill()
            for caller in callers:
                await caller.closed()
                await caller.close()
        async with served(
            tmp_path / "two", small_geoip, upstream.url, rules=RULES, **options
        ) as two:
            assert await charged(store) == 2 * HELD

            async def free() -> bool:
                return await store.zcard(f"{PREFIX}c:slots:concurrency:demo-small") == 0

            async def expired() -> bool:
                return await keys(store, "h") == []

            await eventually(free)
            await eventually(expired)
            upstream.going.set()
            caller = await begin(two.port)
            while await caller.chunk():
                pass
            await caller.close()

            async def settled() -> bool:
                return await charged(store) == 2 * HELD + len(WORDS)

            await eventually(settled)
            two.terminate()
            assert await two.ended() == 0
        assert one.outcomes() == []
        assert await keys(store, "h") == []
    await upstream.stop()


async def test_h40_an_answer_that_is_read_on_is_settled_before_the_process_ends(
    tmp_path: Path, small_geoip: Geoip
) -> None:
    """SIGTERM waits for it as for a stream that somebody reads; nothing is held afterwards."""
    upstream = await RawUpstream(pausing).start()
    async with serving(tmp_path / "valkey") as server, Redis(port=server.port) as store:
        options = at(server)
        named = {"name": "raw", "urls": (upstream.url,), "on_disconnect": "drain"}
        async with served(
            tmp_path / "one", small_geoip, upstream.url, rules=RULES, upstreams=(named,), **options
        ) as gate:
            caller = await begin(gate.port)
            caller.reset()
            gate.terminate()

            async def leaving() -> bool:
                return await gate.ready() == 503

            await eventually(leaving)
            assert await charged(store) == HELD
            assert len(upstream.book) == 1
            upstream.going.set()
            assert await gate.ended() == 0
            (outcome,) = gate.outcomes()
            assert (outcome["ending"], outcome["drained"]) == ("client_gone", "complete")
            assert outcome["usage"]["output_tokens"] == len(WORDS)
        assert await charged(store) == len(WORDS)
        assert await keys(store, "h") == []
        assert await store.zcard(f"{PREFIX}c:slots:concurrency:demo-small") == 0
    await until(lambda: upstream.open == 0)
    await upstream.stop()


def at(server: Server) -> dict[str, object]:
    """Return settings of a gate with this store, whose holds expire soon."""
    return {
        "store": {"kind": "standalone", "addresses": (server.address,), "deadline_ms": 5_000},
        "deadlines": Deadlines(hold_s=6, readiness_s=0.5, drain_s=10),
    }
