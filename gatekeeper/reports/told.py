"""What a report tells of a campaign, before it is HTML or STIX."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gatekeeper.policy.campaigns import Campaign, SharedTrait

KINDS: Final = {
    "address": "network addresses",
    "subnet_client": "networks together with a client program",
    "payment": "payment instruments",
    "signup": "signups from one network in a day",
    "mail": "patterns of mail addresses in a week",
    "scaffold": "scaffolds (system prompt, tools and format)",
    "system": "system prompts",
    "tools": "sets of tools",
    "shape": "shapes of prompts",
    "prefix": "beginnings of conversations with tasks shared out",
    "slots": "times of activity",
    "model": "moves to a new model within a day",
}
"""What kinds of traits are, in words."""
LIMITS: Final = (
    (
        "The rate of false discoveries (q value) compares the group with random groups of accounts "
        "that share nothing. It is no rate among honest people who do share something, such as an "
        "office."
    ),
    (
        "Accounts are linked by keyed digests of what they share; that two have one digest says "
        "that they share the thing, not who is behind it."
    ),
    (
        "Members were found by what they did while sightings are kept. Who took part before, or "
        "shared nothing, is not among them."
    ),
    "A member may be an honest customer; who proves an identity leaves the campaign.",
)
"""What confidence does not cover."""
TAKEN: Final = (
    "Calls and tokens of the members in the longest window that the watcher looked at (two weeks), "
    "refused calls included; output tokens as the upstream reported them, or else as the call was "
    "bounded. What was taken before is not in it, so that the whole may be larger; calls that were "
    "refused gave nothing, so that it may be less."
)
"""What the estimate of what was taken counts."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What the operator chooses to tell of people."""

    members: bool = False
    """Ids of the accounts."""
    digests: bool = False
    """Keyed digests of the traits that they share."""
    people: bool = False
    """Names of the admins in the history."""


def why(campaign: Campaign) -> str:
    """Return in one sentence what links a campaign: so many accounts share these things."""
    members = len(campaign.contained)
    kinds = kinds_of(campaign)
    things = ", ".join(
        f"{count} {KINDS.get(kind, kind)} (up to {most} members each)"
        for kind, (count, most) in kinds.items()
    )
    return f"These {members} accounts share {things or 'nothing that is still kept'}."


def kinds_of(campaign: Campaign) -> dict[str, tuple[int, int]]:
    """Return by kind of trait how many are shared, and by how many members at the most."""
    found: dict[str, tuple[int, int]] = {}
    for trait in campaign.group.shared:
        count, most = found.get(trait.kind, (0, 0))
        found[trait.kind] = (count + 1, max(most, trait.members))
    return dict(sorted(found.items(), key=lambda each: -each[1][1]))


def widest(campaign: Campaign, most: int = 20) -> list[SharedTrait]:
    """Return the traits that most members share."""
    return sorted(campaign.group.shared, key=lambda each: (-each.members, each.kind))[:most]


def shares(counts: dict[str, int]) -> dict[str, float]:
    """Return parts of the whole, the largest first."""
    total = sum(counts.values())
    ordered = Counter(counts).most_common()
    return {name: count / total for name, count in ordered} if total else {}


def moment(unix_s: float) -> str:
    """Return a time in UTC, as ISO 8601 has it."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def confidence(campaign: Campaign) -> int:
    """Return 0 to 100: the score, halved while no admin has looked."""
    score = campaign.group.score
    return round(score if campaign.state.value == "confirmed" else score / 2)
