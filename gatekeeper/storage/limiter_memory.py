"""Limits of one process, in memory.

Every method runs to its end without awaiting anything, so that calls of one event loop cannot
interleave: 2,000 at once against a burst of b admit exactly b (H21).

Memory is bounded. A bucket that has drained, or a pool without leases, says nothing that a new
one would not say, and is dropped when a slow round over all of them comes by. Nothing else is ever
dropped: forgetting a used-up bucket would be a free burst. At the cap, partitions that have no
bucket yet share one overflow bucket for each rule until the round has made room: a flood of new
partitions (H14, H41) gets the quota of one, and those already known are not touched.

Rules may be reloaded at any time: parameters come with each claim, buckets keep their level. From
then on a bucket drains at the rate of the claim, so that one which is dropped, or not looked at, is
no other than one which is kept. A level above a lowered burst is a debt and drains at the new rate.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from itertools import takewhile
from typing import TYPE_CHECKING, Final, TypeAlias

from gatekeeper.policy.limits import MICRO, Rate, adjusted, drain
from gatekeeper.policy.words import Mode, Unit
from gatekeeper.storage.limiter import Reservation, Reserved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gatekeeper.policy.limits import Claim, Quota
    from gatekeeper.policy.model import LimitStatus, Moment, Usage

_OVERFLOW: Final = "~overflow"
"""A partition no call can have: in those, only digests start with a tilde."""

_ENFORCE: Final = Mode.ENFORCE
_CONCURRENCY: Final = Unit.CONCURRENCY

_Key = tuple[str, str]


class _Bucket:
    __slots__ = ("at_us", "rate", "remainder", "used")

    def __init__(self, now_us: int, rate: Rate) -> None:
        self.used = 0
        self.remainder = 0
        self.at_us = now_us
        self.rate = rate

    def level(self, now_us: int, quota: Quota) -> int:
        if self.used:
            elapsed_us = now_us - self.at_us
            self.used, self.remainder = drain(self.used, self.remainder, elapsed_us, self.rate)
        self.rate = quota.rate
        self.at_us = now_us
        return self.used

    def take(self, claim: Claim, hold_id: str, now_us: int) -> None:  # noqa: ARG002 - as a pool
        self.used += claim.amount

    def seen(self, now_us: int) -> tuple[int, int]:
        """Return level and remainder, and leave both as they are."""
        return drain(self.used, self.remainder, now_us - self.at_us, self.rate)

    def idle(self, now_us: int) -> bool:
        return self.seen(now_us)[0] == 0


class _Pool:
    """Leases by hold, in the order in which they expire (as long as their length stays the same).

    After a reload that shortens leases, new ones may be seen to expire late, never early.
    """

    __slots__ = ("leases",)

    remainder = 0

    def __init__(self) -> None:
        self.leases: OrderedDict[str, int] = OrderedDict()

    def level(self, now_us: int, quota: Quota | None = None) -> int:  # noqa: ARG002 - as a bucket
        while self.leases and next(iter(self.leases.values())) <= now_us:
            self.leases.popitem(last=False)
        return len(self.leases) * MICRO

    def take(self, claim: Claim, hold_id: str, now_us: int) -> None:
        self.leases[hold_id] = now_us + claim.quota.lease_us

    def seen(self, now_us: int) -> tuple[int, int]:
        """Return what :meth:`level` would, and end no lease."""
        over = sum(1 for _ in takewhile(lambda ends_us: ends_us <= now_us, self.leases.values()))
        return (len(self.leases) - over) * MICRO, 0

    def idle(self, now_us: int) -> bool:
        return self.level(now_us) == 0


_Cell: TypeAlias = "_Bucket | _Pool"


class MemoryLimiter:
    """A :class:`~gatekeeper.storage.limiter.Limiter` for one process and one event loop."""

    __slots__ = ("_cells", "_kept_cells", "_max_cells", "_now_us", "_open", "_round", "overflowed")

    def __init__(self, max_cells: int = 500_000, kept_cells: int = 4_096) -> None:
        """Keep at most ``max_cells`` buckets and pools (and those of one call more).

        Up to ``kept_cells``, drained ones stay: they cost less than making them anew.
        """
        self._max_cells = max_cells
        self._kept_cells = min(kept_cells, max_cells - 1)
        self._cells: dict[_Key, _Cell] = {}
        self._round: deque[_Key] = deque()
        self._open: OrderedDict[str, tuple[int, list[tuple[Claim, _Key]]]] = OrderedDict()
        self._now_us = 0
        self.overflowed = 0
        """Claims that had to share an overflow bucket, for a metric."""

    def __len__(self) -> int:
        """Return how many buckets and pools are kept."""
        return len(self._cells)

    async def reserve(
        self, claims: Sequence[Claim], at: Moment, hold_s: float, hold_id: str
    ) -> Reserved:
        """See :class:`~gatekeeper.storage.limiter.Limiter`."""
        if hold_id in self._open:
            raise ValueError("hold_id is already in use")
        now_us = self._tick(at)
        cells = self._cells
        crowded = len(cells) >= self._max_cells
        admitted = True
        found: list[tuple[Claim, _Key, _Cell | None, int, float]] = []
        for asked in claims:
            quota = asked.quota
            key = (quota.key, asked.partition)
            cell = cells.get(key)
            if cell is None and crowded:
                self.overflowed += 1
                key = (quota.key, _OVERFLOW)
                cell = cells.get(key)
            used = 0 if cell is None else cell.level(now_us, quota)
            left = quota.burst - used
            claim = asked if asked.amount <= left else asked.granted(left)
            amount = claim.amount
            wait_s = 0.0
            if amount > left and amount:
                wait_s = quota.wait_s(used, 0 if cell is None else cell.remainder, amount)
                if quota.mode is _ENFORCE:
                    admitted = False
            found.append((claim, key, cell, left, wait_s))
        if not admitted:
            self._sweep(1)
            as_it_stood = [claim.status(left, wait_s) for claim, _, _, left, wait_s in found]
            return Reserved(None, tuple(as_it_stood))
        before = len(cells)
        statuses: list[LimitStatus] = []
        charged: list[tuple[Claim, _Key]] = []
        for claim, key, cell, left, wait_s in found:
            if wait_s:  # in shadow mode, or the call would not have been admitted
                statuses.append(claim.status(left, wait_s))
                continue
            amount = claim.amount
            if amount:
                (cell or self._new(key, claim.quota)).take(claim, hold_id, now_us)
            charged.append((claim, key))
            statuses.append(claim.status(left - amount, 0.0))
        self._open[hold_id] = (now_us + int(hold_s * MICRO), charged)
        self._sweep(1 + 2 * (len(cells) - before))
        return Reserved(Reservation(hold_id, tuple([c for c, _ in charged])), tuple(statuses))

    async def look(self, claims: Sequence[Claim], at: Moment) -> tuple[LimitStatus, ...]:
        """See :class:`~gatekeeper.storage.limiter.Limiter`."""
        now_us = max(self._now_us, at.monotonic_us)
        cells = self._cells
        crowded = len(cells) >= self._max_cells
        statuses: list[LimitStatus] = []
        for claim in claims:
            cell = cells.get((claim.quota.key, claim.partition))
            if cell is None and crowded:
                cell = cells.get((claim.quota.key, _OVERFLOW))
            statuses.append(claim.untaken(*((0, 0) if cell is None else cell.seen(now_us))))
        return tuple(statuses)

    async def settle(self, reservation: Reservation, used: Usage, at: Moment) -> None:
        """See :class:`~gatekeeper.storage.limiter.Limiter`."""
        for claim, key in self._close(reservation, self._tick(at)):
            if (delta := claim.correction(used)) != 0:
                self._correct(claim, key, delta)

    async def cancel(self, reservation: Reservation, at: Moment) -> None:
        """See :class:`~gatekeeper.storage.limiter.Limiter`."""
        for claim, key in self._close(reservation, self._tick(at)):
            self._correct(claim, key, -claim.amount)

    def _tick(self, at: Moment) -> int:
        """Move on to ``at``, never back: calls read the clock long before their bodies are in.

        The monotonic clock is the only one asked, so steps of the wall clock change nothing (H28).
        """
        self._now_us = max(self._now_us, at.monotonic_us)
        return self._now_us

    def _new(self, key: _Key, quota: Quota) -> _Cell:
        pooled = quota.unit is _CONCURRENCY
        cell = _Pool() if pooled else _Bucket(self._now_us, quota.rate)
        self._cells[key] = cell
        self._round.append(key)
        return cell

    def _close(self, reservation: Reservation, now_us: int) -> list[tuple[Claim, _Key]]:
        """Free the slots of a hold; return what is charged, if it is open and has not expired."""
        for claim in reservation.claims:
            if claim.quota.unit is _CONCURRENCY:
                for partition in (claim.partition, _OVERFLOW):
                    pool = self._cells.get((claim.quota.key, partition))
                    if isinstance(pool, _Pool):
                        pool.leases.pop(reservation.hold_id, None)
        expires_us, charged = self._open.pop(reservation.hold_id, (0, []))
        return charged if expires_us > now_us else []

    def _correct(self, claim: Claim, key: _Key, delta: int) -> None:
        cell = self._cells.get(key)
        if claim.quota.unit is _CONCURRENCY or delta == 0 or (cell is None and delta < 0):
            return
        cell = cell or self._new(key, claim.quota)
        if isinstance(cell, _Bucket):
            cell.used = adjusted(cell.level(self._now_us, claim.quota), delta)
            if not cell.used:  # a bucket that is not kept has no remainder either
                cell.remainder = 0

    def _sweep(self, looks: int) -> None:
        """Look at a few cells in turn, and at the oldest holds; drop what is over."""
        now_us, cells, waiting = self._now_us, self._cells, self._round
        for _ in range(min(looks, len(waiting) - self._kept_cells)):
            key = waiting.popleft()
            if cells[key].idle(now_us):
                del cells[key]
            else:
                waiting.append(key)
        for _ in range(2):
            if not self._open or next(iter(self._open.values()))[0] > now_us:
                break
            self._open.popitem(last=False)
