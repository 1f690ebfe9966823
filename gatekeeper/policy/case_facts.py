"""Facts from a few fields: what cases and ``gatekeeper explain`` describe a request with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from gatekeeper.policy.campaigns import NO_STAGE, CampaignFacts, Stage
from gatekeeper.policy.countries import country_problem, subdivision_problem
from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.model import Account, Call, Credential, Facts, Lookup, NetworkFacts
from gatekeeper.policy.notation import instant_s
from gatekeeper.policy.validation import did_you_mean
from gatekeeper.policy.view import FIELDS, FieldType
from gatekeeper.policy.words import (
    Assurance,
    CredentialKind,
    CredentialStatus,
    LookupStatus,
    NetworkKind,
    Tier,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gatekeeper.policy.strict_yaml import Plain

UNKNOWN: Final = "unknown"
"""Written for a field whose look-up failed; ``null`` is a look-up that found nothing."""

FOREVER: Final = "forever"
"""Written for a ban without end."""

REQUEST_FIELDS: Final[dict[str, FieldType]] = {
    **FIELDS,
    "at": FieldType.STRING,
    "account.status": FieldType.STRING,
    "account.banned_until": FieldType.STRING,
    "credential.status": FieldType.STRING,
}
"""Every field of a described request: those that conditions read, and four that they do not."""

DEFAULTS: Final[dict[str, Plain]] = {
    "at": "2026-01-01",
    "network.prefix": "192.0.2.0/24",
    "network.country": "US",
    "network.registered_country": "US",
    "network.asn": 64496,
    "network.as_organization": "Example Broadband",
    "network.owner": None,
    "network.owner_country": None,
    "network.kind": "residential",
    "network.listed_by": [],
    "network.registered_egress": None,
    "account.id": "acct-example",
    "account.known": True,
    "account.status": "hit",
    "account.organization": None,
    "account.tier": "standard",
    "account.assurance": "none",
    "account.age_days": 400,
    "account.banned_until": None,
    "account.email_domain": "example.com",
    "account.email_listed_by": [],
    "account.owners": [],
    "account.owner_countries": [],
    "credential.kind": "api_key",
    "credential.status": "valid",
    "credential.key_id": "key-example",
    "call.method": "POST",
    "call.path": "/v1/chat/completions",
    "call.dialect": "openai_chat",
    "call.model": "gpt-4o-mini",
    "call.stream": False,
    "call.input_tokens": 500,
    "call.max_output_tokens": 1000,
    "call.choices": 1,
    "call.cost_cents": 0.07,
    "call.body_bytes": 2000,
    "call.client": "openai-python",
    "call.logit_bias": False,
    "call.prefill": False,
    "call.logprobs": False,
    "call.asks": [],
    "call.capabilities": [],
    "campaign.id": None,
    "campaign.stage": NO_STAGE,
    "campaign.score": 0.0,
    "campaign.layers": [],
    "campaign.inherited": False,
    "campaign.probed": False,
}
"""An ordinary caller: at home in the United States, with a valid key and an account of 400 days.

No subdivision: the shipped data has none.
"""

_NULLABLE: Final = frozenset(
    {
        "network.country",
        "network.registered_country",
        "network.subdivision",
        "network.asn",
        "network.as_organization",
        "network.owner",
        "network.owner_country",
        "network.registered_egress",
        "account.organization",
        "account.age_days",
        "account.banned_until",
        "account.email_domain",
        "credential.key_id",
        "call.model",
        "call.client",
        "campaign.id",
    }
)

_VIEWS: Final = {
    "country": "network.country",
    "registration": "network.registered_country",
    "subdivision": "network.subdivision",
    "asn": "network.asn",
    "kind": "network.kind",
    "lists": "network.listed_by",
}
"""Which look-up fills which field."""

_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "network.kind": tuple(NetworkKind),
    "account.tier": tuple(Tier),
    "account.assurance": tuple(Assurance),
    "account.status": tuple(LookupStatus),
    "credential.kind": tuple(CredentialKind),
    "credential.status": tuple(CredentialStatus),
    "campaign.stage": (NO_STAGE, *Stage),
}

_KINDS: Final[dict[FieldType, tuple[Callable[[Plain], bool], str]]] = {
    FieldType.STRING: (lambda value: isinstance(value, str), "text"),
    FieldType.INT: (
        lambda value: type(value) is int and 0 <= value < 2**63,
        "a whole number from 0 and below 2**63",
    ),
    FieldType.DOUBLE: (
        lambda value: (
            isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**63
        ),
        "a number, and finite",
    ),
    FieldType.BOOL: (lambda value: isinstance(value, bool), "`true` or `false`"),
    FieldType.STRINGS: (
        lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
        "a list of texts",
    ),
}
"""Whether a value fits a field's type, and how that type is called."""


def facts_of(fields: Mapping[str, Plain]) -> Facts | list[Mistake]:
    """Complete ``fields`` with :data:`DEFAULTS` to whole facts, or say what is wrong with them.

    ``unknown`` for a field means that its look-up failed, ``null`` that it found nothing. Mistakes
    carry the field as their path and no file.
    """
    mistakes = [
        Mistake("", None, name, problem)
        for name, value in fields.items()
        if (problem := _problem(name, value)) is not None
    ]
    return mistakes or _facts(_completed(fields))


def _problem(name: str, value: Plain) -> str | None:
    kind = REQUEST_FIELDS.get(name)
    if kind is None:
        return f"`{name[:60]}` is not a field{did_you_mean(name, REQUEST_FIELDS)}"
    if name in _WORDS:
        listed = ", ".join(f"`{word}`" for word in _WORDS[name])
        return None if value in _WORDS[name] else f"`{name}` must be one of {listed}."
    if value == UNKNOWN and (name in _NULLABLE or name in _VIEWS.values()):
        return None
    if value is None and name in _NULLABLE:
        return None
    fits, wanted = _KINDS[kind]
    if not fits(value):
        return f"`{name}` must be {wanted}."
    check = _CHECKS.get(name)
    return check(str(value)) if check else None


def _instant_problem(text: str) -> str | None:
    try:
        instant_s(text)
    except ValueError as error:
        return str(error)
    return None


_CHECKS: Final[dict[str, Callable[[str], str | None]]] = {
    "at": _instant_problem,
    "account.banned_until": lambda text: None if text == FOREVER else _instant_problem(text),
    "network.country": country_problem,
    "network.registered_country": country_problem,
    "network.owner_country": country_problem,
    "network.subdivision": subdivision_problem,
}


def _completed(fields: Mapping[str, Plain]) -> dict[str, Any]:
    """Fill in defaults that do not contradict what is given."""
    full: dict[str, Any] = {**DEFAULTS, **fields}
    country = fields.get("network.country")
    if country is not None and country != UNKNOWN:
        full["network.registered_country"] = fields.get("network.registered_country", country)
    if "network.asn" in fields:
        full["network.as_organization"] = fields.get("network.as_organization")
    if not full["account.known"]:
        full["account.age_days"] = fields.get("account.age_days")
    return full


def _facts(full: dict[str, Any]) -> Facts:
    at = instant_s(full["at"])
    known: dict[str, Any] = {
        name: None if value == UNKNOWN and name not in _WORDS else value
        for name, value in full.items()
    }
    age_days, banned = known["account.age_days"], known["account.banned_until"]
    return Facts(
        at=at,
        network=NetworkFacts(
            prefix=known["network.prefix"],
            address_key="example-address",
            prefix_key="example-prefix",
            kind=NetworkKind(known["network.kind"]),
            country=known["network.country"],
            registered_country=known["network.registered_country"],
            subdivision=known.get("network.subdivision"),
            asn=known["network.asn"],
            as_organization=known["network.as_organization"],
            owner=known["network.owner"],
            owner_country=known["network.owner_country"],
            listed_by=tuple(sorted(known["network.listed_by"] or ())),
            lookups=tuple(_lookups(full)),
            revision="example",
            registered_egress=known["network.registered_egress"],
        ),
        credential=Credential(
            kind=CredentialKind(known["credential.kind"]),
            status=CredentialStatus(known["credential.status"]),
            key_id=known["credential.key_id"],
            account_id=known["account.id"],
        ),
        account=Account(
            id=known["account.id"],
            known=known["account.known"],
            organization=known["account.organization"],
            tier=Tier(known["account.tier"]),
            assurance=Assurance(known["account.assurance"]),
            created_at=None if age_days is None else at - age_days * 86_400,
            banned_until=None if banned is None else _until(banned),
            email_domain=known["account.email_domain"],
            email_listed_by=tuple(known["account.email_listed_by"]),
            owners=tuple(known["account.owners"]),
            owner_countries=tuple(known["account.owner_countries"]),
            status=LookupStatus(known["account.status"]),
        ),
        call=Call(
            method=known["call.method"],
            path=known["call.path"],
            dialect=known["call.dialect"],
            model=known["call.model"],
            stream=known["call.stream"],
            input_tokens=known["call.input_tokens"],
            max_output_tokens=known["call.max_output_tokens"],
            choices=known["call.choices"],
            cost_cents=float(known["call.cost_cents"]),
            body_bytes=known["call.body_bytes"],
            client=known["call.client"],
            logit_bias=known["call.logit_bias"],
            prefill=known["call.prefill"],
            logprobs=known["call.logprobs"],
            asks=tuple(known["call.asks"]),
            capabilities=tuple(known["call.capabilities"]),
        ),
        campaign=_campaign(known),
    )


def _campaign(known: Mapping[str, Any]) -> CampaignFacts | None:
    if known["campaign.stage"] == NO_STAGE:
        return None
    return CampaignFacts(
        id=known["campaign.id"] or "example-campaign",
        stage=Stage(known["campaign.stage"]),
        score=float(known["campaign.score"]),
        layers=tuple(known["campaign.layers"]),
        inherited=known["campaign.inherited"],
        probed=known["campaign.probed"],
    )


def _until(text: str) -> float:
    return math.inf if text == FOREVER else instant_s(text)


def _lookups(full: Mapping[str, Plain]) -> list[Lookup]:
    """Say how each look-up ended; one that nothing is said of was not made at all."""
    ended = []
    for view, name in _VIEWS.items():
        if name in full:
            value = full[name]
            status = LookupStatus.HIT
            if value is None or value == []:
                status = LookupStatus.MISS
            elif value == UNKNOWN:
                status = LookupStatus.UNKNOWN
            ended.append(Lookup(view, status, "example", "example"))
    return ended
