"""Accounts of the same hours find each other, strangers do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gatekeeper.campaigns.timing import copies

if TYPE_CHECKING:
    from typing import Any


def agreeing(part: Any, seed: int) -> int:
    """Return how many of 200 pairs, that have a part of their slots in common, agree in a band."""
    chance = np.random.default_rng(seed)
    nodes, slots = [], []
    for pair in range(200):
        own = chance.choice(100_000, 100, replace=False)
        common = int(100 * part)
        other = np.concatenate([own[:common], 100_000 + pair * 100 + np.arange(100 - common)])
        nodes += [2 * pair] * 100 + [2 * pair + 1] * 100
        slots += [*own, *other]
    node, digest, band = copies(np.array(nodes), np.array(slots))
    seen = set(zip((node // 2).tolist(), digest.tolist(), band.tolist(), strict=True))
    return 200 - sum(len({each for each in seen if each[0] == pair}) == 8 for pair in range(200))


def test_copies_agree_and_strangers_do_not() -> None:
    """Of pairs that share all slots all agree, of those that share a fifth next to none."""
    assert agreeing(1.0, 1) == 200
    assert agreeing(0.9, 2) > 100
    assert agreeing(0.2, 3) < 3


def test_nobody_has_no_digests() -> None:
    """An empty window is no mistake."""
    empty = np.zeros(0, dtype=np.int64)
    assert all(each.size == 0 for each in copies(empty, empty))
