"""What every node did in a window, gathered for the measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gatekeeper.campaigns import queries
from gatekeeper.campaigns.measures import Behaviour
from gatekeeper.campaigns.options import DAY_S

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gatekeeper.campaigns.bipartite import Floats
    from gatekeeper.campaigns.sightings import Sightings, Window

_MOST_CLASSES: Final = 32
"""Capability classes that are told apart, the most frequent ones."""
_RECENT_DAYS: Final = 3
"""The hours of the day are read this far back."""


@dataclass(frozen=True, slots=True)
class Activity:
    """How much every node called, by node."""

    calls: Floats
    days: Floats
    """On which it called."""
    squares: Floats
    first_at: Floats
    last_at: Floats
    input_tokens: Floats
    output_tokens: Floats


def activity_of(sightings: Sightings, size: int) -> Activity:
    """Count the calls of the window."""
    rows = sightings.columns(queries.ACTIVITY)
    names = ("calls", "days", "squares", "first_at", "last_at", "input_tokens", "output_tokens")
    return Activity(*(_placed(rows, name, size) for name in names))


def behaviour_of(
    sightings: Sightings, window: Window, nodes: dict[str, NDArray[Any]], activity: Activity
) -> Behaviour:
    """Gather the rest of what the measures need. ``places`` must have been filled."""
    size = nodes["node"].size
    spread = sightings.columns(queries.SPREAD)
    since = max(window.start, window.end - _RECENT_DAYS * DAY_S)
    hours = sightings.columns(queries.CLOCK.format(since=repr(since)))
    clock = np.zeros((size, 24), dtype=np.float32)
    clock[hours["node"], hours["hour"]] = hours["calls"]
    clock /= np.maximum(clock.sum(axis=1, keepdims=True), 1)
    ages = (window.end - nodes["created_at"]) / DAY_S
    known = ages[(activity.calls > 0) & ~np.isnan(ages)]
    return Behaviour(
        calls=activity.calls,
        active_days=np.maximum(activity.days, 1),
        squares=activity.squares,
        addresses=_placed(spread, "addresses", size),
        hosted=_placed(spread, "hosted", size),
        age_days=ages,
        usual_age_days=float(np.median(known)) if known.size else float("nan"),
        clock=clock,
        work=_work(sightings, size),
        days=window.days,
    )


def _work(sightings: Sightings, size: int) -> Floats:
    rows = sightings.columns(queries.CLASSES)
    names, place = np.unique(rows["class"].astype(str), return_inverse=True)
    totals = np.bincount(place, weights=rows["calls"], minlength=names.size)
    frequent = np.argsort(-totals, kind="stable")[:_MOST_CLASSES]
    column = np.full(names.size, -1)
    column[frequent] = np.arange(frequent.size)
    known = column[place] >= 0 if names.size else np.zeros(0, dtype=bool)
    work = np.zeros((size, frequent.size))
    work[rows["node"][known], column[place[known]]] = rows["calls"][known]
    lengths = np.sqrt((work * work).sum(axis=1, keepdims=True))
    result: Floats = work / np.maximum(lengths, 1e-12)
    return result


def _placed(rows: dict[str, NDArray[Any]], name: str, size: int) -> Floats:
    values = np.zeros(size)
    values[rows["node"]] = rows[name]
    return values
