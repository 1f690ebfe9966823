"""Limits in memory beyond what every store must do: late calls, bounded memory, any order.

``test_limiter_contract.py`` holds it to the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.limits import IDS, claim, moment, quota

from gatekeeper.policy.limits import MICRO, Claim, Quota
from gatekeeper.policy.model import Moment, Usage
from gatekeeper.policy.words import Mode, Unit
from gatekeeper.storage.limiter_memory import MemoryLimiter

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any, TypeVar

    from gatekeeper.storage.limiter import Reservation, Reserved

    T = TypeVar("T")


def now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits; one that does is a failure."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("it waited")


class Desk:
    """A limiter with the parts that tests leave alone filled in."""

    def __init__(self, max_cells: int = 1000) -> None:
        self.limiter = MemoryLimiter(max_cells, kept_cells=0)

    def reserve(self, *claims: Claim, at: float = 0.0, hold_s: float = 60.0) -> Reserved:
        """Reserve at a number of seconds."""
        return now(self.limiter.reserve(claims, moment(at), hold_s, next(IDS)))

    def hold(self, *claims: Claim, at: float = 0.0, hold_s: float = 60.0) -> Reservation:
        """Reserve what must fit."""
        held = self.reserve(*claims, at=at, hold_s=hold_s).held
        assert held is not None
        return held

    def settle(self, held: Reservation, used: Usage | None = None, at: float = 0.0) -> None:
        """Settle, by default to nothing used."""
        now(self.limiter.settle(held, used or Usage(), moment(at)))

    def cancel(self, held: Reservation, at: float = 0.0) -> None:
        """Give everything back."""
        now(self.limiter.cancel(held, moment(at)))

    def left(self, of: Quota, at: float = 0.0, partition: str = "a") -> float:
        """Return what remains, by asking for more than there can be."""
        impossible = Claim(of, partition, of.burst + MICRO)
        return self.reserve(impossible, at=at).statuses[0].remaining


@pytest.fixture
def desk() -> Desk:
    """Return an empty limiter."""
    return Desk()


@given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=6))
def test_h22_a_refusal_at_one_level_charges_no_other(asked: list[tuple[int, bool]]) -> None:
    """Either every enforced level is charged, or none is, shadow ones included."""
    desk = Desk()
    levels = [
        quota(f"r{n}", mode=Mode.ENFORCE if enforced else Mode.SHADOW)
        for n, (_, enforced) in enumerate(asked)
    ]
    claims = [claim(level, units) for level, (units, _) in zip(levels, asked, strict=True)]
    admitted = desk.reserve(*claims).held is not None
    assert admitted == all(units <= 10 or not enforced for units, enforced in asked)
    for level, (units, _) in zip(levels, asked, strict=True):
        charged = units if admitted and units <= 10 else 0
        assert desk.left(level) == 10 - charged


def test_h22_refused_calls_leave_no_trace_in_memory(desk: Desk) -> None:
    """A flood of refused calls makes no buckets."""
    for number in range(100):
        desk.reserve(claim(units=11, partition=str(number)), claim(quota("s")))
    assert len(desk.limiter) == 0


def test_looks_leave_no_trace_in_memory(desk: Desk) -> None:
    """No bucket is made, and calls that read the clock earlier find it where it was."""
    desk.hold(claim(units=8))
    for number in range(100):
        claims = [claim(), claim(partition=str(number))]
        (seen, _) = now(desk.limiter.look(claims, moment(5)))
        assert (seen.remaining, seen.retry_after_s) == (7, 3)
    assert len(desk.limiter) == 1
    assert desk.left(quota(), at=1) == 3


def test_h41_a_look_at_the_cap_sees_the_bucket_that_a_call_would_get() -> None:
    """Partitions that share an overflow bucket are told of that one."""
    desk = Desk(max_cells=1)
    desk.hold(claim(units=1))
    desk.hold(claim(units=4, partition="late"))
    (status,) = now(desk.limiter.look([claim(partition="later")], moment(0)))
    assert status.remaining == 6
    assert desk.limiter.overflowed == 1


def test_what_costs_nothing_is_admitted_beside_a_debt_and_settled(desk: Desk) -> None:
    """A zero worst case makes no bucket, but usage that turns up is charged."""
    of = quota(unit=Unit.OUTPUT_TOKENS)
    held = desk.hold(claim(of, 0))
    assert len(desk.limiter) == 0
    desk.settle(held, Usage(output_tokens=30))
    assert desk.left(of) == 0
    assert desk.reserve(claim(of, 0)).held is not None


def test_a_settlement_after_the_bucket_was_dropped_refunds_nothing(desk: Desk) -> None:
    """A bucket that drained and went is as full as can be."""
    held = desk.hold(claim(quota(unit=Unit.COST), 5))
    desk.hold(claim(quota("other"), 1), at=20)
    assert len(desk.limiter) == 1
    desk.settle(held, at=20)
    assert len(desk.limiter) == 1


def test_h28_steps_of_the_wall_clock_change_nothing(desk: Desk) -> None:
    """An hour either way is neither a free burst nor a lock-out."""
    one = claim(quota(amount=1, period_s=10))
    desk.hold(one)
    for step_s in (-3600.0, 3600.0):
        at = Moment(step_s, 0)
        assert now(desk.limiter.reserve([one], at, 60.0, next(IDS))).held is None
    at = Moment(-3600.0, 10 * MICRO)
    assert now(desk.limiter.reserve([one], at, 60.0, next(IDS))).held is not None


def test_h28_late_calls_do_not_turn_the_clock_back(desk: Desk) -> None:
    """Calls read the clock before a slow body: interleaved with fast ones they refill nothing."""
    one = claim(quota(amount=1, period_s=60))
    desk.hold(one, at=100)
    for _ in range(10):
        assert desk.reserve(one, at=41).held is None
        assert desk.reserve(one, at=100).held is None


# --- bounded memory


def test_h41_any_number_of_keys_is_bounded() -> None:
    """Drained buckets go as new ones come: what is kept is what still matters.

    ``bench/limiter.py`` does the same with a million.
    """
    desk = Desk(max_cells=5_000)
    of = quota(amount=100, period_s=1)
    most = 0
    for number in range(20_000):
        desk.hold(claim(of, partition=str(number)), at=number / 10_000, hold_s=0.01)
        most = max(most, len(desk.limiter))
    assert most <= 500
    assert desk.limiter.overflowed == 0
    assert len(desk.limiter._open) <= 200


def test_h41_at_the_cap_new_partitions_share_one_bucket() -> None:
    """A used-up bucket is never forgotten, memory does not grow, and a flood gets one quota."""
    desk = Desk(max_cells=10)
    of = quota(amount=3, period_s=1000)
    for number in range(10):
        desk.hold(claim(of, 3, partition=f"known{number}"))
    flood = [desk.reserve(claim(of, partition=f"new{n}")).held for n in range(50)]
    assert sum(held is not None for held in flood) == 3
    assert len(desk.limiter) == 11
    assert desk.limiter.overflowed == 50
    assert all(desk.left(of, partition=f"known{n}") == 0 for n in range(10))
    assert flood[0] is not None
    desk.cancel(flood[0])
    assert desk.left(of, partition="new") == 1


def test_h41_room_is_made_at_the_cap_in_time() -> None:
    """Once the old buckets have drained, refused calls alone make room again."""
    desk = Desk(max_cells=4)
    of = quota(amount=1, period_s=10)
    for number in range(4):
        desk.hold(claim(of, partition=str(number)))
    for _ in range(12):
        desk.reserve(claim(of, 9), at=20)
    assert len(desk.limiter) == 0
    assert desk.hold(claim(of, partition="new"), at=20)


def test_h41_slots_of_the_overflow_pool_come_back() -> None:
    """Concurrency at the cap shares a pool, and settling finds the slot there."""
    desk = Desk(max_cells=1)
    slots = quota(unit=Unit.CONCURRENCY, amount=1, period_s=1000)
    desk.hold(claim(slots, partition="known"))
    held = desk.hold(claim(slots, partition="new"))
    assert desk.reserve(claim(slots, partition="newer")).held is None
    desk.settle(held)
    assert desk.reserve(claim(slots, partition="newer")).held is not None


# --- whatever happens, in whatever order


class Books(RuleBasedStateMachine):
    """Calls of one account in any order, against a second set of books."""

    def __init__(self) -> None:
        super().__init__()
        self.of = quota(unit=Unit.OUTPUT_TOKENS, amount=7, period_s=3, burst=20)
        self.slots = quota("slots", Unit.CONCURRENCY, amount=3, period_s=1_000_000)
        self.desk = Desk()
        self.at_us = 0
        self.net = 0
        self.open: dict[str, tuple[Reservation, int]] = {}

    def at(self) -> float:
        """Return the time in seconds."""
        return self.at_us / MICRO

    @rule(step_us=st.integers(0, 4 * MICRO))
    def wait(self, step_us: int) -> None:
        """Let time pass."""
        self.at_us += step_us

    @rule(units=st.integers(1, 25), late_us=st.integers(0, MICRO))
    def reserve(self, units: int, late_us: int) -> None:
        """Ask, perhaps with a clock that was read a while ago."""
        reserved = self.desk.reserve(
            claim(self.of, units),
            claim(self.slots),
            at=max(0, self.at_us - late_us) / MICRO,
            hold_s=1_000_000,
        )
        if reserved.held is not None:
            assert len(self.open) < 3
            self.net += units * MICRO
            self.open[reserved.held.hold_id] = (reserved.held, units)
        elif all(status.fits for status in reserved.statuses):
            raise AssertionError("refused without a reason")

    @precondition(lambda self: self.open)
    @rule(data=st.data(), used=st.integers(0, 40))
    def settle(self, data: st.DataObject, used: int) -> None:
        """Settle one of the open calls, twice."""
        held, units = self.open.pop(data.draw(st.sampled_from(sorted(self.open))))
        for _ in range(2):
            self.desk.settle(held, Usage(output_tokens=used), at=self.at())
        self.net += (used - units) * MICRO

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Cancel one of the open calls, twice."""
        held, units = self.open.pop(data.draw(st.sampled_from(sorted(self.open))))
        self.desk.cancel(held, at=self.at())
        self.desk.cancel(held, at=self.at())
        self.net -= units * MICRO

    @invariant()
    def never_more_than_burst_and_rate(self) -> None:
        """Net of refunds the level covers what was admitted, less what time gave back."""
        used = self.of.burst - self.desk.left(self.of, at=self.at()) * MICRO
        if used < self.of.burst:
            assert self.net <= used + self.at_us * 7 / 3 + 1

    @invariant()
    def slots_are_conserved(self) -> None:
        """As many slots are taken as calls are open."""
        assert self.desk.left(self.slots, at=self.at()) == 3 - len(self.open)


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 50),
    st.integers(1, 100),
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 3 * MICRO), st.integers(1, 50)), max_size=60),
)
def test_admitted_cost_never_exceeds_burst_and_rate_in_any_window(
    amount: int, period_s: int, burst: int, calls: list[tuple[int, int]]
) -> None:
    """Over every stretch of any schedule, without settlements."""
    desk = Desk()
    of = quota(unit=Unit.COST, amount=amount, period_s=period_s, burst=burst)
    at_us, admitted = 0, []
    for gap_us, units in calls:
        at_us += gap_us
        if desk.reserve(claim(of, units), at=at_us / MICRO).held is not None:
            admitted.append((at_us, units))
    for first in range(len(admitted)):
        total = 0
        for at_us, units in admitted[first:]:
            total += units
            span_us = at_us - admitted[first][0]
            # one microsecond of rounding in the bookkeeping of the test itself
            assert total * MICRO * period_s <= burst * MICRO * period_s + (span_us + 1) * amount


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 1000),
    st.sampled_from([1, 7, 60, 3600, 86_400]),
    st.lists(st.integers(0, 10_000), min_size=1, max_size=80),
)
def test_a_steady_caller_is_never_starved(amount: int, period_s: int, delays_us: list[int]) -> None:
    """Asking no faster than the rate, with a burst of one, is never refused (H27)."""
    desk = Desk()
    one = claim(quota(amount=amount, period_s=period_s, burst=1))
    every_us = -(-period_s * MICRO // amount)
    at_us = 0
    for delay_us in delays_us:
        assert desk.reserve(one, at=at_us / MICRO).held is not None
        at_us += every_us + delay_us
