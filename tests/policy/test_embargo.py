"""Embargo: what matches, what is not known, and that nothing opens it (H15)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.builders import AT, account, default_pack, facts, network, rules
from support.changes import replace
from support.strategies import some_facts, some_rules

from gatekeeper.policy.decide import judge, screen, stops
from gatekeeper.policy.embargo import cleared, embargo_matches, in_effect
from gatekeeper.policy.model import Facts, Lookup, NetworkFacts
from gatekeeper.policy.words import (
    Assurance,
    GateMode,
    LookupStatus,
    Mode,
    NetworkKind,
    Reason,
    Verdict,
)

if TYPE_CHECKING:
    from gatekeeper.policy.ruleset import EmbargoRule, RuleSet


PACK = default_pack()


def embargo(text: str) -> EmbargoRule:
    """Parse one embargo rule."""
    return rules(f"embargo:\n  - {{id: e, description: d, source: s, {text}}}").embargo[0]


USE = "on: [use], countries: [CU, KP]"
REGISTRATION = "on: [registration], countries: [CU]"
REGIONS = "on: [use], subdivisions: [UA-43]"
OWNERS = "on: [asn], owners: [example]"
HOMES = "on: [asn], countries: [CN]"
NUMBERS = "on: [asn], asns: [64500]"
ORGANIZATION = "on: [organization], owners: [example], countries: [CN]"
BOTH = "on: [use, asn], countries: [CU]"


def at(**changes: Any) -> Facts:
    """Return the facts of a call from a network."""
    return facts(where=network(**changes))


def of(**changes: Any) -> Facts:
    """Return the facts of a call by an account."""
    return facts(who=account(**changes))


@pytest.mark.parametrize(
    ("rule", "known", "matches"),
    [
        pytest.param(USE, at(country="KP"), True, id="used there"),
        pytest.param(USE, at(), False, id="used elsewhere"),
        pytest.param(USE, at(country=None), None, id="a miss of country is unknown"),
        pytest.param(USE, at(country=None, unknown=("country",)), None, id="country failed"),
        pytest.param(USE, at(registered_country="CU"), False, id="registered there, not tested"),
        pytest.param(REGISTRATION, at(registered_country="CU"), True, id="registered there"),
        pytest.param(REGISTRATION, at(), False, id="registered elsewhere"),
        pytest.param(REGISTRATION, at(registered_country=None), None, id="registration missed"),
        pytest.param(REGIONS, at(country="UA", subdivision="UA-43"), True, id="in the region"),
        pytest.param(REGIONS, at(country="UA", subdivision="UA-30"), False, id="in another"),
        pytest.param(REGIONS, at(country="UA"), None, id="somewhere in the country"),
        pytest.param(REGIONS, at(), False, id="in another country, nothing is asked"),
        pytest.param(REGIONS, at(country=None), None, id="anywhere"),
        pytest.param(
            REGIONS, at(country=None, subdivision="US-CA"), False, id="region without country"
        ),
        pytest.param(
            REGIONS, at(country="UA", subdivision="US-CA"), None, id="databases contradict"
        ),
        pytest.param(REGIONS, at(country="RU", subdivision="UA-43"), True, id="worst claim counts"),
        pytest.param(NUMBERS, at(asn=64500), True, id="AS number"),
        pytest.param(NUMBERS, at(), False, id="other AS number"),
        pytest.param(NUMBERS, at(asn=None), False, id="announced by no AS"),
        pytest.param(NUMBERS, at(asn=None, unknown=("asn",)), None, id="AS failed"),
        pytest.param(NUMBERS, at(unknown=("lists",)), False, id="numbers need no lists"),
        pytest.param(OWNERS, at(owner="example"), True, id="owner of the AS"),
        pytest.param(OWNERS, at(owner="other", unknown=("lists",)), False, id="other owner"),
        pytest.param(OWNERS, at(), False, id="on no list"),
        pytest.param(OWNERS, at(unknown=("lists",)), None, id="owner lists failed"),
        pytest.param(HOMES, at(owner="x", owner_country="CN"), True, id="home of the AS's owner"),
        pytest.param(HOMES, at(unknown=("lists",)), None, id="home needs the lists"),
        pytest.param(ORGANIZATION, of(owners=("other", "example")), True, id="owner"),
        pytest.param(ORGANIZATION, of(owner_countries=("CN",)), True, id="home of an owner"),
        pytest.param(ORGANIZATION, of(owners=("other",)), False, id="other owners"),
        pytest.param(ORGANIZATION, of(status=LookupStatus.MISS), False, id="no such account"),
        pytest.param(ORGANIZATION, of(status=LookupStatus.UNKNOWN), None, id="records failed"),
        pytest.param(
            ORGANIZATION,
            of(status=LookupStatus.UNKNOWN, owners=("example",)),
            True,
            id="records failed, owner known",
        ),
        pytest.param(BOTH, at(owner_country="CU", country=None), True, id="a match beats unknown"),
        pytest.param(BOTH, at(asn=None, unknown=("asn",)), None, id="one view known, one not"),
    ],
)
def test_h15_three_values(rule: str, known: Facts, matches: object) -> None:
    """Each view is tested on its own, and not knowing is an answer of its own."""
    assert embargo_matches(embargo(rule), known) is matches


def test_h15_no_lookups_at_all_is_unknown() -> None:
    """A view that no source was asked for is not known, however the value came to be missing."""
    bare = facts(where=NetworkFacts("p", "a", "p", country="US", registered_country="US"))
    assert embargo_matches(embargo(NUMBERS), bare) is None


def test_h15_one_of_two_sources_failed() -> None:
    """A source that missed does not speak for the one that failed."""
    where = network(asn=None)
    where = replace(
        where, lookups=(*where.lookups, Lookup("asn", LookupStatus.UNKNOWN, "other", "2"))
    )
    assert embargo_matches(embargo(NUMBERS), facts(where=where)) is None


@pytest.mark.parametrize("rule", [USE, REGISTRATION, REGIONS, OWNERS, NUMBERS, BOTH])
def test_private_has_no_region(rule: str) -> None:
    """No region rule tests a private address, not even as unknown."""
    known = facts(where=NetworkFacts("10.0.0.0/24", "a", "p", kind=NetworkKind.PRIVATE))
    assert embargo_matches(embargo(rule), known) is False


def test_private_organization_is_tested() -> None:
    """Who owns the organization does not depend on the address."""
    where = network(kind=NetworkKind.PRIVATE)
    known = facts(where=where, who=account(owners=("example",)))
    assert embargo_matches(embargo(ORGANIZATION), known) is True


@pytest.mark.parametrize(
    ("effective", "inside"),
    [
        ("", True),
        (", effective: {from: 2026-01-01}", True),
        (", effective: {from: 2026-01-02}", False),
        (", effective: {until: 2026-01-01}", False),
        (", effective: {until: 2026-01-02}", True),
        (", effective: {from: 2025-01-01, until: 2025-12-31}", False),
    ],
)
def test_effective_dates(effective: str, *, inside: bool) -> None:
    """A rule is in force from the first moment of ``from`` up to that of ``until``."""
    rule = embargo(USE + effective)
    assert in_effect(rule, AT) is inside
    verdict = screen(at(country="CU"), replace(rules(), embargo=(rule,))).verdict
    assert verdict is (Verdict.EMBARGOED if inside else Verdict.ALLOW)


@pytest.mark.parametrize(
    ("unknown", "assurance", "verdict"),
    [
        ("", Assurance.IAL2, Verdict.EMBARGOED),
        (", unknown: refuse", Assurance.NONE, Verdict.EMBARGOED),
        (", unknown: allow", Assurance.NONE, Verdict.ALLOW),
        (", unknown: step_up", Assurance.NONE, Verdict.STEP_UP),
        (", unknown: step_up", Assurance.IAL1, Verdict.ALLOW),
    ],
)
def test_h15_what_unknown_means(unknown: str, assurance: Assurance, verdict: Verdict) -> None:
    """What is not known is refused unless the rule says otherwise; a proof answers step-up only."""
    some = rules(f"embargo:\n  - {{id: e, description: d, source: s, {USE}{unknown}}}")
    known = facts(where=network(country=None), who=account(assurance=assurance))
    standing = judge(known, some)
    assert standing.verdict is verdict
    if verdict is Verdict.STEP_UP:
        assert standing.reason is Reason.IDENTITY_VERIFICATION_REQUIRED
        assert standing.obligation is not None
        assert standing.obligation.assurance is Assurance.IAL1


def test_h15_observe_keeps_what_an_embargo_asks_for() -> None:
    """Observe mode opens neither a refusal nor the step-up that stands for "not known"."""
    some = rules(
        "embargo:\n"
        f"  - {{id: e, description: d, source: s, {REGIONS}, unknown: step_up}}\n"
        "step_up:\n"
        '  - {id: s, description: d, when: network.kind == "tor"}\n'
    )
    asked, own = at(country="UA"), at(kind=NetworkKind.TOR)
    assert stops(judge(asked, some, mode=GateMode.OBSERVE), mode=GateMode.OBSERVE)
    assert not stops(judge(own, some, mode=GateMode.OBSERVE), mode=GateMode.OBSERVE)


REGIONAL = rules(f"embargo: [{{id: e, description: d, source: s, {REGIONS}}}]")
NUMBERED = rules(f"embargo: [{{id: e, description: d, source: s, {NUMBERS}}}]")


@settings(max_examples=150, deadline=None)
@given(known=some_facts(), some=some_rules() | st.sampled_from([PACK, REGIONAL, NUMBERED]))
def test_h15_shortcut_clears_only_what_every_rule_clears(known: Facts, some: RuleSet) -> None:
    """What is cleared at once is known to be outside by every single rule."""
    if cleared(some.reach, known):
        assert [embargo_matches(rule, known) for rule in some.embargo] == [False] * len(
            some.embargo
        )


@pytest.mark.parametrize("view", ["lists", "asn", "country"])
def test_h15_lost_lookup_is_refused_by_the_default_pack(view: str) -> None:
    """A source that failed opens nothing: the owner of a network may be an embargoed one."""
    lost = {"asn": None, "country": None, "lists": ()}[view]
    name = "listed_by" if view == "lists" else view
    standing = judge(facts(where=network(unknown=(view,), **{name: lost})), PACK)
    assert standing.verdict is Verdict.EMBARGOED


def test_ordinary_callers_are_cleared() -> None:
    """The shortcut is taken by those it is for."""
    assert cleared(PACK.reach, facts())
    assert judge(facts(), PACK).verdict is Verdict.ALLOW


@settings(max_examples=70, deadline=None)
@given(known=some_facts(), some=some_rules())
def test_h15_nothing_opens_an_embargo(known: Facts, some: Any) -> None:
    """Whatever else the rules say, in every mode of the gate, a match in force is refused."""
    matched = [
        rule
        for rule in some.embargo
        if rule.mode is Mode.ENFORCE and embargo_matches(rule, known) is True
    ]
    for mode in GateMode:
        standing = judge(known, some, mode=mode)
        if matched:
            assert standing.verdict is Verdict.EMBARGOED
            assert stops(standing, mode=mode)
            assert standing.reason is Reason.REGION_NOT_SUPPORTED
