"""What every store of limits must do: the same suite over memory, Valkey and Redis.

The stores run the shipped scripts at a clock of the test's own, see ``support/limits.py``.
"""

from __future__ import annotations

import asyncio
import math
import random
from typing import TYPE_CHECKING

import pytest
from support.limits import IDS, claim, memory_desk, quota, store_desk

from gatekeeper.policy.limits import MICRO
from gatekeeper.policy.model import Usage
from gatekeeper.policy.words import AtEnd, Mode, Unit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.limits import Desk
    from support.valkey import Server

    from gatekeeper.storage.limiter import Reservation


@pytest.fixture(params=["memory", "valkey", "debian_redis"])
async def desk(request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    """Return an empty limiter of each kind."""
    if request.param == "memory":
        yield memory_desk()
        return
    server: Server = request.getfixturevalue(request.param)
    desk = await store_desk(server.address)
    yield desk
    assert desk.line is not None
    desk.line.fail("closed")


async def test_h21_two_thousand_at_once_admit_exactly_the_burst(desk: Desk) -> None:
    """No interleaving of tasks admits one more or one fewer."""
    one = claim(quota(amount=137, period_s=3600))
    at = await desk.turn(0)

    async def ask() -> bool:
        reserved = await desk.limiter.reserve([one], at, 60.0, next(IDS))
        await asyncio.sleep(0)
        return reserved.held is not None

    assert sum(await asyncio.gather(*(ask() for _ in range(2000)))) == 137


async def test_statuses_tell_where_every_quota_stands(desk: Desk) -> None:
    """Admitted: what is left afterwards. Refused: as it stood, and how long to wait."""
    small, large = quota("small", amount=2), quota("large")
    first = await desk.reserve(claim(small, 2), claim(large, 3))
    assert [(s.remaining, s.retry_after_s) for s in first.statuses] == [(0, 0), (7, 0)]
    second = await desk.reserve(claim(small, 1), claim(large, 3))
    assert second.held is None
    assert [(s.remaining, s.retry_after_s) for s in second.statuses] == [(0, 5), (7, 0)]


async def test_what_exceeds_the_burst_waits_for_ever(desk: Desk) -> None:
    """No time mends it."""
    assert (await desk.reserve(claim(units=11))).statuses[0].retry_after_s == math.inf


async def test_no_claims_are_always_admitted(desk: Desk) -> None:
    """A call without limits holds nothing, and may be settled all the same."""
    held = await desk.hold()
    await desk.settle(held)
    assert held.claims == ()


async def test_h22_a_refusal_at_one_level_charges_no_other(desk: Desk) -> None:
    """Either every enforced level is charged, or none is, shadow ones included."""
    chance = random.Random(22)
    for number in range(30):
        asked = [
            (chance.randint(1, 12), chance.random() < 0.5) for _ in range(chance.randint(1, 6))
        ]
        levels = [
            quota(f"r{number}-{n}", mode=Mode.ENFORCE if enforced else Mode.SHADOW)
            for n, (_, enforced) in enumerate(asked)
        ]
        claims = [claim(level, units) for level, (units, _) in zip(levels, asked, strict=True)]
        admitted = (await desk.reserve(*claims)).held is not None
        assert admitted == all(units <= 10 or not enforced for units, enforced in asked)
        for level, (units, _) in zip(levels, asked, strict=True):
            charged = units if admitted and units <= 10 else 0
            assert await desk.left(level) == 10 - charged


async def test_h31_a_shadow_quota_never_stands_in_the_way(desk: Desk) -> None:
    """It is reported as short, and takes no more than it would have if it were enforced."""
    shadow = quota("shadow", amount=1, mode=Mode.SHADOW)
    await desk.hold(claim(shadow), claim())
    reserved = await desk.reserve(claim(shadow), claim())
    assert reserved.held is not None
    assert [c.quota.rule for c in reserved.held.claims] == ["r"]
    assert [s.fits for s in reserved.statuses] == [False, True]
    await desk.cancel(reserved.held)
    assert await desk.left(shadow) == 0


@pytest.mark.parametrize(
    ("unit", "left"),
    [
        (Unit.REQUESTS, 4),
        (Unit.INPUT_TOKENS, 8),
        (Unit.OUTPUT_TOKENS, 1),
        (Unit.COST, 9.5),
    ],
)
async def test_settling_moves_the_worst_case_to_what_was_used(
    desk: Desk, unit: Unit, left: float
) -> None:
    """Refund or debt in tokens and cost; a request stays what it was."""
    of = quota(unit=unit)
    await desk.settle(await desk.hold(claim(of, 6)), Usage(2, 9, 0.5))
    assert await desk.left(of) == left


async def test_overshoot_is_carried_as_debt(desk: Desk) -> None:
    """What was used beyond the burst keeps the bucket shut until it has drained."""
    of = quota(unit=Unit.OUTPUT_TOKENS)
    await desk.settle(await desk.hold(claim(of, 1)), Usage(output_tokens=25))
    (status,) = (await desk.reserve(claim(of, 1))).statuses
    assert (status.remaining, status.retry_after_s) == (0, 16)
    assert (await desk.reserve(claim(of, 1), at=15.9)).held is None
    assert (await desk.reserve(claim(of, 1), at=16)).held is not None


async def test_what_costs_nothing_is_admitted_beside_a_debt_and_settled(desk: Desk) -> None:
    """A zero worst case charges nothing, but usage that turns up is charged."""
    of = quota(unit=Unit.OUTPUT_TOKENS)
    held = await desk.hold(claim(of, 0))
    await desk.settle(held, Usage(output_tokens=30))
    assert await desk.left(of) == 0
    assert (await desk.reserve(claim(of, 0))).held is not None


async def test_settled_once(desk: Desk) -> None:
    """A second settlement or a late cancellation changes nothing."""
    of = quota(unit=Unit.OUTPUT_TOKENS)
    held = await desk.hold(claim(of, 8))
    await desk.settle(held, Usage(output_tokens=5))
    await desk.settle(held, Usage(output_tokens=5))
    await desk.cancel(held)
    assert await desk.left(of) == 5


async def test_cancelling_gives_everything_back(desk: Desk) -> None:
    """Requests too: the call never reached the upstream."""
    requests, slots = quota("r"), quota("s", Unit.CONCURRENCY, amount=2)
    await desk.cancel(await desk.hold(claim(requests), claim(slots)))
    assert (await desk.left(requests), await desk.left(slots)) == (10, 2)


async def test_an_expired_hold_stays_charged(desk: Desk) -> None:
    """It is forgotten: a settlement that comes too late refunds nothing."""
    of = quota(unit=Unit.OUTPUT_TOKENS, period_s=100_000)
    held = await desk.hold(claim(of, 8), hold_s=30)
    await desk.settle(held, at=30)
    assert await desk.left(of, at=30) == pytest.approx(2, abs=0.01)


async def test_a_hold_id_is_used_once(desk: Desk) -> None:
    """Two open holds of one id would free each other's slots."""
    held = await desk.hold(claim())
    with pytest.raises(ValueError, match="hold_id"):
        await desk.limiter.reserve([claim()], await desk.turn(0), 60.0, held.hold_id)


async def test_h29_slots_are_leases(desk: Desk) -> None:
    """A slot that nobody gives back returns when its lease ends."""
    slots = quota(unit=Unit.CONCURRENCY, amount=2, period_s=30)
    await desk.hold(claim(slots))
    await desk.hold(claim(slots), at=10)
    assert (await desk.reserve(claim(slots), at=29.9)).held is None
    await desk.hold(claim(slots), at=30)
    assert (await desk.reserve(claim(slots), at=30)).held is None


async def test_h29_a_slot_is_never_freed_twice(desk: Desk) -> None:
    """Neither settling twice, nor settling after the lease ended, frees another call's slot."""
    slots = quota(unit=Unit.CONCURRENCY, amount=1, period_s=30)
    first = await desk.hold(claim(slots))
    await desk.settle(first)
    second = await desk.hold(claim(slots))
    await desk.settle(first)
    assert await desk.left(slots) == 0
    await desk.hold(claim(slots), at=30)
    await desk.settle(second, at=31)
    assert await desk.left(slots, at=31) == 0


async def test_a_slot_is_freed_even_when_the_hold_has_expired(desk: Desk) -> None:
    """The charge is forgotten, the slot is not: the call has ended."""
    slots = quota(unit=Unit.CONCURRENCY, amount=1, period_s=1000)
    held = await desk.hold(claim(slots), hold_s=5)
    await desk.settle(held, at=10)
    assert await desk.left(slots, at=10) == 1


async def test_h29_the_slots_of_a_killed_worker_come_back(desk: Desk) -> None:
    """Nobody settles them: each returns at the end of its own lease, and once."""
    slots = quota(unit=Unit.CONCURRENCY, amount=3, period_s=30)
    for at in (0, 10, 20):
        await desk.hold(claim(slots), at=at)
    assert [await desk.left(slots, at=at) for at in (29, 30, 40, 50, 90)] == [0, 1, 2, 3, 3]


async def test_h27_a_refill_asked_for_often_loses_no_fraction(desk: Desk) -> None:
    """A steady caller with a burst of one is never refused, at a rate that divides badly."""
    one = claim(quota(amount=7, period_s=60, burst=1))
    every_us = -(-60 * MICRO // 7)
    for number in range(50):
        at = await desk.turn(number * every_us)
        assert (await desk.limiter.reserve([one], at, 60.0, next(IDS))).held is not None
        early = await desk.turn(number * every_us + every_us // 2)
        assert (await desk.limiter.reserve([one], early, 60.0, next(IDS))).held is None


YIELDING = quota("y", Unit.OUTPUT_TOKENS, at_end=AtEnd.STOP)


def granted(held: Reservation | None, rule: str = "y") -> list[float]:
    """Return what a reservation holds of a rule, in units."""
    claims = () if held is None else held.claims
    return [each.amount / MICRO for each in claims if each.quota.rule == rule]


async def test_a_quota_that_yields_grants_what_is_left(desk: Desk) -> None:
    """Less than was asked for, in whole units; settled to what was used; nothing is nothing."""
    first = await desk.hold(claim(YIELDING, 8))
    await desk.settle(first, Usage(output_tokens=7))
    second = await desk.reserve(claim(YIELDING, 400), at=0.5)
    assert granted(second.held) == [3]
    assert [(s.requested, s.remaining, s.retry_after_s) for s in second.statuses] == [(3, 0.5, 0)]
    third = await desk.reserve(claim(YIELDING, 400), at=0.5)
    assert third.held is None
    assert third.statuses[0].requested == 400
    assert (
        third.statuses[0].retry_after_s == 0.5
    )  # until there is one unit, not until there are 400
    assert second.held is not None
    await desk.settle(second.held, Usage(output_tokens=1), at=0.5)
    assert await desk.left(YIELDING, at=0.5) == 2.5


async def test_h22_a_grant_is_not_taken_when_another_level_refuses(desk: Desk) -> None:
    """What yields is charged with all the rest or not at all; cancelled, all of it comes back."""
    slots = quota("slots", Unit.CONCURRENCY, amount=1, period_s=30)
    busy = await desk.hold(claim(slots))
    assert (await desk.reserve(claim(YIELDING, 99), claim(slots))).held is None
    assert await desk.left(YIELDING) == 10
    await desk.settle(busy)
    held = await desk.hold(claim(YIELDING, 99), claim(slots))
    assert granted(held) == [10]
    assert (await desk.left(YIELDING), await desk.left(slots)) == (0, 0)
    await desk.cancel(held)
    assert (await desk.left(YIELDING), await desk.left(slots)) == (10, 1)


async def test_h31_a_shadow_quota_that_yields_takes_what_it_would(desk: Desk) -> None:
    """It grants in its own book, beside an enforced one that has all the room."""
    shadow = quota("y", Unit.OUTPUT_TOKENS, at_end=AtEnd.STOP, mode=Mode.SHADOW)
    wide = quota("w", Unit.OUTPUT_TOKENS, amount=1000)
    held = await desk.hold(claim(shadow, 25), claim(wide, 25))
    assert (granted(held), granted(held, "w")) == ([10], [25])
    await desk.settle(held, Usage(output_tokens=25))
    assert (await desk.left(shadow), await desk.left(wide)) == (0, 975)
    again = await desk.reserve(claim(shadow, 25), claim(wide, 25))
    assert (granted(again.held), granted(again.held, "w")) == ([], [25])


async def test_h21_calls_at_once_share_what_a_quota_yields(desk: Desk) -> None:
    """However many ask at once, no more is granted than there is."""
    at = await desk.turn(0)

    async def ask() -> float:
        reserved = await desk.limiter.reserve([claim(YIELDING, 4)], at, 60.0, next(IDS))
        await asyncio.sleep(0)
        return sum(granted(reserved.held))

    assert sorted(await asyncio.gather(*(ask() for _ in range(50))))[-3:] == [2, 4, 4]


async def test_an_expired_grant_stays_charged(desk: Desk) -> None:
    """What was granted, not what was asked for."""
    slow = quota("y", Unit.OUTPUT_TOKENS, amount=10, period_s=100_000, at_end=AtEnd.STOP)
    held = await desk.hold(claim(slow, 400), hold_s=30)
    await desk.settle(held, at=30)
    assert await desk.left(slow, at=30) == pytest.approx(0, abs=0.01)
    assert await desk.left(slow, at=10_030) == pytest.approx(1, abs=0.01)


async def test_h27_windows_do_not_slip_with_the_calls_in_them(desk: Desk) -> None:
    """Calls that are asked all the time, admitted or not, neither lengthen nor shorten a wait.

    3,244 calls at a rate of 1,803 in a minute: those that fit in all, to the last one.
    """
    of = quota(amount=1_803, period_s=60, burst=1)
    admitted = 0
    for number in range(800):
        at = await desk.turn(number * 18_496)
        reserved = await desk.limiter.reserve([claim(of)], at, 60.0, next(IDS))
        admitted += reserved.held is not None
    # A refused call costs nothing, so each second call, at 37 ms, finds the 33.3 ms over.
    assert admitted == 400


@pytest.mark.parametrize("period_s", [1, 60, 3_600, 86_400])
async def test_h27_a_period_is_in_seconds(desk: Desk, period_s: int) -> None:
    """After its period a bucket is empty, and a thousandth of it changes a thousandth."""
    of = quota(amount=1_000, period_s=period_s)
    await desk.hold(claim(of, 1_000), hold_s=10 * period_s)
    assert await desk.left(of) == 0
    assert await desk.left(of, at=period_s / 1_000) == pytest.approx(1)
    assert await desk.left(of, at=period_s / 2) == pytest.approx(500)
    assert (await desk.reserve(claim(of, 1_000), at=period_s * 0.999)).held is None
    assert (await desk.reserve(claim(of, 1_000), at=period_s)).held is not None


async def test_a_reload_keeps_the_level(desk: Desk) -> None:
    """Other numbers for the same rule find the same bucket; a lowered burst leaves a debt."""
    await desk.hold(claim(quota(amount=10), 8))
    assert await desk.left(quota(amount=20)) == 12
    assert await desk.left(quota(amount=5)) == 0
    assert await desk.left(quota(amount=5), at=8) == 1


async def test_a_tightened_caller_finds_less_room(desk: Desk) -> None:
    """The same bucket, asked with half the burst."""
    await desk.hold(claim(quota(), 4))
    assert await desk.left(quota(tighten=0.5)) == 1


# --- looks


async def test_a_look_tells_what_remains_and_when_the_quota_is_whole(desk: Desk) -> None:
    """In the order of the claims, whatever they ask; a quota that nobody used is whole."""
    used, unused, slots = quota(), quota("u"), quota("s", Unit.CONCURRENCY, amount=3, period_s=30)
    await desk.hold(claim(used, 4), claim(slots))
    assert await desk.look(slots, used, unused) == [(2, 0), (6, 4), (10, 0)]
    assert await desk.look(used, slots, at=3.5) == [(9.5, 0.5), (2, 0)]
    assert await desk.look(used, slots, at=30) == [(10, 0), (3, 0)]


async def test_a_look_tells_of_a_debt_by_its_wait(desk: Desk) -> None:
    """Nothing remains, and until all is there the debt has to drain as well."""
    of = quota(unit=Unit.OUTPUT_TOKENS)
    await desk.settle(await desk.hold(claim(of, 1)), Usage(output_tokens=25))
    assert await desk.look(of) == [(0, 25)]


async def test_a_look_as_a_tightened_caller(desk: Desk) -> None:
    """It sees what a call of its own would meet, and does not slow the bucket down."""
    await desk.hold(claim(quota(), 4))
    assert await desk.look(quota(tighten=0.5)) == [(1, 8)]
    assert await desk.look(quota(), at=4) == [(10, 0)]


async def test_a_look_without_claims(desk: Desk) -> None:
    """There is nothing to tell."""
    assert await desk.look() == []


async def test_h22_looks_take_nothing(desk: Desk) -> None:
    """However many there are, a caller finds its whole burst."""
    of, slots = quota(amount=3), quota("s", Unit.CONCURRENCY, amount=3)
    for _ in range(50):
        assert await desk.look(of, slots) == [(3, 0), (3, 0)]
    for _ in range(3):
        await desk.hold(claim(of), claim(slots))
