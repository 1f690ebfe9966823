"""From facts to a verdict: what each rule says, which one speaks, and what observe mode opens.

Shadow and the properties over any facts are in ``test_decide_shadow`` and ``test_decide_risk``.
"""

from __future__ import annotations

from typing import Any

import pytest
from support.builders import (
    AT,
    DAY_S,
    SCORED,
    TIERS,
    account,
    call,
    credential,
    ended,
    facts,
    limit_status,
    network,
    rules,
)

from gatekeeper.policy.decide import (
    BAN_RULE,
    CREDENTIAL_RULE,
    PRIVATE_RULE,
    judge,
    outright,
    screen,
    stops,
    worst,
)
from gatekeeper.policy.model import FOREVER, Facts
from gatekeeper.policy.patterns import matches_any
from gatekeeper.policy.words import (
    Assurance,
    CredentialStatus,
    GateMode,
    Mode,
    NetworkKind,
    OnFailure,
    Reason,
    Tier,
    Verdict,
)

INF = float("inf")
TOR = network(kind=NetworkKind.TOR)
CUBA = network(country="CU")


# --- screen -------------------------------------------------------------------------------------


def test_ordinary_caller_is_allowed() -> None:
    """Nothing found is nothing said."""
    standing = judge(facts(), rules())
    assert (standing.verdict, standing.reason) == (Verdict.ALLOW, None)
    assert (standing.findings, standing.obligation, standing.tighten) == ((), None, 1.0)
    assert ended(standing).admits


@pytest.mark.parametrize(
    ("status", "verdict", "reason"),
    [
        (CredentialStatus.MISSING, Verdict.UNAUTHENTICATED, Reason.CREDENTIALS_MISSING),
        (CredentialStatus.INVALID, Verdict.UNAUTHENTICATED, Reason.CREDENTIALS_INVALID),
        (CredentialStatus.EXPIRED, Verdict.UNAUTHENTICATED, Reason.CREDENTIALS_EXPIRED),
        (CredentialStatus.UNKNOWN, Verdict.UNAVAILABLE, Reason.SERVICE_UNAVAILABLE),
    ],
)
def test_bad_credentials(status: CredentialStatus, verdict: Verdict, reason: Reason) -> None:
    """A credential that is not valid ends the call, in observe mode too."""
    standing = screen(facts(key=credential(status=status)), rules())
    assert (standing.verdict, standing.reason) == (verdict, reason)
    assert [finding.rule for finding in standing.findings] == [CREDENTIAL_RULE]
    assert stops(standing, mode=GateMode.OBSERVE)


@pytest.mark.parametrize(
    ("until", "banned"), [(None, False), (AT, False), (AT + 1, True), (FOREVER, True), (INF, True)]
)
def test_ban(until: float | None, *, banned: bool) -> None:
    """A ban lasts up to its end and says that the account is suspended."""
    standing = screen(facts(who=account(banned_until=until)), rules())
    assert standing.verdict is (Verdict.DENY if banned else Verdict.ALLOW)
    assert standing.reason is (Reason.ACCOUNT_SUSPENDED if banned else None)
    assert [finding.rule for finding in standing.findings] == [BAN_RULE] * banned


def test_ban_is_not_told_to_whom_it_does_not_concern() -> None:
    """Whoever holds no valid credential learns nothing of the account."""
    known = facts(key=credential(status=CredentialStatus.EXPIRED), who=account(banned_until=INF))
    standing = screen(known, rules())
    assert [finding.rule for finding in standing.findings] == [CREDENTIAL_RULE]


@pytest.mark.parametrize("allow", [True, False])
def test_private_addresses(*, allow: bool) -> None:
    """The ``private`` section alone decides on private addresses; left out, it refuses them."""
    known = facts(where=network(kind=NetworkKind.PRIVATE, country=None, asn=None))
    standing = screen(known, rules("private: {allow: true}" if allow else ""))
    assert standing.verdict is (Verdict.ALLOW if allow else Verdict.EMBARGOED)
    assert [finding.rule for finding in standing.findings] == [PRIVATE_RULE] * (not allow)
    assert stops(standing, mode=GateMode.OBSERVE) is not allow


def test_embargo_speaks_before_everything() -> None:
    """A call that is embargoed, banned and without credential is told of the region."""
    some = rules("embargo: [{id: e, description: d, source: s, countries: [CU]}]")
    known = facts(where=CUBA, key=credential(status=CredentialStatus.MISSING))
    standing = screen(known, some)
    assert standing.reason is Reason.REGION_NOT_SUPPORTED
    assert [finding.rule for finding in standing.findings] == ["e", CREDENTIAL_RULE]


# --- assess -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "what", "verdict", "reason", "lever"),
    [
        ({}, {}, Verdict.ALLOW, None, None),
        ({}, {"model": None}, Verdict.ALLOW, None, None),
        ({}, {"model": "o3"}, Verdict.DENY, Reason.MODEL_NOT_PERMITTED, None),
        ({}, {"model": "GPT-4"}, Verdict.DENY, Reason.MODEL_NOT_PERMITTED, None),
        (
            {},
            {"max_output_tokens": 1001},
            Verdict.RATE_LIMITED,
            Reason.REQUEST_EXCEEDS_LIMIT,
            "at most 1000 output tokens: lower max_tokens",
        ),
        (
            {},
            {"input_tokens": 501},
            Verdict.RATE_LIMITED,
            Reason.REQUEST_EXCEEDS_LIMIT,
            "at most 500 input tokens: shorten",
        ),
        (
            {},
            {"input_tokens": 501, "max_output_tokens": 1001},
            Verdict.RATE_LIMITED,
            Reason.REQUEST_EXCEEDS_LIMIT,
            "output tokens",
        ),
        ({}, {"model": "o3", "input_tokens": 501}, Verdict.DENY, Reason.MODEL_NOT_PERMITTED, None),
        (
            {"tier": Tier.ELEVATED},
            {},
            Verdict.STEP_UP,
            Reason.IDENTITY_VERIFICATION_REQUIRED,
            None,
        ),
        ({"tier": Tier.ELEVATED, "assurance": Assurance.IAL2}, {}, Verdict.ALLOW, None, None),
        ({"tier": Tier.RESTRICTED}, {}, Verdict.DENY, Reason.MODEL_NOT_PERMITTED, None),
    ],
)
def test_tiers(
    who: Any, what: Any, verdict: Verdict, reason: Reason | None, lever: str | None
) -> None:
    """A tier bounds models and sizes and may ask for proof; a size says what to lower."""
    standing = judge(facts(who=account(**who), what=call(**what)), rules(tiers=TIERS))
    assert (standing.verdict, standing.reason) == (verdict, reason)
    assert (standing.detail is None) is (lever is None)
    assert (lever or "") in (standing.detail or "")
    assert (standing.obligation is not None) is (verdict is Verdict.STEP_UP)


@pytest.mark.parametrize(
    ("known", "verdict", "tighten"),
    [
        (facts(), Verdict.ALLOW, 1.0),
        (facts(what=call(stream=True)), Verdict.ALLOW, 0.5),
        (facts(where=TOR), Verdict.ALLOW, 0.25),
        (
            facts(where=TOR, what=call(stream=True), who=account(assurance=Assurance.IAL1)),
            Verdict.STEP_UP,
            0.25,
        ),
        (
            facts(where=TOR, what=call(stream=True), who=account(assurance=Assurance.IAL2)),
            Verdict.ALLOW,
            0.25,
        ),
        (
            facts(
                where=TOR,
                what=call(stream=True),
                who=account(known=False, assurance=Assurance.IAL2),
            ),
            Verdict.DENY,
            0.25,
        ),
    ],
    ids=["nothing", "20 points", "40", "60, ial1", "60, ial2", "90"],
)
def test_thresholds(known: Facts, verdict: Verdict, tighten: float) -> None:
    """Every threshold reached applies: the worst verdict, the tightest factor."""
    standing = judge(known, rules(SCORED))
    assert (standing.verdict, standing.tighten) == (verdict, tighten)
    if verdict is Verdict.STEP_UP:
        assert standing.obligation is not None
        assert (standing.obligation.assurance, standing.obligation.rule) == (Assurance.IAL2, "ask")


def test_the_highest_assurance_is_asked_for() -> None:
    """Of several step-ups the caller gets the one that satisfies all."""
    some = rules(
        "step_up:\n"
        '  - {id: low, description: d, when: "true", assurance: ial1}\n'
        '  - {id: high, description: d, when: "true", assurance: ial2}\n'
        '  - {id: unknown, description: d, when: network.owner == "x", assurance: ial2}\n'
    )
    asked = judge(facts(), some).obligation
    assert asked is not None
    assert (asked.assurance, asked.rule) == (Assurance.IAL2, "high")
    assert judge(facts(who=account(assurance=Assurance.IAL2)), some).verdict is Verdict.ALLOW


EXEMPT = """
step_up:
  - {id: ask, description: d, when: 'true'}
exemptions:
  - {id: x, description: d, when: account.organization == "org", rules: [ask],
     reason: r, expires: 2026-01-02}
"""


@pytest.mark.parametrize(
    ("organization", "at", "verdict"),
    [
        ("org", AT, Verdict.ALLOW),
        ("org", AT + DAY_S, Verdict.STEP_UP),
        ("other", AT, Verdict.STEP_UP),
        (None, AT, Verdict.STEP_UP),
    ],
)
def test_exemptions(organization: str | None, at: float, verdict: Verdict) -> None:
    """An exemption holds where its condition is true, until it expires; unknown exempts nothing."""
    known = facts(at=at, who=account(organization=organization))
    assert judge(known, rules(EXEMPT)).verdict is verdict


def test_exemption_from_everything_else() -> None:
    """Tiers, signals and thresholds are switched off by their ids too."""
    text = SCORED + (
        "exemptions: [{id: x, description: d, when: 'true', rules: [standard, tor, deny],"
        " reason: r, expires: 2027-01-01}]"
    )
    known = facts(where=TOR, who=account(known=False), what=call(stream=True, model="o3"))
    standing = judge(known, rules(text, tiers=TIERS))
    assert standing.exempt == {"standard", "tor", "deny"}
    assert standing.score is not None
    assert standing.score.total == 50
    assert standing.verdict is Verdict.ALLOW


def test_screened_step_up_reads_on() -> None:
    """A caller that must only say who it is may yet be denied: the most severe of all wins."""
    text = SCORED + (
        "embargo: [{id: e, description: d, source: s, on: [use],"
        " subdivisions: [UA-43], unknown: step_up}]"
    )
    who, what = account(known=False), call(stream=True)
    known = facts(where=network(kind=NetworkKind.TOR, country="UA"), who=who, what=what)
    assert screen(known, rules(text)).verdict is Verdict.STEP_UP
    assert not stops(screen(known, rules(text)), mode=GateMode.ENFORCE)
    assert judge(known, rules(text)).verdict is Verdict.DENY


# --- conclude -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [GateMode.OBSERVE, GateMode.ENFORCE])
def test_h30_a_limit_that_could_not_be_asked_is_no_limit_reached(mode: GateMode) -> None:
    """A rule that is closed makes the call unavailable, whatever else had no room."""
    short = limit_status(rule="a", retry_after_s=60.0, failed=OnFailure.LOCAL_SHARE)
    closed = limit_status(rule="b", retry_after_s=1.0, failed=OnFailure.CLOSED)
    decision = ended(judge(facts(), rules()), short, closed, mode=mode)
    assert (decision.verdict, decision.reason) == (
        Verdict.UNAVAILABLE,
        Reason.SERVICE_UNAVAILABLE,
    )
    assert [(found.rule, found.verdict, found.detail) for found in decision.findings] == [
        ("a", Verdict.RATE_LIMITED, "store failed: local_share"),
        ("b", Verdict.UNAVAILABLE, "store failed: closed"),
    ]
    assert decision.admits is (mode is GateMode.OBSERVE)


def test_h31_a_closed_rule_in_shadow_refuses_nothing() -> None:
    """It shows what it would have done."""
    closed = limit_status(mode=Mode.SHADOW, retry_after_s=1.0, failed=OnFailure.CLOSED)
    decision = ended(judge(facts(), rules()), closed)
    assert (decision.verdict, decision.shadow_verdict) == (Verdict.ALLOW, Verdict.UNAVAILABLE)


def test_worse_standing_outlives_the_limits() -> None:
    """In observe mode limits are asked of refused calls too; they do not soften the verdict."""
    some = rules("step_up: [{id: s, description: d, when: 'true'}]")
    decision = ended(
        judge(facts(), some), limit_status(retry_after_s=1.0), some=some, mode=GateMode.OBSERVE
    )
    assert decision.verdict is Verdict.STEP_UP
    assert decision.admits


@pytest.mark.parametrize("reason", [Reason.INVALID_PATH, Reason.SERVICE_UNAVAILABLE])
def test_outright(reason: Reason) -> None:
    """A call that cannot be judged is refused with its reason, in observe mode too."""
    standing = outright(reason, "Say it better.")
    unavailable = reason is Reason.SERVICE_UNAVAILABLE
    assert standing.verdict is (Verdict.UNAVAILABLE if unavailable else Verdict.INVALID)
    decision = ended(standing, mode=GateMode.OBSERVE)
    assert (decision.reason, decision.detail, decision.admits) == (reason, "Say it better.", False)


@pytest.mark.parametrize(
    ("known", "text", "goes_on"),
    [
        (facts(), "", True),
        (facts(who=account(banned_until=INF)), "", True),
        (facts(), "step_up: [{id: s, description: d, when: 'true'}]", True),
        (facts(), SCORED.replace("at_least: 90", "at_least: 1"), True),
        (facts(key=credential(status=CredentialStatus.INVALID)), "", False),
        (facts(where=network(kind=NetworkKind.PRIVATE)), "", False),
        (
            facts(where=CUBA),
            "embargo: [{id: e, description: d, source: s, countries: [CU]}]",
            False,
        ),
    ],
    ids=["ordinary", "banned", "step-up", "score", "credential", "private", "embargo"],
)
def test_observe_refuses_embargo_and_bad_credentials_only(
    known: Facts,
    text: str,
    goes_on: bool,
) -> None:
    """Observe mode records the verdict and lets the rest through."""
    some = rules(text)
    standing = judge(known, some, mode=GateMode.OBSERVE)
    assert stops(standing, mode=GateMode.OBSERVE) is not goes_on
    assert ended(standing, some=some, mode=GateMode.OBSERVE).admits is goes_on


@pytest.mark.parametrize(
    ("name", "patterns", "matches"),
    [
        ("gpt-4o", ("*",), True),
        ("gpt-4o", ("claude-*", "gpt-*"), True),
        ("GPT-4o", ("gpt-*",), False),
        ("gpt-4o", (), False),
        ("gpt-4o\n", ("gpt-4o",), False),
        ("xgpt-4o", ("gpt-*",), False),
    ],
)
def test_model_patterns(name: str, patterns: tuple[str, ...], *, matches: bool) -> None:
    """Patterns match whole names, and case counts."""
    assert matches_any(name, patterns) is matches


def test_worst_is_a_total_order() -> None:
    """Policy's scale first, then what could not be judged, then embargo; none at all allows."""
    order = [
        Verdict.ALLOW,
        Verdict.RATE_LIMITED,
        Verdict.STEP_UP,
        Verdict.DENY,
        Verdict.UNAVAILABLE,
        Verdict.UNAUTHENTICATED,
        Verdict.INVALID,
        Verdict.EMBARGOED,
    ]
    assert set(order) == set(Verdict)
    assert [worst(order[: n + 1]) for n in range(len(order))] == order
    assert worst(()) is Verdict.ALLOW
