"""What a caller is told of its own quotas."""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import AT
from support.changes import replace
from support.limits import claim, quota

from gatekeeper.policy.limits import MICRO, Claim
from gatekeeper.policy.model import LimitStatus
from gatekeeper.policy.ratelimit_headers import (
    OwnLimit,
    own_claims,
    own_limits,
    rate_limit_headers,
    retry_after_s,
)
from gatekeeper.policy.words import Mode, OnFailure, Unit


def status(**changes: Any) -> LimitStatus:
    """Return an account's quota of 100 requests a minute with 50 left, but for ``changes``."""
    base = LimitStatus(
        "secret-rule", Unit.REQUESTS, ("account",), "a", Mode.ENFORCE, 100, 60, 100, 1, 50, 0
    )
    return msgspec.structs.replace(base, **changes)


def test_a_call_that_fits() -> None:
    """Policy and what is left, with the seconds until the quota is whole again."""
    assert rate_limit_headers((status(),)) == (
        ("RateLimit-Policy", '"requests";q=100;w=60'),
        ("RateLimit", '"requests";r=50;t=30'),
    )


def test_a_refusal() -> None:
    """The wait is rounded up to whole seconds, and the window does not end after it."""
    refused = status(remaining=0.4, retry_after_s=0.2)
    statuses = (refused, status(unit=Unit.COST, remaining=0))
    assert retry_after_s(statuses) == 1
    assert rate_limit_headers(statuses) == (
        ("RateLimit-Policy", '"requests";q=100;w=60, "cost";q=100;qu="us-cents";w=60'),
        ("RateLimit", '"requests";r=0;t=1, "cost";r=0;t=1'),
    )


def test_units_have_their_own_names() -> None:
    """Tokens, money and slots are not passed off as requests; slots have no window."""
    fields = dict(rate_limit_headers([status(unit=unit, limit=50) for unit in Unit]))
    assert fields["RateLimit-Policy"] == (
        '"requests";q=100;w=60, "input-tokens";q=100;qu="tokens";w=60, '
        '"output-tokens";q=100;qu="tokens";w=60, "cost";q=100;qu="us-cents";w=60, '
        '"bytes";q=100;qu="content-bytes";w=60, "concurrency";q=100;qu="concurrent-requests"'
    )
    assert fields["RateLimit"] == (
        '"requests";r=50, "input-tokens";r=50, "output-tokens";r=50, "cost";r=50, '
        '"bytes";r=50, "concurrency";r=50'
    )


def test_several_quotas_of_a_unit_are_told_apart() -> None:
    """By their window, and by a number where even that is the same."""
    windows = (60, 86_400, 90, 60)
    quotas = [status(period_s=float(window)) for window in windows]
    policies = dict(rate_limit_headers([*quotas, status(unit=Unit.COST)]))["RateLimit-Policy"]
    assert re.findall('"([a-z0-9-]+)";q', policies) == [
        "requests-minute",
        "requests-day",
        "requests-90s",
        "requests-minute-2",
        "cost",
    ]


@pytest.mark.parametrize(
    "hidden",
    [
        status(per=("asn",)),
        status(per=()),
        status(per=("account", "campaign")),
        status(mode=Mode.SHADOW),
        status(failed=OnFailure.OPEN),
        status(failed=OnFailure.CLOSED),
    ],
)
def test_h34_only_enforced_quotas_of_the_caller_are_told(hidden: LimitStatus) -> None:
    """Shared budgets, campaigns and shadow rules stay out of sight, and so do rule ids."""
    assert rate_limit_headers((hidden,)) == ()
    both = rate_limit_headers((hidden, status(per=("key", "model"))))
    assert both == rate_limit_headers((status(),))
    assert "secret-rule" not in str(both)


@pytest.mark.parametrize(
    ("statuses", "seconds"),
    [
        ((status(),), None),
        ((status(retry_after_s=0.01),), 1),
        ((status(retry_after_s=6.2), status(retry_after_s=2.0)), 7),
        ((status(retry_after_s=5.0, mode=Mode.SHADOW),), None),
        ((status(retry_after_s=math.inf), status(retry_after_s=5.0)), None),
        ((status(retry_after_s=1.0, per=("asn",)),), 1),
        ((status(retry_after_s=33.0, per=("asn",)), status(retry_after_s=5.0)), 64),
    ],
)
def test_retry_after(statuses: tuple[LimitStatus, ...], seconds: int | None) -> None:
    """The longest enforced wait; a shared quota's is coarse; none when waiting is vain."""
    assert retry_after_s(statuses) == seconds


def test_a_shared_refusal_is_told_by_its_wait_alone() -> None:
    """The caller learns when to come back, and nothing of the shared budget."""
    shared = (status(per=("asn",), retry_after_s=3.0),)
    assert (rate_limit_headers(shared), retry_after_s(shared)) == ((), 4)


def test_what_can_never_fit_has_no_wait() -> None:
    """Neither ``t`` nor the wait invites a retry that must fail."""
    never = (status(retry_after_s=math.inf),)
    assert dict(rate_limit_headers(never))["RateLimit"] == '"requests";r=50'
    assert retry_after_s(never) is None


def test_a_whole_quota_has_no_window_left() -> None:
    """A quota that is full says so by leaving ``t`` out."""
    assert dict(rate_limit_headers((status(remaining=100),)))["RateLimit"] == '"requests";r=100'


# --- the list of own limits


def test_a_list_says_what_the_fields_say() -> None:
    """By the same names, with whole units but for cost, and the time of the reset in words."""
    statuses = (status(remaining=50.9), status(unit=Unit.COST, limit=9.5, remaining=0.25))
    assert own_limits(statuses, AT) == (
        OwnLimit("requests", Unit.REQUESTS, 100, 50, 100, 60, "2026-01-01T00:00:30.000+00:00", 30),
        OwnLimit("cost", Unit.COST, 9.5, 0.25, 100, 60, "2026-01-01T00:00:06.000+00:00", 6),
    )
    assert dict(rate_limit_headers(statuses))["RateLimit"] == '"requests";r=50;t=30, "cost";r=0;t=6'


def test_input_and_output_tokens_are_limits_of_their_own() -> None:
    """Each has its item and its entry, with what is left of it alone."""
    statuses = (
        status(unit=Unit.INPUT_TOKENS, remaining=90),
        status(unit=Unit.OUTPUT_TOKENS, remaining=10),
    )
    assert dict(rate_limit_headers(statuses))["RateLimit"] == (
        '"input-tokens";r=90;t=6, "output-tokens";r=10;t=54'
    )
    told = [(each.name, each.remaining) for each in own_limits(statuses, AT)]
    assert told == [("input-tokens", 90), ("output-tokens", 10)]


def test_a_whole_quota_is_reset_now() -> None:
    """There is nothing to wait for."""
    (told,) = own_limits((status(remaining=100),), AT + 0.25)
    assert (told.resets_in_s, told.resets_at) == (0, "2026-01-01T00:00:00.250+00:00")


def test_a_debt_is_told_by_its_wait() -> None:
    """A look's own wait is until all of it is there, which what remains does not tell."""
    (told,) = own_limits((status(remaining=0, retry_after_s=89.2),), AT)
    assert (told.remaining, told.resets_in_s) == (0, 90)


def test_slots_have_no_time() -> None:
    """They come back whenever a call ends."""
    (told,) = own_limits((status(unit=Unit.CONCURRENCY, remaining=3),), AT)
    assert told == OwnLimit("concurrency", Unit.CONCURRENCY, 100, 3, None, None, None, None)


def test_a_reset_beyond_all_calendars_is_at_their_end() -> None:
    """The slowest quota of the largest burst resets in some years that have no date."""
    slow = status(limit=4e9, remaining=0, limit_per_period=1, period_s=9e7, retry_after_s=3.6e17)
    (told,) = own_limits((slow,), AT)
    assert told.resets_at == "9999-12-31T23:59:59.000+00:00"


HIDDEN_QUOTAS = (
    replace(quota(), per=("asn",)),
    replace(quota(), per=()),
    replace(quota(), per=("organization",)),
    replace(quota(), per=("account", "campaign")),
    quota(mode=Mode.SHADOW),
)


def test_h34_only_own_limits_are_listed_or_even_looked_at() -> None:
    """What the fields hide, the list hides, and nobody asks the store for it."""
    mine = (claim(quota()), claim(replace(quota(), per=("key", "address"))))
    hidden = [Claim(each, "p", MICRO) for each in HIDDEN_QUOTAS]
    assert own_claims([*hidden, *mine]) == mine
    statuses = [each.status(MICRO, 0) for each in hidden]
    failed = [status(failed=OnFailure.OPEN), status(failed=OnFailure.CLOSED)]
    assert own_limits([*statuses, *failed], AT) == ()


MEMBER = r'"[a-z0-9-]+"(;(q|w|r|t)=\d{1,15}|;qu="[a-z-]+")*'


@given(
    st.lists(
        st.builds(
            status,
            unit=st.sampled_from(Unit),
            limit=st.floats(0.001, 4e9),
            limit_per_period=st.floats(0.001, 4e9),
            period_s=st.integers(1, 90_000_000).map(float),
            remaining=st.floats(0, 4e9),
            retry_after_s=st.sampled_from([0.0, 0.5, 1e7, math.inf]),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_status_gives_well_formed_fields(statuses: list[LimitStatus]) -> None:
    """Structured fields of RFC 9651, with names that occur once."""
    fields = dict(rate_limit_headers(statuses))
    for name in ("RateLimit-Policy", "RateLimit"):
        assert re.fullmatch(f"{MEMBER}(, {MEMBER})*", fields[name])
        names = re.findall('"([a-z0-9-]+)";[qr]', fields[name])
        assert len(set(names)) == len(statuses)
