"""SIGTERM: readiness first, then no new callers, then the calls under way, then the end (H40)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from support.gates import SOON_S
from support.served import served
from support.wire import (
    ASK_STREAM,
    SSE_HEAD,
    Caller,
    Exchange,
    IncompleteError,
    RawUpstream,
    ask,
    until,
    wired,
)

from gatekeeper.settings import Deadlines

if TYPE_CHECKING:
    from pathlib import Path

    from support.gates import Gates

    from gatekeeper.settings import Geoip


async def streaming(exchange: Exchange) -> None:
    """Send an event, and the rest at the test's word."""
    await exchange.body()
    await exchange.send(SSE_HEAD)
    await exchange.event(b'{"choices":[{"index":0,"delta":{"content":"word"}}]}')
    await exchange.go_on()
    await exchange.event(b"[DONE]")
    await exchange.send(b"0\r\n\r\n")


async def refused(port: int) -> bool:
    """Tell whether new connections are refused."""
    try:
        caller = await Caller.connect(port)
    except ConnectionRefusedError:
        return True
    await caller.close()
    return False


async def begin(port: int) -> Caller:
    """Start a stream and read its first event."""
    caller = await Caller.connect(port)
    caller.write(ask(body=ASK_STREAM))
    assert (await caller.head()).status == 200
    assert await caller.chunk()
    return caller


async def test_h40_open_streams_end_before_the_process(tmp_path: Path, small_geoip: Geoip) -> None:
    """Readiness turns red while callers are still served; a stream ends in full; exit code 0."""
    upstream = await RawUpstream(streaming).start()
    deadlines = Deadlines(readiness_s=0.5, drain_s=SOON_S)
    async with served(tmp_path, small_geoip, upstream.url, deadlines=deadlines) as gate:
        assert await gate.ready() == 200
        open_stream, kept = await begin(gate.port), await Caller.connect(gate.port)
        gate.terminate()
        async with asyncio.timeout(SOON_S):
            while await gate.ready() == 200:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
        late = await kept.ask(ask(key=None))  # readiness is red, and callers are still answered
        assert late.status == 401
        assert late.head.one("connection") == "close"
        assert await kept.closed() == b""
        async with asyncio.timeout(SOON_S):
            while not await refused(gate.port):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
        assert await gate.ready() == 503
        upstream.going.set()
        assert await open_stream.chunk() == b"data: [DONE]\n\n"
        assert await open_stream.chunk() == b""
        assert await open_stream.closed() == b""
        assert await gate.ended() == 0
        assert [each["ending"] for each in gate.outcomes()] == ["complete"]
        for caller in (open_stream, kept):
            await caller.close()
    await upstream.stop()


async def test_h40_streams_longer_than_the_drain_are_cut(
    tmp_path: Path, small_geoip: Geoip
) -> None:
    """After `drain_s` what is left is cut, not ended, and recorded; exit code 0."""
    upstream = await RawUpstream(streaming).start()
    deadlines = Deadlines(readiness_s=0, drain_s=0.2)
    async with served(tmp_path, small_geoip, upstream.url, deadlines=deadlines) as gate:
        open_stream, idle = await begin(gate.port), await Caller.connect(gate.port)
        gate.terminate()
        with pytest.raises(IncompleteError):
            await open_stream.chunk()
        assert await idle.closed() == b""
        assert await gate.ended() == 0
        (outcome,) = gate.outcomes()
        assert outcome["ending"] != "complete"
        for caller in (open_stream, idle):
            await caller.close()
    await upstream.stop()


async def test_h40_idle_connections_close_and_busy_ones_do_not(gates: Gates) -> None:
    """At the end of a drain, nobody's call was cut and nobody's idle connection kept."""
    async with wired(gates, RawUpstream(streaming)) as w:
        idle, busy = await w.caller(), await w.caller()
        w.upstream.going.set()
        assert (await idle.ask(ask(body=ASK_STREAM))).status == 200
        w.upstream.going.clear()
        busy.write(ask(body=ASK_STREAM))
        assert (await busy.head()).status == 200
        stopping = asyncio.create_task(w.gate.app.stop(drain_s=SOON_S))
        assert await idle.closed() == b""
        await until(lambda: w.gate.app.gate.active == 1)
        w.upstream.going.set()
        while await busy.chunk():
            pass
        assert await busy.closed() == b""
        await stopping
