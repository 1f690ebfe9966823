"""From measures to a score with a stated rate of false discoveries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from gatekeeper.campaigns.groups import NO_CHANCE
from gatekeeper.campaigns.links import FAMILY, LAYERS
from gatekeeper.campaigns.measures import GINI, Family
from gatekeeper.policy.campaigns import Layer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gatekeeper.campaigns.bipartite import Floats, Ints
    from gatekeeper.campaigns.groups import Neighbours
    from gatekeeper.campaigns.measures import Measure

_LINKS_BY_ITSELF: Final = 0.5
"""Part of the members who have an own trait of a layer, from which the layer links the group."""
_LINKS_MANY: Final = 0.2
"""The same where these are so many that it is no chance."""
_FOLLOWS: Final = {Layer.SIGNUP: Family.AGE, Layer.SCAFFOLD: Family.WORK}
"""Behaviour that proves nothing more of a group which such a layer selected."""
_UNREMARKABLE: Final = 0.05
"""Chance above which a family of measures is what ordinary accounts show."""
_MACHINES: Final = 1e-3
"""Chance below which people do not share their hours, nor hop among addresses, not even in one
office."""
_BALANCED: Final = 0.5
"""Unevenness of volumes (Gini), in parts of that of strangers, up to which load is balanced."""
_EVEN: Final = 0.01
"""Chance above which volumes are not told from those of strangers."""
_CEILING: Final = {0: 25.0, 1: 55.0, 2: 90.0}
"""Highest score by independent layers: one alone leads to no more than a shared budget."""
_HONEST_CEILING: Final = 45.0
"""Highest score of a group whose volumes are those of strangers, or that is one office."""
_FLOOR: Final = 30.0
"""Score of a group that just counts as a discovery."""
_DIGITS: Final = 7.0
"""Decimal digits of the q value that make up a full score."""
_OFFICE: Final = 0.5
"""Addresses for each member below which many sit behind few (NAT)."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for a group in one window, before it is compared with the others."""

    layers: tuple[Layer, ...]
    """Independent ones, each linking the group by itself: one for each family, the widest."""
    measures: tuple[Measure, ...]
    addresses_per_member: float
    hosted: float
    """Part of the calls from hosting networks, where few addresses are nothing special."""

    @property
    def p_value(self) -> float:
        """Chance of such behaviour among ordinary accounts, over independent families.

        All of them together (Fisher), or the least of them (Bonferroni), and twice that, as it is
        the better of two: one that is beyond doubt is not made less so by those that say nothing.
        """
        followed = {_FOLLOWS.get(layer) for layer in self.layers}
        told = [p for each, p in self._families().items() if each not in followed]
        return min(1.0, 2 * min(fisher(told), len(told) * min(told))) if told else 1.0

    @property
    def even(self) -> bool:
        """Whether volumes lie more evenly than those of honest groups do.

        Chance alone does not say that: a large class or a hall of colleagues is a little more even
        than strangers are, beyond doubt, and by far not as even as balanced load.
        """
        spread = [each for each in self.measures if each.name == GINI]
        balanced = all(each.value <= _BALANCED * each.ordinary for each in spread)
        return balanced and self._families().get(Family.VOLUME, 1.0) < _EVEN

    @property
    def honest(self) -> bool:
        """Whether the group behaves as strangers do, or as people of one office.

        Many sit behind few addresses in an office, and each keeps to one or two: who hops among all
        of them, as through a carrier's, sits elsewhere.
        """
        families = self._families()
        office = self.addresses_per_member < _OFFICE and self.hosted < _OFFICE
        strange = min(families.get(Family.CLOCK, 1.0), families.get(Family.NETWORK, 1.0))
        machines = self.even and strange < _MACHINES
        return (office and not machines) or families.get(Family.VOLUME, 1.0) > _UNREMARKABLE

    def _families(self) -> dict[Family, float]:
        return by_family(self.measures)


def by_family(measures: Sequence[Measure]) -> dict[Family, float]:
    """Return the least p value of each family, corrected for the choice."""
    found: dict[Family, list[float]] = {}
    for each in measures:
        found.setdefault(each.family, []).append(each.p_value)
    return {family: min(1.0, len(some) * min(some)) for family, some in found.items()}


def acts_as_strangers(measures: Sequence[Measure]) -> bool:
    """Tell whether accounts were measured, and their volumes are no more even than anybody's."""
    return by_family(measures).get(Family.VOLUME, 0.0) > _UNREMARKABLE


def fisher(p_values: Sequence[float]) -> float:
    """Return the chance that independent tests together come out so low; 1 for no test."""
    if not p_values:
        return 1.0
    half = -sum(math.log(max(each, 1e-300)) for each in p_values)
    terms = sum(half**power / math.factorial(power) for power in range(len(p_values)))
    return min(1.0, math.exp(-half) * terms)


def q_values(p_values: Floats) -> Floats:
    """Return for each test the least rate of false discoveries to let it in.

    By Benjamini and Hochberg.
    """
    size = p_values.size
    order = np.argsort(p_values, kind="stable")
    scaled = p_values[order] * size / np.arange(1, size + 1)
    least = np.minimum.accumulate(scaled[::-1])[::-1]
    result = np.empty(size)
    result[order] = np.minimum(least, 1.0)
    return result


def linking_layers(around: Neighbours, members: Ints) -> tuple[Layer, ...]:
    """Return the layers each of which links the group by the group's own traits alone.

    It links most of the members, or a good part where these are many.
    """
    links, own = around.links, around.own(members)
    edges = around.by_node.of(members)
    edges = edges[np.isin(links.trait[edges], own.trait)]
    pairs = np.unique(links.node[edges] * len(LAYERS) + links.layer[links.trait[edges]])
    counts = np.bincount(pairs % len(LAYERS), minlength=len(LAYERS))
    widest: dict[int, int] = {}
    many = max(_LINKS_MANY * members.size, NO_CHANCE)
    for place in np.flatnonzero(counts >= min(_LINKS_BY_ITSELF * members.size, many)):
        family = int(FAMILY[place])
        if family not in widest or counts[place] > counts[widest[family]]:
            widest[family] = int(place)
    return tuple(LAYERS[place] for place in sorted(widest.values()))


def scored(evidence: Evidence, q_value: float, false_discoveries: float) -> float:
    """Return 0 to 100.

    From 60 on, ``q_value`` is at most ``false_discoveries``, and two layers or more link the group.
    """
    if q_value > _UNREMARKABLE or not evidence.layers:
        return round(_CEILING[0] * (1 - q_value), 1)
    digits = min(-math.log10(max(q_value, 1e-300)) / _DIGITS, 1.0)
    score = min(_FLOOR + (100 - _FLOOR) * digits, _CEILING.get(len(evidence.layers), 100.0))
    if q_value > false_discoveries:
        score = min(score, _CEILING[1])
    if evidence.honest:
        score = min(score, _HONEST_CEILING)
    if not evidence.even:
        score = min(score, _CEILING[1])
    return round(score, 1)
