"""Cores against a slow reference, and what peeling keeps."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.campaigns.bipartite import components, core, densest

if TYPE_CHECKING:
    from typing import Any

CAPS = np.array([2, 1, 3])
EDGES = st.sets(st.tuples(st.integers(0, 12), st.integers(0, 15)), min_size=1, max_size=80)


def plain_core(edges: set[tuple[int, int]], layers: Any, least: int) -> set[tuple[int, int]]:
    """Take out whatever breaks the rule, one at a time, until nothing does."""
    edges = set(edges)
    while True:
        traits, accounts = defaultdict(set), defaultdict(set)
        for account, trait in edges:
            traits[account].add(trait)
            accounts[trait].add(account)
        for account, some in traits.items():
            counts = np.bincount([layers[trait] for trait in some], minlength=CAPS.size)
            if np.minimum(counts, CAPS).sum() < least:
                edges = {edge for edge in edges if edge[0] != account}
                break
        else:
            lonely = [trait for trait, some in accounts.items() if len(some) < 2]
            if not lonely:
                return edges
            edges = {edge for edge in edges if edge[1] not in lonely}


@given(EDGES, st.lists(st.integers(0, 2), min_size=16, max_size=16), st.integers(1, 4))
def test_core_is_that_of_the_slow_way(edges: set[tuple[int, int]], layers: Any, least: int) -> None:
    """The frontier of removals ends where removing one by one does, for any graph."""
    account, trait = np.array(sorted(edges)).T
    kept = core(account, trait, np.array(layers), CAPS, least)
    assert set(zip(account[kept], trait[kept], strict=True)) == plain_core(edges, layers, least)


@given(EDGES)
def test_components_are_those_of_walking(edges: set[tuple[int, int]]) -> None:
    """Two accounts have one label exactly if a way leads from one to the other."""
    account, trait = np.array(sorted(edges)).T
    label = components(account, trait, 13, 16)
    reached = {node: {node} for node in range(13)}
    for _ in range(13):
        for one, shared in edges:
            for other, also in edges:
                if shared == also:
                    reached[one] |= reached[other]
    for one in range(13):
        for other in range(13):
            assert (label[one] == label[other]) == (other in reached[one])


def test_a_long_chain_is_unravelled_in_time() -> None:
    """A chain made to be peeled one account at a time costs no more than its length."""
    length = 50_000
    account = np.repeat(np.arange(length), 2)[1:]
    trait = account - np.tile([0, 1], length)[1:]
    trait = np.maximum(trait, 0)
    kept = core(account, trait, np.zeros(length, dtype=int), np.array([5]), 2)
    assert not kept.any()


def block(first_account: int, accounts: int, first_trait: int, traits: int) -> Any:
    """Return the edges of accounts that all have all of some traits."""
    account = np.repeat(np.arange(first_account, first_account + accounts), traits)
    return account, np.tile(np.arange(first_trait, first_trait + traits), accounts)


def test_the_dense_part_is_found_beneath_a_fringe() -> None:
    """Accounts that hang on by one trait are peeled off those who share six."""
    dense, fringe = block(0, 30, 0, 6), block(30, 40, 5, 1)
    account, trait = np.concatenate([dense, fringe], axis=1)
    found = densest(account, trait, np.ones(account.size), np.bincount(trait))
    assert found.tolist() == list(range(30))


def test_a_part_is_not_torn_out_of_a_whole() -> None:
    """Cards that three have are rarer than the scaffold that all have, and do not split them."""
    scaffold = block(0, 60, 0, 1)
    cards = np.arange(60), 1 + np.arange(60) // 3
    account, trait = np.concatenate([scaffold, cards], axis=1)
    weight = np.where(trait == 0, 4.0, 6.0)
    found = densest(account, trait, weight, np.bincount(trait))
    assert found.size == 60


@given(EDGES, st.randoms())
def test_peeling_comes_near_the_best(edges: set[tuple[int, int]], random: Any) -> None:
    """No random part is three times as dense as what peeling keeps."""
    account, trait = np.array(sorted(edges)).T
    holders = np.bincount(trait, minlength=16)

    def density(part: Any) -> Any:
        chosen = np.isin(account, part)
        inside = np.bincount(trait[chosen], minlength=16)
        worth = np.where(inside > 1, inside * inside / np.maximum(holders, 1), 0).sum()
        return worth / max(len(part), 1)

    found = density(densest(account, trait, np.ones(account.size), holders))
    present = sorted(set(account.tolist()))
    for _ in range(5):
        part = random.sample(present, random.randint(1, len(present)))
        assert density(part) <= 3 * found + 1e-9
