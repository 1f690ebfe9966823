"""The detector on a small town: campaigns are found, and nobody else is."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import duckdb
import msgspec
import numpy as np
import pytest
from support.sightings import DAY, START, Town

from gatekeeper.campaigns.bipartite import components
from gatekeeper.campaigns.detector import Detector
from gatekeeper.campaigns.options import DetectionOptions
from gatekeeper.policy.campaigns import Layer

if TYPE_CHECKING:
    from pathlib import Path

    from gatekeeper.campaigns.detector import Findings

BEYOND_THROTTLING = 60
CAMPAIGNS = {"rotating", "static", "paraphrased", "cells", "aged", "covered"}
END = START + 14 * DAY


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Return a directory of the sightings of two weeks, and the label of each account."""
    directory = tmp_path_factory.mktemp("town")
    place = Town()
    place.confounders()
    size = 120
    place.campaign("rotating")
    place.campaign("static", homes=place.static_homes(size), kind="residential")
    shapes = place.new(2)[place.chance.integers(0, 2, (size, 4))]
    place.campaign(
        "paraphrased",
        homes=place.static_homes(size),
        kind="residential",
        system=place.new(size),
        shape=shapes ^ (np.int64(1) << place.chance.integers(0, 60, (size, 4))),
    )
    for _ in range(3):
        place.campaign("cells", 40)
    place.campaign("aged", created_at=START - place.chance.random(size) * 400 * DAY)
    place.campaign("covered", cover=0.2)
    return directory, place.write(directory)


@pytest.fixture(scope="module")
def findings(town: tuple[Path, dict[str, str]]) -> Findings:
    """Return what the detector finds at the end of the two weeks."""
    return Detector(town[0]).run(END)


def flagged(findings: Findings) -> list[str]:
    """Return all members of groups that may lead beyond throttling."""
    groups = [each for each in findings.groups if each.score >= BEYOND_THROTTLING]
    return [member for each in groups for member in each.members]


@pytest.mark.parametrize("campaign", sorted(CAMPAIGNS))
def test_campaigns_are_found(
    town: tuple[Path, dict[str, str]], findings: Findings, campaign: str
) -> None:
    """Of every campaign, 95 of 100 accounts are in groups that two layers link."""
    labels = town[1]
    found = sum(labels[member] == campaign for member in flagged(findings))
    assert found >= 0.95 * sum(label == campaign for label in labels.values())


def test_nobody_else_is_flagged(town: tuple[Path, dict[str, str]], findings: Findings) -> None:
    """No confounder is in such a group: office, carrier, campus, hackathon, reseller, cron."""
    labels = town[1]
    assert {labels[member] for member in flagged(findings)} <= CAMPAIGNS


def test_campaigns_are_found_within_a_day(town: tuple[Path, dict[str, str]]) -> None:
    """After the first day, most accounts of each campaign are flagged already."""
    labels = town[1]
    found = Counter(labels[member] for member in flagged(Detector(town[0]).run(START + DAY)))
    assert set(found) <= CAMPAIGNS
    for campaign in CAMPAIGNS:
        assert found[campaign] >= 0.6 * sum(label == campaign for label in labels.values())


def test_groups_do_not_overlap_and_know_their_calls(findings: Findings) -> None:
    """No account is in two groups, and the mixes add up to the calls."""
    members = [member for each in findings.groups for member in each.members]
    assert len(members) == len(set(members))
    for each in findings.groups:
        assert sum(each.networks.values()) == each.calls
        assert sum(each.models.values()) == each.calls
        assert each.members == tuple(sorted(each.members))


def test_every_link_is_explained(findings: Findings) -> None:
    """A group that is flagged names traits of each of its layers, with counts that can be."""
    for each in findings.groups:
        if each.score < BEYOND_THROTTLING:
            continue
        assert set(each.layers) <= {trait.layer for trait in each.shared}
        assert all(2 <= trait.members <= trait.accounts for trait in each.shared)


def test_a_shape_stands_in_where_no_exact_scaffold_links(findings: Findings) -> None:
    """Of a group whose members all share system prompts, nothing is told of shapes."""
    exact = [
        {each.kind for each in group.shared}
        for group in findings.groups
        if any(
            each.kind in {"system", "scaffold", "tools"} and each.members == len(group.members)
            for each in group.shared
        )
    ]
    assert exact
    assert all("shape" not in kinds for kinds in exact)


def test_connected_components_would_sweep_in_customers(
    town: tuple[Path, dict[str, str]], findings: Findings
) -> None:
    """One component of shared addresses holds campaigns and a crowd of honest people; ours none."""
    directory, labels = town
    rows = duckdb.sql(
        "SELECT DISTINCT account, address FROM "  # noqa: S608 (a path of our own)
        f"read_parquet('{directory}/sightings/*/*.parquet', hive_partitioning = false)"
    ).fetchnumpy()
    names, account = np.unique(rows["account"].astype(str), return_inverse=True)
    addresses, address = np.unique(rows["address"], return_inverse=True)
    label = components(account, address, names.size, addresses.size)
    largest = np.flatnonzero(label == np.bincount(label).argmax())
    swept = Counter(labels[name] for name in names[largest])
    honest = sum(count for name, count in swept.items() if name not in CAMPAIGNS)
    assert honest > 0.25 * sum(name not in CAMPAIGNS for name in labels.values())
    assert not [each for each in flagged(findings) if labels[each] not in CAMPAIGNS]


def test_a_town_without_campaigns_flags_nobody(tmp_path: Path) -> None:
    """Without an attack, no group passes throttling."""
    place = Town(seed=11)
    place.confounders()
    place.write(tmp_path)
    assert flagged(Detector(tmp_path).run(END)) == []


def test_the_same_sightings_give_the_same_findings(town: tuple[Path, dict[str, str]]) -> None:
    """Chance is seeded: two runs differ in nothing but the time they took."""
    one, other = (Detector(town[0], timer=lambda: 0.0).run(START + 2 * DAY) for _ in range(2))
    assert msgspec.json.encode(one.groups) == msgspec.json.encode(other.groups)
    assert one == other


def test_what_comes_later_is_not_seen(town: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """A run at a moment knows nothing of the sightings after it."""
    for day in sorted((town[0] / "sightings").iterdir())[:2]:
        (tmp_path / "sightings").mkdir(exist_ok=True)
        (tmp_path / "sightings" / day.name).symlink_to(day)
    at, zero = START + 2 * DAY - 1, {"timer": lambda: 0.0}
    assert Detector(town[0], **zero).run(at) == Detector(tmp_path, **zero).run(at)


def test_proven_accounts_and_organizations_are_no_members(tmp_path: Path) -> None:
    """They are evidence: the rest of the campaign is found, they are not in it."""
    place = Town(seed=12, days=3, honest=800)
    place.confounders()
    operator = place.campaign("rotating", 60)
    place.groups.remove(operator)
    for first, last, change in (
        (0, 40, {}),
        (40, 50, {"assurance": "ial1"}),
        (50, 60, {"organization": "acme"}),
    ):
        part = {
            name: value[first:last]
            for name in ("created_at", "payment", "signup", "mail", "client", "system", "shape",
                         "rate", "present")
            for value in [getattr(operator, name)]
        }  # fmt: skip
        place.campaign("rotating", last - first, **part, pool=operator.pool, **change)
    labels = place.write(tmp_path)
    members = flagged(Detector(tmp_path).run(START + 3 * DAY))
    assert len(members) >= 38
    assert all(labels[each] == "rotating" for each in members)
    proven = {name for name in labels if name.startswith("rotating-")}
    sizes = Counter(name.split("-")[1] for name in proven)
    largest = max(sizes, key=lambda each: sizes[each])
    assert {name.split("-")[1] for name in members} == {largest}


def test_typical_calls_are_those_of_the_ungrouped(
    town: tuple[Path, dict[str, str]], findings: Findings
) -> None:
    """The typical day is that of ordinary people, far from the campaigns' 26 calls."""
    assert 1 <= findings.typical_calls_per_day <= 8


def test_a_connection_will_do(town: tuple[Path, dict[str, str]]) -> None:
    """A table of sightings in a connection gives what the files give."""
    connection = duckdb.connect()
    connection.execute(
        "CREATE TABLE sightings AS SELECT * FROM "  # noqa: S608 (a path of our own)
        f"read_parquet('{town[0]}/sightings/*/*.parquet', hive_partitioning = false)"
    )
    at = START + 2 * DAY
    found = Detector(connection, timer=lambda: 0.0).run(at)
    assert found == Detector(town[0], timer=lambda: 0.0).run(at)


def test_nothing_seen_is_nothing_found(tmp_path: Path) -> None:
    """An empty directory gives no groups and no typical day."""
    findings = Detector(tmp_path).run(END)
    assert (findings.groups, findings.typical_calls_per_day) == ((), 0.0)


def test_a_handful_of_sightings_is_no_mistake(tmp_path: Path) -> None:
    """Three people are too few for any group, and for any null distribution."""
    place = Town(days=1, honest=3)
    place.people("individual", 3, present=np.ones(3))
    place.write(tmp_path)
    assert Detector(tmp_path, DetectionOptions(windows_s=(DAY,))).run(START + DAY).groups == ()


def test_layers_are_independent(findings: Findings) -> None:
    """No group counts addresses and subnets, or scaffolds and tasks, as two."""
    for each in findings.groups:
        assert not {Layer.ADDRESS, Layer.SUBNET_CLIENT} <= set(each.layers)
        assert not {Layer.SCAFFOLD, Layer.TASKS} <= set(each.layers)
