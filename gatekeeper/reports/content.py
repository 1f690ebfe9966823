"""What a report tells, whatever its form: no more of people than the operator has chosen."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from gatekeeper.policy.campaigns import CampaignState, Layer, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.policy.campaigns import Campaign, Event

WATCHER: Final = "watcher"
"""Who histories name where no person acted."""
ADMIN: Final = "an admin"
_MOST_ROWS: Final = 20
_MOST_CHARACTERS: Final = 200


class Tlp(StrEnum):
    """To whom a report may be passed on (Traffic Light Protocol)."""

    CLEAR = "clear"
    GREEN = "green"
    AMBER = "amber"
    RED = "red"

    @property
    def meaning(self) -> str:
        """What the colour allows, in a sentence."""
        return _TLP[self]


_TLP: Final = {
    Tlp.CLEAR: "May be passed on to anybody.",
    Tlp.GREEN: "May be passed on within the community, not published.",
    Tlp.AMBER: "May be passed on to those in your organization and its clients who need to know.",
    Tlp.RED: "For those alone to whom it was given.",
}


class Include(StrEnum):
    """What a report holds only when the operator asks for it."""

    MEMBERS = "members"
    """Ids of accounts."""
    DIGESTS = "digests"
    """Keyed digests of shared traits."""
    PEOPLE = "people"
    """Names of admins, and what they wrote."""


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What the operator has chosen."""

    made_at: float
    """Unix seconds."""
    by: str = "A Gatekeeper operator"
    """Whom the report is from."""
    tlp: Tlp = Tlp.AMBER
    include: frozenset[Include] = frozenset()


@dataclass(frozen=True, slots=True)
class KindRow:
    """What members share of one kind."""

    layer: Layer
    kind: str
    traits: int
    """How many different ones are shared."""
    members: int
    """How many members have the most common one: at least as many share something of the kind."""


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """One event."""

    at: float
    what: str
    detail: str
    by: str


LAYERS: Final[Mapping[Layer, str]] = {
    Layer.ADDRESS: "addresses that few accounts use",
    Layer.SUBNET_CLIENT: "the same client program from the same subnet",
    Layer.SIGNUP: "signups in one burst, of one mail pattern, or paid by one card",
    Layer.SCAFFOLD: "a rare system prompt, set of tools or shape of prompts",
    Layer.TIMING: "activity in the same ten-minute slots",
    Layer.RELEASE: "a move to a new model within a day of its release",
    Layer.TASKS: "different tasks under one template, none done twice",
}
"""What each layer links by."""

STATES: Final[Mapping[CampaignState, str]] = {
    CampaignState.PROPOSED: "Found by the watcher; nobody has confirmed it yet.",
    CampaignState.CONFIRMED: "A person has looked at it and agrees that it is a campaign.",
    CampaignState.DISMISSED: "A person has looked at it and found that it is no campaign.",
    CampaignState.RELEASED: "Let go: its members are not held together as a campaign any more.",
    CampaignState.MERGED: "Goes on as part of another campaign.",
}
"""What each state means."""

STAGES: Final[Mapping[Stage, str]] = {
    Stage.OBSERVE: "Members are watched; nothing else is done.",
    Stage.BUDGET: "All unverified members together have one budget.",
    Stage.SHAPE: "Besides the shared budget, answers to members reveal less.",
    Stage.PROBE: "Besides, a keyed share of the members is asked to prove who they are.",
    Stage.STEP_UP: "All members are asked to prove who they are.",
    Stage.BAN: "All members are refused.",
}
"""What each stage does."""

TAKEN_COUNTS: Final = (
    "Calls that the gates let through, with their input and output tokens, as far as the watcher's "
    "last run over this group looked back (two weeks at most), by the accounts that were members "
    "then."
)
TAKEN_LACKS: Final = (
    "Not in it: calls from before the watcher's retention or before that run's window, by accounts "
    "that were not found to be members, by gates whose decisions the watcher does not read, and at "
    "other providers. It is an estimate from below."
)

LIMITS: Final = (
    "The q value is the share of false ones to expect among groups that score at least as much, "
    "held against random groups of ordinary accounts about as active that share nothing.",
    "It is no rate among honest people who do share something: colleagues, a class, the users of "
    "one tool or of one network can be linked too. Scores on one layer alone are bounded at 55, on "
    "two at 90, for that reason.",
    "That accounts belong together says nothing of who runs them, or what for. Extraction of a "
    "model is the likely reading of many coordinated accounts, not a finding about any one.",
    "A single member may be there by coincidence: decide on no account by this report alone.",
)
"""What the confidence does not say."""

ACTIONS: Final = (
    "Look for the same pattern on your side: accounts that share these kinds of traits, from these "
    "kinds of networks, with this mix of use.",
    "Contain before you ban: a shared budget or a request for proof of identity costs an honest "
    "account little, and a campaign much.",
    "Let every account prove who it is and leave, whatever is done to the group.",
    "Tell the sender what you find, by the id of the campaign: it never changes.",
)
"""How whoever receives a report can act on it."""


def printable(text: str) -> str:
    """Return a bounded text in which nothing moves a cursor or turns the direction of writing."""
    shown = "".join(each if each.isprintable() else "\ufffd" for each in text[:_MOST_CHARACTERS])
    return f"{shown}..." if len(text) > _MOST_CHARACTERS else shown


def moment(unix_s: float) -> str:
    """Return a time in UTC as people read it."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


def shared_kinds(campaign: Campaign) -> tuple[KindRow, ...]:
    """Return what members share by kind, the most common first."""
    found: defaultdict[tuple[Layer, str], list[int]] = defaultdict(list)
    for trait in campaign.group.shared:
        found[trait.layer, trait.kind].append(trait.members)
    rows = (
        KindRow(layer, printable(kind), len(members), max(members))
        for (layer, kind), members in found.items()
    )
    return tuple(sorted(rows, key=lambda row: (-row.members, row.layer, row.kind)))


def timeline(campaign: Campaign, options: ReportOptions) -> tuple[TimelineRow, ...]:
    """Return the history, the oldest first; of people no names nor words unless chosen."""
    named = Include.PEOPLE in options.include
    return tuple(_told(event, named=named) for event in campaign.history)


def _told(event: Event, *, named: bool) -> TimelineRow:
    own = named or event.by == WATCHER
    return TimelineRow(
        event.at,
        printable(event.what).replace("_", " "),
        printable(event.detail) if own else "",
        printable(event.by) if own else ADMIN,
    )


def stages(campaign: Campaign) -> tuple[tuple[float, Stage], ...]:
    """Return when the campaign came to which stage, as far as its history tells."""
    found: list[tuple[float, Stage]] = []
    for event in campaign.history:
        if event.what == "stage":
            word = event.detail.partition(" -> ")[2].partition(",")[0] or event.detail
            if word in set(Stage):
                found.append((event.at, Stage(word)))
    if not found or found[-1][1] is not campaign.stage:
        found.append((campaign.staged_at, campaign.stage))
    return tuple(sorted(found, key=lambda each: each[0]))


def most(counts: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """Return named numbers, the largest first; beyond a bound, the rest as one."""
    rows = sorted(counts.items(), key=lambda row: (-row[1], row[0]))
    shown = [(printable(name) or "(none)", number) for name, number in rows[:_MOST_ROWS]]
    if rest := rows[_MOST_ROWS:]:
        shown.append((f"{len(rest)} others", sum(number for _, number in rest)))
    return tuple(shown)


def refuted(campaign: Campaign) -> bool:
    """Tell whether people, or the proof of most that were asked, have spoken against it."""
    history = campaign.history
    proved = bool(history) and history[-1].what == "probe_passed"
    return campaign.state is CampaignState.DISMISSED or (
        campaign.state is CampaignState.RELEASED and proved
    )


def confidence(campaign: Campaign) -> int:
    """Return how sure it is that the accounts belong together, 0 to 100: the bounded score."""
    return 0 if refuted(campaign) else max(0, min(100, int(campaign.group.score)))


def summary(campaign: Campaign) -> str:
    """Say in a sentence what was found."""
    members, kinds = len(campaign.group.members), len(shared_kinds(campaign))
    things = "1 kind of thing" if kinds == 1 else f"{kinds} kinds of things"
    accounts = "1 account" if members == 1 else f"{members:,} accounts"
    return f"{accounts} that share {things} which strangers do not."
