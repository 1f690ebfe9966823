"""What campaigns are: groups of accounts that share what strangers do not.

The watcher proposes a :class:`Group`; the ledger turns it into a :class:`Campaign` with a history;
gates read of it no more than a :class:`CampaignFacts`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from msgspec import Struct

NO_STAGE: Final = "none"
"""Stage of a caller that belongs to no campaign: not unknown, so that no rule hits it."""


class Layer(StrEnum):
    """Ways in which accounts can be linked, each blind to what the others see."""

    ADDRESS = "address"
    """Rare addresses that several accounts used."""
    SUBNET_CLIENT = "subnet_client"
    """The same client program from the same /24 or /48."""
    SIGNUP = "signup"
    """Bursts of signups from one place, under one pattern of mail address, or paid by one card."""
    SCAFFOLD = "scaffold"
    """A rare system prompt, set of tools or format, or the shape of the prompts."""
    TIMING = "timing"
    """Active at the same times, again and again."""
    RELEASE = "release"
    """On a new model within a day of its release."""
    TASKS = "tasks"
    """Different tasks under one scaffold, shared out so that none is done twice."""


class Stage(StrEnum):
    """How far a campaign is contained. Each stage includes those before it but for ``ban``."""

    OBSERVE = "observe"
    BUDGET = "budget"
    """One budget for all unverified members together."""
    SHAPE = "shape"
    """Answers reveal less."""
    PROBE = "probe"
    """A keyed share of the members must prove who they are."""
    STEP_UP = "step_up"
    """All members must."""
    BAN = "ban"

    @property
    def rank(self) -> int:
        """Place in the order, 1 for ``observe``."""
        return _RANKS[self]


_RANKS = {stage: rank for rank, stage in enumerate(Stage, start=1)}


class CampaignState(StrEnum):
    """Where a campaign stands with people."""

    PROPOSED = "proposed"
    """Found by the watcher; contained as far as the rules say."""
    CONFIRMED = "confirmed"
    """An admin has looked and agrees: only then may it be banned."""
    DISMISSED = "dismissed"
    """An admin disagrees: not contained, and not proposed again on the same evidence."""
    RELEASED = "released"
    """Let go: its probe passed, an admin let it go, or nothing was seen of it for long."""
    MERGED = "merged"
    """Goes on as part of another."""

    @property
    def contains(self) -> bool:
        """Whether gates treat its members in any way of their own."""
        return self in {CampaignState.PROPOSED, CampaignState.CONFIRMED}


class SharedTrait(Struct, frozen=True, gc=False, omit_defaults=True):
    """One thing that members share: a link that can be explained."""

    layer: Layer
    kind: str
    """What it is a digest of, such as ``address``, ``payment``, ``scaffold``."""
    digest: int
    members: int
    """How many members have it."""
    accounts: int
    """How many accounts have it in all."""
    weight: float = 0.0
    """Rarity: natural logarithm of all accounts over those that have it."""


class Group(Struct, frozen=True, gc=False, omit_defaults=True):
    """Accounts that one run of the watcher found to belong together."""

    members: tuple[str, ...]
    """Ids of accounts, sorted."""
    shared: tuple[SharedTrait, ...]
    """What links them, the most telling first; bounded."""
    layers: tuple[Layer, ...]
    """Independent layers that link them, each by itself."""
    score: float
    """0 to 100."""
    q_value: float
    """Share of false ones to expect among groups that score at least as much
    (Benjamini-Hochberg)."""
    first_seen: float
    last_seen: float
    measures: dict[str, float] = {}
    """What the score is made of, by name."""
    capabilities: dict[str, float] = {}
    """Share of calls by capability class."""
    networks: dict[str, int] = {}
    """Calls by kind of network."""
    models: dict[str, int] = {}
    """Calls by model."""
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class Event(Struct, frozen=True, gc=False, omit_defaults=True):
    """One line of a campaign's history."""

    at: float
    what: str
    """A word: ``found``, ``stage``, ``shadow_stage`` (where a rule in shadow would have raised it
    to), ``grew``, ``confirmed``, ``dismissed``, ``merged``, ``released``, ``verified``,
    ``probe_passed``."""
    detail: str = ""
    by: str = "watcher"


class ProbeCount(Struct, frozen=True, gc=False):
    """How the members fared that a campaign had asked who they are."""

    asked: int
    verified: int
    """Those of them that proved it."""

    @property
    def passed(self) -> bool:
        """Whether most of them did, of enough to tell: strangers that merely look alike."""
        return self.asked >= _FEWEST_ASKED and 2 * self.verified > self.asked


_FEWEST_ASKED: Final = 4


class Campaign(Struct, frozen=True, gc=False, omit_defaults=True):
    """A group under one id from run to run, with its history and how far it is contained."""

    id: str
    """``cmp_`` and 12 hexadecimal digits; never changes."""
    state: CampaignState
    stage: Stage
    group: Group
    """As the last run that saw it found it; members that left are not in it."""
    since: float
    """When it was first proposed."""
    staged_at: float
    """When it came to its stage."""
    left: tuple[str, ...] = ()
    """Accounts that proved who they are, and so belong to it no more."""
    into: str | None = None
    """Id of the campaign that it was merged into."""
    history: tuple[Event, ...] = ()
    missing: dict[str, float] = {}
    """Members that the last runs did not find, with when one first did not: for a while they
    stay."""
    weak_since: float | None = None
    """Since when it no longer bears out its stage."""
    faded: bool = False
    """Whether it was released because too little was seen of it: it comes back under its id."""

    @property
    def contained(self) -> frozenset[str]:
        """Accounts that are treated as members: found, or not missing for long, and not left."""
        return frozenset(self.group.members).union(self.missing).difference(self.left)


class CampaignFacts(Struct, frozen=True, gc=False, omit_defaults=True):
    """What a gate knows of the campaign that a caller belongs to."""

    id: str
    stage: Stage
    score: float
    layers: tuple[str, ...] = ()
    """Layers that link the group, or, where ``inherited``, those that this caller showed."""
    inherited: bool = False
    """Whether the caller is new and shows the campaign's traits, rather than being listed in it."""
    probed: bool = False
    """Whether the caller is of the keyed share that a probe asks."""
