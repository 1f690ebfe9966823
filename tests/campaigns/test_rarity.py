"""What is told apart as telling, by chance, or public."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.campaigns.options import WEEK_S
from gatekeeper.campaigns.rarity import Public, gini, surprise

if TYPE_CHECKING:
    from typing import Any

CHANCE = np.random.default_rng(3)


@given(st.integers(1, 60), st.floats(0.01, 50))
def test_surprise_bounds_the_poisson_tail(found: int, expected: float) -> None:
    """E to the minus surprise is never less than the chance of so many."""
    below = sum(
        math.exp(k * math.log(expected) - expected - math.lgamma(k + 1)) for k in range(found)
    )
    exponent = float(surprise(np.array([found]), np.array([expected]))[0])
    assert math.exp(-exponent) >= 1 - below - 1e-9


def test_gini_of_even_and_of_one_sided_volumes() -> None:
    """Even volumes have 0; of four, one who has it all makes three quarters."""
    assert gini(np.array([3.0, 3.0, 3.0])) == pytest.approx(0)
    assert gini(np.array([0.0, 0.0, 0.0, 8.0])) == pytest.approx(0.75)


def population(size: int = 4_000) -> Any:
    """Return signup times over a year, volumes of strangers, and a network for each."""
    created = CHANCE.random(size) * 52 * WEEK_S
    return created, np.exp(CHANCE.normal(1, 1.3, size)), CHANCE.integers(0, size, size)


def judged(created: Any, volumes: Any, networks: Any, holders: Any) -> bool:
    """Return whether the one trait that the holders have is public."""
    public = Public.learned(created, volumes, networks, np.random.default_rng(1))
    trait = np.zeros(holders.size, dtype=np.int64)
    return bool(public.among(holders, trait, np.array([holders.size]))[0])


def test_a_template_of_all_sorts_is_public() -> None:
    """Random holders over weeks and networks with uneven volumes make a public template."""
    assert judged(*population(), CHANCE.choice(4_000, 300, replace=False))


def test_a_campaign_of_a_tenth_of_all_is_not_public() -> None:
    """Being frequent proves nothing: these signed up in three weeks."""
    created, volumes, networks = population()
    created[:400] = created.max() - CHANCE.random(400) * 3 * WEEK_S
    assert not judged(created, volumes, networks, np.arange(400))


def test_bought_aged_accounts_are_not_public() -> None:
    """They are of all weeks, but their volumes are even."""
    created, volumes, networks = population()
    volumes[:400] = CHANCE.poisson(26, 400)
    assert not judged(created, volumes, networks, np.arange(400))


def test_an_office_is_not_the_public() -> None:
    """A template that many use in two networks only is that of a house."""
    created, volumes, networks = population()
    networks[:200] = CHANCE.integers(0, 2, 200)
    assert not judged(created, volumes, networks, np.arange(200))


def test_a_few_are_never_the_public() -> None:
    """Below twenty holders there is nothing to learn from."""
    assert not judged(*population(), np.arange(19))
