"""Facts and rule sets at random, for properties that must hold of all of them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st
from support.builders import (
    AT,
    DAY_S,
    account,
    call,
    credential,
    facts,
    in_campaign,
    limit_status,
    network,
)

from gatekeeper.policy.campaigns import Stage
from gatekeeper.policy.model import FOREVER
from gatekeeper.policy.rules import parse_rules
from gatekeeper.policy.ruleset import RuleSet
from gatekeeper.policy.words import (
    Assurance,
    CredentialKind,
    CredentialStatus,
    LookupStatus,
    Mode,
    NetworkKind,
    OnFailure,
    Tier,
    Unit,
)

COUNTRIES = ("US", "DE", "UA", "CN", "CU", "IR")
OWNERS = ("alibaba", "example")
VIEWS = ("country", "registration", "subdivision", "asn", "kind", "lists")
CONDITIONS = (
    'network.kind == "tor"',
    'network.kind in ["vpn", "hosting"]',
    "network.country != network.registered_country",
    "size(network.listed_by) >= 2",
    "!network.registered_egress",
    "account.age_days < 7.0",
    "!account.known",
    '"disposable" in account.email_listed_by',
    'account.tier == "elevated"',
    "call.choices > 4",
    "call.cost_cents > 100.0",
    'call.model.startsWith("gpt")',
    "true",
)

_IDS = st.sampled_from(("disposable", "feed-a", "feed-b", "feed-c"))
_LISTS = st.lists(_IDS, unique=True, max_size=3).map(lambda ids: tuple(sorted(ids)))
_COUNTRY = st.sampled_from((None, *COUNTRIES))


def networks() -> st.SearchStrategy[Any]:
    """Draw any network, private ones included, with any of its look-ups failed."""
    return st.builds(
        network,
        unknown=st.lists(st.sampled_from(VIEWS), unique=True, max_size=2).map(tuple),
        kind=st.sampled_from(NetworkKind),
        country=_COUNTRY,
        registered_country=_COUNTRY,
        subdivision=st.sampled_from((None, None, "UA-43", "UA-30", "US-CA")),
        asn=st.sampled_from((None, 64496, 64500)),
        owner=st.sampled_from((None, None, *OWNERS)),
        owner_country=_COUNTRY,
        listed_by=_LISTS,
        registered_egress=st.sampled_from((None, False, True)),
    )


def accounts() -> st.SearchStrategy[Any]:
    """Draw any account, banned or new or not known at all."""
    return st.builds(
        account,
        age_days=st.sampled_from((None, 0.0, 0.5, 3.0, 6.999, 7.0, 400.0)),
        known=st.booleans(),
        organization=st.sampled_from((None, "org-1")),
        tier=st.sampled_from(Tier),
        assurance=st.sampled_from(Assurance),
        banned_until=st.sampled_from((None, None, AT - 1, AT, AT + 1, FOREVER, float("inf"))),
        email_listed_by=_LISTS,
        owners=st.lists(st.sampled_from(OWNERS), unique=True).map(tuple),
        owner_countries=st.lists(st.sampled_from(COUNTRIES), unique=True, max_size=2).map(tuple),
        status=st.sampled_from(LookupStatus),
    )


def calls() -> st.SearchStrategy[Any]:
    """Draw any call; names of models are what callers choose to send."""
    return st.builds(
        call,
        model=st.sampled_from((None, "gpt-4o-mini", "gpt-5", "claude-opus-4-5")) | st.text(),
        input_tokens=st.integers(0, 2_000_000),
        max_output_tokens=st.integers(0, 400_000),
        choices=st.integers(1, 8),
        cost_cents=st.floats(0, 10_000),
        client=st.sampled_from((None, "openai-python")),
        logit_bias=st.booleans(),
        prefill=st.booleans(),
        logprobs=st.booleans(),
    )


def campaigns() -> st.SearchStrategy[Any]:
    """Draw what is known of a member of any campaign, or ``None``."""
    some = st.builds(
        in_campaign,
        stage=st.sampled_from(Stage),
        score=st.floats(0, 100),
        inherited=st.booleans(),
        probed=st.booleans(),
    )
    return st.none() | some


def some_facts() -> st.SearchStrategy[Any]:
    """Draw any facts; the credential is valid most of the time."""
    valid = st.just(CredentialStatus.VALID)
    return st.builds(
        facts,
        at=st.sampled_from((AT, AT + DAY_S, AT + 0.1)),
        where=networks(),
        key=st.builds(
            credential,
            kind=st.sampled_from(CredentialKind),
            status=valid | valid | st.sampled_from(CredentialStatus),
        ),
        who=accounts(),
        what=calls(),
        campaign=campaigns(),
    )


_MODES = st.sampled_from(("enforce", "shadow"))


def _rule(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Make lists of up to three rules; ids are numbered, so that they are unique."""
    rule = st.fixed_dictionaries({"description": st.just("d"), "mode": _MODES, **fields})
    return st.lists(rule, max_size=3).map(
        lambda items: [{"id": f"{kind}-{n}", **item} for n, item in enumerate(items)]
    )


_EMBARGO = _rule(
    "embargo",
    countries=st.lists(st.sampled_from(COUNTRIES), min_size=1, max_size=2, unique=True),
    on=st.lists(
        st.sampled_from(("use", "registration", "asn", "organization")), min_size=1, unique=True
    ),
    unknown=st.sampled_from(("refuse", "step_up", "allow")),
    source=st.just("s"),
)
_SIGNALS = _rule(
    "signal",
    when=st.sampled_from(CONDITIONS),
    points=st.integers(-60, 60).filter(bool),
)
_THRESHOLDS = _rule(
    "threshold",
    at_least=st.integers(1, 40),
    verdict=st.sampled_from(("step_up", "deny")),
    tighten=st.sampled_from((0.5, 1.0)),
)
_STEP_UP = _rule(
    "step-up",
    when=st.sampled_from(CONDITIONS),
    assurance=st.sampled_from(("ial1", "ial2")),
)
_SHAPING = _rule(
    "shaping",
    at_least=st.sampled_from((1, 20, 40)),
    when=st.sampled_from(CONDITIONS),
    max_choices=st.sampled_from((1, 2)),
    max_context_tokens=st.sampled_from((1000, 1_000_000)),
    refuse=st.sampled_from((["logit_bias"], ["logprobs", "prefill"])),
    drop_reasoning=st.booleans(),
)
_LIMITS = _rule(
    "limit",
    unit=st.sampled_from(("requests", "output_tokens", "cost")),
    per=st.just(["account"]),
    rate=st.just("10/minute"),
)
_TIERS = st.tuples(
    *(
        st.fixed_dictionaries(
            {
                "id": st.just(f"tier-{tier}"),
                "description": st.just("d"),
                "tier": st.just(tier.value),
                "mode": _MODES,
                "models": st.sampled_from((["*"], ["gpt-4o*"])),
                "assurance": st.sampled_from(("none", "ial1")),
                "max_output_tokens": st.sampled_from((1000, 1_000_000)),
            }
        )
        for tier in Tier
    )
).map(list)
_MODEL = {
    "model": "*",
    "input_cents_per_million": 1.0,
    "output_cents_per_million": 1.0,
    "max_output_tokens": 100,
}


@st.composite
def some_rules(draw: st.DrawFn) -> RuleSet:
    """Draw any rule set of up to three rules of each section, enforced or in shadow."""
    content: dict[str, Any] = {
        "version": 1,
        "private": {"allow": draw(st.booleans())},
        "embargo": draw(_EMBARGO),
        "signals": draw(_SIGNALS),
        "thresholds": draw(_THRESHOLDS),
        "shaping": draw(_SHAPING),
        "step_up": draw(_STEP_UP),
        "limits": draw(_LIMITS),
        "tiers": draw(_TIERS),
        "models": [_MODEL],
    }
    names = [
        rule["id"]
        for section in ("signals", "thresholds", "shaping", "step_up", "limits", "tiers")
        for rule in content[section]
    ]
    exempted = st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)
    content["exemptions"] = draw(
        _rule(
            "exemption",
            when=st.sampled_from(CONDITIONS),
            rules=exempted,
            reason=st.just("r"),
            expires=st.sampled_from(("2026-01-01T12:00Z", "2030-01-01")),
        )
    )
    given = {name: value for name, value in content.items() if value != []}
    parsed = parse_rules({"rules.yaml": json.dumps(given) + "\n...\n"})
    assert isinstance(parsed, RuleSet), [str(mistake) for mistake in parsed]
    return parsed


def some_limits() -> st.SearchStrategy[Any]:
    """Draw answers of up to three quotas, some of which had no room or never will."""
    status = st.builds(
        limit_status,
        rule=st.sampled_from(("limit-0", "limit-1")),
        unit=st.sampled_from(Unit),
        mode=st.sampled_from(Mode),
        remaining=st.floats(0, 1e9),
        retry_after_s=st.sampled_from((0.0, 0.0, 1.5, 60.0, float("inf"))),
        failed=st.sampled_from((None, *OnFailure)),
        used_up=st.sampled_from((None, None, Assurance.IAL1, Assurance.IAL2)),
    )
    return st.lists(status, max_size=3).map(tuple)
