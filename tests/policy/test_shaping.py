"""Shaping: which rules apply, what they ask for together, and what a caller is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import account, call, default_pack, ended, facts, network, rules

from gatekeeper.policy.decide import judge
from gatekeeper.policy.model import Shaping
from gatekeeper.policy.reasons import REASONS
from gatekeeper.policy.record import from_record, to_record
from gatekeeper.policy.shaping import strictest, told
from gatekeeper.policy.words import (
    GateMode,
    LogprobsChange,
    Mode,
    NetworkKind,
    Parameter,
    Reason,
    Tier,
    Verdict,
)
from gatekeeper.storage.decision_log import encode_record

TOR = "signals: [{id: tor, description: d, when: network.kind == 'tor', points: 40}]\n"
RISKY = facts(where=network(kind=NetworkKind.TOR))


def shaped_by(*items: str, known: Any = None, more: str = "") -> Shaping | None:
    """Judge ``known`` (an ordinary call) by shaping rules written in flow style."""
    return judge(facts() if known is None else known, rules(more + listed(*items))).shaping


def listed(*items: str) -> str:
    """Write a section of shaping rules, numbered ``s0``, ``s1`` and so on."""
    lines = [f"  - {{id: s{n}, description: d, {item}}}" for n, item in enumerate(items)]
    return "\n".join(["shaping:", *lines])


def test_a_rule_applies_by_tier() -> None:
    """Only accounts of the tiers it names are shaped; all when it names none."""
    one = "tiers: [elevated, restricted], max_choices: 2"
    elevated = facts(who=account(tier=Tier.ELEVATED))
    assert shaped_by(one) is None
    assert shaped_by(one, known=elevated) == Shaping(rules=("s0",), max_choices=2)
    assert shaped_by("max_choices: 2") == Shaping(rules=("s0",), max_choices=2)


def test_a_rule_applies_from_a_score_on() -> None:
    """The score reaches it or it does nothing."""
    assert shaped_by("at_least: 40, max_choices: 2", more=TOR) is None
    assert shaped_by("at_least: 41, max_choices: 2", more=TOR, known=RISKY) is None
    reached = shaped_by("at_least: 40, max_choices: 2", more=TOR, known=RISKY)
    assert reached == Shaping(rules=("s0",), max_choices=2)


def test_a_rule_applies_when_its_condition_is_true_or_unknown() -> None:
    """What is revealed never grows for want of a fact."""
    assert shaped_by("when: call.logprobs, logprobs: remove") is None
    asking = facts(what=call(logprobs=True))
    assert shaped_by("when: call.logprobs, logprobs: remove", known=asking) is not None
    ageless = facts(who=account(age_days=None))
    assert shaped_by("when: account.age_days < 7.0, max_choices: 1", known=ageless) is not None


def test_the_strictest_wins_key_by_key() -> None:
    """Removal before noise before rounding, the smallest number, and all who asked are named."""
    asked = shaped_by(
        "logprobs: round, decimals: 2, max_choices: 3",
        "logprobs: noise, epsilon: 8, decimals: 3, max_output_tokens: 50",
        "logprobs: noise, epsilon: 4, decimals: 4, max_choices: 2, max_context_tokens: 9000",
    )
    assert asked == Shaping(
        rules=("s0", "s1", "s2"),
        logprobs=LogprobsChange.NOISE,
        decimals=2,
        epsilon=4.0,
        max_output_tokens=50,
        max_choices=2,
        max_context_tokens=9000,
    )
    removed = shaped_by("logprobs: noise, epsilon: 8", "logprobs: remove", "drop_reasoning: true")
    assert removed == Shaping(
        rules=("s0", "s1", "s2"), logprobs=LogprobsChange.REMOVE, drop_reasoning=True
    )
    assert removed.changes_answer


SECTION = default_pack().shaping


@given(st.permutations(SECTION), st.integers(0, len(SECTION)))
def test_more_rules_never_reveal_more(order: list[Any], count: int) -> None:
    """Each further rule leaves every key as strict or makes it stricter, in any order."""
    fewer, more = strictest(order[:count]) or Shaping(), strictest(order) or Shaping()
    ranks = (None, *LogprobsChange)
    assert ranks.index(more.logprobs) >= ranks.index(fewer.logprobs)
    assert more.drop_reasoning >= fewer.drop_reasoning
    for key in ("max_output_tokens", "max_choices", "max_context_tokens"):
        before, after = getattr(fewer, key), getattr(more, key)
        assert before is None or (after is not None and after <= before)


def test_what_only_refuses_changes_nothing() -> None:
    """A rule that refuses a parameter asks for no change of the answer."""
    standing = judge(facts(), rules(listed("refuse: [logit_bias]")))
    assert (standing.shaping, standing.findings) == (None, ())


@pytest.mark.parametrize("parameter", Parameter)
def test_a_parameter_is_refused_by_name(parameter: Parameter) -> None:
    """The caller is told which one to leave out; whoever does not use it goes on."""
    some = rules(listed(f"refuse: [{parameter.value}]"))
    using = {"dialect": "openai_batches"} if parameter is Parameter.BATCH else {parameter: True}
    decision = ended(judge(facts(what=call(**using)), some))
    assert (decision.verdict, decision.reason) == (Verdict.DENY, Reason.PARAMETER_NOT_PERMITTED)
    assert decision.detail is not None
    assert parameter.value in decision.detail
    assert REASONS[Reason.PARAMETER_NOT_PERMITTED].status == 403
    assert judge(facts(), some).admits


def test_looking_at_batches_is_no_batch() -> None:
    """Only who hands one in is refused: those of before can be read and cancelled."""
    some = rules(listed("refuse: [batch]"))
    assert judge(facts(what=call(method="GET", dialect="openai_batches")), some).admits


def test_input_that_fills_the_context_is_refused() -> None:
    """There must be room for an answer; the sentence says what to do. Embeddings have no answer."""
    some = rules(listed("max_context_tokens: 500"))
    full = judge(facts(what=call(input_tokens=500)), some)
    assert (full.verdict, full.reason) == (Verdict.RATE_LIMITED, Reason.REQUEST_EXCEEDS_LIMIT)
    assert full.detail == (
        "Input and answer together may hold at most 500 tokens: shorten the prompt."
    )
    assert judge(facts(what=call(input_tokens=499)), some).admits
    assert judge(facts(what=call(input_tokens=500, max_output_tokens=0)), some).admits


def test_the_tier_speaks_before_shaping() -> None:
    """Of two that refuse alike the sentence is that of the one whose reason is given."""
    tiers = (
        'tiers: [{id: t, description: d, tier: trusted, models: ["*"]},'
        '{id: s, description: d, tier: standard, models: ["*"], max_output_tokens: 10},'
        '{id: e, description: d, tier: elevated, models: ["*"]},'
        '{id: r, description: d, tier: restricted, models: ["*"]}]'
    )
    standing = judge(facts(), rules(listed("max_context_tokens: 5"), tiers=tiers))
    assert (
        standing.detail == "One call may ask for at most 10 output tokens: lower max_tokens or n."
    )


def test_h31_shadow_shapes_nothing_and_shows_what_it_would() -> None:
    """A rule in shadow, or one that only shadow signals reach, leaves a finding and no more."""
    some = rules(listed("mode: shadow, logprobs: remove, refuse: [logprobs]"))
    standing = judge(facts(what=call(logprobs=True)), some)
    assert standing.shaping is None
    assert standing.admits
    assert standing.shadow_verdict is Verdict.DENY
    assert [(found.mode, found.verdict, found.detail) for found in standing.findings] == [
        (Mode.SHADOW, Verdict.DENY, "logprobs"),
        (Mode.SHADOW, Verdict.ALLOW, "logprobs remove"),
    ]
    reached = TOR.replace("id: tor,", "id: tor, mode: shadow,")
    risky = judge(RISKY, rules(reached + listed("at_least: 40, max_choices: 1")))
    assert risky.shaping is None
    assert [found.mode for found in risky.findings] == [Mode.SHADOW]


def test_h31_a_shadow_signal_may_take_a_refusal_back() -> None:
    """What is enforced by the score stands, and shadow shows that it would not."""
    trust = "  - {id: back, description: d, mode: shadow, when: 'true', points: -9}\n"
    signals = "signals:\n  - {id: tor, description: d, when: 'true', points: 40}\n" + trust
    some = rules(signals + listed("at_least: 40, refuse: [prefill]"))
    standing = judge(facts(what=call(prefill=True)), some)
    assert (standing.verdict, standing.shadow_verdict) == (Verdict.DENY, Verdict.ALLOW)


def test_an_exemption_switches_it_off() -> None:
    """As any rule with an id, unlike an embargo."""
    exemption = (
        "exemptions: [{id: x, description: d, when: 'true', rules: [s0], reason: r,"
        " expires: 2030-01-01}]\n"
    )
    items = ("logprobs: remove, refuse: [logit_bias]", "max_choices: 2")
    asking = facts(what=call(logit_bias=True))
    assert shaped_by(*items, known=asking, more=exemption) == Shaping(rules=("s1",), max_choices=2)


def test_bypass_asks_no_shaping() -> None:
    """A bypassed gate asks nothing that rests on score or tier."""
    some = rules(listed("logprobs: remove"))
    assert judge(facts(), some, mode=GateMode.BYPASS).shaping is None


def test_a_record_replays_to_the_same_shaping() -> None:
    """What was changed stands in the record, and comes out again from its facts."""
    some = rules(listed("logprobs: noise, epsilon: 2.5", "drop_reasoning: true, max_choices: 3"))
    known = facts(what=call(logprobs=True, choices=8))
    decision = ended(judge(known, some), some=some)
    record = json.loads(encode_record(to_record(decision, known, mode=GateMode.ENFORCE)))
    assert record["shaping"] == {
        "rules": ["s0", "s1"],
        "logprobs": "noise",
        "decimals": 1,
        "epsilon": 2.5,
        "max_choices": 3,
        "drop_reasoning": True,
    }
    recorded = from_record(record)
    assert not isinstance(recorded, str)
    assert recorded.replay(some).shaping == decision.shaping


def test_it_is_told_in_a_line() -> None:
    """Operators read what is changed without reading YAML."""
    everything = Shaping(
        logprobs=LogprobsChange.NOISE,
        decimals=0,
        epsilon=0.5,
        max_output_tokens=9,
        max_choices=1,
        max_context_tokens=99,
        drop_reasoning=True,
    )
    assert told(everything) == (
        "logprobs noise decimals 0 epsilon 0.5, drop reasoning, "
        "max_output_tokens 9, max_choices 1, max_context_tokens 99"
    )
    assert told(Shaping()) == ""
