"""Token-bucket arithmetic in exact integers.

A bucket keeps what was *used*, in micro-units, and lets it drain at the rate of the quota. Since
it keeps the debt and not the rest, the same bucket can be asked with a tightened burst or rate,
and a settlement above the burst is simply carried until it has drained.

A store written in Lua gives the same answers to the unit, because no intermediate leaves the
integers that a double holds exactly (below 2**53):

- amounts, levels and refunds saturate at :data:`SATURATION` (4.5e9 units), so that the sum of two
  stays below 9.007e15; bursts are at most :data:`MAX_UNITS` (4e9 units);
- a rate is ``whole + part / over`` micro-units per microsecond with ``over <= 94_906_265``, so that
  ``(over - 1) * part + over`` stays below 2**53;
- in :func:`drain` the products with the elapsed time may leave that range only when they are
  already larger than any level, and then both sides answer "empty";
- quotients are taken as ``(x - fmod(x, over)) / over``, which is exact, not ``floor(x / over)``.

What a drain floors away is kept as the bucket's remainder, in ``1 / over`` of a micro-unit, and
``over`` depends on the period alone: however often a bucket is asked, nothing is lost (H27).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct

from gatekeeper.policy.model import LimitStatus
from gatekeeper.policy.words import AtEnd, Mode, Unit

if TYPE_CHECKING:
    from gatekeeper.policy.model import Usage
    from gatekeeper.policy.ruleset import LimitRule
    from gatekeeper.policy.words import Assurance, OnFailure

MICRO: Final = 1_000_000
"""Micro-units in a unit, and microseconds in a second."""
MAX_UNITS: Final = 4_000_000_000
"""Largest burst, and largest amount per period, of one quota; larger ones count as this."""
SATURATION: Final = 4_500_000_000 * MICRO
"""Micro-units at which amounts and levels stop growing; above every burst, so they never fit."""
MAX_DENOMINATOR: Final = math.isqrt(2**53)
"""Largest ``over`` of a rate; also the longest period, in seconds (about three years)."""
CONCURRENCY_RETRY_S: Final = 1.0
"""A slot comes back whenever any call ends, so the wait is a guess and not a promise."""


class Rate(NamedTuple):
    """How fast a bucket drains: ``whole + part / over`` micro-units per microsecond, exactly."""

    whole: int
    part: int
    over: int

    @classmethod
    def of(cls, amount: int, period_s: int, tighten: float = 1.0) -> Rate:
        """Return the rate of ``amount`` units in ``period_s``, times ``tighten`` in (0, 1].

        A tightened rate is rounded down to ``1 / over``, but never to nothing.
        """
        period_s = min(period_s, MAX_DENOMINATOR)
        scale = MAX_DENOMINATOR // period_s
        scaled = min(amount, MAX_UNITS) * scale
        if tighten < 1.0:
            scaled = max(1, math.floor(scaled * tighten))
        over = period_s * scale
        return cls(scaled // over, scaled % over, over)

    def shared(self, among: int) -> Rate:
        """Return an equal part of the rate, rounded down to ``1 / over`` but never to nothing."""
        scaled = max(1, (self.whole * self.over + self.part) // among)
        return Rate(scaled // self.over, scaled % self.over, self.over)


def drain(used: int, remainder: int, elapsed_us: int, rate: Rate) -> tuple[int, int]:
    """Return level and remainder ``elapsed_us`` later; time that ran backwards counts as none.

    Levels are micro-units. An empty bucket keeps no remainder: it cannot save up.
    """
    if elapsed_us <= 0:
        return used, remainder
    whole, part, over = rate
    remainder += elapsed_us % over * part
    used -= elapsed_us * whole + elapsed_us // over * part + remainder // over
    return (used, remainder % over) if used > 0 else (0, 0)


def fits(used: int, amount: int, burst: int) -> bool:
    """Tell whether ``amount`` has room; what costs nothing always has, even beside a debt."""
    return amount == 0 or used + amount <= burst


def retry_after_s(used: int, remainder: int, amount: int, burst: int, rate: Rate) -> float:
    """Return the seconds until ``amount`` fits if nothing else is taken; ``inf`` if it never can.

    Exact to the microsecond: one microsecond earlier it does not fit yet.
    """
    if fits(used, amount, burst):
        return 0.0
    if amount > burst:
        return math.inf
    missing = (used + amount - burst) * rate.over - remainder
    return -(-missing // (rate.whole * rate.over + rate.part)) / MICRO


def adjusted(used: int, delta: int) -> int:
    """Return the level after ``delta`` more (or, negative, fewer) micro-units, kept in bounds.

    A refund never makes a bucket more than full. Net of refunds a bucket thus admits at most
    burst + rate x time since its first call. Within a shorter stretch there may be up to
    rate x hold time more, from holds that drained while they were open and were then given back.
    """
    return min(max(used + delta, 0), SATURATION)


def to_micro(units: float) -> int:
    """Return ``units`` in micro-units, rounded up; what is not a number counts as the most."""
    if units <= 0:
        return 0
    if not units * MICRO < SATURATION:
        return SATURATION
    return math.ceil(units * MICRO)


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit rule with its numbers worked out, tightened for one factor."""

    key: str
    """Rule and unit: a rule that starts to count something else starts afresh, others never do."""
    rule: str
    unit: Unit
    per: tuple[str, ...]
    mode: Mode
    burst: int
    """Micro-units; for concurrency, slots times :data:`MICRO`."""
    rate: Rate
    lease_us: int
    """How long a concurrency slot is held when nobody gives it back."""
    limit: float
    """``burst`` in units."""
    period_s: float
    limit_per_period: float
    on_store_failure: OnFailure | None
    """``None``: as the settings of the store say."""
    yields: bool = False
    """Whether a call may take what is left when that is less than it asks for."""
    used_up: Assurance | None = None
    """What is asked of a caller without room, instead of waiting."""

    @classmethod
    def of(cls, rule: LimitRule, tighten: float = 1.0) -> Quota:
        """Work out ``rule`` for a caller whose quotas are tightened by a factor in (0, 1].

        The burst shrinks everywhere, to no less than one unit. The rate shrinks only where the
        quota is the caller's own: a shared bucket drains at one pace, or a tightened caller could
        slow down everybody else's by asking often.
        """
        slots = min(rule.burst, MAX_UNITS) * MICRO
        burst = max(MICRO, math.floor(slots * tighten)) if tighten < 1.0 else slots
        if rule.unit in _WHOLE_UNITS:
            burst -= burst % MICRO
        limit = burst / MICRO
        leased = rule.unit is Unit.CONCURRENCY
        pace = tighten if rule.own else 1.0
        return cls(
            key=f"{rule.id}:{rule.unit.value}",
            rule=rule.id,
            unit=rule.unit,
            per=rule.per,
            mode=rule.mode,
            burst=burst,
            rate=Rate.of(rule.amount, rule.period_s, pace),
            lease_us=rule.period_s * MICRO,
            limit=limit,
            period_s=float(rule.period_s),
            limit_per_period=limit if leased else min(rule.amount, MAX_UNITS) * pace,
            on_store_failure=rule.on_store_failure,
            yields=rule.at_end is AtEnd.STOP,
            used_up=rule.used_up,
        )

    def shared(self, among: int) -> Quota:
        """Return an equal part of the quota, no less than one unit, for one of several nodes."""
        burst = max(MICRO, self.burst // among)
        if self.unit in _WHOLE_UNITS:
            burst -= burst % MICRO
        return replace(self, burst=burst, rate=self.rate.shared(among), limit=burst / MICRO)

    def wait_s(self, used: int, remainder: int, amount: int) -> float:
        """Return the seconds until ``amount`` fits: 0 when it does, ``inf`` when it never will.

        Of a quota that yields, one unit is enough.
        """
        if self.yields and MICRO < amount < SATURATION:
            amount = MICRO
        if self.unit is not Unit.CONCURRENCY:
            return retry_after_s(used, remainder, amount, self.burst, self.rate)
        return 0.0 if fits(used, amount, self.burst) else CONCURRENCY_RETRY_S

    def whole_in_s(self, used: int, remainder: int) -> float:
        """Return the seconds until nothing is used; 0 for slots, which come back as calls end."""
        leased = self.unit is Unit.CONCURRENCY
        return 0.0 if leased else self.wait_s(used, remainder, self.burst)


_INPUT_TOKENS: Final = Unit.INPUT_TOKENS
_OUTPUT_TOKENS: Final = Unit.OUTPUT_TOKENS
_COST: Final = Unit.COST
_BYTES: Final = Unit.BYTES
_WHOLE_UNITS: Final = frozenset({Unit.REQUESTS, Unit.CONCURRENCY})


class Claim(Struct, frozen=True, gc=False):
    """What one call takes from one partition of one quota. At most one per rule and call."""

    quota: Quota
    partition: str
    amount: int
    """Worst case, in micro-units."""

    def granted(self, left: int) -> Claim:
        """Return what is taken of ``left`` micro-units: less than asked for, if the quota yields.

        That is whole units, at least one; an amount that can never fit stays as it is.
        """
        if self.amount <= left or not self.quota.yields or left < MICRO:
            return self
        if self.amount >= SATURATION:
            return self
        return Claim(self.quota, self.partition, left - left % MICRO)

    def unyielding(self) -> Claim:
        """Return the claim of a call that nothing can make smaller: it fits whole, or not at all.

        Otherwise one token that is left would let in a batch of a million.
        """
        if not self.quota.yields:
            return self
        return Claim(replace(self.quota, yields=False), self.partition, self.amount)

    def status(self, left: int, wait_s: float) -> LimitStatus:
        """Report the claim, with ``left`` micro-units remaining in its partition."""
        quota = self.quota
        return LimitStatus(
            quota.rule,
            quota.unit,
            quota.per,
            self.partition,
            quota.mode,
            quota.limit,
            quota.period_s,
            quota.limit_per_period,
            self.amount / MICRO,
            left / MICRO if left > 0 else 0.0,
            wait_s,
            used_up=quota.used_up,
        )

    def untaken(self, used: int, remainder: int) -> LimitStatus:
        """Report the partition with nothing taken; the wait is until all of the quota is there."""
        quota = self.quota
        whole = Claim(quota, self.partition, quota.burst)
        return whole.status(quota.burst - used, quota.whole_in_s(used, remainder))

    def correction(self, usage: Usage) -> int:
        """Return what settling to ``usage`` adds to the level; negative is a refund.

        A request stays one request, and a concurrency slot has no level to correct.
        """
        unit = self.quota.unit
        if unit is _OUTPUT_TOKENS:
            used = to_micro(usage.output_tokens)
        elif unit is _INPUT_TOKENS:
            used = to_micro(usage.input_tokens)
        elif unit is _COST:
            used = to_micro(usage.cost_cents)
        elif unit is _BYTES:
            used = to_micro(usage.bytes)
        else:
            return 0
        return used - self.amount
