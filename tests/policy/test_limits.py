"""Token-bucket arithmetic, and which quotas a call draws on."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.builders import in_campaign
from support.changes import replace

from gatekeeper.policy.conditions import compile_condition
from gatekeeper.policy.limit_plan import LimitPlanner, most_output
from gatekeeper.policy.limits import (
    CONCURRENCY_RETRY_S,
    MAX_DENOMINATOR,
    MAX_UNITS,
    MICRO,
    SATURATION,
    Claim,
    Quota,
    Rate,
    adjusted,
    drain,
    fits,
    retry_after_s,
    to_micro,
)
from gatekeeper.policy.model import (
    Account,
    Call,
    Credential,
    Facts,
    NetworkFacts,
    Standing,
    Usage,
    View,
)
from gatekeeper.policy.ruleset import LimitRule, PrivateAddresses, RuleSet, ThresholdRule
from gatekeeper.policy.view import view_of
from gatekeeper.policy.words import (
    AtEnd,
    CredentialKind,
    CredentialStatus,
    Mode,
    OnFailure,
    Tier,
    Unit,
    Verdict,
)

amounts = st.integers(1, MAX_UNITS)
periods = st.one_of(
    st.sampled_from([1, 60, 3_600, 86_400, 2_678_400]), st.integers(1, MAX_DENOMINATOR)
)
factors = st.floats(0.0001, 1.0)
levels = st.integers(0, SATURATION)
spans_us = st.one_of(st.integers(0, 10_000_000), st.integers(0, 2**52))


@st.composite
def rates(draw: st.DrawFn) -> Rate:
    """Return any rate a rule can have."""
    return Rate.of(draw(amounts), draw(periods), draw(factors))


def in_doubles(used: int, remainder: int, elapsed_us: int, rate: Rate) -> tuple[float, float]:
    """Drain as a Lua script does: every number is a double, quotients are taken by fmod."""
    level, rest, elapsed = float(used), float(remainder), float(elapsed_us)
    whole, part, over = map(float, rate)
    if elapsed <= 0:
        return level, rest
    left = math.fmod(elapsed, over)
    turns = (elapsed - left) / over
    rest += left * part
    kept = math.fmod(rest, over)
    level -= elapsed * whole + turns * part + (rest - kept) / over
    return (level, kept) if level > 0 else (0.0, 0.0)


@given(levels, st.data(), spans_us, rates())
def test_drain_in_doubles_agrees_to_the_unit(
    used: int, data: st.DataObject, elapsed_us: int, rate: Rate
) -> None:
    """Lua and Python compute the same level and remainder, up to the largest of everything."""
    remainder = data.draw(st.integers(0, rate.over - 1))
    assert in_doubles(used, remainder, elapsed_us, rate) == drain(used, remainder, elapsed_us, rate)


def test_bounds_that_keep_doubles_exact() -> None:
    """The documented bounds hold at their very edge."""
    assert 2 * SATURATION < 2**53
    assert MAX_UNITS * MICRO < SATURATION
    assert (MAX_DENOMINATOR - 1) ** 2 + MAX_DENOMINATOR < 2**53


@given(st.integers(1, 10**15), rates(), st.lists(st.integers(0, 10**7), max_size=30))
def test_h27_asking_often_loses_no_fraction(used: int, rate: Rate, steps: list[int]) -> None:
    """However finely time is cut, a bucket drains exactly as in one step."""
    level, remainder = used, 0
    for step in steps:
        level, remainder = drain(level, remainder, step, rate)
    assert (level, remainder) == drain(used, 0, sum(steps), rate)


def test_h27_a_slow_bucket_asked_every_millisecond_drains_in_time() -> None:
    """At one unit an hour ten micro-units take 36 ms, though no step drains a whole one."""
    rate = Rate.of(1, 3_600)
    level, remainder = 10, 0
    for _ in range(35):
        level, remainder = drain(level, remainder, 1_000, rate)
    assert level == 1
    assert drain(level, remainder, 1_000, rate) == (0, 0)


@given(levels, rates(), st.integers(-(2**52), 0))
def test_h28_time_that_runs_backwards_counts_as_none(used: int, rate: Rate, step: int) -> None:
    """A step back changes neither level nor remainder."""
    assert drain(used, 7, step, rate) == (used, 7)


def test_a_gap_of_any_length_only_empties() -> None:
    """Nothing overflows after three hundred years, and nothing is saved up."""
    assert drain(SATURATION, 1, 10**16, Rate.of(MAX_UNITS, 1)) == (0, 0)


@given(levels, st.data(), rates())
def test_retry_after_is_exact_to_the_microsecond(
    used: int, data: st.DataObject, rate: Rate
) -> None:
    """The claim fits after that time, and does not one microsecond earlier."""
    burst = data.draw(st.integers(1, MAX_UNITS * MICRO))
    amount = data.draw(st.integers(1, burst))
    remainder = data.draw(st.integers(0, rate.over - 1))
    wait_s = retry_after_s(used, remainder, amount, burst, rate)
    if fits(used, amount, burst):
        assert wait_s == 0
        return
    wait_us = round(wait_s * MICRO)
    if wait_us < 2**50:  # beyond 35 years a float of seconds no longer tells microseconds
        assert fits(drain(used, remainder, wait_us, rate)[0], amount, burst)
        assert not fits(drain(used, remainder, wait_us - 1, rate)[0], amount, burst)


def test_what_is_larger_than_the_burst_never_fits() -> None:
    """Waiting is vain, so the wait is infinite."""
    assert retry_after_s(0, 0, 11, 10, Rate.of(1, 1)) == math.inf


def test_what_costs_nothing_fits_beside_a_debt() -> None:
    """A debt of tokens does not stop a call that takes none."""
    assert fits(100, 0, 10)
    assert retry_after_s(100, 0, 0, 10, Rate.of(1, 1)) == 0


@given(amounts, periods, factors)
def test_a_tightened_rate_is_never_faster_nor_nothing(
    amount: int, period_s: int, factor: float
) -> None:
    """Rounding goes down, by less than one part in ``over``, and stops above zero."""
    rate, full = Rate.of(amount, period_s, factor), Rate.of(amount, period_s)
    speed = rate.whole * rate.over + rate.part
    assert 1 <= speed <= full.whole * full.over + full.part
    assert rate.over == full.over
    assert speed / rate.over >= 0.999_999 * factor * amount / period_s - 1 / rate.over


@pytest.mark.parametrize(
    ("units", "micro"),
    [
        (0, 0),
        (-3, 0),
        (2, 2 * MICRO),
        (0.000_000_1, 1),
        (1.25, 1_250_000),
        (math.inf, SATURATION),
        (math.nan, SATURATION),
        (MAX_UNITS * 2, SATURATION),
    ],
)
def test_units_become_micro_units(units: float, micro: int) -> None:
    """Fractions are rounded up; what cannot be counted counts as the most."""
    assert to_micro(units) == micro


def test_a_level_stays_within_bounds() -> None:
    """A refund stops at empty, a debt at saturation."""
    assert adjusted(5, -9) == 0
    assert adjusted(5, 4) == 9
    assert adjusted(SATURATION, SATURATION) == SATURATION


# --- which quotas a call draws on


def rule(name: str = "r", **changes: Any) -> LimitRule:
    """Return a limit of 100 requests a minute for each account, but for ``changes``."""
    return replace(
        LimitRule(
            id=name,
            description="",
            mode=Mode.ENFORCE,
            unit=Unit.REQUESTS,
            per=("account",),
            amount=100,
            period_s=60,
            burst=100,
            tiers=frozenset(Tier),
            when=None,
            on_store_failure=OnFailure.CLOSED,
        ),
        **changes,
    )


def rule_set(*limits: LimitRule, thresholds: tuple[ThresholdRule, ...] = ()) -> RuleSet:
    """Return a rule set of these limits alone."""
    return RuleSet(
        revision="0",
        private=PrivateAddresses(allow=True),
        embargo=(),
        signals=(),
        thresholds=thresholds,
        tiers={},
        limits=limits,
        step_up=(),
        exemptions=(),
        models=(),
    )


def facts(
    *,
    account: Account | None = None,
    network: NetworkFacts | None = None,
    call: Call | None = None,
    key_id: str | None = "gk_1",
) -> Facts:
    """Return a call with everything known, but for what is given."""
    return Facts(
        at=1.0,
        network=network or NetworkFacts("192.0.2.0/24", "addr", "pref", country="US", asn=64_496),
        credential=Credential(CredentialKind.API_KEY, CredentialStatus.VALID, key_id, "acct"),
        account=account or Account("acct", organization="org"),
        call=call
        or Call(
            "POST",
            "/v1",
            model="m",
            input_tokens=7,
            max_output_tokens=11,
            cost_cents=1.5,
            body_bytes=13,
        ),
    )


def partition(per: tuple[str, ...], of: Facts) -> str | None:
    """Return the partition in which ``of`` is counted, or ``None`` when it is not."""
    claims = LimitPlanner(rule_set(rule(per=per))).claims(of, Standing(), view_of(of))
    return claims[0].partition if claims else None


@pytest.mark.parametrize(
    ("per", "expected"),
    [
        ((), ""),
        (("organization",), "org"),
        (("account",), "acct"),
        (("key",), "gk_1"),
        (("model",), "m"),
        (("campaign",), None),
        (("address",), "addr"),
        (("prefix",), "pref"),
        (("asn",), "64496"),
        (("country",), "US"),
        (("account", "model"), "acct|m"),
        (("account", "campaign"), None),
    ],
)
def test_partitions_of_a_call_with_everything_known(
    per: tuple[str, ...], expected: str | None
) -> None:
    """Each word of ``per`` stands for one fact."""
    assert partition(per, facts()) == expected


def test_members_of_a_campaign_share_a_partition() -> None:
    """One budget for all of them together, however many accounts they are."""
    member = replace(facts(), campaign=in_campaign(id="cmp_1"))
    assert partition(("campaign",), member) == "cmp_1"
    assert partition(("account", "campaign"), member) == "acct|cmp_1"


def test_partitions_of_what_is_not_known() -> None:
    """Unknown places and keys share a partition; a missing organization or model is not counted."""
    nobody = facts(
        account=Account("acct"),
        network=NetworkFacts("192.0.2.0/24", "addr", "pref"),
        call=Call("GET", "/v1/models"),
        key_id=None,
    )
    words = ("organization", "model", "key", "asn", "country")
    assert [partition((word,), nobody) for word in words] == [
        None,
        None,
        "unknown",
        "unknown",
        "unknown",
    ]


@pytest.mark.parametrize("model", ["m" * 65, "a|b", "~" + "0" * 32, "\ud800", "modèle"])
def test_names_that_callers_choose_cannot_forge_a_partition(model: str) -> None:
    """Long, split or odd names are digested: bounded keys, and no two calls mixed up."""
    found = partition(("model",), facts(call=Call("POST", "/", model=model)))
    assert found is not None
    assert found != model
    assert found.startswith("~")
    assert len(found) == 33
    assert found.isascii()


def test_a_model_in_another_case_has_no_quota_of_its_own() -> None:
    """Servers that do not tell cases apart would give each spelling a fresh one."""
    found = {
        partition(("account", "model"), facts(call=Call("POST", "/", model=model)))
        for model in ("gpt-4o", "GPT-4o", "Gpt-4O")
    }
    assert len(found) == 1


def test_a_bar_in_a_name_does_not_join_two_partitions() -> None:
    """``a|b`` with ``c`` and ``a`` with ``b|c`` are two callers."""
    first = facts(account=Account("a|b"), call=Call("POST", "/", model="c"))
    second = facts(account=Account("a"), call=Call("POST", "/", model="b|c"))
    assert partition(("account", "model"), first) != partition(("account", "model"), second)


def test_amounts_asked_are_the_worst_case() -> None:
    """Each unit takes its own worst case, in micro-units, in the order of the rules."""
    planner = LimitPlanner(rule_set(*(rule(unit.value, unit=unit) for unit in Unit)))
    claims = planner.claims(facts(), Standing(), {})
    assert [(claim.quota.rule, claim.amount) for claim in claims] == [
        ("requests", MICRO),
        ("input_tokens", 7 * MICRO),
        ("output_tokens", 11 * MICRO),
        ("cost", 1_500_000),
        ("bytes", 13 * MICRO),
        ("concurrency", MICRO),
    ]


def test_only_the_rules_of_the_tier_apply() -> None:
    """A rule is for its tiers; an account of a tier without rules has no claims."""
    planner = LimitPlanner(rule_set(rule(tiers=frozenset({Tier.RESTRICTED}))))
    restricted = facts(account=Account("acct", tier=Tier.RESTRICTED))
    assert len(planner.claims(restricted, Standing(), {})) == 1
    assert planner.claims(facts(), Standing(), {}) == ()


@pytest.mark.parametrize(("answer", "count"), [(True, 1), (None, 1), (False, 0)])
def test_a_limit_does_not_vanish_for_want_of_a_fact(answer: bool | None, count: int) -> None:
    """A condition that is unknown counts as true."""
    planner = LimitPlanner(rule_set(rule(when=compile_condition("account.known"))))
    view: View = {} if answer is None else {"account.known": answer}
    assert len(planner.claims(facts(), Standing(), view)) == count


def test_an_exempt_rule_is_left_out() -> None:
    """The exemptions of the standing name rules; the others stay."""
    planner = LimitPlanner(rule_set(rule("a"), rule("b")))
    claims = planner.claims(facts(), Standing(exempt=frozenset({"a"})), {})
    assert [claim.quota.rule for claim in claims] == ["b"]


@pytest.mark.parametrize("foreseen", [True, False])
def test_tightening_shrinks_burst_and_own_rate(foreseen: bool) -> None:
    """Whether a threshold foresees the factor or not, it applies to burst and rate."""
    threshold = ThresholdRule(
        id="t",
        description="",
        mode=Mode.ENFORCE,
        at_least=1,
        verdict=Verdict.ALLOW,
        assurance=facts().account.assurance,
        tighten=0.25 if foreseen else 0.5,
    )
    planner = LimitPlanner(rule_set(rule(burst=200), thresholds=(threshold,)))
    (claim,) = planner.claims(facts(), Standing(tighten=0.25), {})
    assert (claim.quota.limit, claim.quota.limit_per_period) == (50.0, 25.0)
    assert claim.quota.rate == Rate.of(25, 60)


def test_a_tightened_caller_does_not_slow_a_shared_bucket() -> None:
    """Of a quota that others share only the burst shrinks; its pace belongs to all."""
    quota = Quota.of(rule(per=("asn",)), 0.25)
    assert (quota.limit, quota.limit_per_period) == (25.0, 100.0)
    assert quota.rate == Rate.of(100, 60)


@pytest.mark.parametrize("unit", [Unit.REQUESTS, Unit.CONCURRENCY, Unit.COST])
def test_tightening_leaves_room_for_one(unit: Unit) -> None:
    """However hard a quota is tightened, one unit fits: slower is not never."""
    assert Quota.of(rule(unit=unit, burst=3), 0.01).burst == MICRO


def test_requests_are_tightened_to_whole_ones() -> None:
    """Half a request can never be asked for, so it is not kept; half a cent can."""
    assert Quota.of(rule(burst=3), 0.5).burst == MICRO
    assert Quota.of(rule(burst=3, unit=Unit.COST), 0.5).burst == 1_500_000


def test_concurrency_is_counted_in_slots() -> None:
    """A pool has slots and leases; the wait for a slot is a guess."""
    quota = Quota.of(rule(unit=Unit.CONCURRENCY, burst=2, amount=2))
    assert (quota.limit, quota.limit_per_period, quota.lease_us) == (2.0, 2.0, 60 * MICRO)
    assert quota.wait_s(MICRO, 0, MICRO) == 0
    assert quota.wait_s(2 * MICRO, 0, MICRO) == CONCURRENCY_RETRY_S


def test_a_quota_knows_how_long_a_claim_waits() -> None:
    """A hundred a minute gives one back every 0.6 seconds, exact to the microsecond."""
    assert Quota.of(rule()).wait_s(100 * MICRO, 0, MICRO) == 0.6


def test_a_quota_knows_when_it_is_whole() -> None:
    """A debt drains as well; when slots are free again nobody can know."""
    quota = Quota.of(rule())
    assert [quota.whole_in_s(units * MICRO, 0) for units in (0, 1, 100, 150)] == [0, 0.6, 60, 90]
    assert Quota.of(rule(unit=Unit.CONCURRENCY, burst=2, amount=2)).whole_in_s(MICRO, 0) == 0


def test_a_burst_beyond_what_can_be_counted_is_cut() -> None:
    """A limit too large for exact numbers counts as the largest, never as more."""
    quota = Quota.of(rule(amount=10**12, burst=10**12))
    assert quota.limit == quota.limit_per_period == MAX_UNITS


def test_a_rule_that_counts_something_else_starts_afresh() -> None:
    """The key is the rule and its unit: other numbers keep the bucket, another unit does not."""
    assert Quota.of(rule(amount=5)).key == Quota.of(rule(amount=9, burst=7), 0.5).key
    assert Quota.of(rule()).key != Quota.of(rule(unit=Unit.COST)).key


@pytest.mark.parametrize(
    ("unit", "correction"),
    [
        (Unit.REQUESTS, 0),
        (Unit.CONCURRENCY, 0),
        (Unit.INPUT_TOKENS, 3 * MICRO),
        (Unit.OUTPUT_TOKENS, -11 * MICRO),
        (Unit.COST, -1_250_000),
        (Unit.BYTES, 6_987 * MICRO),
    ],
)
def test_settling_corrects_each_unit_by_what_was_used(unit: Unit, correction: int) -> None:
    """Tokens and cost move to the usage, debt included; a request stays one."""
    (claim,) = LimitPlanner(rule_set(rule(unit=unit))).claims(facts(), Standing(), {})
    assert claim.correction(Usage(10, 0, 0.25, bytes=7_000)) == correction


@pytest.mark.parametrize(
    ("at_end", "asked", "left", "taken"),
    [
        (AtEnd.STOP, 11 * MICRO, 11 * MICRO, 11 * MICRO),
        (AtEnd.STOP, 11 * MICRO, 3 * MICRO + 5, 3 * MICRO),
        (AtEnd.STOP, 11 * MICRO, MICRO - 1, 11 * MICRO),
        (AtEnd.STOP, 11 * MICRO, -MICRO, 11 * MICRO),
        (AtEnd.STOP, SATURATION, 3 * MICRO, SATURATION),
        (AtEnd.REFUSE, 11 * MICRO, 3 * MICRO, 11 * MICRO),
    ],
)
def test_a_quota_that_yields_gives_whole_units_of_what_is_left(
    at_end: AtEnd, asked: int, left: int, taken: int
) -> None:
    """At least one; what can never fit, or must not be less, is asked for as it was."""
    quota = Quota.of(rule(unit=Unit.OUTPUT_TOKENS, at_end=at_end))
    assert Claim(quota, "p", asked).granted(left).amount == taken


@pytest.mark.parametrize("at_end", AtEnd)
def test_a_claim_that_cannot_be_made_smaller_is_granted_whole_or_not_at_all(at_end: AtEnd) -> None:
    """Whatever its quota would give to others."""
    quota = Quota.of(rule(unit=Unit.OUTPUT_TOKENS, at_end=at_end))
    whole = Claim(quota, "p", 11 * MICRO).unyielding()
    assert whole.granted(3 * MICRO) == whole
    assert (whole.partition, whole.quota.key, whole.amount) == ("p", quota.key, 11 * MICRO)


@pytest.mark.parametrize(
    ("at_end", "asked", "room", "fits_now"),
    [
        (AtEnd.STOP, 11 * MICRO, MICRO, True),
        (AtEnd.STOP, 11 * MICRO, MICRO - 1, False),
        (AtEnd.STOP, SATURATION, 3 * MICRO, False),
        (AtEnd.REFUSE, 11 * MICRO, 10 * MICRO, False),
    ],
)
def test_of_a_quota_that_yields_one_unit_is_enough(
    at_end: AtEnd,
    asked: int,
    room: int,
    fits_now: bool,
) -> None:
    """Nobody waits for more than that, unless the call can never fit."""
    quota = Quota.of(rule(unit=Unit.OUTPUT_TOKENS, at_end=at_end))
    assert (quota.wait_s(quota.burst - room, 0, asked) == 0.0) is fits_now


def output_claims(*limits: LimitRule, call: Call) -> tuple[Claim, ...]:
    """Return what ``call`` asks of ``limits``."""
    return LimitPlanner(rule_set(*limits)).claims(facts(call=call), Standing(), {})


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        ((), 1_000),
        ((rule(unit=Unit.OUTPUT_TOKENS, burst=300),), 300),
        ((rule(unit=Unit.OUTPUT_TOKENS, burst=2_000),), 1_000),
        ((rule(unit=Unit.OUTPUT_TOKENS, burst=300, mode=Mode.SHADOW),), 1_000),
        ((rule(unit=Unit.OUTPUT_TOKENS, burst=300, at_end=AtEnd.STOP),), 1_000),
        ((rule(unit=Unit.INPUT_TOKENS, burst=1),), 1_000),
        ((rule(unit=Unit.COST, burst=6),), 500),
        ((rule(unit=Unit.COST, burst=1),), 0),
        ((rule(unit=Unit.COST, burst=6), rule("s", unit=Unit.OUTPUT_TOKENS, burst=400)), 400),
    ],
)
def test_the_most_output_that_quotas_can_ever_give(
    limits: tuple[LimitRule, ...], most: int
) -> None:
    """The smallest burst counts, of tokens or of what they cost beside the input."""
    call = Call("POST", "/v1", input_tokens=7, max_output_tokens=1_000, cost_cents=11.0)
    assert most_output(output_claims(*limits, call=call), call, input_cents=1.0) == most


def test_output_that_costs_nothing_is_bound_by_no_price() -> None:
    """A budget that the input alone exceeds says nothing of the output."""
    call = Call("POST", "/v1", input_tokens=7, max_output_tokens=1_000, cost_cents=11.0)
    claims = output_claims(rule(unit=Unit.COST, burst=6), call=call)
    assert most_output(claims, call, input_cents=11.0) == 1_000


def test_a_status_reports_whole_units() -> None:
    """Micro-units never leave; a debt is reported as nothing remaining."""
    (claim,) = LimitPlanner(rule_set(rule(mode=Mode.SHADOW))).claims(facts(), Standing(), {})
    status = claim.status(1_500_000, 0.25)
    assert (status.requested, status.remaining, status.retry_after_s) == (1.0, 1.5, 0.25)
    assert (status.rule, status.unit, status.per, status.partition, status.mode) == (
        "r",
        Unit.REQUESTS,
        ("account",),
        "acct",
        Mode.SHADOW,
    )
    assert (status.limit, status.period_s, status.limit_per_period) == (100.0, 60.0, 100.0)
    assert claim.status(-5, 1.0).remaining == 0


def test_a_status_with_nothing_taken() -> None:
    """It is that of a claim on all there is, whatever the claim asks."""
    (claim,) = LimitPlanner(rule_set(rule())).claims(facts(), Standing(), {})
    status = claim.untaken(101 * MICRO, 0)
    assert (status.requested, status.remaining, status.retry_after_s) == (100, 0, 60.6)
    assert claim.untaken(0, 0).fits


@settings(max_examples=50)
@given(st.text(max_size=80), st.text(max_size=80))
def test_any_two_names_have_two_partitions(first: str, second: str) -> None:
    """No caller lands in another's bucket by its choice of name."""
    of = [partition(("account",), facts(account=Account(name))) for name in (first, second)]
    assert (of[0] == of[1]) == (first == second)


@given(st.integers(1, MAX_UNITS), st.integers(1, 100_000), st.integers(1, 1_000))
def test_shares_add_up_to_no_more_than_the_whole(amount: int, period_s: int, among: int) -> None:
    """Each node's part of rate and burst, unless it is the least there can be."""
    whole = Rate.of(amount, period_s)
    part = whole.shared(among)
    assert part.over == whole.over
    numerator = part.whole * part.over + part.part
    assert numerator * among <= whole.whole * whole.over + whole.part or numerator == 1


@pytest.mark.parametrize(
    ("unit", "burst", "among", "left"),
    [
        (Unit.REQUESTS, 10, 4, 2),
        (Unit.COST, 10, 4, 2.5),
        (Unit.CONCURRENCY, 3, 4, 1),
        (Unit.REQUESTS, 10, 1, 10),
    ],
)
def test_a_share_of_a_quota(unit: Unit, burst: int, among: int, left: float) -> None:
    """Whole units where only those exist, and never nothing."""
    of = Quota.of(rule(unit=unit, burst=burst)).shared(among)
    assert (of.burst, of.limit) == (left * MICRO, left)
