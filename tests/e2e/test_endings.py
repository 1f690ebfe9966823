"""Every way an answer can end, and what is charged for it (H23, H25).

Where the upstream reports usage, charged equals reported, to the token; where it cannot, delivered
<= charged <= held, marked as estimated. Whatever happens, nothing stays held.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from support.endings import (
    LIMITS,
    ask,
    check,
    connections,
    head_of,
    held_by,
    outcomes,
    receive,
    send_part,
    settled,
)
from support.families import CHAT, FAMILIES, GIVEN, Family, words_in
from support.gates import SOON_S, Clock
from support.wire import (
    OK,
    Exchange,
    RawUpstream,
    always,
    until,
    wired,
)

if TYPE_CHECKING:
    from support.gates import Gates
    from support.wire import Wired

DRAIN = {"on_disconnect": "drain"}
STREAMED = [(family, stream) for family in FAMILIES for stream in (True, False)]
NAMES = [f"{family.name}-{'stream' if stream else 'document'}" for family, stream in STREAMED]


@pytest.mark.parametrize(("family", "stream"), STREAMED, ids=NAMES)
async def test_h25_a_caller_that_hangs_up_at_any_byte(
    gates: Gates, family: Family, stream: bool
) -> None:
    """After every few bytes of an answer: upstream let go, charged by the laws, nothing held."""
    answer = family.answer(stream=stream)
    cuts = sorted({*range(0, len(answer), 41), len(answer) - 1, len(answer) * stream} - {0})
    so_far: list[int] = []
    gone: list[int] = []

    async def partly(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(head_of(family, stream=stream))
        await send_part(exchange, answer[: so_far[-1]], stream=stream)
        await exchange.gone()
        gone.append(so_far[-1])

    async with wired(gates, RawUpstream(partly), rules=LIMITS, clock=Clock()) as w:
        for cut in cuts:
            so_far.append(cut)
            caller = await w.caller()
            caller.write(ask(family, stream=stream))
            assert (await caller.head()).status == 200
            assert await receive(caller, cut, stream=stream) == answer[:cut]
            caller.reset()
            async with asyncio.timeout(1):
                await until(lambda cut=cut: gone[-1:] == [cut])
        found = await settled(w, len(cuts))
        held = held_by(w)
        for cut, outcome in zip(cuts, found, strict=True):
            assert outcome["ending"] == "client_gone"
            exact = cut >= family.reported_by(stream=stream) - 1 - stream
            check(outcome, held[outcome["id"]], words_in(answer[:cut]), exact)
            told = family.input_by()
            if stream and told is not None and cut >= told:
                assert outcome["usage"]["input_tokens"] == GIVEN


POINTS = ("before the head", "after the head", "first chunk", "mid-event", "last event")


async def cut_at(w: Wired, family: Family, point: str, *, stream: bool = True) -> None:
    """Hang up at one of five points."""
    caller = await w.caller()
    seen = len(w.upstream.book)
    caller.write(ask(family, stream=stream))
    await until(lambda: len(w.upstream.book) == seen + 1)
    if point != "before the head":
        assert (await caller.head()).status == 200
        size = len(bytes_at(family, point, stream=stream))
        await receive(caller, size, stream=stream)
    caller.reset()


def bytes_at(family: Family, point: str, *, stream: bool) -> bytes:
    """Return what has been sent of an answer at one of five points."""
    if point in {"before the head", "after the head"}:
        return b""
    if not stream:
        size = len(family.document)
        return family.document[: {"first chunk": 1, "mid-event": size // 2}.get(point, size - 1)]
    if point == "last event":
        return b"".join(family.events)
    first = family.events[0] if point == "first chunk" else b"".join(family.events[:4])
    return first if point == "first chunk" else first[:-20]


def pausing_at(family: Family, point: str, *, stream: bool) -> RawUpstream:
    """Return an upstream that goes on at the test's word."""

    async def script(exchange: Exchange) -> None:
        await exchange.body()
        sent = bytes_at(family, point, stream=stream)
        if point == "before the head":
            await exchange.go_on()
        await exchange.send(head_of(family, stream=stream))
        await send_part(exchange, sent, stream=stream)
        if point != "before the head":
            await exchange.go_on()
        rest = family.answer(stream=stream)[len(sent) :]
        await send_part(exchange, rest, stream=stream)
        if stream:
            await exchange.send(b"0\r\n\r\n")

    return RawUpstream(script)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize(("family", "stream"), STREAMED, ids=NAMES)
async def test_h25_an_answer_is_read_on_and_charged_to_the_token(
    gates: Gates, family: Family, stream: bool, point: str
) -> None:
    """With `on_disconnect: drain`, whenever the caller leaves: what is reported is charged."""
    upstream = pausing_at(family, point, stream=stream)
    async with wired(gates, upstream, LIMITS, clock=Clock(), upstream_fields=DRAIN) as w:
        await cut_at(w, family, point, stream=stream)
        drains = w.gate.app.gate._parts.delivery.drains
        await until(lambda: w.gate.app.gate.active == 0 and len(drains) == 1)
        assert w.gate.app.gate._parts.limiter._open  # type: ignore[attr-defined]
        upstream.going.set()
        (outcome,) = await settled(w, 1)
        check(outcome, {}, 0, exact=True)
        assert (outcome["ending"], outcome["drained"]) == ("client_gone", "complete")
        assert outcome["status"] == 200
        assert w.count("gatekeeper_drains", "demo", "complete") == 1
        upstream.script = always(OK)
        assert (await w.ask(ask(CHAT, stream=False))).status == 200
        assert upstream.connections == 1  # the answer was read to its end


async def test_h25_an_answer_is_read_on_within_its_bounds(gates: Gates) -> None:
    """Too long or too much: cut, settled to what came, the connection dropped."""
    upstream = pausing_at(CHAT, "first chunk", stream=True)
    short = {**DRAIN, "drain_s": 0.2}
    async with wired(gates, upstream, LIMITS, clock=Clock(), upstream_fields=short) as w:
        await cut_at(w, CHAT, "first chunk")
        (outcome,) = await settled(w, 1)
        assert outcome["drained"] == "cut"
        check(outcome, held_by(w)[outcome["id"]], 0, exact=False)
        assert not connections(w)
        upstream.going.set()
    small = pausing_at(CHAT, "first chunk", stream=True)
    little = {**DRAIN, "drain_bytes": 300}
    async with wired(gates, small, LIMITS, clock=Clock(), upstream_fields=little) as w:
        await cut_at(w, CHAT, "first chunk")
        await until(lambda: len(w.gate.app.gate._parts.delivery.drains) == 1)
        small.going.set()
        (outcome,) = await settled(w, 1)
        assert outcome["drained"] == "cut"


async def test_h25_only_so_many_answers_are_read_on(gates: Gates) -> None:
    """Beyond the bound, a caller's leaving cancels as ever; a slot is kept until the settlement."""
    upstream = pausing_at(CHAT, "first chunk", stream=True)
    one = {**DRAIN, "drains": 1}
    async with wired(gates, upstream, LIMITS, clock=Clock(), upstream_fields=one) as w:
        await cut_at(w, CHAT, "first chunk")
        await until(lambda: len(w.gate.app.gate._parts.delivery.drains) == 1)
        for _ in range(3):
            await cut_at(w, CHAT, "first chunk")
            await until(lambda: w.gate.app.gate.active == 0)
        assert len(connections(w)) == 1
        assert w.count("gatekeeper_drains", "demo", "refused") == 3
        two = [await w.caller() for _ in range(3)]
        for caller in two:
            caller.write(ask(CHAT, stream=True))
        statuses = sorted([(await caller.head()).status for caller in two])
        assert statuses == [200, 200, 429]  # the third slot is the drain's
        upstream.going.set()
        for caller in two:
            await caller.close()
        found = await settled(w, 6)
        assert [each["drained"] for each in found].count("complete") >= 1


async def test_h40_answers_that_are_read_on_end_before_the_process(gates: Gates) -> None:
    """The gate stops only when they are settled, or when its own time is up."""
    upstream = pausing_at(CHAT, "first chunk", stream=True)
    async with wired(gates, upstream, LIMITS, clock=Clock(), upstream_fields=DRAIN) as w:
        await cut_at(w, CHAT, "first chunk")
        drains = w.gate.app.gate._parts.delivery.drains
        await until(lambda: len(drains) == 1)
        stopping = asyncio.create_task(w.gate.app.stop(drain_s=SOON_S))
        await until(lambda: w.gate.app.gate._drained is not None)
        assert not stopping.done()
        upstream.going.set()
        await stopping
        check(outcomes(w)[0], {}, 0, exact=True)
    for point in ("before the head", "first chunk"):
        upstream = pausing_at(CHAT, point, stream=True)
        async with wired(gates, upstream, LIMITS, clock=Clock(), upstream_fields=DRAIN) as w:
            await cut_at(w, CHAT, point)
            await until(lambda w=w: len(w.gate.app.gate._parts.delivery.drains) == 1)
            await w.gate.app.stop(drain_s=0.1)
            (outcome,) = outcomes(w)
            assert (outcome["drained"], outcome["usage"]["estimated"]) == ("cut", True)
            upstream.going.set()
