"""Scores: what they state, and what they may not reach."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.campaigns.measures import Family, Measure
from gatekeeper.campaigns.score import Evidence, acts_as_strangers, fisher, q_values, scored
from gatekeeper.policy.campaigns import Layer

if TYPE_CHECKING:
    from typing import Any

LAYERS = (Layer.ADDRESS, Layer.SIGNUP, Layer.SCAFFOLD)


def evidence(  # noqa: PLR0917
    layers: Any = LAYERS,
    volume: float = 1e-6,
    addresses: float = 200.0,
    hosted: float = 0.0,
    age: float = 1.0,
    clock: float = 1e-4,
) -> Evidence:
    """Return the evidence for a group that behaves as one."""
    measures = (
        Measure("gini", Family.VOLUME, 0.1, 0.6, volume),
        Measure("age_days", Family.AGE, 5.0, 200.0, age),
        Measure("clock_flatness", Family.CLOCK, 0.99, 0.9, clock),
    )
    return Evidence(layers, measures, addresses, hosted)


def test_fisher_of_one_is_itself_and_of_many_is_even() -> None:
    """One test stays as it is; under no effect, a twentieth of all is below 0.05."""
    assert fisher([0.03]) == pytest.approx(0.03)
    assert fisher([]) == 1.0
    chance = np.random.default_rng(5)
    drawn = [fisher(row) for row in chance.random((4_000, 3)).tolist()]
    assert np.mean(np.array(drawn) < 0.05) == pytest.approx(0.05, abs=0.012)


def test_false_discoveries_stay_at_the_stated_rate() -> None:
    """Of what Benjamini and Hochberg let in at 0.1, a tenth at most is false on the average."""
    chance = np.random.default_rng(6)
    false = []
    for _ in range(300):
        p_values = np.concatenate([chance.random(90), chance.random(10) * 1e-4])
        found = q_values(p_values) <= 0.1
        false.append(found[:90].sum() / max(found.sum(), 1))
    assert np.mean(false) <= 0.1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_q_values_keep_the_order(p_values: list[float]) -> None:
    """A q value is no less than its p value, and never overtakes another."""
    values = np.array(p_values)
    q = q_values(values)
    assert (q >= values - 1e-12).all()
    assert (np.diff(q[np.argsort(values, kind="stable")]) >= 0).all()


def test_one_layer_alone_never_passes_throttling() -> None:
    """However sure, a group that one layer links scores below 60."""
    for layer in Layer:
        assert scored(evidence(layers=(layer,)), 1e-12, 0.01) < 60


def test_more_layers_score_higher() -> None:
    """Two independent layers pass 75, three reach 100."""
    assert scored(evidence(layers=LAYERS[:2]), 1e-12, 0.01) == 90
    assert scored(evidence(), 1e-12, 0.01) == 100


@given(st.floats(0, 1), st.integers(0, 3))
def test_sixty_states_its_rate(q_value: float, layers: Any) -> None:
    """Whatever scores 60 has a q value within the stated rate and two layers."""
    if scored(evidence(layers=LAYERS[:layers]), q_value, 0.01) >= 60:
        assert q_value <= 0.01
        assert layers >= 2


def test_an_office_is_left_alone() -> None:
    """People behind few addresses (NAT) are only observed; machines, or a data centre, are not."""
    assert scored(evidence(addresses=0.1, clock=0.01), 1e-12, 0.01) < 50
    assert scored(evidence(addresses=0.1, volume=0.01), 1e-12, 0.01) < 50
    assert scored(evidence(addresses=0.1), 1e-12, 0.01) == 100
    assert scored(evidence(addresses=0.1, hosted=0.9), 1e-12, 0.01) == 100


def test_who_hops_among_few_addresses_is_in_no_office() -> None:
    """Balanced load behind a carrier is found before its hours tell; people there are not."""
    group = evidence(addresses=0.1, clock=0.1)
    hops = Measure("addresses_per_call", Family.NETWORK, 0.3, 0.1, 1e-6)
    hopping = replace(group, measures=(*group.measures, hops))
    assert scored(group, 1e-12, 0.01) < 50
    assert scored(hopping, 1e-12, 0.01) == 100
    uneven = replace(
        hopping, measures=(*hopping.measures[1:], replace(group.measures[0], value=0.5))
    )
    assert scored(uneven, 1e-12, 0.01) < 50


def test_volumes_of_strangers_are_those_of_strangers() -> None:
    """A group whose volumes lie like anybody's is not one operator's."""
    assert scored(evidence(volume=0.3), 1e-12, 0.01) < 50


def test_what_selected_a_group_is_not_held_against_it_twice() -> None:
    """A group linked by its signups gains nothing from being young."""
    young, old = evidence(age=1e-6), evidence(age=1.0)
    assert young.p_value == old.p_value
    assert evidence(layers=(Layer.ADDRESS,), age=1e-6).p_value < young.p_value


def test_more_even_than_strangers_is_not_balanced() -> None:
    """A hall of colleagues is beyond doubt more even than strangers, and not like balanced load."""
    hall = (
        Measure("gini", Family.VOLUME, 0.4, 0.6, 1e-9),
        Measure("clock_own", Family.CLOCK, 0.9, 0.7, 1e-9),
    )
    assert scored(Evidence(LAYERS, hall, 2.0, 0.0), 1e-12, 0.01) == 55
    assert scored(Evidence(LAYERS, hall, 0.01, 0.0), 1e-12, 0.01) < 50
    load = (replace(hall[0], value=0.2), hall[1])
    assert scored(Evidence(LAYERS, load, 2.0, 0.0), 1e-12, 0.01) == 100


def test_presence_is_no_evenness() -> None:
    """People at work come every day, too."""
    busy = (
        Measure("days_active", Family.PRESENCE, 0.9, 0.3, 1e-9),
        Measure("gini", Family.VOLUME, 0.6, 0.6, 0.5),
    )
    assert acts_as_strangers(busy)
    assert scored(Evidence(LAYERS, busy, 2.0, 0.0), 1e-12, 0.01) < 50
    assert not acts_as_strangers([])
