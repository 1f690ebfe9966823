"""A campaign against the gate's own code: what is contained changes what happens next."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

import numpy as np

from gatekeeper.policy.campaigns import Stage
from gatekeeper.policy.words import Verdict
from gatekeeper.rehearsal.making import SECRET, engine_of
from gatekeeper.rehearsal.people import People, Response
from gatekeeper.rehearsal.replay import note
from gatekeeper.rehearsal.watching import Watching
from gatekeeper.simulator.population import made
from gatekeeper.simulator.scenario import DAY_S
from gatekeeper.simulator.traffic import events_of
from gatekeeper.simulator.world import CAMPAIGN
from gatekeeper.storage.secrets import derive
from gatekeeper.trials.calls import calls_of, row_of, rows_of
from gatekeeper.trials.measured import Harm, LoopTrial, Share

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gatekeeper.policy.ruleset import RuleSet
    from gatekeeper.rehearsal.engine import RecordedCall, Rehearsed
    from gatekeeper.settings import Settings
    from gatekeeper.simulator.scenario import Scenario
    from gatekeeper.simulator.world import World

_STOPPED: Final = 0.01
"""Part of its rate at which a campaign is contained."""
_HOUR_S: Final = 3_600.0
_FIRST_DUE_S: Final = 600.0
_ENDS: Final = frozenset({Verdict.STEP_UP, Verdict.DENY})
"""Verdicts that end an account which cannot prove who it is."""


async def loop_trial(
    scenario: Scenario,
    settings: Settings,
    rules: RuleSet,
    directory: Path,
    *,
    watch_every_s: float = 6 * _HOUR_S,
    progress: Callable[[int], None] = lambda _: None,
) -> LoopTrial:
    """Let everybody of a scenario call a gate; ``directory`` must be empty."""
    began = time.perf_counter()
    world = made(scenario)
    engine = engine_of(settings, rules, at=time.time())
    chance = np.random.default_rng([scenario.seed, 6])
    responds = (_FIRST_DUE_S + chance.exponential(6 * _HOUR_S, world.size)).tolist()
    passes = world.passes.astype(bool).tolist()
    people = People(
        engine.replica,
        rows_of(world),
        {name: Response(passes[n], responds[n]) for n, name in enumerate(world.names)},
    )
    watching = Watching(
        directory, engine, people, every_s=watch_every_s, probe_key=derive(SECRET, "probe")
    )
    trial = _Trial(world, people)
    try:
        for day in range(scenario.days):
            events = events_of(world, day)
            for who, call in calls_of(world, events):
                trial.account = who
                moved = trial.standing_for(who, call)
                people.until(moved.at)
                await watching.until(moved.at)
                found = await engine.decide(moved)
                note(found, people)
                trial.take(found)
            progress(day + 1)
        await watching.run(scenario.start + scenario.days * DAY_S)
    finally:
        watching.close()
    contained: set[str] = set()
    for campaign in watching.book.campaigns.values():
        if campaign.state.contains and campaign.stage.rank >= Stage.STEP_UP.rank:
            contained |= campaign.contained
    return trial.told(contained, watching.runs, time.perf_counter() - began)


class _Trial:
    """Counts what happens, and lets the campaign replace what it loses."""

    def __init__(self, world: World, people: People) -> None:
        self.account = 0
        self._world = world
        self._people = people
        self._fake = world.fake.tolist()
        self._start = world.scenario.start
        self._spare = world.spare.tolist()[::-1]
        self._in_place: dict[int, int] = {}
        self._replaces = bool(self._spare)
        self._calls = 0
        self._used: set[int] = set()
        self._refused: set[int] = set()
        self._asked = Counter[int]()
        """Exchanges that the campaign asked for, by hour."""
        self._got = Counter[int]()
        self._harm: defaultdict[str, set[int]] = defaultdict(set)

    def standing_for(self, who: int, call: RecordedCall) -> RecordedCall:
        """Return the call as the account makes it that stands in the place of a lost one."""
        while who in self._in_place:
            who = self._in_place[who]
        self.account = who
        name = self._world.names[who]
        if call.account == name:
            return call
        return type(call)(
            call.at, call.remote, call.method, call.path, call.headers, call.body, name,
            call.answered,
        )  # fmt: skip

    def take(self, found: Rehearsed) -> None:
        """Count a call."""
        self._calls += 1
        who, decision = self.account, found.decision
        if self._fake[who]:
            self._take_fake(who, found)
        elif found.facts.campaign is not None:
            if decision.verdict is Verdict.STEP_UP:
                self._harm["stepped_up"].add(who)
            elif decision.verdict is Verdict.RATE_LIMITED:
                self._harm["throttled"].add(who)
            elif decision.verdict is not Verdict.ALLOW:
                self._harm["refused"].add(who)
            elif decision.shaping is not None:
                self._harm["shaped"].add(who)

    def _take_fake(self, who: int, found: Rehearsed) -> None:
        hour = int((found.facts.at - self._start) // _HOUR_S)
        self._used.add(who)
        self._asked[hour] += 1
        if found.decision.admits:
            self._got[hour] += 1
        elif found.decision.verdict in _ENDS:
            self._refused.add(who)
            if self._replaces:
                self._replace(who, found.facts.at)

    def _replace(self, who: int, at: float) -> None:
        """Let a fresh account take the place of a lost one, at once."""
        if not self._spare:
            return
        fresh = self._spare.pop()
        self._in_place[who] = fresh
        self._world.columns["created"][fresh] = at
        self._people.join(row_of(self._world, fresh))

    def told(self, contained: set[str], runs: int, seconds: float) -> LoopTrial:
        """Return what was measured."""
        world, scenario = self._world, self._world.scenario
        labels = Counter(label for label in world.labels if label != CAMPAIGN)
        used = {world.names[who] for who in self._used}
        lost = {world.names[who] for who in self._refused}
        days = range(scenario.days)
        return LoopTrial(
            scenario.name,
            scenario.seed,
            scenario.days,
            scenario.honest,
            len(used),
            self._calls,
            Share(len(used & (contained | lost)), len(used)),
            self._hours(),
            Share(self._got.total(), self._asked.total()),
            {
                label: Harm(
                    count,
                    **{
                        what: sum(world.labels[who] == label for who in self._harm[what])
                        for what in ("throttled", "shaped", "stepped_up", "refused")
                    },
                )
                for label, count in sorted(labels.items())
            },
            runs,
            seconds,
            tuple(sum(self._got[day * 24 + hour] for hour in range(24)) for day in days),
            tuple(sum(self._asked[day * 24 + hour] for hour in range(24)) for day in days),
        )

    def _hours(self) -> float | None:
        """Return hours until all that follows, by days of 24 hours, stays at most 1 %."""
        if not self._got:
            return None
        first, last = min(self._got), max(self._asked)
        quiet = last + 1
        while quiet > first:
            since = max(first, quiet - 24)
            asked = sum(self._asked[hour] for hour in range(since, quiet))
            got = sum(self._got[hour] for hour in range(since, quiet))
            if asked and got > _STOPPED * asked:
                break
            quiet -= 1
        # The last hour in which more came through than may.
        loud = [
            hour for hour in range(first, quiet)
            if self._got[hour] > _STOPPED * max(self._asked[hour], 1)
        ]  # fmt: skip
        if not loud or quiet > last:
            return None if loud and quiet > last else 0.0
        return float(loud[-1] + 1 - first)
