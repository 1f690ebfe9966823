"""Facts as one flat mapping: what conditions read, records keep and replays start from."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from gatekeeper.policy.campaigns import NO_STAGE

if TYPE_CHECKING:
    from gatekeeper.policy.model import Call, Facts, View


class FieldType(StrEnum):
    """The CEL type of a field."""

    STRING = "string"
    INT = "int"
    DOUBLE = "double"
    BOOL = "bool"
    STRINGS = "list(string)"


_DAY_S: Final = 86_400.0

FIELDS: Final[dict[str, FieldType]] = {
    "network.country": FieldType.STRING,
    "network.registered_country": FieldType.STRING,
    "network.subdivision": FieldType.STRING,
    "network.asn": FieldType.INT,
    "network.as_organization": FieldType.STRING,
    "network.owner": FieldType.STRING,
    "network.owner_country": FieldType.STRING,
    "network.kind": FieldType.STRING,
    "network.listed_by": FieldType.STRINGS,
    "network.prefix": FieldType.STRING,
    "network.registered_egress": FieldType.BOOL,
    "account.id": FieldType.STRING,
    "account.known": FieldType.BOOL,
    "account.organization": FieldType.STRING,
    "account.tier": FieldType.STRING,
    "account.assurance": FieldType.STRING,
    "account.age_days": FieldType.DOUBLE,
    "account.email_domain": FieldType.STRING,
    "account.email_listed_by": FieldType.STRINGS,
    "account.owners": FieldType.STRINGS,
    "account.owner_countries": FieldType.STRINGS,
    "credential.kind": FieldType.STRING,
    "credential.key_id": FieldType.STRING,
    "call.method": FieldType.STRING,
    "call.path": FieldType.STRING,
    "call.dialect": FieldType.STRING,
    "call.model": FieldType.STRING,
    "call.stream": FieldType.BOOL,
    "call.input_tokens": FieldType.INT,
    "call.max_output_tokens": FieldType.INT,
    "call.choices": FieldType.INT,
    "call.cost_cents": FieldType.DOUBLE,
    "call.body_bytes": FieldType.INT,
    "call.client": FieldType.STRING,
    "call.logit_bias": FieldType.BOOL,
    "call.prefill": FieldType.BOOL,
    "call.logprobs": FieldType.BOOL,
    "call.asks": FieldType.STRINGS,
    "call.capabilities": FieldType.STRINGS,
    "campaign.id": FieldType.STRING,
    "campaign.stage": FieldType.STRING,
    "campaign.score": FieldType.DOUBLE,
    "campaign.layers": FieldType.STRINGS,
    "campaign.inherited": FieldType.BOOL,
    "campaign.probed": FieldType.BOOL,
}
"""Every field a condition may read, with its type. A field that is absent makes it ``unknown``."""

CALL_FIELDS: Final = {
    name: kind
    for name, kind in FIELDS.items()
    if name.startswith("call.") and name != "call.capabilities"
}
"""What can be said of a call alone, so that capability classes may rest on it."""


def view_of(facts: Facts) -> View:
    """Flatten ``facts`` into the fields of :data:`FIELDS`; what is not known is left out."""
    network, account, credential = facts.network, facts.account, facts.credential
    view = view_of_call(facts.call)
    view |= {
        "network.kind": network.kind.value,
        "network.listed_by": network.listed_by,
        "network.prefix": network.prefix,
        "account.id": account.id,
        "account.known": account.known,
        "account.tier": account.tier.value,
        "account.assurance": account.assurance.value,
        "account.email_listed_by": account.email_listed_by,
        "account.owners": account.owners,
        "account.owner_countries": account.owner_countries,
        "credential.kind": credential.kind.value,
        "call.capabilities": facts.call.capabilities,
        "campaign.stage": NO_STAGE,
        "campaign.score": 0.0,
        "campaign.layers": (),
        "campaign.inherited": False,
        "campaign.probed": False,
    }
    campaign = facts.campaign
    if campaign is not None:
        view["campaign.id"] = campaign.id
        view["campaign.stage"] = campaign.stage.value
        view["campaign.score"] = campaign.score
        view["campaign.layers"] = campaign.layers
        view["campaign.inherited"] = campaign.inherited
        view["campaign.probed"] = campaign.probed
    if account.created_at is not None:
        view["account.age_days"] = (facts.at - account.created_at) / _DAY_S
    for name, value in (
        ("network.country", network.country),
        ("network.registered_country", network.registered_country),
        ("network.subdivision", network.subdivision),
        ("network.asn", network.asn),
        ("network.as_organization", network.as_organization),
        ("network.owner", network.owner),
        ("network.owner_country", network.owner_country),
        ("network.registered_egress", network.registered_egress),
        ("account.organization", account.organization),
        ("account.email_domain", account.email_domain),
        ("credential.key_id", credential.key_id),
    ):
        if value is not None:
            view[name] = value
    return view


def view_of_call(call: Call) -> View:
    """Flatten a call into the fields of :data:`CALL_FIELDS`."""
    view: View = {
        "call.method": call.method,
        "call.path": call.path,
        "call.dialect": call.dialect,
        "call.stream": call.stream,
        "call.input_tokens": call.input_tokens,
        "call.max_output_tokens": call.max_output_tokens,
        "call.choices": call.choices,
        "call.cost_cents": call.cost_cents,
        "call.body_bytes": call.body_bytes,
        "call.logit_bias": call.logit_bias,
        "call.prefill": call.prefill,
        "call.logprobs": call.logprobs,
        "call.asks": call.asks,
    }
    if call.model is not None:
        view["call.model"] = call.model
    if call.client is not None:
        view["call.client"] = call.client
    return view


def before_a_call(view: View) -> View:
    """Return the view of a caller that has not called yet: conditions on calls are unknown."""
    return {
        name: value
        for name, value in view.items()
        if name == "call.client" or not name.startswith("call.")
    }
