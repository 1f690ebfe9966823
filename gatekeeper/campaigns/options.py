"""What the detector can be told, with defaults for an operator who tells it nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HOUR_S: Final = 3_600
DAY_S: Final = 86_400
WEEK_S: Final = 7 * DAY_S


@dataclass(frozen=True, slots=True)
class DetectionOptions:
    """Windows, cores and error rates of one detector."""

    windows_s: tuple[int, ...] = (6 * HOUR_S, DAY_S, 3 * DAY_S, 14 * DAY_S)
    """How far back each look goes. Those from three days on begin with a whole day (UTC)."""
    fewest_members: int = 5
    """Smaller groups are households."""
    fewest_traits: int = 3
    """Distinct shared traits with which an account stays in the core, counted up to a bound for
    each layer, so that no layer but addresses carries an account alone."""
    least_weight: float = 2.0
    """Natural logarithm of all accounts over those that have a trait: 2 is one in seven."""
    address_hub: int = 20
    """Accounts on one address in a day that make it an office, a carrier or a campus."""
    surprise: float = 5.0
    """Chernoff exponent from which a combination is too frequent to be chance: 5 is e^-5."""
    false_discoveries: float = 0.01
    """Share of false groups to expect among those that score 60 or more."""
    null_groups: int = 400
    """Random groups of ordinary accounts that each measure is held against."""
    most_shared: int = 400
    """Shared traits told of a group at most."""
    seed: int = 1
    """Of the random groups, so that a run can be repeated."""
    threads: int = 1
    memory_mib: int = 3_072
    """Bound of the SQL engine; what does not fit is spilled."""
