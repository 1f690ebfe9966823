"""A campaign as a STIX 2.1 bundle (OASIS), by the library ``stix2``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid5

import stix2

from gatekeeper.reports.told import LIMITS, TAKEN, confidence, kinds_of, shares, why, widest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.policy.campaigns import Campaign
    from gatekeeper.reports.told import Choice

_SPACE: Final = UUID("5f0f2c9e-6a0b-5a55-9d4e-6b6c8f0f7a10")
"""Ids are made of it and of what they name, so that a campaign has the same ones every time."""
_LICENCES: Final = {
    "clear": stix2.TLP_WHITE,
    "green": stix2.TLP_GREEN,
    "amber": stix2.TLP_AMBER,
    "red": stix2.TLP_RED,
}
"""Markings by their names in TLP 2.0; STIX 2.1 has those of TLP 1."""


def bundle_of(campaign: Campaign, choice: Choice, *, at: float, by: str, tlp: str) -> str:
    """Return the bundle as JSON; the same campaign gives the same ids.

    ``at`` is when it is made (Unix seconds), ``by`` who sends it, ``tlp`` how far it may go.
    """
    group, marking = campaign.group, _LICENCES[tlp]
    made = max([campaign.since, *(each.at for each in campaign.history)])
    author = stix2.Identity(
        id=_id("identity", by), name=by, identity_class="organization", created=_time(0),
        modified=_time(0),
    )  # fmt: skip
    common: dict[str, Any] = {
        "created_by_ref": author.id,
        "created": _time(campaign.since),
        "modified": _time(max(made, campaign.since)),
        "object_marking_refs": [marking.id],
        "confidence": confidence(campaign),
        "lang": "en",
    }
    told = stix2.Campaign(
        id=_id("campaign", campaign.id),
        name=campaign.id,
        description=why(campaign),
        first_seen=_time(group.first_seen),
        last_seen=_time(max(group.last_seen, group.first_seen)),
        objective="Model outputs drawn through many accounts as one",
        labels=[campaign.state.value, campaign.stage.value],
        **common,
    )
    pattern = stix2.AttackPattern(
        id=_id("attack-pattern", "model extraction"),
        name="Model extraction through many accounts",
        description="One operator spreads calls over many accounts and networks, each below every "
        "limit for itself, to draw the outputs of a model.",
        external_references=[
            {"source_name": "mitre-atlas", "external_id": "AML.T0024.002",
             "description": "Exfiltration via AI Inference API: Extract AI Model"}
        ],
        **(common | {"created": _time(0), "modified": _time(0)}),
    )  # fmt: skip
    uses = stix2.Relationship(
        id=_id("relationship", f"{campaign.id} uses"),
        relationship_type="uses",
        source_ref=told.id,
        target_ref=pattern.id,
        **common,
    )
    limits = stix2.Note(
        id=_id("note", campaign.id),
        abstract="Confidence and its limits",
        content="\n".join(
            (f"Score {group.score:.0f} of 100, q value {group.q_value:.2g}.", *LIMITS)
        ),
        object_refs=[told.id],
        **common,
    )
    users = []
    if choice.members:
        users = [
            stix2.UserAccount(
                id=_id("user-account", name), user_id=name, object_marking_refs=[marking.id]
            )
            for name in sorted(campaign.contained)
        ]  # fmt: skip
    report = stix2.Report(
        id=_id("report", campaign.id),
        name=f"Campaign {campaign.id}",
        description=_described(campaign, choice),
        report_types=["campaign"],
        published=_time(at),
        object_refs=[each.id for each in (told, pattern, uses, limits, *users)],
        **(common | {"modified": _time(max(at, campaign.since))}),
    )
    bundle = stix2.Bundle(
        author, told, pattern, uses, limits, *users, report, id=_id("bundle", campaign.id)
    )
    return str(bundle.serialize(pretty=True)) + "\n"


def _described(campaign: Campaign, choice: Choice) -> str:
    group = campaign.group
    networks = ", ".join(
        f"{name} {100 * part:.0f} %" for name, part in shares(group.networks).items()
    )
    asks = ", ".join(f"{name} {100 * part:.0f} %" for name, part in group.capabilities.items())
    lines = [
        why(campaign),
        f"Members: {len(campaign.contained)}. Layers: {', '.join(map(str, group.layers))}.",
        f"Networks by calls: {networks or 'unknown'}.",
        f"Asked for: {asks or 'unknown'}.",
        (
            f"Estimate of what was taken: {group.calls} calls, {group.input_tokens} tokens in and "
            f"{group.output_tokens} out. {TAKEN}"
        ),
    ]
    if choice.digests:
        lines += [
            f"{each.kind} {each.digest:016x}: {each.members} of {each.accounts}"
            for each in widest(campaign)
        ]
    else:
        lines.append(f"Kinds of shared traits: {', '.join(kinds_of(campaign))}.")
    return "\n".join(lines)


def _listed(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {100 * part:.0f} %" for name, part in parts.items())


def _id(kind: str, name: str) -> str:
    return f"{kind}--{uuid5(_SPACE, f'{kind} {name}')}"


def _time(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)
