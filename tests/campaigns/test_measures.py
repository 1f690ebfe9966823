"""Groups held against random ones of ordinary accounts."""

from __future__ import annotations

import numpy as np
import pytest

from gatekeeper.campaigns.measures import Behaviour, Measure, Ordinary

SIZE = 3_000


def behaviour() -> Behaviour:
    """Return what strangers did in a week; the first hundred call 180 times, spread evenly."""
    chance = np.random.default_rng(8)
    calls = np.ceil(np.exp(chance.normal(3, 1.4, SIZE)) + 2)
    calls[:100] = chance.poisson(180, 100)
    days = np.minimum(np.ceil(calls / 6), chance.integers(1, 8, SIZE)).astype(float)
    days[:100] = 7
    clock = chance.dirichlet(np.exp(-((np.arange(24) - 14) ** 2) / 30) + 0.02, SIZE)
    clock[:100] = 1 / 24
    addresses = np.minimum(calls, chance.integers(1, 6, SIZE)).astype(float)
    addresses[:100] = calls[:100]
    return Behaviour(
        calls=calls,
        active_days=days,
        squares=calls**2 / days * 1.5,
        addresses=addresses,
        hosted=np.zeros(SIZE),
        age_days=chance.random(SIZE) * 400,
        usual_age_days=200.0,
        clock=clock.astype(np.float32),
        work=np.ones((SIZE, 1)),
        days=7.0,
    )


def measured(members: np.ndarray[tuple[int], np.dtype[np.int64]]) -> dict[str, Measure]:
    """Return the measures of some nodes, the rest but the first hundred being ordinary."""
    ordinary = np.setdiff1d(np.arange(100, SIZE), members)
    drawn = Ordinary(ordinary, behaviour(), 400, np.random.default_rng(2))
    return {each.name: each for each in drawn.measured(members)}


@pytest.mark.parametrize("name", ["gini", "addresses_per_call", "clock_flatness", "days_active"])
def test_what_one_operator_does_is_strange(name: str) -> None:
    """Even volumes, an address for every call, a day without a night, every day."""
    assert measured(np.arange(100))[name].p_value < 0.01


def test_random_groups_are_not_strange() -> None:
    """Of groups of strangers, about a twentieth fall below 0.05 by any one measure."""
    chance = np.random.default_rng(9)
    low = []
    for _ in range(60):
        found = measured(np.sort(chance.choice(np.arange(100, SIZE), 60, replace=False)))
        low += [each.p_value < 0.05 for each in found.values()]
    assert np.mean(low) < 0.1


def test_too_few_say_nothing() -> None:
    """Two accounts, or no ordinary ones to compare with, give no measure at all."""
    assert measured(np.arange(2)) == {}
    nobody = Ordinary(np.arange(2), behaviour(), 400, np.random.default_rng(2))
    assert nobody.measured(np.arange(100)) == []
