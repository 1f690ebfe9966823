"""The detector alone, and simpler ways to find a campaign, on sightings made in columns."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import duckdb
import numpy as np

from gatekeeper.campaigns.detector import Detector
from gatekeeper.campaigns.options import DetectionOptions
from gatekeeper.policy.campaigns import Stage
from gatekeeper.simulator.columns import lend_people, write_day
from gatekeeper.simulator.population import made
from gatekeeper.simulator.scenario import DAY_S
from gatekeeper.simulator.traffic import Events, events_of
from gatekeeper.simulator.world import CAMPAIGN, Net
from gatekeeper.trials.measured import ColumnTrial, Look, Share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from gatekeeper.policy.campaigns import Group
    from gatekeeper.policy.ruleset import RuleSet
    from gatekeeper.simulator.scenario import Scenario
    from gatekeeper.simulator.world import World

LOOKS_H: Final = (24, 72, 168)
"""Hours after the campaign began at which it is looked for."""
_ALLOWED: Final = 0.001
"""Part of the honest accounts that a limit may flag: baselines are set as low as this lets them."""
_HUB: Final = 20
_FEWEST: Final = 5


def column_trial(
    scenario: Scenario,
    rules: RuleSet,
    directory: Path,
    *,
    looks_h: Iterable[int] = LOOKS_H,
    progress: Callable[[int], None] = lambda _: None,
) -> ColumnTrial:
    """Write the sightings of a scenario into ``directory``, and look for the campaign in them.

    Nobody is contained in this view. The honest accounts' sightings are in files of their own,
    which a later trial of the same population finds again.
    """
    began = time.perf_counter()
    world = made(scenario)
    last = scenario.first_day + max(looks_h) / 24
    connection = duckdb.connect(config={"threads": 1})
    lend_people(connection, world)
    fakes = np.flatnonzero(world.fake)
    honest = np.flatnonzero(~world.fake)
    for old in directory.glob("sightings/day=*/campaign.parquet"):
        old.unlink()
    calls = 0
    looks: list[Look] = []
    recent: list[Events] = []
    day = 0
    while day < last:
        for name, who in (("honest", honest), ("campaign", fakes)):
            events = events_of(world, day, who) if who.size else None
            if events is None:
                continue
            calls += events.size
            recent.append(events)
            if name == "campaign" or not _written(directory, day, scenario):
                write_day(connection, world, events, day, directory, name)
        day += 1
        progress(day)
        hours = (day - scenario.first_day) * 24
        if hours in looks_h:
            looks.append(_look(world, rules, directory, recent, hours))
    connection.close()
    return ColumnTrial(
        scenario.name,
        scenario.seed,
        scenario.honest,
        scenario.accounts,
        calls,
        tuple(looks),
        time.perf_counter() - began,
    )


def _written(directory: Path, day: int, scenario: Scenario) -> bool:
    at = datetime.fromtimestamp(scenario.start + day * DAY_S, UTC)
    return (directory / "sightings" / f"day={at:%Y-%m-%d}" / "honest.parquet").exists()


def _look(world: World, rules: RuleSet, directory: Path, recent: list[Events], hours: int) -> Look:
    began = time.perf_counter()
    scenario = world.scenario
    at = scenario.start + scenario.first_day * DAY_S + hours * 3_600
    found = Detector(directory, DetectionOptions()).run(at)
    seconds = time.perf_counter() - began
    contained = [each for each in found.groups if _stepped_up(each, rules)]
    index = {name: place for place, name in enumerate(world.names)}
    flagged = np.zeros(world.size, dtype=bool)
    for group in contained:
        flagged[[index[name] for name in group.members]] = True
    active = np.zeros(world.size, dtype=bool)
    for events in recent:
        active[events.who] = True
    fake = world.fake
    labels = np.array(world.labels)
    return Look(
        hours=hours,
        recall=_share(flagged, active & fake),
        harm={
            label: _share(flagged, active & (labels == label))
            for label in sorted(Counter(world.labels))
            if label != CAMPAIGN
        },
        groups=len(contained),
        baselines={
            name: (_share(theirs, active & fake), _share(theirs, active & ~fake))
            for name, theirs in _baselines(world, recent, active).items()
        },
        seconds=seconds,
    )


def _stepped_up(group: Group, rules: RuleSet) -> bool:
    """Tell whether a group would come to step-up by the rules."""
    return any(
        rule.stage is Stage.STEP_UP
        and group.score >= rule.raise_at
        and len(group.members) >= rule.members
        and len(set(group.layers)) >= rule.layers
        for rule in rules.containment
    )


def _share(flagged: NDArray[Any], among: NDArray[Any]) -> Share:
    return Share(int((flagged & among).sum()), int(among.sum()))


def _baselines(world: World, recent: list[Events], active: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return whom simpler ways flag: limits as low as one honest account in 1,000 allows."""
    days = recent[-2:] if recent else []
    who = np.concatenate([each.who for each in days])
    address = np.concatenate([each.address for each in days])
    per_account = np.bincount(who, minlength=world.size)
    _, place, counts = np.unique(address, return_inverse=True, return_counts=True)
    busiest = np.zeros(world.size, dtype=np.int64)
    np.maximum.at(busiest, who, counts[place])
    honest = active & ~world.fake
    every = np.concatenate([each.who for each in recent])
    hosted = np.isin(world.net, (Net.HOSTING, Net.VPN)) & active
    return {
        "limit by account": _above(per_account, honest),
        "limit by address": _above(busiest, honest),
        "address blocklist": hosted,
        "components of shared addresses": _components(
            world.size, every, np.concatenate([each.address for each in recent])
        ),
    }


def _above(values: NDArray[Any], honest: NDArray[Any]) -> NDArray[Any]:
    """Return who is above the limit that flags at most one honest account in 1,000."""
    flags: NDArray[Any] = values > np.quantile(values[honest], 1 - _ALLOWED)
    return flags


def _components(size: int, who: NDArray[Any], address: NDArray[Any]) -> NDArray[Any]:
    """Return who is joined to four others or more by addresses that at most 20 accounts use."""
    pairs = np.unique(np.stack([address, who]), axis=1)
    _, place, holders = np.unique(pairs[0], return_inverse=True, return_counts=True)
    shared = (holders[place] > 1) & (holders[place] <= _HUB)
    node, trait = pairs[1][shared], np.unique(place[shared], return_inverse=True)[1]
    label = np.arange(size)
    while node.size:
        least = np.full(int(trait.max()) + 1, size)
        np.minimum.at(least, trait, label[node])
        lower = label.copy()
        np.minimum.at(lower, node, least[trait])
        lower = lower[lower]
        if np.array_equal(lower, label):
            break
        label = lower
    flags: NDArray[Any] = np.bincount(label, minlength=size)[label] >= _FEWEST
    return flags
