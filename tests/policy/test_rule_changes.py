"""What differs between rule sets, and what an embargo loses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from support.builders import default_pack, rules
from support.strategies import some_rules

from gatekeeper.policy.rule_changes import (
    ChangeKind,
    RuleChange,
    rule_changes,
    weakened_embargoes,
)

if TYPE_CHECKING:
    from gatekeeper.policy.ruleset import RuleSet

EMBARGO = """
embargo:
  - id: e
    description: d
    countries: [CU, IR]
    owners: [bytedance]
    asns: [64500]
    on: [use, asn]
    source: s
    effective: {from: "2026-01-01", until: "2027-01-01"}
"""


def test_each_kind_of_change_is_told_by_section_and_id() -> None:
    """Added, removed and changed rules are named; what is the same is not."""
    before = rules(
        "signals:\n"
        "  - {id: gone, description: d, when: 'true', points: 1}\n"
        "  - {id: same, description: d, when: 'true', points: 1}\n"
        "  - {id: other, description: d, when: 'true', points: 1}\n"
    )
    after = rules(
        "private: {allow: true}\n"
        "signals:\n"
        "  - {id: same, description: d, when: 'true', points: 1}\n"
        "  - {id: other, description: d, when: call.stream, points: 1}\n"
        "limits:\n"
        "  - {id: new, description: d, unit: requests, per: [account], rate: 1/hour}\n"
    )
    assert rule_changes(before, after) == (
        RuleChange("private", "private", ChangeKind.CHANGED),
        RuleChange("signals", "gone", ChangeKind.REMOVED),
        RuleChange("signals", "other", ChangeKind.CHANGED),
        RuleChange("limits", "new", ChangeKind.ADDED),
    )


def test_the_place_of_a_model_counts() -> None:
    """The first pattern that matches a model is used, so that to move one is a change."""
    price = "input_cents_per_million: 1, output_cents_per_million: 1, max_output_tokens: 1"
    one = rules(models=f'models: [{{model: a, {price}}}, {{model: b, {price}}}, '
                f'{{model: "*", {price}}}]')  # fmt: skip
    two = rules(models=f'models: [{{model: b, {price}}}, {{model: a, {price}}}, '
                f'{{model: "*", {price}}}]')  # fmt: skip
    assert [change.rule for change in rule_changes(one, two)] == ["a", "b"]


@settings(max_examples=30, deadline=None)
@given(some=some_rules())
def test_a_rule_set_differs_in_nothing_from_itself(some: RuleSet) -> None:
    """Nothing is told of what is the same."""
    assert rule_changes(some, some) == ()
    assert weakened_embargoes(some, some) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("id: e\n", "id: f\n"), "e: removed"),
        (("    source: s", "    mode: shadow\n    source: s"), "e: only in shadow"),
        (("[CU, IR]", "[IR]"), "e: no longer countries CU"),
        (("[64500]", "[64501]"), "e: no longer asns 64500"),
        (("[bytedance]", "[tencent]"), "e: no longer owners bytedance"),
        (("[use, asn]", "[asn]"), "e: no longer on use"),
        (("    source: s", "    unknown: allow\n    source: s"), "e: unknown is allow"),
        (("    source: s", "    unknown: step_up\n    source: s"), "e: unknown is step_up"),
        (('from: "2026-01-01"', 'from: "2026-02-01"'), "e: in force later"),
        (('until: "2027-01-01"', 'until: "2026-12-01"'), "e: in force for a shorter time"),
    ],
)
def test_every_loss_of_an_embargo_is_told(change: tuple[str, str], said: str) -> None:
    """A rule that is lifted or reaches less is named with what it loses."""
    assert change[0] in EMBARGO
    before, after = rules(EMBARGO), rules(EMBARGO.replace(*change))
    (told,) = weakened_embargoes(before, after)
    assert told.startswith(said)


@pytest.mark.parametrize(
    "change",
    [
        ("[CU, IR]", "[CU, IR, SY]"),
        ("    source: s", "    source: another"),
        ('    effective: {from: "2026-01-01", until: "2027-01-01"}', "    unknown: refuse"),
        ('until: "2027-01-01"', 'until: "2028-01-01"'),
    ],
)
def test_what_reaches_further_is_no_loss(change: tuple[str, str]) -> None:
    """More countries, a longer time, none at all: nothing to warn of."""
    assert weakened_embargoes(rules(EMBARGO), rules(EMBARGO.replace(*change))) == ()


def test_rules_in_shadow_lose_nothing() -> None:
    """They refuse nobody; and to open private addresses is told, to close them is not."""
    shadow = rules(EMBARGO.replace("    source: s", "    mode: shadow\n    source: s"))
    assert weakened_embargoes(shadow, rules()) == ()
    opened = rules("private: {allow: true}")
    assert weakened_embargoes(rules(), opened) == ("private: private addresses would be served",)
    assert weakened_embargoes(opened, rules()) == ()


def test_the_default_pack_without_its_embargoes_is_told_in_full() -> None:
    """Every embargo of the pack that is in force is named when all are gone."""
    pack = default_pack()
    enforced = [rule.id for rule in pack.embargo if rule.mode == "enforce"]
    told = weakened_embargoes(pack, rules("private: {allow: true}"))
    assert [line.partition(":")[0] for line in told] == enforced
