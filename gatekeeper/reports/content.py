"""What a report tells, whatever its form: no more of people than the operator has chosen."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
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
NO_MODEL: Final = "(not a name of a model)"
"""Stands for what callers wrote in its place: it may be anything, a prompt too."""
_MODEL: Final = re.compile(r"[\w.:/@+-]{1,100}", re.ASCII)
_SIZE: Final = re.compile(r"(\d{1,9}) members?\b", re.ASCII)
_LOW: Final = 29
"""The most that STIX's words for confidence call low."""
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
    """In words."""
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

KINDS: Final[Mapping[str, str]] = {
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

TAKEN: Final = (
    (
        "Counted are the calls of the members in the longest window that the watcher looked at "
        "(two weeks), refused ones included; input tokens as the gate counted or estimated them "
        "before each call, output tokens as the upstream reported them, or else as the call was "
        "bounded. Calls that were refused gave nothing: for that window the numbers are an upper "
        "bound, save for what an estimate of input may be off."
    ),
    (
        "Not in it are calls from before that window or the watcher's retention, by accounts that "
        "were not found to be members, by gates whose decisions the watcher does not read, and at "
        "other providers: for all that the campaign took, the numbers are no upper bound, and "
        "where nothing was refused a lower one."
    ),
)
"""What the estimate of what was taken counts, and what it does not."""

PURPOSE: Final = (
    "That accounts belong together does not say who runs them, or what for. Extraction of a model "
    "is the likely reading of many accounts that act as one, not a finding."
)
"""What nothing measures."""

LIMITS: Final = (
    (
        "The q value is the share of false ones to expect among groups that score at least as "
        "much, held against random groups of ordinary accounts about as active that share nothing."
    ),
    (
        "It is no rate among honest people who do share something: an office, a class, the users "
        "of one tool or of one network can be linked too. For that reason one family of layers "
        "alone scores at most 55, two at most 90."
    ),
    PURPOSE,
    (
        "A member may be an honest customer who is there by coincidence: decide on no account by "
        "this report alone."
    ),
)
"""What the confidence does not say."""

KEYED: Final = (
    "Of what accounts share, only digests are kept, made with a secret key: they can be compared "
    "where the key is, and lead back to no address, card or prompt."
)
"""What digests are."""

ACTIONS: Final = (
    (
        "Compare the pattern with your own accounts: several independent kinds of things shared, "
        "these kinds of networks, this mix of use."
    ),
    (
        "Contain before you ban: a shared budget or a request for proof of identity costs an "
        "honest account little, and a campaign much."
    ),
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
        KindRow(layer, KINDS.get(kind, printable(kind)), len(members), max(members))
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


def growth(campaign: Campaign) -> tuple[tuple[float, int], ...]:
    """Return how many members were found when, as far as the history tells, and how many are."""
    found = [
        (event.at, int(size[1]))
        for event in campaign.history
        if event.what in {"found", "grew"} and (size := _SIZE.match(event.detail))
    ]
    now = len(campaign.group.members)
    if not found or found[-1][1] != now:
        found.append((max(campaign.since, campaign.group.last_seen), now))
    return tuple(sorted(found, key=lambda each: each[0]))


def models(campaign: Campaign) -> dict[str, int]:
    """Return calls by model; what has no form of a name is no model, and is not told."""
    found: Counter[str] = Counter()
    for name, calls in campaign.group.models.items():
        found[name if _MODEL.fullmatch(name) else NO_MODEL] += calls
    return dict(found)


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
    """Return 0 to 100, for tools that ask for one number."""
    if refuted(campaign):
        return 0
    score = max(0.0, min(100.0, campaign.group.score))
    return round(score if campaign.state is CampaignState.CONFIRMED else score / 2)


def confidence_told(campaign: Campaign) -> str:
    """Say how that number came about."""
    if refuted(campaign):
        return (
            "Confidence 0 of 100: people, or the proof of most members that were asked, have since "
            "spoken against it."
        )
    how = (
        "the score, as a person has confirmed it"
        if campaign.state is CampaignState.CONFIRMED
        else "half the score, as nobody has confirmed it"
    )
    return f"Confidence {confidence(campaign)} of 100: {how}."


def purpose_confidence(campaign: Campaign) -> int:
    """Return 0 to 100 for what it is for: low at most, as nothing measures that."""
    return min(confidence(campaign), _LOW)


def verdict(campaign: Campaign) -> Event | None:
    """Return the last word of a person on whether it is a campaign, as far as it still holds."""
    spoken = {CampaignState.CONFIRMED: "confirmed", CampaignState.DISMISSED: "dismissed"}
    wanted = spoken.get(campaign.state)
    said = (event for event in reversed(campaign.history) if event.what == wanted)
    return next(said, None)


def members(campaign: Campaign) -> tuple[str, ...]:
    """Return the accounts that the last run found and that have not proven who they are."""
    return tuple(sorted(set(campaign.group.members).difference(campaign.left)))


def summary(campaign: Campaign) -> str:
    """Say in a sentence what was found, and by what."""
    count, kinds = len(campaign.group.members), [row.kind for row in shared_kinds(campaign)]
    accounts = "This account shares" if count == 1 else f"These {count:,} accounts share"
    if not kinds:
        return f"{accounts} nothing that is still kept."
    things = "1 kind of thing" if len(kinds) == 1 else f"{len(kinds)} kinds of things"
    return f"{accounts} {things} that strangers do not: {'; '.join(kinds)}."
