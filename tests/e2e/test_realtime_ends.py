"""How conversations end: codes, cuts, bounds, budgets; charged is delivered to held (H25, H32)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
import pytest
from support.gates import SOON_S
from support.realtime import (
    WORDS,
    Session,
    talking,
)

from gatekeeper.settings import Deadlines, Sizes

if TYPE_CHECKING:
    from support.gates import Gates


async def test_h25_a_caller_that_is_gone_is_charged_what_was_delivered(gates: Gates) -> None:
    """Between delivered and held, marked as estimated; the upstream is let go of at once."""
    told = asyncio.Event()

    async def script(session: Session) -> None:
        await session.next()
        await session.say("response.created", response={"id": "r1"})
        for word in WORDS * 10:
            await session.say("response.output_text.delta", response_id="r1", delta=word)
        told.set()

    async with talking(gates, script) as talk:
        client = await talk.connect()
        await client.say("response.create", response={"instructions": "Speak of cats."})
        for _ in range(41):
            await client.hear()
        client.cut()
        outcome = await talk.settled()
        assert outcome["ending"] == "client_gone"
        used = outcome["usage"]
        assert used["estimated"] is True
        assert 40 <= used["output_tokens"] <= 1_000
        assert 3 <= used["input_tokens"] <= 80
        assert talk.used("output_tokens") == used["output_tokens"]
        assert talk.used("input_tokens") == used["input_tokens"]
        session = talk.upstream.sessions[0]
        await asyncio.wait_for(session.ended.wait(), SOON_S)
        assert session.closed == 1006  # no proper end


@pytest.mark.parametrize("heard", [0, 1, 2, 3, 5, 6])
async def test_h25_gone_at_any_event(gates: Gates, heard: int) -> None:
    """Wherever the caller leaves: nothing stays held; charged is reported, or an estimate."""
    async with talking(gates) as talk:
        client = await talk.connect()
        await client.say("response.create")
        for _ in range(heard):
            await client.hear()
        client.cut()
        outcome = await talk.settled()
        used = outcome["usage"]
        assert talk.used("output_tokens") == used["output_tokens"]
        assert talk.used("input_tokens") == used["input_tokens"]
        assert used["output_tokens"] <= 1_000
        assert talk.used("requests") == 1
        if outcome["turns"] and not used["estimated"]:
            assert (used["input_tokens"], used["output_tokens"]) == (10, 5)


async def test_h32_an_upstream_that_breaks_off_is_no_proper_end(gates: Gates) -> None:
    """The caller is told 1011; what was delivered is charged."""

    async def script(session: Session) -> None:
        await session.next()
        await session.say("response.created", response={"id": "r1"})
        for word in WORDS:
            await session.say("response.output_text.delta", response_id="r1", delta=word)
        assert session.socket._req is not None
        assert session.socket._req.transport is not None
        session.socket._req.transport.abort()

    async with talking(gates, script) as talk:
        client = await talk.connect()
        await client.say("response.create")
        assert await client.closed() == 1011
        outcome = await talk.settled()
        assert outcome["ending"] == "upstream_broke"
        assert 4 <= outcome["usage"]["output_tokens"] <= 1_000
        assert talk.used("output_tokens") == outcome["usage"]["output_tokens"]


@pytest.mark.parametrize("code", [1000, 1001, 1008, 3000, 4321])
async def test_codes_of_a_close_pass_both_ways(gates: Gates, code: int) -> None:
    """Either side's code and reason reach the other."""

    async def closing(session: Session) -> None:
        if await session.next() is not None:
            await session.socket.close(code=code, message=b"enough")

    async with talking(gates, closing) as talk:
        client = await talk.connect()
        await client.say("response.cancel")
        assert await client.closed() == code
        await talk.upstream.sessions[0].ended.wait()
        other = await talk.connect()
        await other.socket.close(code=code, message=b"enough")
        session = await talk.upstream.session(1)
        await asyncio.wait_for(session.ended.wait(), SOON_S)
        assert session.closed == code


async def test_a_close_just_before_hanging_up_is_passed_on(gates: Gates) -> None:
    """A caller that closes and is gone at once ended in order."""
    async with talking(gates) as talk:
        client = await talk.connect()
        writer = client.socket._writer
        await writer.close(4000)
        client.socket._response.close()
        session = await talk.upstream.session()
        await asyncio.wait_for(session.ended.wait(), SOON_S)
        assert session.closed == 4000
        assert (await talk.settled())["ending"] == "complete"


async def test_pings_pass(gates: Gates) -> None:
    """A ping is answered by the other side, not by the gate, and keeps both lines alive."""
    seen: list[bytes] = []

    async def script(session: Session) -> None:
        session.socket._autoping = False
        message = await session.socket.receive()
        seen.append(message.data)
        await session.socket.pong(b"from the upstream")

    async with talking(gates, script) as talk:
        client = await talk.connect(autoping=False)
        await client.socket.ping(b"from the caller")
        message = await client.socket.receive()
        assert (message.type, bytes(message.data)) == (
            aiohttp.WSMsgType.PONG,
            b"from the upstream",
        )
        assert list(map(bytes, seen)) == [b"from the caller"]
        await client.socket.close()


async def test_a_silent_conversation_is_ended(gates: Gates) -> None:
    """Both sides are told; what was held is given back."""
    deadlines = Deadlines(websocket_idle_s=0.05)
    async with talking(gates, deadlines=deadlines) as talk:
        client = await talk.connect()
        assert await client.closed() == 1001
        outcome = await talk.settled()
        assert outcome["ending"] == "timed_out"
        assert outcome["turns"] == 0
        assert (talk.used("requests"), talk.used("output_tokens")) == (1, 0)
        assert talk.upstream.sessions[0].closed == 1001


async def test_a_message_is_bounded(gates: Gates) -> None:
    """Either way: the sender is told 1009, and the other side that it was no proper end."""

    async def script(session: Session) -> None:
        if await session.next() is not None:
            await session.say("x" * 2_000)

    async with talking(gates, script, sizes=Sizes(max_message_bytes=1_000)) as talk:
        client = await talk.connect()
        await client.say("x" * 2_000)
        assert await client.closed() == 1009
        first = talk.upstream.sessions[0]
        await asyncio.wait_for(first.ended.wait(), SOON_S)
        assert first.closed == 1006
        other = await talk.connect()
        await other.say("response.cancel")
        assert await other.closed() == 1011
        second = talk.upstream.sessions[1]
        await asyncio.wait_for(second.ended.wait(), SOON_S)
        assert second.closed == 1009


async def test_a_caller_that_reads_nothing_is_cut(gates: Gates) -> None:
    """Its upstream is held back meanwhile, not read into memory."""

    async def flood(session: Session) -> None:
        await session.next()
        await session.say("response.created", response={"id": "r1"})
        while True:
            await session.say("response.output_text.delta", response_id="r1", delta="x" * 60_000)

    deadlines = Deadlines(write_s=0.2)
    async with talking(gates, flood, deadlines=deadlines) as talk:
        client = await talk.connect()
        await client.say("response.create")
        await client.hear_till("response.created")
        client.socket._response.connection.transport.pause_reading()  # type: ignore[union-attr]
        outcome = await talk.settled()
        assert outcome["ending"] in {"client_stalled", "client_gone"}
        assert talk.used("output_tokens") <= 1_000


YIELDING = """
limits:
  - {id: of-output, description: D., unit: output_tokens, per: [account], rate: 1/month,
     burst: 50, at_end: stop}
"""


async def test_a_budget_ends_a_response_on_its_way(gates: Gates) -> None:
    """Where a rule gives what is left: the response ends there, and its upstream."""

    async def script(session: Session) -> None:
        await session.next()
        await session.say("response.created", response={"id": "r1"})
        for word in WORDS * 50:
            await session.say("response.output_text.delta", response_id="r1", delta=word)

    async with talking(gates, script, rules=YIELDING) as talk:
        client = await talk.connect()
        await client.say("response.create")
        error = await client.hear_till("error")
        assert error["error"]["code"] == "token_limit_exceeded"
        assert await client.closed() == 1008
        outcome = await talk.settled()
        assert talk.used("output_tokens") == outcome["usage"]["output_tokens"] == 50
