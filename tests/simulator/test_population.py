"""The simulated world: figures of its honest people, and how each adversary hides."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pytest
from msgspec.structs import replace

from gatekeeper.cli.simulate import SHIPPED
from gatekeeper.simulator.columns import lend_people, write_day
from gatekeeper.simulator.population import made
from gatekeeper.simulator.scenario import (
    DAY_S,
    RANGES,
    Adversary,
    Ranges,
    Scenario,
    ScenarioError,
    read_scenario,
)
from gatekeeper.simulator.traffic import events_of
from gatekeeper.simulator.world import CAMPAIGN, Ask

if TYPE_CHECKING:
    from pathlib import Path

SMALL = Scenario("small", Adversary.A, seed=3, days=14, honest=2_000, accounts=60, first_day=2)


def days_of(scenario: Scenario, days: range) -> list[Any]:
    """Return the events of some days."""
    world = made(scenario)
    return [events_of(world, day) for day in days]


def test_ranges_for_tuning_and_reporting_are_disjoint() -> None:
    """Nothing that is reported was ever drawn while the detector was worked on."""
    for name, by in RANGES.items():
        (low, high), (other_low, other_high) = by[Ranges.TUNING], by[Ranges.REPORTING]
        assert low < high, name
        assert other_low < other_high, name
        assert high < other_low or other_high < low, name


@pytest.mark.parametrize("ranges", list(Ranges))
def test_parameters_are_drawn_in_the_ranges_or_as_set(ranges: Ranges) -> None:
    """By the seed alone; a scenario may set any of them."""
    scenario = replace(SMALL, ranges=ranges, parameters={"cover": 0.5})
    drawn = scenario.drawn()
    assert drawn == scenario.drawn()
    assert drawn.pop("cover") == 0.5
    assert all(RANGES[name][ranges][0] <= each <= RANGES[name][ranges][1] for name, each in drawn.items())  # fmt: skip  # noqa: E501


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_scenarios_are_those_of_reporting(path: Path) -> None:
    """One for each adversary, under its letter."""
    scenario = read_scenario(path)
    assert scenario.name == scenario.adversary == path.stem
    assert scenario.ranges is Ranges.REPORTING
    assert {each.stem for each in SHIPPED.glob("*.yaml")} == set(Adversary)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\nhonnest: 5", "unknown field"),
        ("name: x\nhonest: 5", ">= 100"),
        ("name: x\nadversary: z", "Invalid enum"),
        ("name: x\nparameters: {pols: 1}", "no `pols`; there are large_pool"),
        ("name: x\ndays: 3\nfirst_day: 3", "`first_day` must be before"),
        ("- 1", "Expected `object`"),
        ("name: [", "while parsing"),
    ],
)
def test_a_wrong_scenario_is_told(tmp_path: Path, text: str, said: str) -> None:
    """With its file and what is wrong."""
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=f"s.yaml.*{said}"):
        read_scenario(path)


@pytest.mark.parametrize("adversary", list(Adversary))
def test_every_adversary_calls_as_planned(adversary: Adversary) -> None:
    """26 calls a day of each account, but for H, which grows; honest people are the same."""
    scenario = replace(SMALL, adversary=adversary)
    world = made(scenario)
    events = events_of(world, scenario.first_day + 5)
    mine = int(world.fake[events.who].sum())
    if adversary is Adversary.NONE:
        assert mine == 0
        return
    planned = 26 * scenario.accounts
    bounds = (0.2, 1.0) if adversary is Adversary.H else (0.85, 1.15)
    assert bounds[0] * planned <= mine <= bounds[1] * planned
    alone = made(replace(scenario, adversary=Adversary.NONE))
    assert world.labels[: alone.size] == alone.labels
    assert np.array_equal(world.created[: alone.size], alone.created)


def test_days_come_in_any_order_and_are_the_same() -> None:
    """A day depends on scenario and day alone."""
    world = made(SMALL)
    forth = [events_of(world, day) for day in (3, 4)]
    back = [events_of(made(SMALL), day) for day in (4, 3)][::-1]
    for one, two in zip(forth, back, strict=True):
        assert np.array_equal(one.at, two.at)
        assert np.array_equal(one.address, two.address)
        assert np.array_equal(one.shape, two.shape)
    assert (np.diff(forth[0].at) >= 0).all()
    assert not np.array_equal(forth[0].at[:50] % DAY_S, forth[1].at[:50] % DAY_S)


def test_honest_figures() -> None:
    """As in the traces: tokens of conversations, heavy applications, few who call every day."""
    scenario = replace(SMALL, adversary=Adversary.NONE, honest=10_000)
    world = made(scenario)
    every = [events_of(world, day) for day in range(14)]
    labels = np.array(world.labels)
    told = np.concatenate([each.input_tokens[each.ask == Ask.CHAT] for each in every])
    said = np.concatenate([each.output_tokens[each.ask == Ask.CHAT] for each in every])
    assert np.median(told) == pytest.approx(1_020, rel=0.1)
    assert np.quantile(told, 0.9) == pytest.approx(2_734, rel=0.35)
    assert np.median(said) == pytest.approx(129, rel=0.1)
    assert np.quantile(said, 0.9) == pytest.approx(424, rel=0.25)
    calls = np.bincount(np.concatenate([each.who for each in every]), minlength=world.size)
    heavy = np.sort(calls[labels == "application"])[::-1]
    assert 0.55 <= heavy[: heavy.size // 10].sum() / heavy.sum() <= 0.8
    present = np.zeros(world.size)
    for each in every:
        present[np.unique(each.who)] += 1
    people = present[labels == "individual"]
    assert np.mean(people >= 13) < 0.02
    assert 0.2 < np.mean(people > 0) < 0.95


def test_addresses_meet_at_the_same_rate_at_every_scale() -> None:
    """Of A: the part of accounts that share an address in a day does not depend on the scale."""
    rates = []
    for factor in (1, 5):
        scenario = replace(SMALL, accounts=200 * factor, honest=2_000 * factor)
        world = made(scenario)
        events = events_of(world, scenario.first_day + 1)
        mine = world.fake[events.who]
        pairs = np.unique(np.stack([events.address[mine], events.who[mine]]), axis=1)
        _, counts = np.unique(pairs[0], return_counts=True)
        rates.append((counts[counts > 1] - 1).sum() / scenario.accounts)
    assert rates[0] == pytest.approx(rates[1], rel=0.35)


def test_cells_and_paraphrases_have_scaffolds_of_their_own() -> None:
    """J: no scaffold stands in two cells. G: no two accounts have the same one."""
    cells = made(replace(SMALL, adversary=Adversary.J))
    fake = np.flatnonzero(cells.fake)
    pairs = set(zip(cells.system[fake].tolist(), cells.cell[fake].tolist(), strict=True))
    assert len({cell for _, cell in pairs}) > 1
    assert len({system for system, _ in pairs}) == len(pairs)
    words = made(replace(SMALL, adversary=Adversary.G))
    assert len(set(words.system[words.fake].tolist())) == 60


def test_sightings_are_those_of_the_intake(tmp_path: Path) -> None:
    """Columns and types are what the watcher's intake writes; digests tell no address."""
    world, (events,) = made(SMALL), days_of(SMALL, range(4, 5))
    connection = duckdb.connect()
    lend_people(connection, world)
    write_day(connection, world, events, 4, tmp_path)
    (path,) = tmp_path.glob("sightings/day=2026-04-26/*.parquet")
    seen = connection.read_parquet(str(path), hive_partitioning=False)
    rows = list(zip(seen.columns, map(str, seen.types), strict=True))
    types = dict(rows)
    assert types["at"] == "DOUBLE"
    assert types["blocks"] == "BIGINT[]"
    assert types["asks"] == types["capabilities"] == "VARCHAR[]"
    wanted = {
        "at", "id", "account", "organization", "assurance", "tier", "created_at", "payment",
        "signup", "mail", "verdict", "admitted", "model", "input_tokens", "output_tokens",
        "address", "prefix", "asn", "kind", "country", "egress", "epoch", "client", "headers",
        "system", "tools", "format", "scaffold", "blocks", "shape", "asks", "capabilities",
        "campaign", "stage",
    }  # fmt: skip
    assert set(types) == wanted
    counted = seen.aggregate("COUNT(*), COUNT(DISTINCT id), MIN(address)").limit(1).fetchall()
    assert counted[0][:2] == (events.size, events.size)
    assert counted[0][2] > 2**33
    labels = Counter(world.labels)
    assert labels[CAMPAIGN] == 60
