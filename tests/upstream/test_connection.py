"""Bodies that flow out of a connection as they come, through real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from multidict import CIMultiDict
from support.gates import SOON_S
from support.wire import SSE_HEAD, Exchange, RawUpstream
from yarl import URL

from gatekeeper.policy.words import Reason
from gatekeeper.settings import Deadlines
from gatekeeper.upstream.client import AnswerBrokenError, Outgoing
from gatekeeper.upstream.pool import PoolClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gatekeeper.upstream.client import Answer
    from gatekeeper.upstream.connection import Body

DONE = b"0\r\n\r\n"


def chunk(piece: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


class Wired:
    """A client before an upstream that plays a script."""

    def __init__(self, client: PoolClient, upstream: RawUpstream) -> None:
        self.client = client
        self.upstream = upstream

    async def answer(self) -> Answer:
        """Ask, and return an answer whose body is still to come."""
        url = URL(self.upstream.url)
        answer = await self.client.send(Outgoing("GET", url, CIMultiDict(), None))
        assert not isinstance(answer, Reason)
        return answer


@contextlib.asynccontextmanager
async def wired(
    script: Callable[[Exchange], Awaitable[None]], idle_s: float = SOON_S
) -> AsyncIterator[Wired]:
    """Start both."""
    upstream = await RawUpstream(script).start()
    client = PoolClient(Deadlines(idle_s=idle_s), max_field_bytes=8_000)
    try:
        async with asyncio.timeout(SOON_S):
            yield Wired(client, upstream)
    finally:
        await client.close()
        await upstream.stop()
    assert upstream.failures == []


async def test_each_piece_is_handed_on_when_it_comes() -> None:
    """The sink has a piece before the next is sent, and the connection is used again."""
    taken: asyncio.Queue[bytes] = asyncio.Queue()

    async def stepped(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(SSE_HEAD)
        for piece in (b"one", b"two"):
            await exchange.send(chunk(piece))
            assert await taken.get() == piece
        await exchange.send(DONE)

    def sink(piece: bytes) -> bool:
        taken.put_nowait(piece)
        return True

    async with wired(stepped) as w:
        for _ in range(2):
            answer = await w.answer()
            assert await answer.pour(sink)
            answer.close()
        assert w.upstream.connections == 1


@pytest.mark.parametrize("piece_bytes", [10, 1_000, 100_000])
async def test_a_full_sink_stops_the_flow_and_loses_nothing(piece_bytes: int) -> None:
    """However often a sink is full, and far beyond what is read ahead, bytes come in order."""
    numbers = b"".join(b"%09d " % number for number in range(60_000))
    pieces = [numbers[start : start + piece_bytes] for start in range(0, len(numbers), piece_bytes)]

    async def flood(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(SSE_HEAD)
        await exchange.send(b"".join(map(chunk, pieces)) + DONE)

    taken: list[bytes] = []

    def sink(piece: bytes) -> bool:
        taken.append(piece)
        return len(taken) % 3 != 0

    async with wired(flood) as w:
        answer = await w.answer()
        while not await answer.pour(sink):
            before = len(taken)
            for _ in range(5):  # rounds in which bytes come that nobody takes
                await asyncio.sleep(0)
            assert len(taken) == before
        answer.close()
        assert b"".join(taken) == numbers


async def test_h10_little_waits_for_a_sink_that_is_full() -> None:
    """An upstream that is faster than the caller is not read without end, nor timed out for it."""
    sent = 0

    async def endless(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.body()
        await exchange.send(SSE_HEAD)
        while True:
            await exchange.send(chunk(b"x" * 10_000))
            sent += 1

    async with wired(endless, idle_s=0.05) as w:
        answer = await w.answer()
        assert not await answer.pour(lambda _: False)
        before = -1
        while sent != before:  # until the upstream cannot send any more
            before = sent
            await asyncio.sleep(0.1)
        assert 0 < len(answer.read_ready()) < 600_000
        assert not await answer.pour(lambda _: False)
        answer.close()


async def test_what_the_sink_raises_is_told_as_it_is() -> None:
    """A caller that is gone is not mistaken for an upstream that broke."""

    async def one(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(SSE_HEAD + chunk(b"one"))
        await exchange.gone()

    def sink(_: bytes) -> bool:
        raise ConnectionResetError("the caller")

    async with wired(one) as w:
        answer = await w.answer()
        with pytest.raises(ConnectionResetError, match="the caller"):
            await answer.pour(sink)
        answer.close()


async def test_h32_what_came_before_a_break_is_handed_on() -> None:
    """All that was received reaches the sink, and then the failure is told."""

    async def breaking(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(SSE_HEAD + chunk(b"one"))
        await exchange.go_on()
        await exchange.send(chunk(b"two"))
        exchange.close()

    async with wired(breaking) as w:
        taken: list[bytes] = []

        def sink(piece: bytes) -> bool:
            taken.append(piece)
            w.upstream.going.set()
            return True

        answer = await w.answer()
        with pytest.raises(AnswerBrokenError):
            await answer.pour(sink)
        answer.close()
        assert taken == [b"one", b"two"]


async def test_h32_a_body_that_falls_silent_times_out() -> None:
    """Silence inside a body ends it with a timeout, not with a wait for ever."""

    async def silent(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(SSE_HEAD + chunk(b"one"))
        await exchange.gone()

    async with wired(silent, idle_s=0.05) as w:
        answer = await w.answer()
        with pytest.raises(TimeoutError):
            await answer.pour(lambda _: True)
        answer.close()


async def test_h25_nothing_is_handed_on_after_a_cancellation() -> None:
    """A call that is over takes no more of its answer, and its connection is closed."""
    taken: list[bytes] = []

    async def endless(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(SSE_HEAD)
        while True:
            await exchange.send(chunk(b"more"))
            await asyncio.sleep(0)

    async with wired(endless) as w:
        answer = await w.answer()
        first = asyncio.Event()

        def sink(piece: bytes) -> bool:
            taken.append(piece)
            first.set()
            return True

        pouring = asyncio.create_task(answer.pour(sink))
        await first.wait()
        pouring.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pouring
        before = len(taken)
        answer.close()
        while w.upstream.open:  # noqa: ASYNC110 - the upstream tells when it was let go
            await asyncio.sleep(0)
        assert len(taken) == before


async def test_h25_a_piece_that_comes_as_the_caller_leaves_is_read_on() -> None:
    """Whoever is cancelled in that turn has not taken it, and it may tell the usage."""

    async def head_only(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(SSE_HEAD)
        await exchange.gone()

    async with wired(head_only) as w:
        answer = await w.answer()
        reading = asyncio.create_task(answer.read_chunk())
        await asyncio.sleep(0)
        body: Body = answer._body  # type: ignore[attr-defined]
        body.came.append(b"usage")
        body.flow()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await answer.read_chunk() == b"usage"
        answer.close()
