"""From facts to a verdict: precedence, shadow, observe, and what never softens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.builders import (
    AT,
    DAY_S,
    account,
    call,
    credential,
    default_pack,
    facts,
    limit_status,
    network,
    rules,
)
from support.changes import replace
from support.strategies import some_facts, some_limits, some_rules

from gatekeeper.policy.decide import (
    BAN_RULE,
    CREDENTIAL_RULE,
    PRIVATE_RULE,
    conclude,
    judge,
    limit_reason,
    matches_any,
    outright,
    screen,
    stops,
    worst,
)
from gatekeeper.policy.model import (
    FOREVER,
    Assurance,
    CredentialStatus,
    Decision,
    Facts,
    LimitStatus,
    LookupStatus,
    Mode,
    NetworkKind,
    Reason,
    Standing,
    Tier,
    Unit,
    Verdict,
)
from gatekeeper.policy.ruleset import OnUnknown, RuleSet

if TYPE_CHECKING:
    from collections.abc import Callable

INF = float("inf")
PACK = default_pack()
TOR = network(kind=NetworkKind.TOR)
CUBA = network(country="CU")


def ended(
    standing: Standing, *limits: LimitStatus, some: RuleSet | None = None, observe: bool = False
) -> Decision:
    """Conclude with the limits' answers."""
    used = rules() if some is None else some
    return conclude(standing, limits, used, decision_id="dec_1", at=AT, observe=observe)


def softened(before: Verdict, after: Verdict) -> bool:
    """Tell whether ``after`` is less severe than ``before``."""
    return worst((before, after)) is not after


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
    assert stops(standing, observe=True)


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
    assert stops(standing, observe=True) is not allow


def test_embargo_speaks_before_everything() -> None:
    """A call that is embargoed, banned and without credential is told of the region."""
    some = rules("embargo: [{id: e, description: d, source: s, countries: [CU]}]")
    known = facts(where=CUBA, key=credential(status=CredentialStatus.MISSING))
    standing = screen(known, some)
    assert standing.reason is Reason.REGION_NOT_SUPPORTED
    assert [finding.rule for finding in standing.findings] == ["e", CREDENTIAL_RULE]


# --- assess -------------------------------------------------------------------------------------

TIERS = """
tiers:
  - {id: trusted, description: d, tier: trusted, models: ["*"]}
  - {id: standard, description: d, tier: standard, models: [gpt-*, small],
     max_output_tokens: 1000, max_input_tokens: 500}
  - {id: elevated, description: d, tier: elevated, models: ["*"], assurance: ial1}
  - {id: restricted, description: d, tier: restricted, models: [small], assurance: ial2}
"""


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


SCORED = """
signals:
  - {id: tor, description: d, when: network.kind == "tor", points: 40}
  - {id: unknown, description: d, when: "!account.known", points: 30}
  - {id: stream, description: d, when: call.stream, points: 20}
thresholds:
  - {id: tighten, description: d, at_least: 20, tighten: 0.5}
  - {id: tighten-more, description: d, at_least: 30, tighten: 0.25}
  - {id: ask, description: d, at_least: 60, verdict: step_up, assurance: ial2}
  - {id: deny, description: d, at_least: 90, verdict: deny}
"""


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
    assert not stops(screen(known, rules(text)), observe=False)
    assert judge(known, rules(text)).verdict is Verdict.DENY


# --- conclude -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "retry_after_s", "reason"),
    [
        (Unit.REQUESTS, 1.0, Reason.RATE_LIMIT_EXCEEDED),
        (Unit.INPUT_TOKENS, 1.0, Reason.TOKEN_LIMIT_EXCEEDED),
        (Unit.OUTPUT_TOKENS, 1.0, Reason.TOKEN_LIMIT_EXCEEDED),
        (Unit.COST, 1.0, Reason.SPENDING_LIMIT_EXCEEDED),
        (Unit.CONCURRENCY, 1.0, Reason.CONCURRENCY_LIMIT_EXCEEDED),
        (Unit.REQUESTS, INF, Reason.REQUEST_EXCEEDS_LIMIT),
    ],
)
def test_limit_reasons(unit: Unit, retry_after_s: float, reason: Reason) -> None:
    """Each unit has its reason; a claim that never fits has another."""
    short = limit_status(unit=unit, retry_after_s=retry_after_s)
    assert limit_reason(short) is reason
    decision = ended(judge(facts(), rules()), limit_status(), short)
    assert (decision.verdict, decision.reason) == (Verdict.RATE_LIMITED, reason)
    assert not decision.admits


def test_longest_wait_speaks() -> None:
    """Of several quotas without room the caller is told the one that takes longest."""
    soon = limit_status(retry_after_s=1.0)
    late = limit_status(unit=Unit.COST, retry_after_s=60.0)
    decision = ended(judge(facts(), rules()), soon, late)
    assert decision.reason is Reason.SPENDING_LIMIT_EXCEEDED


def test_worse_standing_outlives_the_limits() -> None:
    """In observe mode limits are asked of refused calls too; they do not soften the verdict."""
    some = rules("step_up: [{id: s, description: d, when: 'true'}]")
    decision = ended(judge(facts(), some), limit_status(retry_after_s=1.0), some=some, observe=True)
    assert decision.verdict is Verdict.STEP_UP
    assert decision.admits


@pytest.mark.parametrize("reason", [Reason.INVALID_PATH, Reason.SERVICE_UNAVAILABLE])
def test_outright(reason: Reason) -> None:
    """A call that cannot be judged is refused with its reason, in observe mode too."""
    standing = outright(reason, "Say it better.")
    unavailable = reason is Reason.SERVICE_UNAVAILABLE
    assert standing.verdict is (Verdict.UNAVAILABLE if unavailable else Verdict.INVALID)
    decision = ended(standing, observe=True)
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
    standing = judge(known, some, observe=True)
    assert stops(standing, observe=True) is not goes_on
    assert ended(standing, some=some, observe=True).admits is goes_on


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


# --- shadow (H31) -------------------------------------------------------------------------------


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
        step_up=enforced(some.step_up),
        exemptions=enforced(some.exemptions),
        tiers={tier: replace(rule, mode=Mode.ENFORCE) for tier, rule in some.tiers.items()},
    )


@settings(max_examples=70, deadline=None)
@given(known=some_facts(), some=some_rules(), limits=some_limits(), observe=st.booleans())
def test_h31_shadow_never_changes_an_enforced_verdict(
    known: Facts, some: RuleSet, limits: tuple[LimitStatus, ...], *, observe: bool
) -> None:
    """With every rule in shadow taken out, the decision is the same in all that takes effect."""
    with_shadow = judge(known, some, observe=observe)
    without = judge(known, without_shadow(some), observe=observe)
    hard = tuple(status for status in limits if status.mode is Mode.ENFORCE)
    one = ended(with_shadow, *limits, observe=observe)
    two = ended(without, *hard, observe=observe)
    for effect in ("verdict", "reason", "enforced", "obligation", "tighten", "detail", "admits"):
        assert getattr(one, effect) == getattr(two, effect), effect
    assert with_shadow.exempt == without.exempt
    totals = [standing.score and standing.score.total for standing in (with_shadow, without)]
    assert totals[0] == totals[1]
    assert stops(with_shadow, observe=observe) is stops(without, observe=observe)


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


# --- more risk never softens --------------------------------------------------------------------

_RISKIER = {
    kind: rank
    for rank, kinds in enumerate(
        (
            (NetworkKind.PRIVATE,),
            (NetworkKind.RESIDENTIAL, NetworkKind.MOBILE, NetworkKind.UNKNOWN),
            (NetworkKind.HOSTING, NetworkKind.RELAY),
            (NetworkKind.VPN,),
            (NetworkKind.RESIDENTIAL_PROXY,),
            (NetworkKind.TOR,),
        )
    )
    for kind in kinds
}


def _where(known: Facts, /, **changes: Any) -> Facts:
    return replace(known, network=replace(known.network, **changes))


def _who(known: Facts, /, **changes: Any) -> Facts:
    return replace(known, account=replace(known.account, **changes))


def _riskier_kind(known: Facts, other: Facts) -> Facts:
    assume(_RISKIER[other.network.kind] > _RISKIER[known.network.kind])
    return _where(known, kind=other.network.kind)


def _on_more_lists(known: Facts, other: Facts) -> Facts:
    both = {*known.network.listed_by, *other.network.listed_by}
    return _where(known, listed_by=tuple(sorted(both)))


def _younger(known: Facts, other: Facts) -> Facts:
    born, before = other.account.created_at, known.account.created_at
    assume(born is not None and (before is None or born > before))
    return _who(known, created_at=born)


def _not_known(known: Facts, _: Facts) -> Facts:
    return _who(known, known=False)


def _disposable(known: Facts, other: Facts) -> Facts:
    lists = {*known.account.email_listed_by, *other.account.email_listed_by, "disposable"}
    return _who(known, email_listed_by=tuple(sorted(lists)))


def _banned(known: Facts, _: Facts) -> Facts:
    return _who(known, banned_until=FOREVER)


def _lower_tier(known: Facts, other: Facts) -> Facts:
    return _who(known, tier=known.account.tier.stricter(other.account.tier))


def _less_assurance(known: Facts, other: Facts) -> Facts:
    assume(known.account.assurance.meets(other.account.assurance))
    return _who(known, assurance=other.account.assurance)


def _bad_owner(known: Facts, _: Facts) -> Facts:
    return _who(known, owners=(*known.account.owners, "bytedance"))


def _records_lost(known: Facts, _: Facts) -> Facts:
    return _who(known, status=LookupStatus.UNKNOWN)


def _bad_credential(known: Facts, _: Facts) -> Facts:
    assume(known.credential.status is CredentialStatus.VALID)
    return replace(known, credential=replace(known.credential, status=CredentialStatus.INVALID))


def _embargoed_country(known: Facts, _: Facts) -> Facts:
    assume(known.network.kind is not NetworkKind.PRIVATE)
    return _where(known, country="KP")


def _unknown_country(known: Facts, _: Facts) -> Facts:
    assume(known.network.kind is not NetworkKind.PRIVATE)
    return _where(known, country=None)


def _bad_network(known: Facts, _: Facts) -> Facts:
    assume(known.network.kind is not NetworkKind.PRIVATE)
    return _where(known, owner="tencent")


def _lookups_lost(known: Facts, _: Facts) -> Facts:
    lost = tuple(replace(each, status=LookupStatus.UNKNOWN) for each in known.network.lookups)
    return _where(known, lookups=lost)


def _more_choices(known: Facts, other: Facts) -> Facts:
    more = max(known.call.choices, other.call.choices)
    return replace(known, call=replace(known.call, choices=more))


def _longer(known: Facts, other: Facts) -> Facts:
    mine, its = known.call, other.call
    longer = replace(
        mine,
        input_tokens=max(mine.input_tokens, its.input_tokens),
        max_output_tokens=max(mine.max_output_tokens, its.max_output_tokens),
        cost_cents=max(mine.cost_cents, its.cost_cents),
    )
    return replace(known, call=longer)


RAISERS: tuple[Callable[[Facts, Facts], Facts], ...] = (
    _riskier_kind,
    _on_more_lists,
    _younger,
    _not_known,
    _disposable,
    _banned,
    _lower_tier,
    _less_assurance,
    _bad_owner,
    _records_lost,
    _bad_credential,
    _embargoed_country,
    _unknown_country,
    _bad_network,
    _lookups_lost,
    _more_choices,
    _longer,
)


@pytest.mark.parametrize("raiser", RAISERS, ids=lambda raiser: raiser.__name__.strip("_"))
@settings(max_examples=30, deadline=None)
@given(known=some_facts(), other=some_facts())
def test_more_risk_never_softens_the_default_pack(
    raiser: Callable[[Facts, Facts], Facts], known: Facts, other: Facts
) -> None:
    """Of any facts, one made riskier and all else the same, the pack's verdict is no milder.

    The kinds of network rank as the pack's points do. A country alone is not compared with
    another one that is served: neither is riskier. Nor is it for private addresses, which have
    none. An account that nobody knows any more keeps its age here: an age that is not known counts
    nothing. Limits are not softer either: the tightening is no weaker while the call goes on.
    """
    before, after = judge(known, PACK), judge(raiser(known, other), PACK)
    assert not softened(before.verdict, after.verdict)
    if before.admits and after.admits:
        assert after.tighten <= before.tighten


@pytest.mark.parametrize(
    "raiser", [_banned, _bad_credential, _records_lost], ids=["ban", "credential", "records"]
)
@settings(max_examples=30, deadline=None)
@given(known=some_facts(), some=some_rules())
def test_more_risk_never_softens_any_rules(
    raiser: Callable[[Facts, Facts], Facts], known: Facts, some: RuleSet
) -> None:
    """Facts that no condition reads only ever add to what is found, whatever the rules."""
    assert not softened(judge(known, some).verdict, judge(raiser(known, known), some).verdict)


@settings(max_examples=50, deadline=None)
@given(known=some_facts(), some=some_rules(), more=some_rules())
def test_more_rules_never_soften(known: Facts, some: RuleSet, more: RuleSet) -> None:
    """Adding embargoes, thresholds, step-ups and signals with points never makes a call pass."""
    both = replace(
        some,
        embargo=some.embargo + more.embargo,
        signals=some.signals + tuple(s for s in more.signals if s.points > 0),
        thresholds=some.thresholds + more.thresholds,
        step_up=some.step_up + more.step_up,
        exemptions=(),
    )
    alone = replace(some, exemptions=())
    assert not softened(judge(known, alone).verdict, judge(known, both).verdict)


@pytest.mark.parametrize("strict", [OnUnknown.REFUSE, OnUnknown.STEP_UP])
@settings(max_examples=30, deadline=None)
@given(known=some_facts(), some=some_rules())
def test_h15_stricter_unknown_never_softens(strict: OnUnknown, known: Facts, some: RuleSet) -> None:
    """Saying that unknown means more than nothing never lets a call pass."""
    loose = replace(
        some, embargo=tuple(replace(rule, unknown=OnUnknown.ALLOW) for rule in some.embargo)
    )
    tight = replace(some, embargo=tuple(replace(rule, unknown=strict) for rule in some.embargo))
    assert not softened(judge(known, loose).verdict, judge(known, tight).verdict)
