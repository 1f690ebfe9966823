"""The detector: from sightings to groups, over several windows at once."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gatekeeper.campaigns import queries
from gatekeeper.campaigns.behaviour import activity_of, behaviour_of
from gatekeeper.campaigns.described import described, shared_traits
from gatekeeper.campaigns.groups import Neighbours, groups_of, parts_of
from gatekeeper.campaigns.links import links_of
from gatekeeper.campaigns.measures import Ordinary
from gatekeeper.campaigns.merging import Candidate, merged
from gatekeeper.campaigns.options import DetectionOptions
from gatekeeper.campaigns.rarity import Public
from gatekeeper.campaigns.score import (
    Evidence,
    acts_as_strangers,
    linking_layers,
    q_values,
    scored,
)
from gatekeeper.campaigns.sightings import Sightings, Window

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from duckdb import DuckDBPyConnection
    from numpy.typing import NDArray

    from gatekeeper.campaigns.bipartite import Floats, Ints
    from gatekeeper.policy.campaigns import Group


_ROUNDS: Final = 40
"""Times that a group is split at most."""


@dataclass(frozen=True, slots=True)
class WindowSizes:
    """What one window held, and what it took."""

    window_s: int
    nodes: int
    traits: int
    links: int
    groups: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Findings:
    """What one run found."""

    groups: tuple[Group, ...]
    """The highest score first."""
    typical_calls_per_day: float
    """Median over the accounts in no group, of the days on which each called at all."""
    windows: tuple[WindowSizes, ...] = ()


class Detector:
    """Finds groups in the sightings of a directory, or of a connection's table ``sightings``."""

    def __init__(
        self,
        origin: Path | DuckDBPyConnection,
        options: DetectionOptions | None = None,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._origin = origin
        self._options = options or DetectionOptions()
        self._timer = timer

    def run(self, at: float) -> Findings:
        """Look at all windows that end at a moment; the same sightings give the same findings."""
        sightings = Sightings(self._origin, self._options)
        try:
            return self._run(sightings, at)
        finally:
            sightings.close()

    def _run(self, sightings: Sightings, at: float) -> Findings:
        lengths = sorted(self._options.windows_s, reverse=True)
        longest = Window.before(at, lengths[0])
        sightings.hold(longest)
        if not sightings.look(longest):
            return Findings((), 0.0)
        for statement in (queries.ACCOUNTS, queries.NODES, queries.MEMBERS):
            sightings.run(statement)
        nodes = sightings.columns("SELECT * FROM nodes ORDER BY node")
        activity = activity_of(sightings, nodes["node"].size)
        candidates: list[Candidate] = []
        sizes = []
        for length in lengths:
            began = self._timer()
            found, size = self._window(sightings, Window.before(at, length), nodes)
            candidates += found
            sizes.append(replace(size, window_s=length, seconds=self._timer() - began))
        kept = merged(self._judged(candidates), self._options.fewest_members)
        alone = np.flatnonzero(activity.calls > 0)
        if kept:
            alone = np.setdiff1d(alone, np.concatenate([each.members for each in kept]))
        daily = activity.calls[alone] / activity.days[alone]
        sightings.look(longest)
        told = described(sightings, nodes, activity, kept, self._options.most_shared)
        return Findings(told, float(np.median(daily)) if alone.size else 0.0, tuple(sizes))

    def _window(
        self, sightings: Sightings, window: Window, nodes: dict[str, NDArray[Any]]
    ) -> tuple[list[Candidate], WindowSizes]:
        size, options = nodes["node"].size, self._options
        empty = WindowSizes(0, 0, 0, 0, 0, 0.0)
        if not sightings.look(window):
            return [], empty
        sightings.run(queries.PLACES)
        chance = np.random.default_rng(options.seed)
        activity = activity_of(sightings, size)
        main = sightings.columns(queries.MAIN_NETWORKS)
        networks = np.zeros(size, dtype=np.int64)
        networks[main["node"]] = np.unique(main["prefix"], return_inverse=True)[1]
        public = Public.learned(nodes["created_at"], activity.calls, networks, chance)
        links = links_of(sightings, window, nodes, public, options)
        joinable = (activity.calls > 0) & (nodes["organized"] == 0) & (nodes["proven"] == 0)
        groups = groups_of(links, joinable, options)
        found: list[Candidate] = []
        if groups:
            around = Neighbours.of(links, size)
            behaviour = behaviour_of(sightings, window, nodes, activity)
            alone = np.setdiff1d(np.flatnonzero(joinable), np.concatenate(groups))
            ordinary = Ordinary(alone, behaviour, options.null_groups, chance)
            groups = [part for each in groups for part in self._told_apart(each, around, ordinary)]
            addresses = _addresses_of(sightings, groups)
            for members, some in zip(groups, addresses, strict=True):
                layers = linking_layers(around, members)
                if not layers:
                    continue
                evidence = Evidence(
                    layers=layers,
                    measures=tuple(ordinary.measured(members)),
                    addresses_per_member=float(some) / members.size,
                    hosted=float(behaviour.hosted[members].sum() / behaviour.calls[members].sum()),
                )
                shared = shared_traits(around, members, options.most_shared)
                found.append(Candidate(members, evidence, shared))
        active = int(np.count_nonzero(activity.calls))
        return found, replace(
            empty, nodes=active, traits=links.traits, links=links.node.size, groups=len(groups)
        )

    def _told_apart(
        self, members: Ints, around: Neighbours, ordinary: Ordinary, rounds: int = _ROUNDS
    ) -> list[Ints]:
        """Split a group where one family of layers holds a part to the rest, few of whom it does.

        What else it holds is let go if it acts as strangers do while the group does not. An office
        or a class is a clique by itself: one coincidence glues it to a campaign, or to another.
        """
        fewest = self._options.fewest_members
        if members.size < fewest:
            return []
        if not rounds:
            return [members]
        parts, dust = parts_of(around, members, fewest)
        if dust.size:
            return self._told_apart(np.setdiff1d(members, dust), around, ordinary, rounds - 1)
        for part in parts:
            if part.loose:
                pieces = (part.nodes, np.setdiff1d(members, part.nodes))
                return [
                    each
                    for piece in pieces
                    for each in self._told_apart(piece, around, ordinary, rounds - 1)
                ]
        if parts and not acts_as_strangers(ordinary.measured(members)):
            strange = [
                each.nodes for each in parts if acts_as_strangers(ordinary.measured(each.nodes))
            ]
            left = np.setdiff1d(members, np.concatenate(strange)) if strange else members
            if fewest <= left.size < members.size:
                return self._told_apart(left, around, ordinary, rounds - 1)
        return [members]

    def _judged(self, candidates: list[Candidate]) -> list[Candidate]:
        """Score all candidates of a run together, as a rate of false discoveries is one of many."""
        p_values = np.array([each.evidence.p_value for each in candidates])
        return [
            replace(
                each,
                q_value=float(q),
                score=scored(each.evidence, float(q), self._options.false_discoveries),
            )
            for each, q in zip(candidates, q_values(p_values), strict=True)
        ]


def _addresses_of(sightings: Sightings, groups: list[Ints]) -> Floats:
    """Return how many addresses each group used."""
    codes = np.repeat(np.arange(len(groups)), [each.size for each in groups])
    sightings.lend("grouped", {"code": codes, "node": np.concatenate(groups)})
    counted = sightings.columns(queries.GROUP_ADDRESSES)
    addresses = np.zeros(len(groups))
    addresses[counted["code"]] = counted["addresses"]
    return addresses
