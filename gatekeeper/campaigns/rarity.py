"""What makes a trait telling: that few have it, more than chance would give, and alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from gatekeeper.campaigns.options import WEEK_S

if TYPE_CHECKING:
    from numpy.random import Generator

    from gatekeeper.campaigns.bipartite import Flags, Floats, Ints

_SIZES: Final = (20, 40, 80, 160, 320, 640, 1280, 2560)
"""Sizes for which the spread of random holders is measured; others lie between."""
_DRAWS: Final = 24
_WEEKS: Final = 0.5
"""Part of the signup weeks of random holders from which the holders of a trait are anybody."""
_UNEVEN: Final = 0.75
"""The same for how unevenly their volumes lie."""
_SMALL: Final = 3.0
"""Median volume, in lower quartiles of all, up to which evenness says nothing: few are alike."""
_PLACES: Final = 0.3
"""Networks for each holder from which a trait is in use everywhere."""


def surprise(found: Ints, expected: Floats) -> Floats:
    """Return how unlikely so many are where few were expected: a bound of -ln p (Chernoff)."""
    rate = np.maximum(expected, 1e-9)
    exponent = found * np.log(found / rate) - found + rate
    return np.where(found > rate, exponent, 0.0)


def gini(volumes: Floats) -> Floats:
    """Return, along the last axis, 0 where all have the same volume and 1 where one has it all."""
    ranked = np.sort(volumes, axis=-1)
    count = ranked.shape[-1]
    places = 2 * np.arange(1, count + 1) - count - 1
    total = np.maximum(ranked.sum(axis=-1), 1e-12)
    result: Floats = (ranked * places).sum(axis=-1) / (count * total)
    return result


def _effective(groups: Ints, values: Ints, size: int) -> Floats:
    """Return for each group how many values its rows are spread over (exponent of entropy)."""
    pairs, counts = np.unique(groups * (values.max(initial=0) + 1) + values, return_counts=True)
    owners = pairs // (values.max(initial=0) + 1)
    totals = np.bincount(groups, minlength=size)
    shares = counts / totals[owners]
    entropy = np.bincount(owners, weights=-shares * np.log(shares), minlength=size)
    return np.exp(entropy)


@dataclass(frozen=True, slots=True)
class Public:
    """Learns which traits are public templates: held by all sorts, over networks and weeks.

    A campaign may be a tenth of all accounts, so that being frequent proves nothing. What the
    public shares is spread over signup weeks like the accounts at large, over many networks, and
    its holders' volumes lie as unevenly as everybody's, or are small.
    """

    weeks: Ints
    """Signup week by node."""
    volumes: Floats
    """Calls by node."""
    networks: Ints
    """A code of the network that each node used most."""
    sizes: Ints
    week_spread: Floats
    """Effective number of signup weeks among random holders, by size."""
    unevenness: Floats
    """Gini coefficient of their volumes, by size."""
    small: float
    """Calls that are few."""

    @classmethod
    def learned(
        cls, created_at: Floats, volumes: Floats, networks: Ints, chance: Generator
    ) -> Public:
        """Measure random holders of several sizes among the active nodes."""
        weeks = np.where(np.isnan(created_at), 0, created_at) // WEEK_S
        weeks = (weeks - weeks.min(initial=0)).astype(np.int64)
        active = np.flatnonzero(volumes > 0)
        sizes = np.array([each for each in _SIZES if each <= active.size] or [1])
        spreads, uneven = [], []
        for size in sizes:
            drawn = chance.choice(active, (_DRAWS, size)) if active.size else np.zeros((1, 1), int)
            rows = np.repeat(np.arange(drawn.shape[0]), drawn.shape[1])
            spread = _effective(rows, weeks[drawn.ravel()], drawn.shape[0])
            spreads.append(float(np.median(spread)))
            uneven.append(float(np.median(gini(volumes[drawn]))))
        small = _SMALL * float(np.quantile(volumes[active], 0.25)) if active.size else 0.0
        return cls(weeks, volumes, networks, sizes, np.array(spreads), np.array(uneven), small)

    def among(self, node: Ints, trait: Ints, holders: Ints) -> Flags:
        """Return which traits are public. Those with fewer than 20 holders never are."""
        size = holders.size
        public = np.zeros(size, dtype=bool)
        many = holders >= _SIZES[0]
        if not many.any():
            return public
        rows = many[trait]
        node, trait = node[rows], trait[rows]
        spread = _effective(trait, self.weeks[node], size)
        counted = np.log(np.maximum(holders, 1))
        expected = np.interp(counted, np.log(self.sizes), self.week_spread)
        uneven = np.interp(counted, np.log(self.sizes), self.unevenness)
        places = self.networks.max(initial=0) + 1
        pairs = np.unique(trait * places + self.networks[node]) // places
        networks = np.bincount(pairs, minlength=size)
        found, middle = _volumes_by(trait, self.volumes[node], size)
        anyhow = (found >= _UNEVEN * uneven) | (middle <= self.small)
        anybody = (spread >= _WEEKS * expected) & anyhow
        return many & anybody & (networks >= _PLACES * holders)


def _volumes_by(group: Ints, volumes: Floats, size: int) -> tuple[Floats, Floats]:
    """Return the Gini coefficient and the median of the volumes of each group."""
    order = np.lexsort((volumes, group))
    group, volumes = group[order], volumes[order]
    counts = np.bincount(group, minlength=size)
    starts = np.cumsum(counts) - counts
    rank = np.arange(group.size) - starts[group] + 1
    places = 2 * rank - counts[group] - 1
    totals = np.bincount(group, weights=volumes, minlength=size)
    moment = np.bincount(group, weights=volumes * places, minlength=size)
    middle = np.zeros(size)
    filled = counts > 0
    middle[filled] = volumes[(starts + counts // 2)[filled]]
    return moment / np.maximum(counts * totals, 1e-12), middle
