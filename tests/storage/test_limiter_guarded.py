"""Limits while the store fails: each rule does as it declares, and nothing is settled twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from support.limits import IDS, access_to, claim, quota
from support.limits import PREFIXES as NAMES

from gatekeeper.policy.limits import MICRO
from gatekeeper.policy.model import Moment, Usage
from gatekeeper.policy.words import AtEnd, Mode, OnFailure, Unit
from gatekeeper.storage import limiter_guarded
from gatekeeper.storage.limiter import Keeper
from gatekeeper.storage.limiter_guarded import GuardedLimiter
from gatekeeper.storage.limiter_memory import MemoryLimiter
from gatekeeper.storage.limiter_redis import RedisLimiter
from gatekeeper.storage.store_line import StoreError, dial
from gatekeeper.telemetry import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.valkey import Server

    from gatekeeper.storage.store_line import StoreLine

AT = Moment(0.0, 0)
DAY_S = 86_400


class Gated:
    """A line that tests can take away."""

    def __init__(self, line: StoreLine) -> None:
        self.line = line
        self.up = True

    def run(self, *arguments: Any) -> asyncio.Future[Any]:
        """Run a script, or fail as a line that is down does."""
        answer = self.line.run(*arguments)
        if self.up:
            return answer
        failed = self.line._loop.create_future()
        failed.set_exception(StoreError("deadline"))
        answer.add_done_callback(lambda _: None)
        return failed


class Desk:
    """A guarded limiter, and the parts behind it."""

    def __init__(self, line: StoreLine, **more: Any) -> None:
        self.gated = Gated(line)
        self.seen = True
        """Whether the breaker lets calls through."""
        self.metrics = Metrics()
        self.local = MemoryLimiter()
        self.shared = RedisLimiter(self.gated, next(NAMES))
        options: dict[str, Any] = {"on_failure": OnFailure.LOCAL_SHARE, "nodes": lambda: 4, **more}
        self.limiter = GuardedLimiter(
            self.shared,
            self.local,
            answering=lambda: self.seen and self.gated.up,
            metrics=self.metrics,
            **options,
        )

    async def reserve(self, *claims: Any) -> Any:
        """Reserve."""
        return await self.limiter.reserve(claims, AT, 60.0, next(IDS))

    async def left(self, of: Any) -> float:
        """Return what the store says remains, once it answers."""
        impossible = claim(of, of.burst / MICRO + 1)
        answer = await self.shared.reserve([impossible], AT, 60.0, next(IDS))
        return answer.statuses[0].remaining


@pytest.fixture
async def line(valkey: Server) -> AsyncIterator[StoreLine]:
    """Return a line to Valkey."""
    found = await dial(access_to(valkey.address), 5.0)
    yield found
    found.fail("closed")


@pytest.fixture
async def desk(line: StoreLine) -> Desk:
    """Return a guarded limiter among four nodes."""
    return Desk(line)


def daily(name: str = "r", unit: Unit = Unit.REQUESTS, **more: Any) -> Any:
    """Return a quota that hardly drains during a test."""
    return quota(name, unit, **{"amount": 40, "period_s": DAY_S, **more})


async def test_h30_a_local_share_is_the_limit_divided_by_the_nodes(desk: Desk) -> None:
    """Four nodes with ten each admit the forty of the rule, and each tells of the whole."""
    of = daily()
    desk.gated.up = False
    answers = [await desk.reserve(claim(of)) for _ in range(12)]
    assert [answer.held is not None for answer in answers] == [True] * 10 + [False] * 2
    statuses = [answer.statuses[0] for answer in answers]
    assert {status.failed for status in statuses} == {OnFailure.LOCAL_SHARE}
    assert [(s.limit, s.remaining) for s in statuses[:2]] == [(40, 36), (40, 32)]
    assert desk.metrics.value("gatekeeper_limits_without_store", "local_share") == 12


async def test_h30_slots_are_shared_too(desk: Desk) -> None:
    """Eight slots among four nodes are two here, and come back."""
    slots = daily("s", Unit.CONCURRENCY, amount=8, period_s=300)
    desk.gated.up = False
    held = [(await desk.reserve(claim(slots))).held for _ in range(3)]
    assert [each is not None for each in held] == [True, True, False]
    await desk.limiter.settle(held[0], Usage(), AT)
    assert (await desk.reserve(claim(slots))).held is not None


async def test_h30_open_passes_uncounted(desk: Desk) -> None:
    """Nothing is charged anywhere."""
    of = daily(on_store_failure=OnFailure.OPEN)
    desk.gated.up = False
    answers = [await desk.reserve(claim(of, 40)) for _ in range(3)]
    assert all(answer.held is not None for answer in answers)
    assert answers[0].statuses[0].failed is OnFailure.OPEN
    assert len(desk.local) == 0
    assert desk.metrics.value("gatekeeper_limits_without_store", "open") == 3


async def test_h30_the_strictest_rule_wins(desk: Desk) -> None:
    """One that is closed refuses the call, and no other is charged for it."""
    rules = [daily(name.value, on_store_failure=name) for name in OnFailure]
    desk.gated.up = False
    answer = await desk.reserve(*map(claim, rules))
    assert answer.held is None
    told = {status.failed: status.fits for status in answer.statuses}
    assert told == {OnFailure.OPEN: True, OnFailure.CLOSED: False, OnFailure.LOCAL_SHARE: True}
    assert len(desk.local) == 0
    assert desk.metrics.value("gatekeeper_limits_without_store", "closed") == 1


async def test_h31_a_closed_shadow_rule_refuses_nothing(desk: Desk) -> None:
    """It is told as one that would have."""
    shadow = daily("s", mode=Mode.SHADOW, on_store_failure=OnFailure.CLOSED)
    desk.gated.up = False
    answer = await desk.reserve(claim(shadow), claim(daily()))
    assert answer.held is not None
    assert [status.fits for status in answer.statuses] == [False, True]
    assert desk.metrics.value("gatekeeper_limits_without_store", "local_share") == 1


async def test_the_default_is_for_rules_that_say_nothing(line: StoreLine) -> None:
    """A rule that says its own is heard instead."""
    desk = Desk(line, on_failure=OnFailure.CLOSED)
    desk.gated.up = False
    assert (await desk.reserve(claim(daily()))).held is None
    assert (await desk.reserve(claim(daily("own", on_store_failure=OnFailure.OPEN)))).held


async def test_no_room_in_a_share_is_no_reason_never_to_come_again(desk: Desk) -> None:
    """What the whole limit has room for is told to wait; what it never has, not to."""
    of = daily(unit=Unit.OUTPUT_TOKENS)
    desk.gated.up = False
    (large,) = (await desk.reserve(claim(of, 20))).statuses
    (larger,) = (await desk.reserve(claim(of, 41))).statuses
    assert (large.retry_after_s, larger.retry_after_s) == (1.0, float("inf"))


async def test_what_was_held_locally_is_settled_locally(desk: Desk) -> None:
    """Even when the store is back by then."""
    of = daily(unit=Unit.OUTPUT_TOKENS)
    desk.gated.up = False
    first = await desk.reserve(claim(of, 10))
    assert first.held.keeper is Keeper.NODE
    desk.gated.up = True
    await desk.limiter.settle(first.held, Usage(output_tokens=4), AT)
    assert desk.limiter.waiting == 0
    assert await desk.left(of) == 40
    desk.gated.up = False
    assert (await desk.reserve(claim(of, 6))).held is not None


async def test_settlements_wait_for_the_store(desk: Desk) -> None:
    """What the store held before it failed is settled when it is back, once."""
    of = daily(unit=Unit.OUTPUT_TOKENS)
    held = [(await desk.reserve(claim(of, 10))).held for _ in range(3)]
    desk.seen = False  # the breaker is open
    await desk.limiter.settle(held[0], Usage(output_tokens=1), AT)
    await desk.limiter.cancel(held[1], AT)
    assert desk.limiter.waiting == 2
    desk.seen = True
    desk.limiter.recovered()
    await desk.limiter.settled(5.0)
    desk.limiter.recovered()
    assert desk.limiter.waiting == 0
    assert await desk.left(of) == pytest.approx(40 - 1 - 10, abs=0.1)


async def test_a_settlement_that_fails_under_way_is_kept(desk: Desk) -> None:
    """Whether the store did it is not known, so it is sent again, and counts once."""
    of = daily(unit=Unit.OUTPUT_TOKENS)
    held = (await desk.reserve(claim(of, 10))).held
    real_answering = desk.limiter._answering
    desk.limiter._answering = lambda: True
    desk.gated.up = False
    await desk.limiter.settle(held, Usage(output_tokens=3), AT)
    await desk.limiter.settled(5.0)
    assert desk.limiter.waiting == 1
    desk.gated.up, desk.limiter._answering = True, real_answering
    desk.limiter.recovered()
    await desk.limiter.settled(5.0)
    assert await desk.left(of) == pytest.approx(37, abs=0.1)


async def test_a_reservation_of_unknown_fate_is_taken_back(desk: Desk) -> None:
    """The store charged it after all, but the call was judged here: given back on recovery."""
    of, shadow = daily(), daily("s", mode=Mode.SHADOW)
    desk.limiter._answering = lambda: True
    desk.gated.up = False
    answer = await desk.reserve(claim(of, 5), claim(shadow, 5))
    assert answer.held.keeper is Keeper.NODE
    assert await desk_left_behind(desk, of) == pytest.approx(35, abs=0.1)
    desk.gated.up = True
    desk.limiter.recovered()
    await desk.limiter.settled(5.0)
    assert await desk.left(of) == pytest.approx(40, abs=0.1)
    assert await desk.left(shadow) == pytest.approx(35, abs=0.1)  # never more than it took


async def desk_left_behind(desk: Desk, of: Any) -> float:
    """Look at the store while the gate cannot."""
    desk.gated.up = True
    left = await desk.left(of)
    desk.gated.up = False
    return left


async def test_h30_a_share_that_yields_grants_what_is_left_of_it(desk: Desk) -> None:
    """A quarter of the forty, then nothing; it is settled here, to what was granted."""
    of = daily(unit=Unit.OUTPUT_TOKENS, at_end=AtEnd.STOP)
    desk.gated.up = False
    first, second = [await desk.reserve(claim(of, 400)) for _ in range(2)]
    assert [each.amount / MICRO for each in first.held.claims] == [10]
    assert second.held is None
    await desk.limiter.settle(first.held, Usage(output_tokens=4), AT)
    third = await desk.reserve(claim(of, 400))
    assert [each.amount / MICRO for each in third.held.claims] == [6]


async def test_what_was_yielded_to_a_call_of_unknown_fate_is_no_gift(desk: Desk) -> None:
    """How much the store granted is not known, so it stays charged until it has drained."""
    of, whole = daily("y", Unit.OUTPUT_TOKENS, at_end=AtEnd.STOP), daily("w", Unit.OUTPUT_TOKENS)
    await desk.reserve(claim(of, 30))
    asking = asyncio.create_task(desk.reserve(claim(of, 400), claim(whole, 5)))
    await asyncio.sleep(0)  # it has written, and waits for the answer
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await desk.limiter.settled(5.0)
    assert await desk.left(whole) == 40
    (status,) = await desk.shared.look([claim(of, 1)], AT)
    assert status.remaining == pytest.approx(0, abs=0.1)


async def test_waiting_settlements_are_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest stay charged, and are counted."""
    monkeypatch.setattr(limiter_guarded, "MOST_WAITING", 2)
    of = daily(unit=Unit.OUTPUT_TOKENS)
    held = [(await desk.reserve(claim(of, 10))).held for _ in range(3)]
    desk.seen = False
    for each in held:
        await desk.limiter.cancel(each, AT)
    assert (desk.limiter.waiting, desk.limiter.lost) == (2, 1)
    desk.seen = True
    desk.limiter.recovered()
    await desk.limiter.settled(5.0)
    assert await desk.left(of) == pytest.approx(30, abs=0.1)


async def test_h25_a_caller_that_hangs_up_while_asking_holds_nothing(desk: Desk) -> None:
    """Nobody would settle it: what the store may have taken is given back."""
    of = daily()
    asking = asyncio.create_task(desk.reserve(claim(of, 5)))
    await asyncio.sleep(0)  # it has written, and waits for the answer
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await desk.limiter.settled(5.0)
    assert await desk.left(of) == 40


@pytest.mark.parametrize("seen", [True, False])
async def test_h30_a_look_while_the_store_fails_tells_of_the_share(desk: Desk, seen: bool) -> None:
    """As of the whole quota: what this node would admit times the nodes; nothing is taken."""
    of, slots = daily(), daily("s", Unit.CONCURRENCY, amount=8, period_s=300)
    desk.gated.up = False
    await desk.reserve(claim(of, 3), claim(slots))
    desk.limiter._answering = lambda: seen
    for _ in range(3):
        told = await desk.limiter.look([claim(of), claim(slots)], AT)
        assert [(s.limit, s.remaining, s.failed) for s in told] == [
            (40, 28, OnFailure.LOCAL_SHARE),
            (8, 4, OnFailure.LOCAL_SHARE),
        ]
        assert told[0].retry_after_s == pytest.approx(3 / 10 * DAY_S, abs=0.001)
    assert desk.limiter.waiting == 0
    assert desk.metrics.value("gatekeeper_limits_without_store", "local_share") == 1


async def test_h30_a_look_says_which_quotas_are_not_counted(desk: Desk) -> None:
    """Where those stand is not known, and whoever tells callers leaves them out."""
    rules = [daily(name.value, on_store_failure=name) for name in OnFailure]
    desk.gated.up = False
    told = await desk.limiter.look([claim(rule) for rule in rules], AT)
    assert [status.failed for status in told] == list(OnFailure)
    assert len(desk.local) == 0


async def test_a_look_at_the_store_sees_what_it_holds(desk: Desk) -> None:
    """While it answers, the share is not asked."""
    await desk.reserve(claim(daily(), 4))
    (status,) = await desk.limiter.look([claim(daily())], AT)
    assert (status.remaining, status.failed) == (pytest.approx(36, abs=0.1), None)
