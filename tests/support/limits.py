"""Quotas, claims and stores of limits, for every test of a limiter."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from gatekeeper.policy.limits import MICRO, Claim, Quota
from gatekeeper.policy.model import Moment, Usage
from gatekeeper.policy.ruleset import LimitRule
from gatekeeper.policy.words import AtEnd, Mode, OnFailure, Tier, Unit
from gatekeeper.settings import Store
from gatekeeper.storage.limiter_memory import MemoryLimiter
from gatekeeper.storage.limiter_redis import RedisLimiter, Scripts
from gatekeeper.storage.store_access import StoreAccess, read_access
from gatekeeper.storage.store_line import StoreLine, dial

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.storage.limiter import Limiter, Reservation, Reserved

IDS = map(str, itertools.count())
PREFIXES = (f"test-{number}" for number in itertools.count())
START_US: Final = 1_700_000_000 * MICRO
"""Where the store's clock stands at 0 seconds of a test."""

_PINNED: Final = """
-- The shipped script follows as it is. Before it, for tests: TIME is what the test has set, and the
-- real clock lets nothing expire.
local redis = setmetatable({call = function(command, ...)
  if command == 'TIME' then
    local now = tonumber(redis.call('GET', KEYS[1] .. ':pinned'))
    return {string.format('%.0f', (now - now % 1000000) / 1000000), tostring(now % 1000000)}
  elseif command == 'PEXPIRE' then
    return 1
  elseif command == 'SET' then
    local key, value = ...
    return redis.call('SET', key, value)
  end
  return redis.call(command, ...)
end}, {__index = redis})
"""
PINNED_SCRIPTS: Final = Scripts.of(_PINNED)


def quota(
    name: str = "r",
    unit: Unit = Unit.REQUESTS,
    *,
    amount: int = 10,
    period_s: int = 10,
    burst: int | None = None,
    mode: Mode = Mode.ENFORCE,
    tighten: float = 1.0,
    on_store_failure: OnFailure | None = None,
    at_end: AtEnd = AtEnd.REFUSE,
) -> Quota:
    """Return a quota, by default of ten requests in ten seconds."""
    return Quota.of(
        LimitRule(
            id=name,
            description="",
            mode=mode,
            unit=unit,
            per=("account",),
            amount=amount,
            period_s=period_s,
            burst=burst or amount,
            tiers=frozenset(Tier),
            when=None,
            on_store_failure=on_store_failure,
            at_end=at_end,
        ),
        tighten,
    )


def claim(of: Quota | None = None, units: float = 1, partition: str = "a") -> Claim:
    """Return a claim of whole units."""
    return Claim(of or quota(), partition, int(units * MICRO))


def moment(at_s: float, unix_s: float = 0.0) -> Moment:
    """Return a reading of the clocks, by the monotonic one."""
    return Moment(unix_s, round(at_s * MICRO))


def access_to(
    address: str, environ: Mapping[str, str] | None = None, **fields: object
) -> StoreAccess:
    """Return the access to one server, patient unless told."""
    settings = {"kind": "standalone", "addresses": (address,), "deadline_ms": 5_000, **fields}
    found = read_access(Store.model_validate(settings), environ or {})
    assert isinstance(found, StoreAccess)
    return found


@dataclass
class Desk:
    """A limiter at a clock that stands still until told, the store's own clock included."""

    limiter: Limiter
    line: StoreLine | None = None
    """To the store, ``None`` in memory."""
    prefix: str = ""
    at_us: int = field(default=0)
    stepped_us: int = field(default=0)
    """How far somebody has set the store's clock."""

    async def turn(self, at_us: int) -> Moment:
        """Set all clocks; return what a call reads."""
        self.at_us = at_us
        if self.line is not None:
            now = str(START_US + at_us + self.stepped_us)
            await self.line.command("SET", f"{{{self.prefix}}}:1:clock:pinned", now)
        return Moment(0.0, at_us)

    async def reserve(self, *claims: Claim, at: float = 0.0, hold_s: float = 60.0) -> Reserved:
        """Reserve at a number of seconds."""
        now = await self.turn(round(at * MICRO))
        return await self.limiter.reserve(claims, now, hold_s, next(IDS))

    async def hold(self, *claims: Claim, at: float = 0.0, hold_s: float = 60.0) -> Reservation:
        """Reserve what must fit."""
        held = (await self.reserve(*claims, at=at, hold_s=hold_s)).held
        assert held is not None
        return held

    async def settle(self, held: Reservation, used: Usage | None = None, at: float = 0.0) -> None:
        """Settle, by default to nothing used."""
        await self.limiter.settle(held, used or Usage(), await self.turn(round(at * MICRO)))

    async def cancel(self, held: Reservation, at: float = 0.0) -> None:
        """Give everything back."""
        await self.limiter.cancel(held, await self.turn(round(at * MICRO)))

    async def look(self, *of: Quota, at: float = 0.0) -> list[tuple[float, float]]:
        """Return what a look says of quotas: what remains, and the wait until all is there."""
        now = await self.turn(round(at * MICRO))
        statuses = await self.limiter.look([claim(each, 0) for each in of], now)
        return [(status.remaining, status.retry_after_s) for status in statuses]

    async def left(self, of: Quota, at: float = 0.0, partition: str = "a") -> float:
        """Return what remains, by asking for more than there can be, of a quota that refuses it."""
        impossible = Claim(replace(of, yields=False), partition, of.burst + MICRO)
        return (await self.reserve(impossible, at=at)).statuses[0].remaining


def memory_desk() -> Desk:
    """Return an empty limiter in memory."""
    return Desk(MemoryLimiter(1_000, kept_cells=0))


async def store_desk(address: str, *, line: StoreLine | None = None) -> Desk:
    """Return an empty limiter in a store, with the shipped scripts at a clock of ours."""
    line = line or await dial(access_to(address), 5.0)
    prefix = next(PREFIXES)
    desk = Desk(None, line, prefix)  # type: ignore[arg-type]
    desk.limiter = RedisLimiter(line, prefix, own=PINNED_SCRIPTS, clock_us=lambda: desk.at_us)
    return desk
