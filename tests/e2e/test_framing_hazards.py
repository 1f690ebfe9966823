"""Framing that is enormous, and slow callers in numbers: bounded, and all accounted (H4, H10)."""

from __future__ import annotations

import contextlib
import os
import resource
from typing import TYPE_CHECKING

import pytest
from support.families import CHAT as CHATTING
from support.wire import (
    ASK,
    CHAT,
    OK,
    Caller,
    Exchange,
    RawUpstream,
    always,
    ask,
    request,
    until,
    wired,
)

from gatekeeper.settings import Deadlines

if TYPE_CHECKING:
    from support.gates import Gates
    from support.wire import Wired

CALLS = """
limits:
  - {id: calls, description: C., unit: requests, per: [account], rate: 200/month}
"""
SLOTS = """
limits:
  - {id: slots, description: S., unit: concurrency, per: [account], slots: 400, lease: 1 hour}
"""
CHUNKED = "Transfer-Encoding: chunked"
LONG = b"x" * 1_000_000
EVIL = b"GET /evil HTTP/1.1\r\nHost: evil\r\n\r\n"
CHUNK = b"%x" % len(ASK)


@pytest.mark.parametrize("target", [CHAT, "/plain"])
@pytest.mark.parametrize(
    "body",
    [
        CHUNK + b";" + LONG + b"\r\n" + ASK + b"\r\n0\r\n\r\n",
        CHUNK + b";a=b\r\n" + ASK + b"\r\n0;" + LONG + b"\r\n\r\n",
    ],
    ids=["on a chunk", "on the last"],
)
async def test_h4_chunk_extensions_end_at_the_gate(gates: Gates, target: str, body: bytes) -> None:
    """A megabyte of them is read past and never kept: the upstream gets the body alone."""
    async with wired(gates) as w:
        caller = await w.caller()
        answer = await caller.ask(request("POST", target, CHUNKED) + body)
        assert answer.status == 200
        (received,) = w.upstream.received
        assert len(received) < 1_000
        assert w.upstream.book[0].body == ASK


TRAILERS = {
    "ten thousand": b"A: b\r\n" * 10_000,
    "a long one": b"A: " + LONG + b"\r\n",
    "framing in them": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: evil\r\n",
}


@pytest.mark.parametrize("target", [CHAT, "/plain"])
@pytest.mark.parametrize("trailers", TRAILERS.values(), ids=TRAILERS.keys())
async def test_h4_enormous_trailers_end_the_connection(
    gates: Gates, target: str, trailers: bytes
) -> None:
    """Too many, too long, or such as frame a message: refused, and nothing behind them is read."""
    whole = CHUNK + b"\r\n" + ASK + b"\r\n0\r\n" + trailers + b"\r\n" + EVIL
    async with wired(gates) as w:
        caller = await w.caller()
        answer = await caller.ask(request("POST", target, CHUNKED) + whole)
        assert answer.status == 400
        assert await caller.closed() == b""
        assert b"evil" not in b"".join(map(bytes, w.upstream.received))


WHOLE = CHUNK + b"\r\n" + ASK + b"\r\n0\r\n"


@pytest.mark.parametrize("target", [CHAT, "/plain"])
@pytest.mark.parametrize("pieces", [1, 2, 7])
async def test_h4_a_trailer_is_no_header_of_the_next_request(
    gates: Gates, target: str, pieces: int
) -> None:
    """Behind a proxy that shares connections, the next request may be somebody else's.

    The parser keeps the last trailer for it: a connection ends with a body that has trailers.
    """
    first = request("POST", target, CHUNKED) + WHOLE + b"X-Evil: 1\r\nX-Evil: evil\r\n\r\n"
    async with wired(gates) as w:
        caller = await w.caller()
        size = -(-len(first) // pieces)
        for start in range(0, len(first) - size, size):
            await caller.write_out(first[start : start + size])
        caller.write(first[(pieces - 1) * size :] + ask() + EVIL)
        answer = await caller.answer()
        assert (answer.status, answer.head.one("connection")) == (200, "close")
        assert await caller.closed() == b""
        assert [each.body for each in w.upstream.book] == [ASK]
        assert b"vil" not in b"".join(map(bytes, w.upstream.received))


@pytest.mark.parametrize("before", range(28, 36))
async def test_h4_a_trailer_is_no_header_where_the_pipeline_is_full(
    gates: Gates, before: int
) -> None:
    """The parser stops when enough requests wait, wherever that is, and goes on later."""
    one = request("GET", "/v1/models")
    first = request("POST", "/plain", CHUNKED) + WHOLE + b"X-Evil: 1\r\nX-Evil: evil\r\n\r\n"
    clean = request("POST", "/plain", CHUNKED) + WHOLE + b"\r\n"
    async with wired(gates) as w:
        caller = await w.caller()
        caller.write(one * before + first + clean)
        await caller.closed()
        assert b"vil" not in b"".join(map(bytes, w.upstream.received))


@pytest.mark.parametrize("target", [CHAT, "/plain"])
async def test_h4_what_is_sent_right_behind_a_chunked_body_is_not_read(
    gates: Gates, target: str
) -> None:
    """A pipeline behind chunks is not worth the doubt; requests that wait for answers go on."""
    chunked = request("POST", target, CHUNKED) + WHOLE + b"\r\n"
    async with wired(gates) as w:
        caller = await w.caller()
        for pieces in (1, 7, len(chunked)):
            size = -(-len(chunked) // pieces)
            for start in range(0, len(chunked), size):
                await caller.write_out(chunked[start : start + size])
            assert (await caller.answer()).status == 200
            assert (await caller.ask(ask())).status == 200
        caller.write(ask() + chunked + ask())
        assert (await caller.answer()).status == 200
        assert await caller.closed() == b""
        assert len(w.upstream.book) == 7
        assert w.count("gatekeeper_parser_refusals", "behind_trailers") == 1


async def test_h4_trailers_of_an_upstream_are_no_headers_of_another_answer(gates: Gates) -> None:
    """What comes behind the last chunk of one answer is not told to the caller of the next."""
    wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Evil: 1\r\n\r\n"
    async with wired(gates, RawUpstream(always(wire))) as w:
        for _ in range(3):
            answer = await w.ask(request())
            assert answer.body == b"ok"
            assert answer.head.one("x-evil") is None


async def test_h4_ten_thousand_pipelined_requests(gates: Gates) -> None:
    """Each is judged and answered in its turn; few of them wait at a time, none gets past."""
    async with wired(gates, rules=CALLS) as w:
        caller = await w.caller()
        server = w.gate.app._listeners._servers[0][1]  # type: ignore[union-attr]
        one = request("GET", "/v1/models")
        caller.write(one * 10_000)
        statuses, waiting = [], 0
        for _ in range(10_000):
            statuses.append((await caller.answer()).status)
            (connection,) = server.connections
            waiting = max(waiting, len(connection._messages))
        assert statuses == [200] * 200 + [429] * 9_800
        assert len(w.upstream.book) == 200
        assert waiting < 100
        verdicts = w.gate.app.metrics
        assert verdicts.total("gatekeeper_decisions", "allow") == 200
        assert verdicts.total("gatekeeper_decisions", "rate_limited") == 9_800


async def hang(w: Wired, number: int) -> Caller:
    """Open a connection that stops in one of five phases."""
    caller = await w.caller(receive_buffer_bytes=4_096 if number % 5 == 4 else None)
    whole = ask(body=CHATTING.request(stream=True))
    if number % 5 == 4:  # it asks, and reads no answer
        caller.stop_reading()
        caller.write(whole)
    else:  # nothing; half a head; a head; half a body
        end = whole.index(b"\r\n\r\n") + 4
        caller.write(whole[: (0, end // 2, end, end + 30)[number % 5]])
    return caller


async def test_h10_many_slow_callers_in_every_phase(gates: Gates) -> None:
    """Five hundred of them: good callers go on, and all is let go and settled at its deadline."""
    endless = OK.replace(b"Length: 2", b"Length: 100000000")

    async def flooding(exchange: Exchange) -> None:
        body = await exchange.body()
        await exchange.send(endless if b"stream" in body else OK)
        while b"stream" in body:
            await exchange.send(b"x" * 65_536)

    deadlines = Deadlines(headers_s=3.0, body_s=3.0, write_s=2.0)
    async with wired(gates, RawUpstream(flooding), SLOTS, deadlines=deadlines) as w:
        for number in range(500):
            await hang(w, number)
        good = await w.caller()
        for _ in range(20):
            assert (await good.ask(ask())).status == 200
        server = w.gate.app._listeners._servers[0][1]  # type: ignore[union-attr]
        await until(lambda: w.gate.app.gate.active == 0 and len(server.connections) <= 1)
        parts = w.gate.app.gate._parts
        assert not parts.limiter._open  # type: ignore[attr-defined]
        assert w.count("gatekeeper_parser_refusals", "head_too_slow") == 200


async def test_h10_a_process_without_file_descriptors_recovers(gates: Gates) -> None:
    """While none is left new callers wait; those that are connected are served; then all are."""
    async with wired(gates, RawUpstream(always(OK))) as w:
        good = await w.caller()
        assert (await good.ask(ask())).status == 200  # and the upstream's connection is pooled
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        hogs = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    hogs.append(os.open("/dev/null", os.O_RDONLY))
            assert (await good.ask(ask())).status == 200
        finally:
            for hog in hogs:
                os.close(hog)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert (await w.ask(ask())).status == 200
