"""A bound on what one caller of the gate's own pages and API may do, kept in little memory."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

MOST_KEYS: Final = 10_000
_MINUTE_US: Final = 60_000_000


@dataclass(slots=True)
class _Budget:
    left: float
    at_us: int


class Bound:
    """So many events a minute for each key; those of the longest ago are forgotten first.

    Times are microseconds of any clock; one that steps back gives nothing and takes nothing.
    """

    def __init__(self, per_minute: int) -> None:
        self._burst = float(per_minute)
        self._refill_per_us = per_minute / _MINUTE_US
        self._budgets: OrderedDict[str, _Budget] = OrderedDict()

    def __len__(self) -> int:
        """Return how many keys are remembered."""
        return len(self._budgets)

    def spent(self, key: str, at_us: int) -> bool:
        """Tell whether one more event of ``key`` would be beyond the bound; counts nothing."""
        budget = self._budgets.get(key)
        return budget is not None and self._refilled(budget, at_us) < 1

    def take(self, key: str, at_us: int) -> bool:
        """Count one event of ``key``; tell whether it is within the bound."""
        budget = self._budgets.pop(key, None) or _Budget(self._burst, at_us)
        budget.left, budget.at_us = self._refilled(budget, at_us), at_us
        self._budgets[key] = budget
        if len(self._budgets) > MOST_KEYS:
            self._budgets.popitem(last=False)
        if budget.left < 1:
            return False
        budget.left -= 1
        return True

    def _refilled(self, budget: _Budget, at_us: int) -> float:
        gained = max(0, at_us - budget.at_us) * self._refill_per_us
        return min(self._burst, budget.left + gained)
