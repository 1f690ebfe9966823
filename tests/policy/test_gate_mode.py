"""The modes of the whole gate: what each of them opens and closes, and what none of them opens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from support.builders import AT, account, credential, facts, network, rules
from support.strategies import some_facts, some_rules

from gatekeeper.policy.decide import MODE_RULE, conclude, judge, screen, stops
from gatekeeper.policy.record import Recorded, from_record, to_record
from gatekeeper.policy.rules import parse_rules
from gatekeeper.policy.words import (
    CredentialStatus,
    GateMode,
    Mode,
    NetworkKind,
    Reason,
    Verdict,
)
from gatekeeper.storage.decision_log import encode_record

if TYPE_CHECKING:
    from gatekeeper.policy.model import Facts
    from gatekeeper.policy.ruleset import RuleSet

STRICT = rules(
    "embargo:\n"
    "  - {id: e, description: d, source: s, countries: [CU], on: [use], unknown: allow}\n"
    "  - {id: u, description: d, source: s, countries: [UA], on: [use], unknown: step_up}\n"
    "signals:\n"
    "  - {id: tor, description: d, when: network.kind == 'tor', points: 90}\n"
    "thresholds:\n"
    "  - {id: deny, description: d, at_least: 90, verdict: deny}\n"
    "step_up:\n"
    "  - {id: ask, description: d, when: account.tier == 'elevated'}\n".replace("'", '"')
)
TOR = facts(where=network(kind=NetworkKind.TOR))
CUBA = facts(where=network(country="CU"))
LOST = facts(where=network(country=None, unknown=("country",)))
BANNED = facts(who=account(banned_until=AT + 1))
STRANGER = facts(key=credential(status=CredentialStatus.INVALID))


def ends(known: Facts, mode: GateMode) -> tuple[Verdict, bool]:
    """Return the verdict and whether the call ends there."""
    standing = judge(known, STRICT, mode=mode)
    return standing.verdict, stops(standing, mode=mode)


@pytest.mark.parametrize(
    ("known", "enforce", "observe", "bypass", "closed"),
    [
        (facts(), "ALLOW", "ALLOW", "ALLOW", "UNAVAILABLE!"),
        (TOR, "DENY!", "DENY", "ALLOW", "UNAVAILABLE!"),
        (BANNED, "DENY!", "DENY", "DENY!", "UNAVAILABLE!"),
        (STRANGER, "UNAUTHENTICATED!", "UNAUTHENTICATED!", "UNAUTHENTICATED!", "UNAVAILABLE!"),
        (CUBA, "EMBARGOED!", "EMBARGOED!", "EMBARGOED!", "EMBARGOED!"),
        (LOST, "STEP_UP!", "STEP_UP!", "STEP_UP!", "UNAVAILABLE!"),
    ],
    ids=["ordinary", "risky", "banned", "no key", "embargoed", "not known to be elsewhere"],
)
def test_what_each_mode_refuses(
    known: Facts, enforce: str, observe: str, bypass: str, closed: str
) -> None:
    """``!`` marks what ends the call; the rest is only recorded."""
    wanted = dict(zip(GateMode, (enforce, observe, bypass, closed), strict=True))
    for mode, told in wanted.items():
        assert ends(known, mode) == (Verdict[told.rstrip("!")], told.endswith("!")), mode


def test_a_bypassed_gate_asks_at_once_what_an_embargo_asks() -> None:
    """Nothing worse can be found later, because nothing more is asked."""
    screened = screen(LOST, STRICT, GateMode.BYPASS)
    assert screened.score is None
    assert stops(screened, mode=GateMode.BYPASS)
    assert not stops(screened, mode=GateMode.ENFORCE)


def test_a_closed_gate_says_so_and_nothing_of_the_key() -> None:
    """The reason is the one that SDKs try again for; the finding tells operators why."""
    standing = judge(STRANGER, STRICT, mode=GateMode.CLOSED)
    assert standing.reason is Reason.SERVICE_UNAVAILABLE
    assert [finding.rule for finding in standing.findings] == [MODE_RULE]
    assert standing.binding


def test_no_rule_may_have_the_name_of_the_mode() -> None:
    """Findings name it beside the rules."""
    signals = "signals: [{id: mode, description: d, when: 'true', points: 1}]"
    assert isinstance(parse_rules({"a.yaml": f"version: 1\n{signals}\n...\n"}), list)


@settings(max_examples=60, deadline=None)
@given(known=some_facts(), some=some_rules())
def test_an_embargo_in_force_speaks_in_every_mode(known: Facts, some: RuleSet) -> None:
    """What is embargoed when everything is enforced is embargoed in each mode."""
    embargoed = judge(known, some).verdict is Verdict.EMBARGOED
    for mode in GateMode:
        standing = judge(known, some, mode=mode)
        assert (standing.verdict is Verdict.EMBARGOED) is embargoed
        assert not embargoed or stops(standing, mode=mode)


@pytest.mark.parametrize("mode", GateMode)
@pytest.mark.parametrize("known", [facts(), TOR, BANNED, CUBA, STRANGER, LOST])
def test_records_tell_the_mode_and_replay_by_it(known: Facts, mode: GateMode) -> None:
    """The same verdict comes back offline, whatever the mode was."""
    standing = judge(known, STRICT, mode=mode)
    decision = conclude(standing, (), STRICT, decision_id="dec_1", at=AT, mode=mode)
    record: dict[str, Any] = json.loads(encode_record(to_record(decision, known, mode=mode)))
    assert (record["mode"], record["observe"]) == (mode.value, mode is GateMode.OBSERVE)
    recorded = from_record(record)
    assert isinstance(recorded, Recorded)
    assert recorded.mode is mode
    assert recorded.replay(STRICT) == decision


@pytest.mark.parametrize(("observe", "mode"), [(True, "observe"), (False, "enforce")])
def test_records_of_releases_without_modes_replay(*, observe: bool, mode: str) -> None:
    """They tell only whether the gate observed."""
    used = GateMode(mode)
    decision = conclude(
        judge(TOR, STRICT, mode=used), (), STRICT, decision_id="dec_1", at=AT, mode=used
    )
    record: dict[str, Any] = json.loads(encode_record(to_record(decision, TOR, mode=used)))
    del record["mode"]
    recorded = from_record({**record, "observe": observe})
    assert isinstance(recorded, Recorded)
    assert recorded.mode is used
    assert recorded.replay(STRICT) == decision


def test_a_mode_that_is_none_is_a_damaged_record() -> None:
    """It is told, not raised."""
    decision = conclude(
        judge(TOR, STRICT), (), STRICT, decision_id="d", at=AT, mode=GateMode.ENFORCE
    )
    record: dict[str, Any] = json.loads(
        encode_record(to_record(decision, TOR, mode=GateMode.ENFORCE))
    )
    assert isinstance(from_record({**record, "mode": "asleep"}), str)


def test_bypass_keeps_the_findings_of_shadow_embargoes() -> None:
    """What is only watched is still seen while the gate is bypassed."""
    some = rules(
        "embargo: [{id: e, description: d, source: s, mode: shadow, countries: [CU], on: [use]}]"
    )
    standing = judge(CUBA, some, mode=GateMode.BYPASS)
    assert standing.admits
    assert [finding.mode for finding in standing.findings] == [Mode.SHADOW]
