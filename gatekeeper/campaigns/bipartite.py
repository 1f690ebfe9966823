"""Cores and dense parts of a graph of accounts and traits, in vectorised steps.

An edge is a row in two parallel arrays: ``account`` and ``trait``, both codes from 0. A core visits
each edge a bounded number of times; a peeling halves its work every dozen rounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]

_SLOWEST: Final = 0.05
"""Part of the accounts that every round of peeling takes at least."""
_LOOSE: Final = 0.3
"""Accounts with less than this part of the mean connection go at once."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Edges sorted by one of their ends, to be found by it."""

    order: Ints
    starts: Ints

    @classmethod
    def by(cls, end: Ints, size: int) -> Rows:
        """Sort the edges; ``size`` is the number of codes."""
        counts = np.bincount(end, minlength=size)
        starts = np.concatenate(([0], np.cumsum(counts)))
        return cls(np.argsort(end, kind="stable"), starts)

    def of(self, codes: Ints) -> Ints:
        """Return the edges at these ends."""
        first, counts = self.starts[codes], self.starts[codes + 1] - self.starts[codes]
        ends = np.cumsum(counts)
        steps = np.arange(int(ends[-1]) if ends.size else 0) - np.repeat(ends - counts, counts)
        found: Ints = self.order[np.repeat(first, counts) + steps]
        return found


def core(account: Ints, trait: Ints, layer: Ints, caps: Ints, least: int) -> Flags:
    """Return which edges are in the core: every account keeps ``least`` traits, every trait two.

    ``layer`` is by trait; of each layer no more than ``caps`` traits of an account count. Edges are
    distinct.
    """
    accounts = int(account.max(initial=-1)) + 1
    traits = int(trait.max(initial=-1)) + 1
    by_account, by_trait = Rows.by(account, accounts), Rows.by(trait, traits)
    counts = np.zeros((accounts, caps.size), dtype=np.int64)
    np.add.at(counts, (account, layer[trait]), 1)
    holders = np.bincount(trait, minlength=traits)
    account_in, trait_in = np.ones(accounts, dtype=bool), np.ones(traits, dtype=bool)
    leaving = np.flatnonzero(np.minimum(counts, caps).sum(axis=1) < least)
    lonely = np.flatnonzero(holders < 2)  # noqa: PLR2004 (a pair)
    while leaving.size or lonely.size:
        account_in[leaving] = False
        touched = trait[by_account.of(leaving)]
        np.subtract.at(holders, touched, 1)
        touched = np.unique(touched)
        touched = touched[trait_in[touched] & (holders[touched] < 2)]  # noqa: PLR2004
        lonely = np.union1d(touched, lonely[trait_in[lonely]])
        trait_in[lonely] = False
        edges = by_trait.of(lonely)
        np.subtract.at(counts, (account[edges], layer[trait[edges]]), 1)
        near = np.unique(account[edges])
        near = near[account_in[near]]
        leaving = near[np.minimum(counts[near], caps).sum(axis=1) < least]
        lonely = lonely[:0]
    kept: Flags = account_in[account] & trait_in[trait]
    return kept


def components(account: Ints, trait: Ints, accounts: int, traits: int) -> Ints:
    """Return the component of each account: the least account in it, or itself."""
    label = np.arange(accounts)
    while True:
        least = np.full(traits, accounts)
        np.minimum.at(least, trait, label[account])
        lower = label.copy()
        np.minimum.at(lower, account, least[trait])
        np.minimum.at(lower, label, lower)
        lower = lower[lower]
        if np.array_equal(lower, label):
            return label
        label = lower


def densest(account: Ints, trait: Ints, weight: Floats, holders: Ints) -> Ints:
    """Return the accounts of a part whose density is within a small factor of the greatest.

    The density is the sum of the weights of the links for each account, each link times the part of
    its trait's ``holders`` (by trait) who are in: what is torn out of a larger whole weighs little,
    a trait left with one account nothing. The sum is supermodular, so that peeling comes near the
    best. The least connected go first, a twentieth in a round at least; the densest state is kept.
    """
    accounts, account = np.unique(account, return_inverse=True)
    traits, trait = np.unique(trait, return_inverse=True)
    full = holders[traits]
    best, best_density = accounts, -1.0
    while account.size:
        inside = np.bincount(trait, minlength=full.size)[trait]
        kept = inside > 1
        account, trait, weight, inside = account[kept], trait[kept], weight[kept], inside[kept]
        present = np.flatnonzero(np.bincount(account, minlength=accounts.size))
        if not present.size:
            break
        part = weight * inside / full[trait]
        connection = np.bincount(account, weights=part, minlength=accounts.size)
        here = float(connection[present].mean())
        if here > best_density * (1 + 1e-9):
            best, best_density = accounts[present], here
        rank = max(int(present.size * _SLOWEST), 1)
        bound = np.partition(connection[present], rank - 1)[rank - 1]
        kept = (connection > max(float(bound), _LOOSE * here))[account]
        account, trait, weight = account[kept], trait[kept], weight[kept]
        if 2 * present.size < accounts.size:  # what is gone is counted no more
            present, account = np.unique(account, return_inverse=True)
            accounts = accounts[present]
            present, trait = np.unique(trait, return_inverse=True)
            full = full[present]
    return best
