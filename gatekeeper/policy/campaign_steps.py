"""What people do with campaigns, as a literal table, and how two of them become one."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from msgspec.structs import replace

from gatekeeper.policy.campaigns import Campaign, CampaignState, Event, Group, SharedTrait

MOST_EVENTS: Final = 200
"""Events that a history keeps: the first, and the newest."""
MOST_SHARED: Final = 64
"""Shared traits that a group keeps when it is joined from two."""


class CampaignStep(StrEnum):
    """What an admin can do with a campaign."""

    CONFIRM = "confirm"
    DISMISS = "dismiss"
    RELEASE = "release"
    MERGE = "merge"
    """Let it go on as part of another."""


_S, _T = CampaignState, CampaignStep

TRANSITIONS: Final[dict[tuple[CampaignState, CampaignStep], CampaignState]] = {
    (_S.PROPOSED, _T.CONFIRM): _S.CONFIRMED,
    (_S.PROPOSED, _T.DISMISS): _S.DISMISSED,
    (_S.PROPOSED, _T.RELEASE): _S.RELEASED,
    (_S.PROPOSED, _T.MERGE): _S.MERGED,
    (_S.CONFIRMED, _T.DISMISS): _S.DISMISSED,
    (_S.CONFIRMED, _T.RELEASE): _S.RELEASED,
    (_S.CONFIRMED, _T.MERGE): _S.MERGED,
    (_S.DISMISSED, _T.CONFIRM): _S.CONFIRMED,
    (_S.RELEASED, _T.CONFIRM): _S.CONFIRMED,
    (_S.RELEASED, _T.DISMISS): _S.DISMISSED,
}
"""Every allowed step; what is not here does not happen. What was merged is led by the other."""


def confirm(campaign: Campaign, by: str, at: float, why: str = "") -> Campaign | None:
    """Agree that it is a campaign: only an admin lets it go then, and it may be banned.

    Like each step, it returns ``None`` where it does not apply.
    """
    return _stepped(campaign, CampaignStep.CONFIRM, Event(at, "confirmed", why, by))


def dismiss(campaign: Campaign, by: str, at: float, why: str = "") -> Campaign | None:
    """Disagree: not contained, and not proposed again on the same evidence."""
    return _stepped(campaign, CampaignStep.DISMISS, Event(at, "dismissed", why, by))


def release(campaign: Campaign, by: str, at: float, why: str = "") -> Campaign | None:
    """Let its members go; others on the same evidence are another campaign."""
    return _stepped(campaign, CampaignStep.RELEASE, Event(at, "released", why, by))


def merge(
    one: Campaign, other: Campaign, by: str, at: float, why: str = ""
) -> tuple[Campaign, Campaign] | None:
    """Let ``other`` go on as part of ``one``, which stays under its id; return both."""
    merged = _stepped(other, CampaignStep.MERGE, Event(at, "merged", why or one.id, by))
    if merged is None or one.id == other.id or not one.state.contains:
        return None
    led = taken_in(one, other, Event(at, "merged", why or other.id, by))
    led = replace(led, group=joined(one.group, other.group), missing=other.missing | one.missing)
    return led, replace(merged, into=one.id)


def taken_in(one: Campaign, other: Campaign, event: Event) -> Campaign:
    """Return ``one`` as it leads ``other`` on: contained as far as either. Its group is its own."""
    further = other.stage.rank > one.stage.rank
    return noted(
        replace(
            one,
            state=_S.CONFIRMED if other.state is _S.CONFIRMED else one.state,
            stage=other.stage if further else one.stage,
            staged_at=other.staged_at if further else one.staged_at,
            since=min(one.since, other.since),
            left=tuple(sorted({*one.left, *other.left})),
        ),
        event,
    )


def noted(campaign: Campaign, *events: Event) -> Campaign:
    """Add to the history, which keeps how it began."""
    history = campaign.history + events
    if len(history) > MOST_EVENTS:
        history = history[:1] + history[1 - MOST_EVENTS :]
    return replace(campaign, history=history)


def joined(one: Group, other: Group) -> Group:
    """Return two groups as one; what measures a group is that of the higher score."""
    first, second = (one, other) if one.score >= other.score else (other, one)
    shared: dict[tuple[str, str, int], SharedTrait] = {}
    for trait in (*first.shared, *second.shared):
        known = shared.setdefault((trait.layer, trait.kind, trait.digest), trait)
        if trait.members > known.members:
            shared[trait.layer, trait.kind, trait.digest] = trait
    calls = one.calls + other.calls
    return replace(
        first,
        members=tuple(sorted({*one.members, *other.members})),
        shared=tuple(shared.values())[:MOST_SHARED],
        layers=tuple(dict.fromkeys(first.layers + second.layers)),
        q_value=max(one.q_value, other.q_value),
        first_seen=min(one.first_seen, other.first_seen),
        last_seen=max(one.last_seen, other.last_seen),
        capabilities={
            name: (
                one.capabilities.get(name, 0.0) * one.calls
                + other.capabilities.get(name, 0.0) * other.calls
            )
            / max(calls, 1)
            for name in one.capabilities | other.capabilities
        },
        networks=_sums(one.networks, other.networks),
        models=_sums(one.models, other.models),
        calls=calls,
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
    )


def _sums(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in one | other}


def _stepped(campaign: Campaign, step: CampaignStep, event: Event) -> Campaign | None:
    state = TRANSITIONS.get((campaign.state, step))
    if state is None:
        return None
    return noted(replace(campaign, state=state, weak_since=None, faded=False), event)
