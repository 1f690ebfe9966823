"""How a group behaves, each number held against random groups of ordinary accounts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from gatekeeper.campaigns.rarity import gini

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from gatekeeper.campaigns.bipartite import Floats, Ints

    _Numbers = tuple[str, "Family", int, Floats]

GINI: Final = "gini"
"""Name of the measure of how unevenly calls lie over accounts."""
_LARGEST: Final = 300
"""Accounts in a random group at most: a smaller one varies more, so that this errs to the safe."""
_FEW_CALLS: Final = 3
"""Calls in a window below which an account says nothing of how it behaves."""
_FEWEST: Final = 3
"""Accounts below which nothing is measured."""
_STEP: Final = 1.25
"""Factor between the sizes of random groups, and between the levels of activity."""
_HOURS: Final = 24
_LEAST: Final = 1e-9
"""The normal tail is cut here, for it is not known to be normal further out."""
_DAYS: Final = 3.0
"""Length of a window from which days can be compared."""


class Family(StrEnum):
    """Kinds of behaviour that do not follow from each other."""

    VOLUME = "volume"
    """How evenly calls lie, over accounts and over days: load is balanced, people are not."""
    PRESENCE = "presence"
    """On how many days there are calls: machines come every day, and so do people at work."""
    CLOCK = "clock"
    NETWORK = "network"
    WORK = "work"
    AGE = "age"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What every node did in a window, by node."""

    calls: Floats
    active_days: Floats
    squares: Floats
    """Sum of the squared calls of each day."""
    addresses: Floats
    hosted: Floats
    """Calls from hosting networks."""
    age_days: Floats
    """NaN where it is not known."""
    usual_age_days: float
    """Median of the known ones, NaN when there are none."""
    clock: NDArray[np.float32]
    """Part of the calls in each hour of the day: one row, 24 columns."""
    work: Floats
    """Calls by capability class, as a vector of length 1: one row, one column for each class."""
    days: float
    """Length of the window."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A number, and how often random groups are at least as strange."""

    name: str
    family: Family
    value: float
    ordinary: float
    """Median of the random groups."""
    p_value: float


class Ordinary:
    """Random groups of ordinary accounts, drawn once for each size and level of activity."""

    def __init__(self, accounts: Ints, behaviour: Behaviour, draws: int, chance: Generator) -> None:
        """Draw from ``accounts``: those that are active, unproven, and in no group."""
        self._accounts = accounts
        self._behaviour = behaviour
        self._draws = draws
        self._chance = chance
        self._drawn: dict[tuple[int, float], list[_Numbers]] = {}

    def measured(self, members: Ints) -> list[Measure]:
        """Hold a group against random ones of as many accounts that are about as active.

        Empty when there are not enough ordinary accounts to say anything.
        """
        calls = self._behaviour.calls[members]
        busy = members[calls >= _FEW_CALLS]
        if busy.size < _FEWEST:
            return []
        level = _rounded(max(float(_FEW_CALLS), float(np.quantile(calls, 0.1)) / 2))
        size = int(_rounded(min(busy.size, _LARGEST)))
        null = self._null(size, level)
        mine = _numbers(busy[None, :], self._behaviour) if null else []
        return [
            _held(name, family, sign, float(values[0]), theirs)
            for (name, family, sign, values), (*_, theirs) in zip(mine, null, strict=True)
        ]

    def _null(self, size: int, level: float) -> list[_Numbers]:
        known = self._drawn.get((size, level))
        if known is None:
            pool = self._accounts[self._behaviour.calls[self._accounts] >= level]
            known, fitting = [], min(size, pool.size // 2)
            if fitting >= _FEWEST:
                drawn = pool[self._chance.integers(0, pool.size, (self._draws, fitting))]
                known = _numbers(drawn, self._behaviour)
            self._drawn[size, level] = known
        return known


def _rounded(value: float) -> float:
    """Return the next lower of a few steps, so that groups alike share their random ones."""
    return max(math.floor(_STEP ** math.floor(math.log(value, _STEP) + 1e-9)), 1)


def _held(name: str, family: Family, sign: int, value: float, null: Floats) -> Measure:
    """Count the random groups that are as strange; beyond them take their tail for a normal one."""
    counted = (1 + int((sign * null >= sign * value).sum())) / (1 + null.size)
    if counted * (1 + null.size) < 2:  # noqa: PLR2004 (beyond all of them)
        away = sign * (value - float(null.mean())) / max(float(null.std()), 1e-9)
        counted = min(counted, max(0.5 * math.erfc(away / math.sqrt(2)), _LEAST))
    return Measure(name, family, value, float(np.median(null)), counted)


def _numbers(groups: Ints, behaviour: Behaviour) -> list[_Numbers]:
    """Return (name, family, 1 for strange when high or -1 when low, value by group)."""
    calls = behaviour.calls[groups]
    found = [
        (GINI, Family.VOLUME, -1, gini(calls)),
        ("addresses_per_call", Family.NETWORK, 1, _mean(behaviour.addresses[groups] / calls)),
        ("clock_flatness", Family.CLOCK, 1, _flatness(behaviour.clock, groups, calls)),
        ("clock_own", Family.CLOCK, 1, _mean(_own_flatness(behaviour.clock[groups], calls))),
    ]
    if behaviour.work.shape[1] > 1:
        mean = behaviour.work[groups].mean(axis=1)
        found.append(("same_work", Family.WORK, 1, (mean * mean).sum(axis=-1)))
    ages = behaviour.age_days[groups]
    known = np.where(np.isnan(ages), behaviour.usual_age_days, ages)
    if not np.isnan(behaviour.usual_age_days):
        found.append(("age_days", Family.AGE, -1, np.median(known, axis=-1)))
    if behaviour.days >= _DAYS:
        present = np.maximum(np.fmin(behaviour.days, known), 1.0)
        share = np.minimum(behaviour.active_days[groups] / present, 1.0)
        daily = calls / behaviour.active_days[groups]
        variance = behaviour.squares[groups] / behaviour.active_days[groups] - daily**2
        found += [
            ("days_active", Family.PRESENCE, 1, _mean(share)),
            ("daily_dispersion", Family.VOLUME, -1, np.median(variance / daily, axis=-1)),
        ]
    return found


def _mean(values: Floats) -> Floats:
    result: Floats = values.mean(axis=-1)
    return result


def _own_flatness(clock: NDArray[np.float32], calls: Floats) -> Floats:
    """Return the entropy of the hours of each account, 1 for as flat as its calls can lie."""
    terms = np.where(clock > 0, clock * np.log(np.maximum(clock, 1e-12)), 0.0)
    most = np.log(np.clip(calls, _FEWEST, _HOURS))
    result: Floats = -terms.sum(axis=-1) / most
    return result


def _flatness(clock: NDArray[np.float32], groups: Ints, calls: Floats) -> Floats:
    """Return the entropy of the hours of a group, 1 for a day without a night."""
    profile = (clock[groups] * calls[..., None]).sum(axis=1)
    share = profile / np.maximum(profile.sum(axis=-1, keepdims=True), 1e-12)
    terms = np.where(share > 0, share * np.log(np.maximum(share, 1e-12)), 0.0)
    result: Floats = -terms.sum(axis=-1) / math.log(_HOURS)
    return result
