"""Frames through the gate: malformed ones, what they cost, backpressure, TLS, and the end."""

from __future__ import annotations

import asyncio
import random
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

import aiohttp
import pytest
import trustme
from support.frames import (
    BINARY,
    HANDSHAKE,
    MORE,
    PING,
    TEXT,
    close,
    frame,
)
from support.gates import SOON_S
from support.realtime import MODEL, PATH, PLENTY, Client, Session, limits, talking
from support.served import served
from support.sockets import EVIL, OTHER, accept, opened, received, switched
from support.wire import Exchange, RawUpstream, read_head, request, until, wired

from gatekeeper.policy.words import GateMode
from gatekeeper.settings import Deadlines, Sizes

if TYPE_CHECKING:
    from pathlib import Path

    from support.gates import Gates

    from gatekeeper.settings import Geoip

MALFORMED = {
    "not masked": (frame(TEXT, b"a", mask=None), 1002),
    "reserved bit": (frame(TEXT, b"a", reserved=4), 1002),
    "reserved opcode": (frame(3, b"a"), 1002),
    "fragmented ping": (frame(PING, fin=False), 1002),
    "long ping": (frame(PING, b"x" * 126), 1002),
    "continues nothing": (frame(MORE, b"a"), 1002),
    "long form": (frame(TEXT, b"a", form=127), 1002),
    "no utf-8": (frame(TEXT, b"\xff"), 1007),
    "bad code": (close(1006), 1002),
    "too big": (frame(BINARY, b"x" * 1_001), 1009),
    "too big in pieces": (frame(BINARY, b"x" * 900, fin=False) + frame(MORE, b"x" * 101), 1009),
}


@pytest.mark.parametrize(("data", "code"), MALFORMED.values(), ids=MALFORMED)
async def test_h8_malformed_frames_of_a_caller(gates: Gates, data: bytes, code: int) -> None:
    """The caller is told its mistake; the upstream gets none of it, and no proper end."""
    async with wired(gates, RawUpstream(accept), sizes=Sizes(max_message_bytes=1_000)) as w:
        caller = await opened(w)
        caller.write(frame(TEXT, b"fine") + data + EVIL)
        said = await caller.closed()
        assert said[:4] == bytes([0x88, 2]) + code.to_bytes(2, "big")
        await until(lambda: w.upstream.open == 0)
        passed = bytes(w.upstream.received[0]).partition(b"\r\n\r\n")[2]
        assert len(passed) == 2 + 4 + 4
        outcome = await w.only_outcome()
        assert outcome["ending"] == "client_broke"


@pytest.mark.parametrize(("data", "code"), MALFORMED.values(), ids=MALFORMED)
async def test_h8_malformed_frames_of_an_upstream(gates: Gates, data: bytes, code: int) -> None:
    """The upstream is told its mistake, the caller that it was the upstream's (1011)."""
    masks = data[1] & 0x80
    unmasked = data if not masks else _unmasked(data)

    async def script(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(switched(exchange.head.one("sec-websocket-key") or ""))
        await exchange.send(frame(TEXT, b"fine", mask=None) + (unmasked if masks else b"\x81\x80"))
        await exchange.gone()

    async with wired(gates, RawUpstream(script), sizes=Sizes(max_message_bytes=1_000)) as w:
        caller = await opened(w)
        said = await caller.closed()
        assert said.startswith(frame(TEXT, b"fine", mask=None))
        assert said[6:10] == b"\x88\x02" + (1011).to_bytes(2, "big")
        outcome = await w.only_outcome()
        assert outcome["ending"] == "upstream_broke"
        told = bytes(w.upstream.received[0]).partition(b"\r\n\r\n")[2]
        assert told[:2] == b"\x88\x82"
        key = told[2:6]
        assert bytes(a ^ b for a, b in zip(told[6:8], key, strict=False)) == code.to_bytes(2, "big")


def _unmasked(data: bytes) -> bytes:
    """Return frames without their masks."""
    out = b""
    while data:
        form = data[1] & 0x7F
        extended = {126: 2, 127: 8}.get(form, 0)
        size = int.from_bytes(data[2 : 2 + extended], "big") if extended else form
        start = 2 + extended + 4
        mask, payload = data[start - 4 : start], data[start : start + size]
        out += data[:1] + bytes([form]) + data[2 : 2 + extended]
        out += bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        data = data[start + size :]
    return out


@pytest.mark.parametrize("seed", range(5))
async def test_h8_any_bytes_behind_a_handshake(gates: Gates, seed: int) -> None:
    """However frames are broken, the gate ends them in order and serves on."""
    chance = random.Random(seed)
    async with wired(gates, RawUpstream(accept), sizes=Sizes(max_message_bytes=10_000)) as w:
        for _ in range(20):
            caller = await opened(w)
            data = bytearray(
                b"".join(
                    frame(chance.choice([TEXT, BINARY, PING, MORE]), chance.randbytes(20))
                    for _ in range(10)
                )
            )
            for _ in range(chance.randrange(4)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            for start in range(0, len(data), step := chance.randrange(1, 60)):
                caller.write(bytes(data[start : start + step]))
            caller.reset()
        answer = await w.ask(request("GET", OTHER, "Connection: close"))
        assert answer.status in {200, 502}
        assert w.count("gatekeeper_internal_errors") == 0
        await until(lambda: not w.gate.app.gate._parts.limiter._open)  # type: ignore[attr-defined]


async def test_h26_each_message_is_a_request(gates: Gates) -> None:
    """A WebSocket of no known family: its handshake and every message count; then 1008."""
    async with wired(gates, RawUpstream(accept), rules=limits(requests=4)) as w:
        caller = await opened(w)
        for text in (b"one", b"two", b"three", b"four", b"five"):
            caller.write(frame(TEXT, text))
        said = await caller.closed()
        assert said[:4] == bytes([0x88, len(said) - 2]) + (1008).to_bytes(2, "big")
        assert b"rate_limit_exceeded" in said
        passed = await received(w, 27)
        assert len(passed) == sum(6 + len(text) for text in (b"one", b"two", b"three")) + 8
        outcome = await w.only_outcome()
        assert outcome["ending"] == "stopped"


async def test_h26_bytes_of_both_ways_count(gates: Gates) -> None:
    """Against the unit `bytes`, heads of frames included; pings are no way around."""

    async def echo(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(switched(exchange.head.one("sec-websocket-key") or ""))
        await exchange.send(frame(BINARY, b"x" * 1_000, mask=None))
        await exchange.gone()

    async with wired(gates, RawUpstream(echo), rules=limits(bytes=100_000)) as w:
        caller = await opened(w)
        assert len(await caller.reader.readexactly(1_004)) == 1_004
        caller.write(frame(PING, b"y" * 100) + frame(TEXT, b"z" * 10) + close(1000))
        await received(w, 106 + 16 + 8)
        await caller.close()
        outcome = await w.only_outcome()
        assert outcome["usage"]["bytes"] == 1_004 + 106 + 16 + 8
        cells = w.gate.app.gate._parts.limiter._cells  # type: ignore[attr-defined]
        await until(lambda: not w.gate.app.gate._parts.limiter._open)  # type: ignore[attr-defined]
        [used] = [cell.used for (key, _), cell in cells.items() if key.endswith(":bytes")]
        assert used == outcome["usage"]["bytes"] * 1_000_000


async def test_h26_an_upstream_cannot_send_more_than_is_left(gates: Gates) -> None:
    """What it sends is charged as it comes; then the caller is told, and the upstream closed."""

    async def flood(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(switched(exchange.head.one("sec-websocket-key") or ""))
        for _ in range(100):
            await exchange.send(frame(BINARY, b"x" * 50_000, mask=None))
        await exchange.gone()

    async with wired(gates, RawUpstream(flood), rules=limits(bytes=400_000)) as w:
        caller = await opened(w)
        said = await caller.closed()
        assert len(said) < 400_000
        assert b"rate_limit_exceeded" in said[-120:]
        outcome = await w.only_outcome()
        assert outcome["usage"]["bytes"] <= 400_000
        assert outcome["ending"] == "stopped"


async def test_backpressure_holds_both_ways(gates: Gates) -> None:
    """A side that does not read stops the other; nothing piles up in the gate."""
    sent = 0

    async def deaf(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(switched(exchange.head.one("sec-websocket-key") or ""))
        exchange.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await exchange.go_on()
        exchange.reader._transport.resume_reading()  # type: ignore[attr-defined]
        await exchange.gone()

    async with wired(gates, RawUpstream(deaf)) as w:
        caller = await opened(w)
        piece = frame(BINARY, b"x" * 100_000)

        async def push() -> None:
            nonlocal sent
            while True:
                caller.write(piece)
                await caller._writer.drain()
                sent += 1

        pushing = asyncio.create_task(push())
        assert w.gate.app._listeners is not None
        [connection] = w.gate.app._listeners._servers[0][1].connections
        await until(lambda: connection._reading_paused)  # the buffers of the upstream are full
        before = sent
        assert before < 400  # 40 MB of loopback buffers at the most
        w.upstream.going.set()
        await until(lambda: sent > before)
        pushing.cancel()


async def test_tls_on_both_sides(gates: Gates, tmp_path: Path) -> None:
    """The upstream's certificate is checked as for calls."""
    ca = trustme.CA()
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost").configure_cert(serving)
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    trusting = {"ca_file": tmp_path / "ca.pem"}
    async with talking(gates, tls=serving, upstream=trusting) as talk:
        client = await talk.connect()
        await client.say("response.create")
        await client.hear_till("response.done")
        await client.socket.close()
    async with talking(gates, tls=serving) as talk:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await talk.connect()
        assert refused.value.status == 502


async def test_tls_in(gates: Gates, tmp_path: Path) -> None:
    """Callers come by TLS; what is said and how it ends is the same."""
    ca = trustme.CA()
    issued = ca.issue_cert("localhost", "127.0.0.1")
    pem = tmp_path / "gate.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(pem))
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    async with talking(gates, listener={"tls": {"certificate": pem, "key": pem}}) as talk:
        address = f"https://127.0.0.1:{talk.gate.app.ports[0]}{PATH}?model={MODEL}"
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(address, headers=talk.gate.headers(), ssl=trusting) as socket,
        ):
            client = Client(socket)
            await client.say("response.create")
            await client.hear_till("response.done")
            await socket.close(code=4000)
        assert (await talk.outcome())["ending"] == "complete"
        assert talk.upstream.sessions[0].closed == 4000


async def test_observed_calls_talk_too(gates: Gates) -> None:
    """In observe mode a limit that has no room refuses nothing."""
    async with talking(gates, rules=limits(requests=1, output_tokens=10), mode="observe") as talk:
        client = await talk.connect()
        for _ in range(3):
            await client.say("response.create")
            await client.hear_till("response.done")
        await client.socket.close()
        await talk.outcome()


async def test_a_bypassed_gate_passes_conversations(gates: Gates) -> None:
    """The kill switch asks no limits."""
    async with talking(gates, rules=limits(requests=1)) as talk:
        snapshot = talk.gate.app.gate.snapshot
        talk.gate.app.gate.snapshot = replace(snapshot, mode=GateMode.BYPASS)
        client = await talk.connect()
        for _ in range(3):
            await client.say("response.create")
            await client.hear_till("response.done")
        await client.socket.close()
        assert (await talk.outcome())["turns"] == 3


async def test_h40_conversations_end_with_the_gate(tmp_path: Path, small_geoip: Geoip) -> None:
    """At SIGTERM a conversation ends at its next pause, with 1012; the process ends with 0."""
    upstream = await RawUpstream(accept).start()
    deadlines = Deadlines(readiness_s=0, drain_s=SOON_S)
    try:
        async with served(tmp_path, small_geoip, upstream.url, deadlines=deadlines) as gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
            writer.write(request("GET", OTHER, *HANDSHAKE))
            assert (await read_head(reader)).status == 101
            gate.terminate()
            async with asyncio.timeout(SOON_S):
                assert await reader.readexactly(4) == b"\x88\x02" + (1012).to_bytes(2, "big")
            writer.write(close(1012))
            assert await gate.ended() == 0
            writer.close()
            assert [each["ending"] for each in gate.outcomes()] == ["restarted"]
    finally:
        await upstream.stop()
    assert upstream.failures == []


async def test_h40_a_turn_under_way_is_let_end(gates: Gates) -> None:
    """The gate waits for the response; what does not end in time is cut with 1012 too."""
    going = asyncio.Event()

    async def script(session: Session) -> None:
        await session.next()
        await session.say("response.created", response={"id": "r1"})
        await going.wait()
        await session.say(
            "response.done", response={"id": "r1", "usage": {"input_tokens": 1, "output_tokens": 2}}
        )
        await session.next()

    for ends in (True, False):
        going.clear()
        async with talking(gates, script, rules=PLENTY) as talk:
            client = await talk.connect()
            await client.say("response.create")
            await client.hear_till("response.created")
            stopping = asyncio.create_task(talk.gate.app.stop(drain_s=SOON_S if ends else 0.05))
            if ends:
                await until(talk.gate.app.gate.leaving.soon.is_set)
                going.set()
                await client.hear_till("response.done")
            assert await client.closed() == 1012
            going.set()
            await stopping
            outcome = await talk.outcome()
            assert outcome["ending"] == "restarted"
            assert outcome["usage"]["estimated"] is not ends


async def test_a_killed_gate_refunds_nothing(tmp_path: Path, small_geoip: Geoip) -> None:
    """Both sides see that it broke off: no close frame, an end of the connection."""
    upstream = await RawUpstream(accept).start()
    try:
        async with served(tmp_path, small_geoip, upstream.url) as gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
            writer.write(request("GET", OTHER, *HANDSHAKE))
            assert (await read_head(reader)).status == 101
            gate.kill()
            assert await reader.read() == b""
            writer.close()
            await until(lambda: upstream.open == 0)
            assert bytes(upstream.received[0]).partition(b"\r\n\r\n")[2] == b""
    finally:
        await upstream.stop()
