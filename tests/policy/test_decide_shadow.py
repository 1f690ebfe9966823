"""Shadow rules never change an enforced verdict, and show exactly what they would do (H31)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.builders import (
    SCORED,
    TIERS,
    call,
    ended,
    facts,
    limit_status,
    network,
    rules,
)
from support.changes import replace
from support.strategies import some_facts, some_limits, some_rules

from gatekeeper.policy.decide import (
    judge,
    stops,
)
from gatekeeper.policy.words import Assurance, GateMode, Mode, NetworkKind, Verdict

if TYPE_CHECKING:
    from gatekeeper.policy.model import Facts, LimitStatus
    from gatekeeper.policy.ruleset import RuleSet


TOR = network(kind=NetworkKind.TOR)


def without_shadow(some: RuleSet) -> RuleSet:
    """Return the rule set as it would be had nobody written the rules in shadow."""

    def kept(rules_of_section: Any) -> Any:
        return tuple(rule for rule in rules_of_section if rule.mode is Mode.ENFORCE)

    open_tiers = {
        tier: rule
        if rule.mode is Mode.ENFORCE
        else replace(
            rule,
            models=("*",),
            assurance=Assurance.NONE,
            max_output_tokens=None,
            max_input_tokens=None,
        )
        for tier, rule in some.tiers.items()
    }
    return replace(
        some,
        embargo=kept(some.embargo),
        signals=kept(some.signals),
        thresholds=kept(some.thresholds),
        shaping=kept(some.shaping),
        step_up=kept(some.step_up),
        exemptions=kept(some.exemptions),
        tiers=open_tiers,
    )


def all_enforced(some: RuleSet) -> RuleSet:
    """Return the rule set with every rule enforced."""

    def enforced(rules_of_section: Any) -> Any:
        return tuple(replace(rule, mode=Mode.ENFORCE) for rule in rules_of_section)

    return replace(
        some,
        embargo=enforced(some.embargo),
        signals=enforced(some.signals),
        thresholds=enforced(some.thresholds),
        shaping=enforced(some.shaping),
        step_up=enforced(some.step_up),
        exemptions=enforced(some.exemptions),
        tiers={tier: replace(rule, mode=Mode.ENFORCE) for tier, rule in some.tiers.items()},
    )


_EFFECTS = (
    "verdict",
    "reason",
    "enforced",
    "obligation",
    "tighten",
    "detail",
    "admits",
    "shaping",
)


@settings(max_examples=70, deadline=None)
@given(known=some_facts(), some=some_rules(), limits=some_limits(), mode=st.sampled_from(GateMode))
def test_h31_shadow_never_changes_an_enforced_verdict(
    known: Facts, some: RuleSet, limits: tuple[LimitStatus, ...], *, mode: GateMode
) -> None:
    """With every rule in shadow taken out, the decision is the same in all that takes effect."""
    with_shadow = judge(known, some, mode=mode)
    without = judge(known, without_shadow(some), mode=mode)
    hard = tuple(status for status in limits if status.mode is Mode.ENFORCE)
    one = ended(with_shadow, *limits, mode=mode)
    two = ended(without, *hard, mode=mode)
    for effect in _EFFECTS:
        assert getattr(one, effect) == getattr(two, effect), effect
    assert with_shadow.exempt == without.exempt
    totals = [standing.score and standing.score.total for standing in (with_shadow, without)]
    assert totals[0] == totals[1]
    assert stops(with_shadow, mode=mode) is stops(without, mode=mode)


@settings(max_examples=70, deadline=None)
@given(known=some_facts(), some=some_rules())
def test_h31_shadow_verdict_is_the_verdict_with_all_enforced(known: Facts, some: RuleSet) -> None:
    """What shadow shows is exactly what taking ``mode: shadow`` away would do."""
    assert judge(known, some).shadow_verdict is judge(known, all_enforced(some)).verdict


def test_h31_shadow_is_recorded() -> None:
    """A rule in shadow leaves a finding that says so, limits included."""
    text = SCORED.replace("id: tor, ", "id: tor, mode: shadow, ")
    decision = ended(
        judge(facts(where=TOR, what=call(stream=True)), rules(text)),
        limit_status(mode=Mode.SHADOW, retry_after_s=1.0),
    )
    assert decision.verdict is Verdict.ALLOW
    assert decision.shadow_verdict is Verdict.STEP_UP
    assert {(f.rule, f.mode) for f in decision.findings} == {
        ("tighten", Mode.ENFORCE),
        ("tighten-more", Mode.SHADOW),
        ("ask", Mode.SHADOW),
        ("requests", Mode.SHADOW),
    }
    assert decision.tighten == 0.5


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (
            "embargo: [{id: x, description: d, mode: MODE, source: s, countries: [US]}]",
            Verdict.EMBARGOED,
        ),
        (
            (
                "embargo: [{id: x, description: d, mode: MODE, source: s, on: [registration],"
                " countries: [CU], unknown: step_up}]"
            ),
            Verdict.STEP_UP,
        ),
        (
            (
                "signals: [{id: s, description: d, when: 'true', points: 9}]\n"
                "thresholds: [{id: x, description: d, mode: MODE, at_least: 9, verdict: deny,"
                " tighten: 0.5}]"
            ),
            Verdict.DENY,
        ),
        (
            (
                "signals: [{id: s, description: d, mode: MODE, when: 'true', points: 9}]\n"
                "thresholds: [{id: x, description: d, at_least: 9, verdict: deny, tighten: 0.5}]"
            ),
            Verdict.DENY,
        ),
        ("step_up: [{id: x, description: d, mode: MODE, when: 'true'}]", Verdict.STEP_UP),
    ],
    ids=["embargo", "embargo unknown", "threshold", "signal", "step-up"],
)
def test_h31_each_kind_of_rule_in_shadow(text: str, verdict: Verdict) -> None:
    """Enforced it refuses; in shadow it leaves a trace and changes nothing."""
    known = facts(where=network(registered_country=None))
    hard = judge(known, rules(text.replace("MODE", "enforce")))
    soft = judge(known, rules(text.replace("MODE", "shadow")))
    assert (hard.verdict, hard.shadow_verdict) == (verdict, verdict)
    assert (soft.verdict, soft.shadow_verdict) == (Verdict.ALLOW, verdict)
    assert (soft.reason, soft.obligation, soft.tighten) == (None, None, 1.0)
    assert [finding.mode for finding in soft.findings] == [Mode.SHADOW]


def test_h31_tier_in_shadow() -> None:
    """A tier's rule may be tried out like any other."""
    soft = judge(
        facts(what=call(model="o3", input_tokens=501)),
        rules(tiers=TIERS.replace("id: standard,", "id: standard, mode: shadow,")),
    )
    assert (soft.verdict, soft.shadow_verdict) == (Verdict.ALLOW, Verdict.DENY)
    assert soft.detail is None


@pytest.mark.parametrize(
    "softening",
    [
        "signals: [{id: good, description: d, mode: shadow, when: 'true', points: -50}]",
        (
            "exemptions: [{id: x, description: d, mode: shadow, when: 'true', rules: [tor],"
            " reason: r, expires: 2027-01-01}]"
        ),
        (
            "exemptions: [{id: x, description: d, mode: shadow, when: 'true', rules: [ask],"
            " reason: r, expires: 2027-01-01}]"
        ),
    ],
    ids=["points taken away", "signal exempt", "threshold exempt"],
)
def test_h31_shadow_that_would_soften(softening: str) -> None:
    """A shadow rule that would let a call pass shows that, and lets nothing pass."""
    some = rules(SCORED, more=softening)
    standing = judge(facts(where=TOR, what=call(stream=True)), some)
    assert standing.verdict is Verdict.STEP_UP
    assert standing.shadow_verdict is Verdict.ALLOW


def test_h31_shadow_limit_shows_in_the_shadow_verdict() -> None:
    """A shadow quota without room refuses nothing."""
    short = limit_status(mode=Mode.SHADOW, retry_after_s=1.0)
    decision = ended(judge(facts(), rules()), short)
    assert (decision.verdict, decision.shadow_verdict) == (Verdict.ALLOW, Verdict.RATE_LIMITED)
