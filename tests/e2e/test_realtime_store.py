"""Conversations over a shared store: the same books, and nothing refunded by a kill."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from support.gates import eventually, rules_text
from support.realtime import (
    MODEL,
    PATH,
    PLENTY,
    WORDS,
    RealtimeUpstream,
    Session,
    answer_all,
    limits,
    talking,
)
from support.served import Served, served
from support.valkey import Server, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.gates import Gates

    from gatekeeper.settings import Geoip

BURST = 1_000_000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Server]:
    """Return a Valkey of this test alone."""
    async with serving(tmp_path / "valkey") as server:
        yield server


def at(server: Server) -> dict[str, object]:
    """Return the settings of a store; slow machines are waited for."""
    return {"kind": "standalone", "addresses": (server.address,), "deadline_ms": 5_000}


def remaining(decision: dict[str, Any], unit: str) -> float:
    """Return what a decision found left of a unit, once its own claim was held."""
    [status] = [each for each in decision["limits"] if each["unit"] == unit]
    return float(status["remaining"])


async def test_three_books_agree(gates: Gates, store: Server) -> None:
    """Callers, upstream, records and store: of 12 conversations at once, cut at any event."""
    async with talking(gates, answer_all, rules=PLENTY, store=at(store)) as talk:

        async def converse(number: int) -> int:
            client = await talk.connect()
            heard = 0
            for _ in range(3):
                await client.say("response.create")
                if number % 3 == 0 and heard == 2:
                    client.cut()
                    return heard
                await client.hear_till("response.done")
                heard += 1
            await client.socket.close()
            return heard

        heard = await asyncio.gather(*(converse(number) for number in range(12)))

        async def over() -> bool:
            return len([each for each in talk.gate.book() if each["kind"] == "outcome"]) == 12

        await eventually(over)
        outcomes = [each for each in talk.gate.book() if each["kind"] == "outcome"]
        turns = talk.turns()
        for name in ("input_tokens", "output_tokens"):
            assert sum(o["usage"][name] for o in outcomes) == sum(t["usage"][name] for t in turns)
        exact = [turn for turn in turns if not turn["usage"]["estimated"]]
        assert len(exact) >= sum(heard)
        assert all(turn["usage"]["output_tokens"] == 5 for turn in exact)
        after = await talk.connect()
        found = await talk.gate.decision(after.socket._response.headers["Gatekeeper-Decision"])
        for unit, own in (("output_tokens", 1_000), ("input_tokens", 0)):
            used = sum(turn["usage"][unit] for turn in turns)
            assert remaining(found, unit) == BURST - used - own
        assert remaining(found, "concurrency") == 49
        await after.socket.close()


async def _connect(gate: Served, http: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse:
    return await http.ws_connect(
        f"http://127.0.0.1:{gate.port}{PATH}?model={MODEL}",
        headers={"Authorization": "Bearer sk-one"},
    )


async def test_h23_a_killed_gate_refunds_nothing(
    tmp_path: Path, small_geoip: Geoip, store: Server
) -> None:
    """What a turn under way held stays charged; the next gate finds it so."""

    async def script(session: Session) -> None:
        if await session.next() is None:
            return
        await session.say("response.created", response={"id": "r1"})
        for word in WORDS:
            await session.say("response.output_text.delta", response_id="r1", delta=word)
        await session.next()

    upstream = await RealtimeUpstream(script).start()
    rules = rules_text(limits(output_tokens=5_000).replace("[account]", "[everyone]"))
    try:
        async with aiohttp.ClientSession() as http:
            async with served(
                tmp_path / "a", small_geoip, upstream.url, rules=rules, store=at(store)
            ) as gate:
                socket = await _connect(gate, http)
                event = {"type": "response.create", "response": {"max_output_tokens": 700}}
                await socket.send_str(json.dumps(event))
                for _ in range(5):
                    await socket.receive()
                gate.kill()
                await socket.receive()
                assert socket.close_code == 1006
            async with served(
                tmp_path / "b", small_geoip, upstream.url, rules=rules, store=at(store)
            ) as gate:
                socket = await _connect(gate, http)
                await socket.close()
                await eventually(lambda: _has_decision(gate))
                [found] = [each for each in gate.records() if each["kind"] == "decision"]
                left = remaining(found, "output_tokens")
                assert 5_000 - 1_000 - 1_000 <= left <= 5_000 - 1_000 - 700
    finally:
        await upstream.stop()


async def _has_decision(gate: Served) -> bool:
    return any(each["kind"] == "decision" for each in gate.records())
