"""Limits in the store: to the unit as in memory, at whatever clock, bounded, side by side."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.crc import key_slot
from support.changes import replace
from support.limits import (
    IDS,
    PREFIXES,
    Desk,
    access_to,
    claim,
    memory_desk,
    quota,
    store_desk,
)

from gatekeeper.policy.limits import MAX_DENOMINATOR, MAX_UNITS, MICRO, SATURATION, Claim, Quota
from gatekeeper.policy.model import Moment, Usage
from gatekeeper.policy.words import AtEnd, Mode, Unit
from gatekeeper.storage.limiter_redis import LAYOUT, RedisLimiter, Scripts, scripts
from gatekeeper.storage.store_line import Script, StoreError, dial

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from support.valkey import Server

    from gatekeeper.storage.limiter import Reservation
    from gatekeeper.storage.store_line import StoreLine

AT = Moment(0.0, 0)


@pytest.fixture
async def line(valkey: Server) -> AsyncIterator[StoreLine]:
    """Return a line to Valkey."""
    found = await dial(access_to(valkey.address), 5.0)
    yield found
    found.fail("closed")


@pytest.fixture
async def desk(valkey: Server, line: StoreLine) -> Desk:
    """Return an empty limiter whose clock is the test's."""
    return await store_desk(valkey.address, line=line)


# --- the property: memory and store agree

AMOUNTS = st.one_of(
    st.integers(0, 30 * MICRO), st.integers(0, MAX_UNITS * MICRO), st.just(SATURATION)
)
UNITS = st.one_of(st.integers(1, 30), st.integers(1, MAX_UNITS))
PERIODS = st.one_of(st.integers(1, 60), st.integers(1, MAX_DENOMINATOR))
STEPS_US = st.one_of(
    st.integers(0, 5), st.integers(0, 3 * MICRO), st.integers(0, 86_400 * 365 * MICRO)
)
TOKENS = st.one_of(st.integers(0, 40), st.integers(0, 5_000_000_000))


@st.composite
def quotas(draw: st.DrawFn) -> list[list[Quota]]:
    """Draw up to three rules, each with the quotas of two callers, one tightened."""
    rules = []
    for number in range(draw(st.integers(1, 3))):
        fixed: dict[str, Any] = {
            "amount": draw(UNITS),
            "period_s": draw(PERIODS),
            "burst": draw(UNITS),
            "mode": draw(st.sampled_from(Mode)),
        }
        unit, tighten = draw(st.sampled_from(Unit)), draw(st.floats(0.01, 1.0))
        if unit is Unit.OUTPUT_TOKENS:
            fixed["at_end"] = draw(st.sampled_from(AtEnd))
        rules.append([quota(f"r{number}", unit, tighten=t, **fixed) for t in (1.0, tighten)])
    return rules


@st.composite
def schedules(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """Draw calls, settlements, cancellations and steps of time, in any order."""
    rules, steps = draw(quotas()), []
    for _ in range(draw(st.integers(1, 25))):
        kind = draw(st.sampled_from(["wait", "reserve", "reserve", "look", "settle", "cancel"]))
        if kind == "wait":
            steps.append(("wait", draw(STEPS_US)))
        elif kind in {"reserve", "look"}:
            claims = [
                Claim(draw(st.sampled_from(pair)), draw(st.sampled_from("ab")), draw(AMOUNTS))
                for pair in draw(st.lists(st.sampled_from(rules), unique_by=id))
            ]
            claims = [
                replace(each, amount=MICRO) if each.quota.unit is Unit.CONCURRENCY else each
                for each in claims
            ]
            steps.append((kind, claims, draw(st.sampled_from([0.5, 60.0, 3600.0]))))
        else:
            used = Usage(draw(TOKENS), draw(TOKENS), draw(st.floats(0, 1e10)))
            steps.append((kind, draw(st.integers(0, 30)), used))
    ends = [
        ("reserve", [Claim(q, p, q.burst + MICRO)], 1.0) for r in rules for q in r for p in "ab"
    ]
    return [*steps, *ends]


async def play(
    schedule: list[tuple[Any, ...]], desk: Desk, *, looking: bool = True
) -> tuple[list[Any], list[Any]]:
    """Play a schedule, with or without its looks; return every reservation and every look."""
    held: list[Reservation] = []
    answers: list[Any] = []
    looks: list[Any] = []
    at_us = 0
    for number, (kind, what, more) in enumerate((*step, None)[:3] for step in schedule):
        if kind == "wait":
            at_us += what
            continue
        at = await desk.turn(at_us)
        if kind == "reserve":
            answer = await desk.limiter.reserve(what, at, more, f"hold{number}")
            if answer.held is not None:
                held.append(answer.held)
            answers.append(answer)
        elif kind == "look":
            if looking:
                looks.append(await desk.limiter.look(what, at))
        elif held and kind == "settle":
            await desk.limiter.settle(held[what % len(held)], more, at)
        elif held:
            await desk.limiter.cancel(held[what % len(held)], at)
    return answers, looks


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """Return an event loop for many examples."""
    with asyncio.Runner() as found:
        yield found


def held_to_memory(runner: asyncio.Runner, server: Server) -> None:
    """Let Hypothesis look for a schedule on which memory and store differ."""
    line = runner.run(_dialled(server))

    @settings(max_examples=150, deadline=None)
    @given(schedules())
    def agree(schedule: list[tuple[Any, ...]]) -> None:
        async def all_three() -> list[tuple[list[Any], list[Any]]]:
            desk = await store_desk(server.address, line=line)
            return [
                await play(schedule, memory_desk()),
                await play(schedule, desk),
                await play(schedule, memory_desk(), looking=False),
            ]

        in_memory, in_store, unseen = runner.run(all_three())
        assert in_store == in_memory
        assert unseen[0] == in_memory[0]

    try:
        agree()
    finally:
        line.fail("closed")


async def _dialled(server: Server) -> StoreLine:
    return await dial(access_to(server.address), 5.0)


def test_memory_and_valkey_agree_on_every_schedule(runner: asyncio.Runner, valkey: Server) -> None:
    """The same calls at the same times get the same answers, to the micro-unit, seen or not."""
    held_to_memory(runner, valkey)


def test_memory_and_redis_agree_on_every_schedule(
    runner: asyncio.Runner, debian_redis: Server
) -> None:
    """And so on Debian's Redis, whose Lua writes numbers otherwise."""
    held_to_memory(runner, debian_redis)


# --- the store's clock (H28)


async def test_h28_a_store_clock_that_steps_back_locks_nobody_out(desk: Desk) -> None:
    """After a failover to a server an hour behind, buckets drain on as if nothing had happened."""
    one = claim(quota(amount=1, period_s=10))
    await desk.hold(one)
    desk.stepped_us = -3600 * MICRO
    assert (await desk.reserve(one, at=9)).held is None
    await desk.hold(one, at=10)
    desk.stepped_us = 0  # and when it is set right again, nobody gets an hour for nothing
    assert (await desk.reserve(one, at=19)).held is None
    await desk.hold(one, at=20)


async def test_h28_a_store_clock_that_steps_forward_is_no_free_burst(desk: Desk) -> None:
    """An hour that no caller's monotonic clock has seen did not pass."""
    one = claim(quota(amount=1, period_s=10))
    await desk.hold(one)
    desk.stepped_us = 3600 * MICRO
    assert (await desk.reserve(one, at=9)).held is None
    await desk.hold(one, at=10)
    assert (await desk.reserve(one, at=11)).held is None


@pytest.mark.parametrize("hours", [-1, 1])
async def test_h28_a_look_sees_the_time_of_the_limits(desk: Desk, hours: int) -> None:
    """A store's clock that was set either way is no other to those who look."""
    await desk.hold(claim(quota(), 8))
    desk.stepped_us = hours * 3600 * MICRO
    assert await desk.look(quota()) == [(2, 8)]
    assert await desk.look(quota(), at=5) == [(7, 3)]


async def test_h28_the_first_call_of_a_gate_believes_the_store(desk: Desk, line: StoreLine) -> None:
    """A gate that has just started knows no better: the night that it was down has passed."""
    one = claim(quota(amount=1, period_s=10))
    await desk.hold(one)
    late = RedisLimiter(
        line,
        desk.prefix,
        own=desk.limiter._scripts,  # type: ignore[attr-defined]
        clock_us=lambda: 0,
    )
    await desk.turn(8 * 3600 * MICRO)
    assert (await late.reserve([one], AT, 60.0, next(IDS))).held is not None


# --- what is kept, and how long


async def found(line: StoreLine, prefix: str) -> dict[str, int]:
    """Return every key of a prefix with its remaining life in milliseconds (-1: for ever)."""
    keys = await line.command("KEYS", f"{{{prefix}}}:*")
    start = len(f"{{{prefix}}}:{LAYOUT}:")
    return {key.decode()[start:]: await line.command("PTTL", key) for key in keys}


async def test_h41_every_key_goes_when_it_says_nothing_any_more(line: StoreLine) -> None:
    """A bucket lives until it has drained, a pool until its last lease ends, a hold its time."""
    prefix = next(PREFIXES)
    limiter = RedisLimiter(line, prefix)
    slots = quota("s", Unit.CONCURRENCY, amount=5, period_s=300)
    slow = quota("slow", amount=1, period_s=MAX_DENOMINATOR, burst=MAX_UNITS)
    claims = [claim(quota(), 5), claim(slots), claim(slow, MAX_UNITS)]
    held = (await limiter.reserve(claims, AT, 60.0, "one")).held
    assert held is not None
    lives = await found(line, prefix)
    assert lives.pop("clock") == -1
    assert 5_000 < lives["c:r:requests:a"] <= 6_001
    assert 300_000 < lives["c:s:concurrency:a"] <= 301_001
    assert 60_000 < lives["h:one"] <= 61_001
    assert lives["c:slow:requests:a"] > 86_400_000
    await limiter.cancel(held, AT)
    assert set(await found(line, prefix)) == {"clock"}


async def test_h22_refused_calls_leave_no_trace_in_the_store(line: StoreLine) -> None:
    """A flood of refused calls makes no keys."""
    prefix = next(PREFIXES)
    limiter = RedisLimiter(line, prefix)
    for number in range(50):
        claims = [claim(units=11, partition=str(number)), claim(quota("s"))]
        assert (await limiter.reserve(claims, AT, 60.0, str(number))).held is None
    assert set(await found(line, prefix)) == {"clock"}


async def test_looks_leave_no_trace_in_the_store(line: StoreLine) -> None:
    """Nothing is written: no key is made, none lives longer, not even the clock moves."""
    prefix = next(PREFIXES)
    limiter = RedisLimiter(line, prefix)
    slots = quota("s", Unit.CONCURRENCY)
    await limiter.reserve([claim(quota(), 5), claim(slots)], AT, 60.0, "one")
    keys = sorted(await line.command("KEYS", f"{{{prefix}}}:*"))

    async def dumped() -> list[Any]:
        return [await line.command("DUMP", key) for key in keys]

    before = await dumped()
    for number in range(50):
        claims = [claim(quota()), claim(slots), claim(partition=str(number))]
        assert len(await limiter.look(claims, AT)) == 3
    assert sorted(await line.command("KEYS", f"{{{prefix}}}:*")) == keys
    assert await dumped() == before


async def test_everything_lies_in_one_slot_of_a_cluster(line: StoreLine) -> None:
    """All keys share one hash tag."""
    prefix = next(PREFIXES)
    limiter = RedisLimiter(line, prefix)
    await limiter.reserve([claim(partition="{odd}name")], AT, 60.0, "{hold}")
    keys = await line.command("KEYS", f"{{{prefix}}}:*")
    assert len(keys) == 3
    assert len({key_slot(key) for key in keys}) == 1


# --- rolling upgrades


def revised(text: str) -> str:
    """Return a script as a later release may ship it: it keeps one more field with each bucket."""
    known = "struct.pack('<ddd', used, rest, now) .. rate"
    assert known in text
    return text.replace(known, f"{known}, 'seen', 1") + "\n-- a later release\n"


async def test_scripts_of_two_releases_work_on_the_same_keys(desk: Desk, line: StoreLine) -> None:
    """The level is one, whoever charges; the field that only the newer one knows stays."""
    old = desk.limiter
    shipped: Scripts = old._scripts  # type: ignore[attr-defined]
    newer = Scripts(
        *(Script.of(revised(each.text)) for each in (shipped.reserve, shipped.settle)),
        shipped.beat,
        shipped.look,
    )
    assert newer.reserve.sha != shipped.reserve.sha
    new = RedisLimiter(line, desk.prefix, own=newer, clock_us=lambda: desk.at_us)
    of = quota(unit=Unit.OUTPUT_TOKENS)
    for limiter, left in ((old, 8), (new, 6), (old, 4)):
        answer = await limiter.reserve([claim(of, 2)], await desk.turn(0), 60.0, next(IDS))
        assert answer.statuses[0].remaining == left
    key = f"{{{desk.prefix}}}:{LAYOUT}:c:r:output_tokens:a"
    assert await line.command("HGET", key, "seen") == b"1"
    assert answer.held is not None
    await new.settle(answer.held, Usage(), AT)  # held by one, settled by the other
    assert await desk.left(of) == 6


async def test_scripts_flushed_are_sent_again(line: StoreLine) -> None:
    """A server that forgot the scripts (NOSCRIPT) gets their text in the same call."""
    limiter = RedisLimiter(line, next(PREFIXES))
    of = quota(amount=3)
    for left in (2, 1):
        answer = await limiter.reserve([claim(of)], AT, 60.0, next(IDS))
        assert answer.statuses[0].remaining == pytest.approx(left, abs=0.5)
        await line.command("SCRIPT", "FLUSH")
    assert answer.held is not None
    await limiter.settle(answer.held, Usage(), AT)


def test_the_scripts_are_shipped() -> None:
    """They are data of the package, each with its version in the first line."""
    for script in (scripts().reserve, scripts().settle, scripts().beat, scripts().look):
        assert script.text.startswith("-- Gatekeeper limits, scripts 2")
        assert len(script.sha) == 40


@pytest.mark.parametrize("answer", [None, b"", b"0" * 16 * 5, [1, 2]])
async def test_an_answer_that_is_none_is_a_failure(answer: object) -> None:
    """Whatever a store says, the call is judged, by what its rules declare for a failing one."""

    class Odd:
        def run(self, *_: object) -> asyncio.Future[Any]:
            said = asyncio.get_running_loop().create_future()
            said.set_result(answer)
            return said

    limiter = RedisLimiter(Odd(), "p")
    with pytest.raises(StoreError, match="protocol"):
        await limiter.reserve([claim()], AT, 60.0, "one")
    with pytest.raises(StoreError, match="protocol"):
        await limiter.look([claim()], AT)
