"""Shared limits that never fail: while the store cannot answer, each rule does as it declared.

- ``closed``: the call is refused as one that could not be judged (503), and the decision says why;
- ``local_share``: this node counts alone, each limit divided by the number of nodes;
- ``open``: the call passes uncounted.

Of the rules that apply to a call the strictest thus wins. What was held where it was held is
settled there: settlements that the store could not take wait, boundedly, until it can. One that is
lost stays charged.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from gatekeeper.policy.limits import MICRO, SATURATION, Claim
from gatekeeper.policy.words import Mode, OnFailure, Unit
from gatekeeper.storage.limiter import Keeper, Reservation, Reserved
from gatekeeper.storage.store_line import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from gatekeeper.policy.limits import Quota
    from gatekeeper.policy.model import LimitStatus, Moment, Usage
    from gatekeeper.storage.limiter_memory import MemoryLimiter
    from gatekeeper.storage.limiter_redis import RedisLimiter
    from gatekeeper.telemetry import Metrics

MOST_WAITING: Final = 10_000
"""Settlements kept for a store that fails; of more, the oldest stay charged."""
_RETRY_S: Final = 1.0
"""A wait that cannot be known, for what had no room in a share but would have in the whole."""
_MOST_SHARES: Final = 10_000


class _Unsettled(Struct, frozen=True, gc=False):
    reservation: Reservation
    used: Usage | None
    """``None`` to cancel."""


class GuardedLimiter:
    """A :class:`~gatekeeper.storage.limiter.Limiter` over a shared one that may fail."""

    def __init__(
        self,
        shared: RedisLimiter,
        local: MemoryLimiter,
        *,
        answering: Callable[[], bool],
        nodes: Callable[[], int],
        on_failure: OnFailure,
        metrics: Metrics,
    ) -> None:
        """Guard ``shared``; ``on_failure`` is for rules that say nothing of their own."""
        self._loop = asyncio.get_running_loop()
        self._shared = shared
        self._local = local
        self._answering = answering
        self._nodes = nodes
        self._on_failure = on_failure
        self._metrics = metrics
        self._under_way: set[asyncio.Future[Any]] = set()
        self._unsettled: deque[_Unsettled] = deque()
        self._shares: dict[int, tuple[Quota, int, Quota]] = {}
        self.lost = 0
        """Settlements given up, for a metric."""

    @property
    def waiting(self) -> int:
        """Settlements that wait for the store."""
        return len(self._unsettled)

    async def reserve(
        self, claims: Sequence[Claim], at: Moment, hold_s: float, hold_id: str
    ) -> Reserved:
        """See :class:`~gatekeeper.storage.limiter.Limiter`; never raises of the store."""
        if self._answering():
            began_s = self._loop.time()
            try:
                reserved = await self._shared.reserve(claims, at, hold_s, hold_id)
            except StoreError:
                self._keep(_perhaps_held(claims, hold_id))
            except asyncio.CancelledError:  # the caller hung up
                self._send(_perhaps_held(claims, hold_id))
                raise
            else:
                self._metrics.observe("gatekeeper_store_seconds", self._loop.time() - began_s)
                return reserved
        return await self._without(claims, at, hold_s, hold_id)

    async def look(self, claims: Sequence[Claim], at: Moment) -> tuple[LimitStatus, ...]:
        """See :class:`~gatekeeper.storage.limiter.Limiter`; never raises of the store."""
        if self._answering():
            with contextlib.suppress(StoreError):  # nothing was taken: nothing to take back
                return await self._shared.look(claims, at)
        nodes = max(1, self._nodes())
        statuses: list[LimitStatus] = []
        for claim in claims:
            behaviour, answer = self._behaviour(claim.quota), None
            if behaviour is OnFailure.LOCAL_SHARE:
                (answer,) = await self._local.look([self._part(claim, nodes)], at)
            statuses.append(_told(claim, behaviour, answer, nodes))
        return tuple(statuses)

    async def settle(self, reservation: Reservation, used: Usage, at: Moment) -> None:
        """See :class:`~gatekeeper.storage.limiter.Limiter`; waits for nothing."""
        if reservation.keeper is Keeper.NODE:
            await self._local.settle(reservation, used, at)
        else:
            self._send(_Unsettled(reservation, used))

    async def cancel(self, reservation: Reservation, at: Moment) -> None:
        """See :class:`~gatekeeper.storage.limiter.Limiter`; waits for nothing."""
        if reservation.keeper is Keeper.NODE:
            await self._local.cancel(reservation, at)
        else:
            self._send(_Unsettled(reservation, None))

    def recovered(self) -> None:
        """Settle what waits: the store answers again."""
        waiting, self._unsettled = self._unsettled, deque()
        for each in waiting:
            self._send(each)

    async def settled(self, within_s: float) -> None:
        """Wait for settlements under way, before the line is let go."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=within_s)

    def _send(self, unsettled: _Unsettled) -> None:
        if not self._answering():
            self._keep(unsettled)
            return

        def done(answer: asyncio.Future[Any]) -> None:
            self._under_way.discard(answer)
            if not answer.cancelled() and answer.exception() is not None:
                self._keep(unsettled)  # whether it was done is not known: done twice, it is once

        answer = self._shared.settling(unsettled.reservation, unsettled.used)
        self._under_way.add(answer)
        answer.add_done_callback(done)

    def _keep(self, unsettled: _Unsettled) -> None:
        if len(self._unsettled) >= MOST_WAITING:
            self._unsettled.popleft()
            self.lost += 1
        self._unsettled.append(unsettled)

    async def _without(
        self, claims: Sequence[Claim], at: Moment, hold_s: float, hold_id: str
    ) -> Reserved:
        """Judge a call without the store."""
        nodes = max(1, self._nodes())
        asked: list[Claim] = []
        behaviours: list[OnFailure] = []
        for claim in claims:
            quota = claim.quota
            behaviour = self._behaviour(quota)
            behaviours.append(behaviour)
            if behaviour is OnFailure.LOCAL_SHARE:
                asked.append(self._part(claim, nodes))
            elif behaviour is OnFailure.CLOSED:  # more than there can be: nothing is charged
                asked.append(Claim(quota, claim.partition, SATURATION))
        local = await self._local.reserve(asked, at, hold_s, hold_id)
        statuses: list[LimitStatus] = []
        answers = iter(local.statuses)
        for claim, behaviour in zip(claims, behaviours, strict=True):
            answer = None if behaviour is OnFailure.OPEN else next(answers)
            statuses.append(_told(claim, behaviour, answer, nodes))
        self._metrics.count("gatekeeper_limits_without_store", _strictest(claims, behaviours))
        held = local.held and replace(local.held, keeper=Keeper.NODE)
        return Reserved(held, tuple(statuses))

    def _behaviour(self, quota: Quota) -> OnFailure:
        return quota.on_store_failure or self._on_failure

    def _part(self, claim: Claim, nodes: int) -> Claim:
        return Claim(self._share(claim.quota, nodes), claim.partition, claim.amount)

    def _share(self, quota: Quota, nodes: int) -> Quota:
        known = self._shares.get(id(quota))  # held below, so the id is not used again
        if known is None or known[1] != nodes:
            if len(self._shares) >= _MOST_SHARES:
                self._shares.clear()
            known = self._shares[id(quota)] = (quota, nodes, quota.shared(nodes))
        return known[2]


def _perhaps_held(claims: Sequence[Claim], hold_id: str) -> _Unsettled:
    """Return what takes a reservation back of which nobody knows whether it was made.

    If it was, then every enforced claim was charged. A claim in shadow mode may have had no room,
    and one that yields may have had less: to give that back would be a gift. A slot can only be
    given back where it was taken.
    """
    certain = [
        claim
        for claim in claims
        if claim.quota.unit is Unit.CONCURRENCY
        or (claim.quota.mode is Mode.ENFORCE and not claim.quota.yields)
    ]
    return _Unsettled(Reservation(hold_id, tuple(certain)), None)


def _strictest(claims: Sequence[Claim], behaviours: Sequence[OnFailure]) -> OnFailure:
    """Return what decided the call: shadow rules decide nothing."""
    enforced = {
        behaviour
        for claim, behaviour in zip(claims, behaviours, strict=True)
        if claim.quota.mode is Mode.ENFORCE
    }
    for behaviour in (OnFailure.CLOSED, OnFailure.LOCAL_SHARE):
        if behaviour in enforced:
            return behaviour
    return OnFailure.OPEN


def _told(
    claim: Claim, behaviour: OnFailure, answer: LimitStatus | None, nodes: int
) -> LimitStatus:
    """Return a status as of the whole quota: callers learn nothing of a store that fails (H34)."""
    quota = claim.quota
    if behaviour is OnFailure.CLOSED:
        return replace(claim.status(0, _RETRY_S), failed=OnFailure.CLOSED)
    if answer is None:
        return replace(claim.status(quota.burst, 0.0), failed=OnFailure.OPEN)
    left = min(quota.burst, int(answer.remaining * MICRO) * nodes)
    wait_s = answer.retry_after_s
    if wait_s == float("inf") and claim.amount <= quota.burst:
        wait_s = _RETRY_S
    told = claim.status(left, wait_s)
    return replace(told, requested=answer.requested, failed=OnFailure.LOCAL_SHARE)
