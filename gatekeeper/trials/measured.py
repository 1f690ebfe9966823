"""What a trial tells, with intervals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

_Z: Final = 1.96
"""Of a two-sided interval of 95 %."""


class Share(Struct, frozen=True):
    """A part of a whole."""

    part: int
    whole: int

    @property
    def value(self) -> float:
        """The share, 0 of nothing."""
        return self.part / self.whole if self.whole else 0.0

    def interval(self) -> tuple[float, float]:
        """Return the bounds of 95 % (Wilson)."""
        if not self.whole:
            return 0.0, 1.0
        n, p = self.whole, self.value
        middle = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
        return max(0.0, middle - half), min(1.0, middle + half)

    @classmethod
    def sum(cls, shares: Iterable[Share]) -> Share:
        """Return the share of all wholes together."""
        every = list(shares)
        return cls(sum(each.part for each in every), sum(each.whole for each in every))


class Harm(Struct, frozen=True):
    """What a campaign's containment did to honest accounts of one kind."""

    accounts: int
    throttled: int = 0
    """Accounts that had a call limited."""
    shaped: int = 0
    stepped_up: int = 0
    refused: int = 0
    """Accounts refused without a way to verify."""


class Look(Struct, frozen=True):
    """What the detector alone sees so long after a campaign began."""

    hours: float
    recall: Share
    """Of the campaign's accounts that have called: those in a group that would be stepped up."""
    harm: dict[str, Share]
    """The same of honest accounts, by kind."""
    groups: int
    """Groups that would be contained beyond observation."""
    baselines: dict[str, tuple[Share, Share]]
    """By name: recall, and honest accounts flagged."""
    seconds: float


class ColumnTrial(Struct, frozen=True):
    """The detector alone, on traits made in columns."""

    scenario: str
    seed: int
    honest: int
    accounts: int
    calls: int
    looks: tuple[Look, ...]
    seconds: float


class LoopTrial(Struct, frozen=True):
    """A campaign against the gate's own code, with containment fed back."""

    scenario: str
    seed: int
    days: int
    honest: int
    accounts: int
    """Accounts that the campaign used in all, replacements included."""
    calls: int
    recall: Share
    """Of those accounts: contained at step-up or beyond, at the end."""
    hours: float | None
    """From the campaign's first admitted call until its traffic is at most 1 % of its rate for
    good; ``None``: never."""
    leaked: Share
    """Of the exchanges that it asked for: those that it got."""
    harm: dict[str, Harm]
    watcher_runs: int
    seconds: float
    admitted_by_day: tuple[int, ...] = ()
    asked_by_day: tuple[int, ...] = ()
