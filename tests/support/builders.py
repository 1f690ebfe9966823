"""Facts and rules for tests: an ordinary caller and a rule set that allows everything.

Each test names only what matters to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.changes import replace

from gatekeeper.policy.campaigns import CampaignFacts, Stage
from gatekeeper.policy.decide import conclude
from gatekeeper.policy.model import (
    Account,
    Call,
    Credential,
    Decision,
    Facts,
    LimitStatus,
    Lookup,
    NetworkFacts,
    Standing,
)
from gatekeeper.policy.rules import parse_rules
from gatekeeper.policy.ruleset import RuleSet
from gatekeeper.policy.words import (
    CredentialKind,
    CredentialStatus,
    GateMode,
    LookupStatus,
    Mode,
    NetworkKind,
    Unit,
)

AT = 1_767_225_600.0
"""2026-01-01, Unix seconds."""
DAY_S = 86_400.0
RULES_FOLDER = Path(__file__).parents[2] / "rules"

_BASE = {
    "tiers": """
tiers:
  - {id: tier-trusted, description: d, tier: trusted, models: ["*"]}
  - {id: tier-standard, description: d, tier: standard, models: ["*"]}
  - {id: tier-elevated, description: d, tier: elevated, models: ["*"]}
  - {id: tier-restricted, description: d, tier: restricted, models: ["*"]}
""",
    "models": """
models:
  - model: "*"
    input_cents_per_million: 100
    output_cents_per_million: 400
    max_output_tokens: 4096
""",
}

TIERS = """
tiers:
  - {id: trusted, description: d, tier: trusted, models: ["*"]}
  - {id: standard, description: d, tier: standard, models: [gpt-*, small],
     max_output_tokens: 1000, max_input_tokens: 500}
  - {id: elevated, description: d, tier: elevated, models: ["*"], assurance: ial1}
  - {id: restricted, description: d, tier: restricted, models: [small], assurance: ial2}
"""
"""Four tiers that differ, in the place of those of :func:`rules`."""

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
"""Signals of 40, 30 and 20 points, and thresholds at 20, 30, 60 and 90."""


def rules(text: str = "", **sections: str) -> RuleSet:
    """Parse ``text`` beside four tiers that allow everything and one price.

    ``tiers`` or ``models`` given as ``sections`` replace those.
    """
    bodies = _BASE | sections | {"rules": text}
    files = {f"{name}.yaml": f"version: 1\n{body}\n...\n" for name, body in bodies.items()}
    parsed = parse_rules(files)
    assert isinstance(parsed, RuleSet), [str(mistake) for mistake in parsed]
    return parsed


def default_pack() -> RuleSet:
    """Parse the rules that ship."""
    files = {path.name: path.read_text() for path in sorted(RULES_FOLDER.glob("*.yaml"))}
    parsed = parse_rules(files)
    assert isinstance(parsed, RuleSet), [str(mistake) for mistake in parsed]
    return parsed


def network(*, unknown: tuple[str, ...] = (), **changes: Any) -> NetworkFacts:
    """Return an address in the United States; look-ups of the views in ``unknown`` failed."""
    known: dict[str, Any] = {
        "kind": NetworkKind.RESIDENTIAL,
        "country": "US",
        "registered_country": "US",
        "asn": 64496,
        **changes,
    }
    found = {
        "country": known["country"],
        "registration": known["registered_country"],
        "subdivision": known.get("subdivision"),
        "asn": known["asn"],
        "kind": known["kind"],
        "lists": known.get("listed_by"),
    }
    lookups = tuple(
        Lookup(view, _ended(value, failed=view in unknown), "test", "1")
        for view, value in found.items()
    )
    return NetworkFacts("192.0.2.0/24", "address-key", "prefix-key", lookups=lookups, **known)


def _ended(value: object, *, failed: bool) -> LookupStatus:
    if failed:
        return LookupStatus.UNKNOWN
    return LookupStatus.HIT if value else LookupStatus.MISS


def credential(**changes: Any) -> Credential:
    """Return a valid API key."""
    key = Credential(CredentialKind.API_KEY, CredentialStatus.VALID, "key-1", "acct-1")
    return replace(key, **changes)


def account(*, age_days: float | None = 400.0, **changes: Any) -> Account:
    """Return a standard account of 400 days."""
    created_at = None if age_days is None else AT - age_days * DAY_S
    return replace(Account("acct-1", known=True, created_at=created_at), **changes)


def call(**changes: Any) -> Call:
    """Return a small chat completion."""
    ordinary = Call(
        "POST",
        "/v1/chat/completions",
        "openai_chat",
        model="gpt-4o-mini",
        input_tokens=500,
        max_output_tokens=1000,
        client="openai-python",
    )
    return replace(ordinary, **changes)


def in_campaign(**changes: Any) -> CampaignFacts:
    """Return what is known of a member of a campaign that shares one budget."""
    ordinary: dict[str, Any] = {
        "id": "cmp_0123456789ab",
        "stage": Stage.BUDGET,
        "score": 80.0,
        "layers": ("address", "scaffold"),
    }
    return CampaignFacts(**(ordinary | changes))


def facts(
    *,
    at: float = AT,
    where: NetworkFacts | None = None,
    key: Credential | None = None,
    who: Account | None = None,
    what: Call | None = None,
    campaign: CampaignFacts | None = None,
) -> Facts:
    """Put facts together; what is not given is ordinary."""
    return Facts(
        at,
        network() if where is None else where,
        credential() if key is None else key,
        account() if who is None else who,
        call() if what is None else what,
        campaign=campaign,
    )


def limit_status(**changes: Any) -> LimitStatus:
    """Return a quota that had room."""
    ordinary: dict[str, Any] = {
        "rule": "requests",
        "unit": Unit.REQUESTS,
        "per": ("account",),
        "partition": "acct-1",
        "mode": Mode.ENFORCE,
        "limit": 10.0,
        "period_s": 60.0,
        "limit_per_period": 60.0,
        "requested": 1.0,
        "remaining": 9.0,
        "retry_after_s": 0.0,
    }
    return LimitStatus(**(ordinary | changes))


def ended(
    standing: Standing,
    *limits: LimitStatus,
    some: RuleSet | None = None,
    mode: GateMode = GateMode.ENFORCE,
) -> Decision:
    """Conclude with the limits' answers."""
    used = rules() if some is None else some
    return conclude(standing, limits, used, decision_id="dec_1", at=AT, mode=mode)
