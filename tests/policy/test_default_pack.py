"""The rules that ship: complete, covered by cases, safe to truncate, and meaning what CEL means."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.builders import facts
from support.reference_cel import evaluate_reference

from gatekeeper.policy.cases import coverage, parse_cases, run_case
from gatekeeper.policy.limits import MAX_UNITS
from gatekeeper.policy.rules import SECTIONS, parse_rules, rule_schema
from gatekeeper.policy.ruleset import ModelRule, OnUnknown, RuleSet
from gatekeeper.policy.strict_yaml import Document, read_yaml, walk
from gatekeeper.policy.view import FIELDS, FieldType, view_of
from gatekeeper.policy.words import Mode, Tier, Unit

if TYPE_CHECKING:
    from gatekeeper.policy.conditions import Condition
    from gatekeeper.policy.model import View

FOLDER = Path(__file__).parents[2] / "rules"
FILES = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.yaml"))}
CASES = {f"cases/{path.name}": path.read_text() for path in (FOLDER / "cases").glob("*.yaml")}

EMBARGOED_OWNERS = {"alibaba", "tencent", "huawei", "baidu", "bytedance"}


def the_pack() -> RuleSet:
    """Parse the default rules."""
    rules = parse_rules(FILES)
    assert isinstance(rules, RuleSet), [str(mistake) for mistake in rules]
    return rules


PACK = the_pack()


def conditions() -> list[Condition]:
    """List every condition of the pack."""
    found = [rule.when for rule in (*PACK.signals, *PACK.step_up, *PACK.exemptions)]
    return found + [rule.when for rule in (*PACK.limits, *PACK.shaping) if rule.when is not None]


def test_pack_is_complete() -> None:
    """It has rules in every section, well over the thirty that the benchmarks ask for."""
    rules = [*PACK.embargo, *PACK.signals, *PACK.thresholds, *PACK.tiers.values()]
    rules += [*PACK.limits, *PACK.containment, *PACK.shaping, *PACK.step_up, *PACK.exemptions]
    assert len(rules) >= 35
    assert all(getattr(PACK, section) for section in SECTIONS if section != "exemptions")


def test_cases_pass() -> None:
    """Every case gives the verdict that it wants."""
    cases = parse_cases(CASES)
    assert isinstance(cases, tuple), [str(mistake) for mistake in cases]
    results = [run_case(case, PACK) for case in cases]
    assert {r.case.name: r.differences for r in results if not r.passed} == {}
    assert coverage(results, PACK) == []


def test_embargo_is_enforced() -> None:
    """What the law forbids is enforced, refuses what it cannot look up, and has its source."""
    enforced = [rule for rule in PACK.embargo if rule.mode is Mode.ENFORCE]
    assert {c for rule in enforced for c in rule.countries} == {"CU", "IR", "KP"}
    assert {s for rule in enforced for s in rule.subdivisions} == {
        "UA-43",
        "UA-40",
        "UA-14",
        "UA-09",
    }
    assert {o for rule in enforced for o in rule.owners} == EMBARGOED_OWNERS
    for rule in enforced:
        wanted = OnUnknown.STEP_UP if rule.subdivisions else OnUnknown.REFUSE
        assert rule.unknown is wanted, rule.id


def test_owners_are_in_the_network_list() -> None:
    """An owner that no list names would never match: a misspelt id would lift an embargo."""
    networks = FOLDER.parent / "geoip" / "networks.yaml"
    document = read_yaml(networks.read_text(), networks.name, require_end=False)
    assert isinstance(document, Document), document
    known = {value for path, value in walk(document.value) if path[-1:] == ("owner",)}
    assert {owner for rule in PACK.embargo for owner in rule.owners} <= known


def test_one_oddity_never_reaches_a_threshold() -> None:
    """Except for anonymising proxies, and a ban that people confirmed, no single signal does."""
    lowest = min(rule.at_least for rule in PACK.thresholds)
    strong = {rule.id for rule in PACK.signals if rule.points >= lowest}
    assert strong == {"network-tor", "network-residential-proxy", "campaign-banned"}


@pytest.mark.parametrize("tier", Tier)
def test_largest_answer_fits_even_when_tightened(tier: Tier) -> None:
    """A call that the tier permits is never refused for good by the tier's own token limits."""
    tighten = min(rule.tighten for rule in PACK.thresholds)
    permitted = PACK.tiers[tier]
    for unit, most in (
        (Unit.OUTPUT_TOKENS, permitted.max_output_tokens),
        (Unit.INPUT_TOKENS, permitted.max_input_tokens),
    ):
        bursts = [
            rule.burst
            for rule in PACK.limits
            if rule.unit is unit and tier in rule.tiers and rule.when is None
        ]
        assert bursts
        assert most is None or min(bursts) * tighten >= most


@pytest.mark.parametrize("unit", [unit for unit in Unit if unit is not Unit.COST])
def test_stricter_tiers_get_less(unit: Unit) -> None:
    """Of everything counted per account, each tier gets less than the one before."""
    amounts = [
        min(
            rule.burst
            for rule in PACK.limits
            if rule.unit is unit and rule.per == ("account",) and tier in rule.tiers
            if rule.when is None or unit is Unit.BYTES
        )
        for tier in Tier
    ]
    assert amounts == sorted(set(amounts), reverse=True)
    assert max(amounts) <= MAX_UNITS


def test_an_ordinary_caller_is_not_shaped() -> None:
    """What ships changes nothing for standard accounts without risk, nor for trusted ones."""
    view = view_of(facts())
    for tier in (Tier.TRUSTED, Tier.STANDARD):
        for rule in PACK.shaping:
            elsewhere = rule.when is not None and rule.when(view) is False
            assert rule.at_least is not None or tier not in rule.tiers or elsewhere, rule.id


def test_schema_is_in_step() -> None:
    """``rules/schema.json`` is what the code generates, to the byte."""
    generated = json.dumps(rule_schema(), indent=2) + "\n"
    assert (FOLDER / "schema.json").read_text() == generated, "write it anew from rule_schema()"


@pytest.mark.parametrize("name", FILES)
def test_files_name_their_schema(name: str) -> None:
    """Editors find the schema, and everything is plain ASCII."""
    assert FILES[name].startswith("# yaml-language-server: $schema=schema.json\n")
    assert FILES[name].isascii()


@pytest.mark.parametrize("name", FILES)
def test_h35_every_prefix_of_a_file_is_old_or_new(name: str) -> None:
    """Cut off at any byte, a file is refused, or it has lost no more than its last line end."""
    text = FILES[name]
    for length in range(len(text)):
        if isinstance(read_yaml(text[:length], name), list):
            continue
        assert parse_rules({**FILES, name: text[:length]}) == PACK


def _values(name: str, kind: FieldType) -> st.SearchStrategy[Any]:
    """Values of a field: mostly those that some condition speaks of."""
    spoken = [
        word
        for condition in conditions()
        if name in condition.reads
        for word in condition.source.replace("'", '"').split('"')[1::2]
    ]
    texts = st.sampled_from([*spoken, "", "other"]) | st.text(max_size=5)
    match kind:
        case FieldType.STRING:
            return texts
        case FieldType.STRINGS:
            return st.lists(texts, max_size=4).map(tuple)
        case FieldType.INT:
            return st.integers(0, 10) | st.integers(-(2**63), 2**63 - 1)
        case FieldType.DOUBLE:
            return st.sampled_from([0.0, 0.5, 1.0, 6.9, 7.0, 500.0, 501.0]) | st.floats()
        case FieldType.BOOL:
            return st.booleans()


VIEWS: st.SearchStrategy[View] = st.fixed_dictionaries(
    {}, optional={name: _values(name, kind) for name, kind in FIELDS.items()}
)


@settings(deadline=None)
@given(VIEWS)
def test_conditions_agree_with_reference_cel(view: View) -> None:
    """Every condition of the pack means what Google's CEL says it means, absent fields included."""
    for condition in conditions():
        assert condition(view) is evaluate_reference(condition.source, view), condition.source


@pytest.mark.parametrize("row", PACK.models, ids=lambda row: row.model)
def test_parts_cost_what_one_would_expect(row: ModelRule) -> None:
    """Reading a cache is cheaper than a prompt, writing one dearer, for an hour dearer still."""
    whole = row.input_cents_per_million
    read, write = row.cached_input_cents_per_million, row.cache_write_cents_per_million
    hour = row.cache_write_1h_cents_per_million
    assert read is None or read <= whole
    assert write is None or write >= whole
    assert hour is None or (write is not None and hour >= write)
    for part in (row.audio_input_cents_per_million, row.image_input_cents_per_million):
        assert part is None or part >= whole


def test_an_unknown_model_is_dear_in_every_part() -> None:
    """The last row prices everything that can be billed."""
    prices = asdict(PACK.models[-1])
    unpriced = {name for name, price in prices.items() if price == 0}
    assert not unpriced
