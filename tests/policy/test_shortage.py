"""Quotas without room: what their callers are told, and the way out of a campaign's budget."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import pytest
from support.builders import account, ended, facts, in_campaign, limit_status, rules
from support.changes import replace as changed

from gatekeeper.policy.decide import judge
from gatekeeper.policy.limit_plan import LimitPlanner
from gatekeeper.policy.model import LimitStatus, Obligation
from gatekeeper.policy.ratelimit_headers import is_told, rate_limit_headers
from gatekeeper.policy.record import from_record, to_record
from gatekeeper.policy.shortage import limit_reason, shortage
from gatekeeper.policy.view import view_of
from gatekeeper.policy.words import Assurance, GateMode, Mode, OnFailure, Reason, Unit, Verdict

INF: Final = float("inf")
BUDGET = """
limits:
  - {id: budget, description: d, unit: requests, per: [campaign], rate: 50/day,
     used_up: step_up, assurance: ial2}
"""


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


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        (
            {"unit": Unit.OUTPUT_TOKENS, "requested": 100_000.0, "limit": 5_000.0},
            (
                "It may take up to 100000 output tokens, and at most 5000 are given at once. "
                "Lower max_tokens (or max_completion_tokens, max_output_tokens) or n."
            ),
        ),
        (
            {"unit": Unit.INPUT_TOKENS, "requested": 11.0, "per": ("key",)},
            (
                "It may take up to 11 input tokens, and at most 10 are given at once. "
                "Shorten the prompt."
            ),
        ),
        (
            {"unit": Unit.COST, "requested": 10.5},
            (
                "It may take up to 11 US cents, and at most 10 are given at once. "
                "Shorten the prompt, lower max_tokens or n, or use a cheaper model."
            ),
        ),
        ({"unit": Unit.BYTES, "requested": 11.0, "per": ("asn",)}, "Send less at once."),
        ({"unit": Unit.BYTES, "requested": 11.0, "per": ()}, "Send less at once."),
        ({"unit": Unit.REQUESTS, "requested": 11.0}, None),
    ],
)
def test_h23_a_call_that_never_fits_is_told_what_to_lower(
    changes: dict[str, Any], detail: str | None
) -> None:
    """Numbers are those of the caller's own quota; of a shared one only the lever is named."""
    short = limit_status(retry_after_s=INF, **changes)
    assert ended(judge(facts(), rules()), short).detail == detail


def test_longest_wait_speaks() -> None:
    """Of several quotas without room the caller is told the one that takes longest."""
    soon = limit_status(retry_after_s=1.0)
    late = limit_status(unit=Unit.COST, retry_after_s=60.0)
    decision = ended(judge(facts(), rules()), soon, late)
    assert decision.reason is Reason.SPENDING_LIMIT_EXCEEDED


def of_budget(**changes: Any) -> LimitStatus:
    """Return a campaign's budget without room."""
    ordinary: dict[str, Any] = {
        "rule": "budget",
        "per": ("campaign",),
        "partition": "cmp_0123456789ab",
        "retry_after_s": 60.0,
        "used_up": Assurance.IAL1,
    }
    return limit_status(**(ordinary | changes))


@pytest.mark.parametrize("wait_s", [1.0, INF])
def test_a_used_up_campaign_budget_asks_for_proof_instead_of_waiting(wait_s: float) -> None:
    """Also where the call asks for more than the budget ever holds: the way out is the same."""
    decision = ended(judge(facts(), rules()), limit_status(), of_budget(retry_after_s=wait_s))
    assert (decision.verdict, decision.shadow_verdict) == (Verdict.STEP_UP, Verdict.STEP_UP)
    assert decision.reason is Reason.IDENTITY_VERIFICATION_REQUIRED
    assert decision.obligation == Obligation(Assurance.IAL1, "budget")
    assert decision.detail is None
    assert [(each.rule, each.verdict, each.detail) for each in decision.findings] == [
        ("budget", Verdict.STEP_UP, "ial1")
    ]


def test_the_way_out_goes_before_waiting_and_the_strongest_proof_is_asked() -> None:
    """Beside a limit of the caller's own, and of two budgets that differ."""
    own = limit_status(retry_after_s=INF)
    other = of_budget(rule="tokens", used_up=Assurance.IAL2, retry_after_s=1.0)
    decision = ended(judge(facts(), rules()), own, of_budget(), other)
    assert decision.verdict is Verdict.STEP_UP
    assert decision.obligation == Obligation(Assurance.IAL2, "tokens")


def test_a_refusal_of_the_rules_is_not_softened() -> None:
    """The budget only matters to a call that was otherwise admitted."""
    stood = judge(facts(), rules())
    denied = changed(stood, verdict=Verdict.DENY, reason=Reason.REQUEST_DENIED)
    decision = ended(denied, of_budget(), mode=GateMode.OBSERVE)
    assert (decision.verdict, decision.obligation) == (Verdict.DENY, None)


def test_h31_in_shadow_it_only_shows() -> None:
    """The verdict stays, the shadow verdict and the finding tell."""
    decision = ended(judge(facts(), rules()), of_budget(mode=Mode.SHADOW))
    assert (decision.verdict, decision.shadow_verdict) == (Verdict.ALLOW, Verdict.STEP_UP)
    assert decision.obligation is None
    assert [(each.mode, each.verdict) for each in decision.findings] == [
        (Mode.SHADOW, Verdict.STEP_UP)
    ]


@pytest.mark.parametrize(
    ("failed", "verdict"),
    [
        (OnFailure.CLOSED, Verdict.UNAVAILABLE),
        (OnFailure.LOCAL_SHARE, Verdict.STEP_UP),
    ],
)
def test_h30_a_budget_that_could_not_be_asked_is_not_used_up(
    failed: OnFailure, verdict: Verdict
) -> None:
    """Nobody is asked for proof because a store is down; a share of this node may run out."""
    short = of_budget(failed=failed)
    assert shortage(short).verdict is verdict
    assert ended(judge(facts(), rules()), short).verdict is verdict


def test_only_members_draw_on_it_and_their_claims_carry_the_way_out() -> None:
    """From the rule to the status that the limiter returns."""
    some = rules(BUDGET)
    planner = LimitPlanner(some)
    stranger, member = facts(), facts(campaign=in_campaign())
    assert planner.claims(stranger, judge(stranger, some), view_of(stranger)) == ()
    (claim,) = planner.claims(member, judge(member, some), view_of(member))
    assert claim.partition == "cmp_0123456789ab"
    assert claim.status(0, 5.0).used_up is Assurance.IAL2
    assert claim.quota.shared(4).used_up is Assurance.IAL2


def test_h34_the_budget_is_never_told() -> None:
    """Not even when it is counted per account as well: it would tell of the campaign."""
    for per in (("campaign",), ("campaign", "account")):
        assert not is_told(of_budget(per=per))
        assert rate_limit_headers([of_budget(per=per)]) == ()


def test_it_replays_from_its_record() -> None:
    """Even by rules that know the limit no more."""
    known = facts(campaign=in_campaign(), who=account(age_days=1.0))
    decision = ended(judge(known, rules()), of_budget())
    written = msgspec.json.encode(to_record(decision, known, mode=GateMode.ENFORCE))
    recorded = from_record(msgspec.json.decode(written))
    assert not isinstance(recorded, str)
    again = recorded.replay(rules())
    assert again == decision
    assert (recorded.facts, again.verdict) == (known, Verdict.STEP_UP)
