"""Slow callers and slow upstreams: each wait has an end, and nobody else feels it (H10)."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest
from support.wire import (
    CHAT,
    OK,
    Exchange,
    IncompleteError,
    RawUpstream,
    always,
    ask,
    request,
    until,
    wired,
)

from gatekeeper.listener.protocol import GateProtocol
from gatekeeper.settings import Deadlines

if TYPE_CHECKING:
    from support.gates import Gates

ONE_SLOT = """
limits:
  - {id: slot, description: S., unit: concurrency, per: [account], slots: 1, lease: 1 hour}
"""
SLOW_HEADS = Deadlines(headers_s=0.2)


@pytest.mark.parametrize("data", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\nX-Half: "])
async def test_h10_a_head_must_end_in_time(gates: Gates, data: bytes) -> None:
    """A silent connection, or half a head, is closed and counted; a good caller goes on."""
    async with wired(gates, deadlines=SLOW_HEADS) as w:
        good = await w.caller()
        assert (await good.ask(ask())).status == 200
        slow = await w.caller()
        slow.write(data)
        assert await slow.closed() == b""
        assert w.count("gatekeeper_parser_refusals", "head_too_slow") == 1
        assert (await good.ask(ask())).status == 200


async def test_h10_dripping_does_not_stop_the_clock(gates: Gates) -> None:
    """A byte now and then does not keep a head alive, on a used connection either."""
    async with wired(gates, deadlines=SLOW_HEADS) as w:
        slow = await w.caller()
        assert (await slow.ask(ask())).status == 200

        async def drip() -> None:
            for byte in b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-Slow: " + b"x" * 10_000:
                slow.write(bytes([byte]))
                await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        assert await slow.closed() == b""
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        assert w.count("gatekeeper_parser_refusals", "head_too_slow") == 1


async def test_h10_the_clock_of_heads_leaves_calls_alone(
    gates: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that comes after its head, and an answer that takes longer, are not cut by it."""

    async def slow(exchange: Exchange) -> None:
        await exchange.body()
        await asyncio.sleep(3 * SLOW_HEADS.headers_s)
        await exchange.send(OK)

    data = ask()
    head = data.index(b"\r\n\r\n") + 4
    async with wired(gates, RawUpstream(slow), deadlines=SLOW_HEADS) as w:
        caller = await w.caller()
        receive = GateProtocol.data_received

        def followed(connection: GateProtocol, received: bytes) -> None:
            receive(connection, received)
            if received == data[:head]:  # so that the body comes while the call is about to begin
                caller.write(data[head:])

        monkeypatch.setattr(GateProtocol, "data_received", followed)
        assert (await caller.ask(data[:head])).status == 200
        assert (await caller.ask(data[:head])).status == 200
        assert w.count("gatekeeper_parser_refusals", "head_too_slow") == 0


async def test_h10_idle_connections_end(gates: Gates) -> None:
    """A kept connection without a call is closed after its time, which nobody counts as a fault."""
    async with wired(gates, deadlines=Deadlines(keepalive_s=0.2)) as w:
        caller = await w.caller()
        assert (await caller.ask(ask())).status == 200
        assert await caller.closed() == b""
        assert "kind=" not in await w.gate.metrics()


@pytest.mark.parametrize("target", [CHAT, "/plain"])
@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
async def test_h10_half_a_body_is_refused(gates: Gates, target: str, framing: str) -> None:
    """A body that stops midway is refused with 408, with no blame on the upstream."""
    deadlines = Deadlines(body_s=0.2)
    async with wired(gates, deadlines=deadlines, rules=ONE_SLOT) as w:
        slow = await w.caller()
        slow.write(request("POST", target, framing) + b"5\r\nhello\r\n")
        answer = await slow.answer()
        assert answer.status == 408
        assert b"request_timeout" in answer.body
        await until(lambda: w.gate.app.gate.active == 0)
        assert w.gate.app.gate._parts.delivery.routes.routes[0].endpoints[0].failures == 0
        assert (await w.ask(ask())).status == 200
        assert len(w.upstream.book) == 1


async def test_h10_a_reader_that_stops_is_cut(gates: Gates) -> None:
    """A caller that reads no more of a large answer loses it; memory stays bounded meanwhile."""
    sent = 0

    async def endless(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.body()
        await exchange.send(OK.replace(b"Length: 2", b"Length: 1000000000"))
        while True:
            await exchange.send(b"x" * 65_536)
            sent += 65_536

    deadlines = Deadlines(write_s=0.3)
    async with wired(gates, RawUpstream(endless), deadlines=deadlines, rules=ONE_SLOT) as w:
        stuck = await w.caller()
        stuck.write(request("GET", "/files/a"))
        stuck.stop_reading()
        await until(lambda: any(each["kind"] == "outcome" for each in w.gate.book()))
        assert (await w.only_outcome())["ending"] == "client_stalled"
        assert sent < 50_000_000
        w.upstream.script = always(OK)
        assert (await w.ask(ask())).status == 200
        await until(lambda: w.gate.app.gate.active == 0)


async def test_h10_a_pipeline_that_nobody_reads_is_cut(
    gates: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refusals pile up only so far before their connection is closed."""
    monkeypatch.setattr("gatekeeper.listener.protocol._AFTER_RELAY_S", 0.0)
    async with wired(gates, deadlines=Deadlines(write_s=0.3)) as w:
        stuck = await w.caller()
        stuck.stop_reading()
        await until(lambda: len(w.gate.app._listeners._servers[0][1].connections) == 1)
        one = request("GET", "/files/" + "x" * 4_000, key=None)
        flood = asyncio.create_task(stuck.flood(one * 50))
        await until(lambda: not w.gate.app._listeners._servers[0][1].connections)
        flood.cancel()
        await asyncio.gather(flood, return_exceptions=True)
        assert w.upstream.connections == 0
        assert (await w.ask(ask())).status == 200


async def test_h10_a_closed_connection_does_not_wait_for_its_reader(
    gates: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of an answer that nobody reads is given up, however little of it is left."""
    monkeypatch.setattr("gatekeeper.listener.protocol._AFTER_RELAY_S", 0.0)
    wire = OK.replace(b"Length: 2", b"Length: 40002") + b"x" * 40_000
    deadlines = Deadlines(write_s=0.3)
    async with wired(gates, RawUpstream(always(wire)), deadlines=deadlines) as w:
        listening, server = w.gate.app._listeners._servers[0]
        listening.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        stuck = await w.caller(receive_buffer_bytes=4_096)
        stuck.stop_reading()
        stuck.write(request("GET", "/files/a", "Connection: close"))
        await until(lambda: len(w.upstream.book) == 1)
        await until(lambda: not server.connections)


async def test_an_upload_that_is_open_when_its_answer_is_late(gates: Gates) -> None:
    """A 504 in the middle of an upload lets go of the body too: nobody reads it twice."""

    async def silent(exchange: Exchange) -> None:
        await exchange.gone()

    async with wired(gates, RawUpstream(silent), deadlines=Deadlines(first_byte_s=0.2)) as w:
        caller = await w.caller()
        caller.write(request("PUT", "/files/a", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n")
        assert (await caller.answer()).status == 504
        await caller.write_out(b"5\r\nhello\r\n0\r\n\r\n")
        assert (await caller.ask(request(key=None))).status == 401
        assert w.count("gatekeeper_internal_errors") == 0


async def test_a_late_head_of_an_answer_is_504(gates: Gates) -> None:
    """An upstream that accepts and says nothing costs its caller a 504, and is let go."""
    gone = asyncio.Event()

    async def silent(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.gone()
        gone.set()

    deadlines = Deadlines(first_byte_s=0.2)
    async with wired(gates, RawUpstream(silent), deadlines=deadlines, rules=ONE_SLOT) as w:
        answer = await w.ask(ask())
        assert answer.status == 504
        assert answer.head.one("x-should-retry") == "true"
        async with asyncio.timeout(1):
            await gone.wait()
        outcome = await w.outcome(answer.head)
        assert outcome["failure"] == "upstream_timeout"
        assert outcome["usage"]["input_tokens"] > 0  # it may have read the prompt
        w.upstream.script = always(OK)
        assert (await w.ask(ask())).status == 200


async def test_h32_half_a_head_of_an_answer_is_504(gates: Gates) -> None:
    """Bytes of a head that never ends do not count as an answer, however they drip."""

    async def dripping(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while True:
            await exchange.send(b"x")
            await asyncio.sleep(0.02)

    deadlines = Deadlines(first_byte_s=0.3)
    async with wired(gates, RawUpstream(dripping), deadlines=deadlines) as w:
        assert (await w.ask(ask())).status == 504


async def test_h32_a_drip_within_the_idle_time_passes(gates: Gates) -> None:
    """An answer may take as long as it likes, as long as it goes on."""

    async def slow(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(OK[:-2].replace(b"Length: 2", b"Length: 20"))
        for _ in range(20):
            await asyncio.sleep(0.03)
            await exchange.send(b"x")

    async with wired(gates, RawUpstream(slow), deadlines=Deadlines(idle_s=0.3)) as w:
        assert (await w.ask(ask())).body == b"x" * 20


async def test_h32_a_silent_answer_of_known_length_is_cut(gates: Gates) -> None:
    """Where no error event can be sent, the missing bytes tell."""

    async def silent(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(OK.replace(b"Length: 2", b"Length: 20"))
        await exchange.gone()

    async with wired(gates, RawUpstream(silent), deadlines=Deadlines(idle_s=0.2)) as w:
        with pytest.raises(IncompleteError):
            await w.ask(ask())
        assert (await w.only_outcome())["ending"] == "upstream_silent"


async def test_an_idle_pooled_connection_is_not_timed_out_as_an_answer(gates: Gates) -> None:
    """The clock of an answer stops with it: the next call on the connection starts afresh."""
    async with wired(gates, deadlines=Deadlines(idle_s=0.1, first_byte_s=0.1)) as w:
        assert (await w.ask(ask())).status == 200
        await asyncio.sleep(0.3)
        assert (await w.ask(ask())).status == 200
        assert w.upstream.connections == 1


async def test_h10_slow_callers_do_not_stop_good_ones(gates: Gates) -> None:
    """Two hundred connections that hang in every phase, and every good call is answered."""
    async with wired(gates) as w:
        for number in range(200):
            slow = await w.caller()
            slow.write(ask()[: number * 2])
        for _ in range(20):
            assert (await w.ask(ask())).status == 200
