"""The report as a STIX 2.1 bundle, for those whose tools read it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid5

import stix2

from gatekeeper.reports import content
from gatekeeper.reports.content import Include, Tlp, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gatekeeper.policy.campaigns import Campaign
    from gatekeeper.reports.content import ReportOptions

_NAMESPACE: Final = UUID("5f0c9d3e-7a54-4c0e-9d52-6a2f6c1be0a7")
_FIRST: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""When objects that belong to no campaign were made: an id keeps its date."""
_MARKINGS: Final = {
    Tlp.CLEAR: stix2.TLP_WHITE,
    Tlp.GREEN: stix2.TLP_GREEN,
    Tlp.AMBER: stix2.TLP_AMBER,
    Tlp.RED: stix2.TLP_RED,
}
_MOST_OBSERVED: Final = 999_999_999


def stix_report(campaign: Campaign, options: ReportOptions) -> str:
    """Return the bundle as JSON. Ids depend on the campaign and its sender alone."""
    objects = list(_Maker(campaign, options).objects())
    bundle = stix2.Bundle(
        id=_id("bundle", options.by, campaign.id), objects=[_MARKINGS[options.tlp], *objects]
    )
    return json.dumps(json.loads(bundle.serialize()), indent=2, ensure_ascii=True) + "\n"


class _Maker:
    """Makes the objects of one report."""

    def __init__(self, campaign: Campaign, options: ReportOptions) -> None:
        self._campaign = campaign
        self._options = options
        self._author = self._id("identity", own=False)
        self._marked = [_MARKINGS[options.tlp].id]

    def objects(self) -> Iterator[Any]:
        """Yield them, the report that names the others last."""
        yield self._identity()
        campaign, pattern = self._found(), self._pattern()
        uses = stix2.Relationship(
            id=self._id("relationship"),
            relationship_type="uses",
            source_ref=campaign.id,
            target_ref=pattern.id,
            description=content.PURPOSE,
            confidence=content.purpose_confidence(self._campaign),
            **self._common(),
        )
        told: list[Any] = [campaign, pattern, uses, self._note(campaign), *self._opinion(campaign)]
        if Include.MEMBERS in self._options.include and content.members(self._campaign):
            told.extend(self._observed(campaign))
        yield from told
        yield self._report(told)

    def _identity(self) -> Any:
        return stix2.Identity(
            id=self._author,
            name=printable(self._options.by),
            identity_class="organization",
            **self._common(own=False),
        )

    def _found(self) -> Any:
        group = self._campaign.group
        return stix2.Campaign(
            id=self._id("campaign"),
            name=printable(self._campaign.id),
            description=f"{content.summary(self._campaign)} {content.STATES[self._campaign.state]}",
            objective="Extraction of a model's abilities, by the reading of the sender.",
            first_seen=_time(group.first_seen),
            last_seen=_time(max(group.first_seen, group.last_seen)),
            confidence=content.confidence(self._campaign),
            labels=[self._campaign.state.value, self._campaign.stage.value],
            **self._common(),
        )

    def _pattern(self) -> Any:
        return stix2.AttackPattern(
            id=self._id("attack-pattern", own=False),
            name="Model extraction through many accounts",
            description="Many accounts, run as one, collect answers of a model so that each stays "
            "below what would be conspicuous, to train another model on them or to use more than "
            "one account may.",
            external_references=[
                {
                    "source_name": "mitre-atlas",
                    "external_id": "AML.T0024.002",
                    "description": "Exfiltration via AI Inference API: Extract AI Model",
                }
            ],
            **self._common(own=False),
        )

    def _note(self, campaign: Any) -> Any:
        group = self._campaign.group
        layers = ", ".join(dict.fromkeys(group.layers))
        figures = f"Score {group.score:.0f} of 100, q value {group.q_value:.2g}, layers: {layers}."
        return stix2.Note(
            id=self._id("note"),
            abstract="Confidence and its limits",
            content="\n\n".join(
                (figures, content.confidence_told(self._campaign), *content.LIMITS)
            ),
            object_refs=[campaign.id],
            **self._common(),
        )

    def _opinion(self, campaign: Any) -> Iterator[Any]:
        said = content.verdict(self._campaign)
        if said is None:
            return
        people: dict[str, Any] = {}
        if Include.PEOPLE in self._options.include:
            people = {"authors": [printable(said.by)], "explanation": printable(said.detail)}
        yield stix2.Opinion(
            id=self._id("opinion"),
            opinion="agree" if said.what == "confirmed" else "disagree",
            object_refs=[campaign.id],
            **{name: told for name, told in people.items() if told},
            **self._common(),
        )

    def _observed(self, campaign: Any) -> Iterator[Any]:
        group = self._campaign.group
        accounts = [
            stix2.UserAccount(user_id=each, object_marking_refs=self._marked)
            for each in content.members(self._campaign)
        ]
        observed = stix2.ObservedData(
            id=self._id("observed-data"),
            first_observed=_time(group.first_seen),
            last_observed=_time(max(group.first_seen, group.last_seen)),
            number_observed=max(1, min(_MOST_OBSERVED, group.calls)),
            object_refs=[each.id for each in accounts],
            **self._common(),
        )
        yield from accounts
        yield observed
        yield stix2.Relationship(
            id=self._id("relationship", "observed"),
            relationship_type="related-to",
            source_ref=observed.id,
            target_ref=campaign.id,
            **self._common(),
        )

    def _report(self, told: list[Any]) -> Any:
        return stix2.Report(
            id=self._id("report"),
            name=f"Campaign {printable(self._campaign.id)}",
            description="\n\n".join(self._figures()),
            report_types=["campaign"],
            published=_time(self._made_at),
            object_refs=[self._author, *(each.id for each in told)],
            confidence=content.confidence(self._campaign),
            **self._common(),
        )

    def _figures(self) -> Iterator[str]:
        campaign = self._campaign
        group = campaign.group
        yield content.summary(campaign)
        yield f"{content.STATES[campaign.state]} Stage: {campaign.stage}. " + (
            content.STAGES[campaign.stage]
            if campaign.state.contains
            else "Nothing is done to its members now."
        )
        if campaign.into:
            yield f"It goes on in {printable(campaign.into)}."
        yield "Shared by members, at least: " + _listed(
            f"{row.kind} {row.members:,} ({row.layer})" for row in content.shared_kinds(campaign)
        )
        yield "Calls by kind of network: " + _listed(
            f"{name} {calls:,.0f}" for name, calls in content.most(group.networks)
        )
        yield "Share of calls by capability class: " + _listed(
            f"{name} {100 * share:.1f} %" for name, share in content.most(group.capabilities)
        )
        yield "Calls by model: " + _listed(
            f"{name} {calls:,.0f}" for name, calls in content.most(content.models(campaign))
        )
        yield (
            f"Estimate of what was taken: {group.calls:,} calls, {group.input_tokens:,} input "
            f"tokens, {group.output_tokens:,} output tokens. " + " ".join(content.TAKEN)
        )
        yield "Timeline:\n" + "\n".join(
            " ".join(filter(None, (content.moment(row.at), row.what, row.detail, f"({row.by})")))
            for row in content.timeline(campaign, self._options)
        )
        if Include.DIGESTS in self._options.include:
            yield "Digests, keyed: " + _listed(
                f"{printable(each.kind)} {each.digest:016x}" for each in group.shared
            )
        yield "How to act on it:\n" + "\n".join(content.ACTIONS)

    @property
    def _made_at(self) -> float:
        return max(self._options.made_at, self._campaign.since)

    def _common(self, *, own: bool = True) -> dict[str, Any]:
        """Return what objects have in common; each report makes a new version of each."""
        return {
            "created": _time(self._campaign.since) if own else _FIRST,
            "modified": max(_time(self._made_at), _FIRST),
            "created_by_ref": self._author,
            "lang": "en",
            "object_marking_refs": self._marked,
        }

    def _id(self, kind: str, *more: str, own: bool = True) -> str:
        campaign = (self._campaign.id,) if own else ()
        return _id(kind, self._options.by, *campaign, *more)


def _id(kind: str, *parts: str) -> str:
    return f"{kind}--{uuid5(_NAMESPACE, json.dumps([kind, *parts]))}"


def _time(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)


def _listed(texts: Iterator[str]) -> str:
    return "; ".join(texts) or "none known."
