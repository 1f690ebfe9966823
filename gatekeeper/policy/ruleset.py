"""Rules as the decision uses them: compiled, immutable, ordered as they stand in the files.

:mod:`gatekeeper.policy.rules` turns YAML into these. Every rule has an ``id``, a ``description``
and a ``mode``; ids are unique over the whole rule set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from gatekeeper.policy.words import AtEnd, Tier

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.policy.campaigns import Stage
    from gatekeeper.policy.conditions import Condition
    from gatekeeper.policy.model import RiskScore, Shaping, View
    from gatekeeper.policy.words import Assurance, Mode, OnFailure, Parameter, Unit, Verdict


class EmbargoView(StrEnum):
    """Which view of a call an embargo rule tests."""

    USE = "use"
    REGISTRATION = "registration"
    ASN = "asn"
    ORGANIZATION = "organization"


class OnUnknown(StrEnum):
    """What an embargo rule does when its view could not be looked up."""

    REFUSE = "refuse"
    STEP_UP = "step_up"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class EmbargoRule:
    """Refuse calls from regions, networks or owners.

    ``countries`` are tested against the view(s) named by ``on``: country of use, country of
    registration, home country of the AS's owner, home countries of the organization's owners.
    ``subdivisions`` are tested against use, ``asns`` against the AS number, ``owners`` against the
    AS's owner (``asn``) and the organization's owners (``organization``).
    """

    id: str
    description: str
    mode: Mode
    on: frozenset[EmbargoView]
    countries: frozenset[str]
    subdivisions: frozenset[str]
    asns: frozenset[int]
    owners: frozenset[str]
    unknown: OnUnknown
    source: str
    """Where the obligation comes from, such as ``31 CFR 515``."""
    effective_from: float | None
    effective_until: float | None


@dataclass(frozen=True, slots=True)
class EmbargoReach:
    """All that any embargo rule names, per view: what is outside of it, none of them matches.

    ``None`` for a view that no rule tests.
    """

    use: frozenset[str] | None
    """Countries, and the countries of the subdivisions."""
    subdivisions: frozenset[str]
    registration: frozenset[str] | None
    asns: frozenset[int] | None
    as_owners: frozenset[str]
    as_countries: frozenset[str]
    owners: frozenset[str] | None
    owner_countries: frozenset[str]

    @classmethod
    def of(cls, rules: tuple[EmbargoRule, ...]) -> EmbargoReach:
        """Join what the rules name."""

        def named(view: EmbargoView, *sets: str) -> frozenset[Any] | None:
            testing = [rule for rule in rules if view in rule.on]
            found = [getattr(rule, name) for rule in testing for name in sets]
            return frozenset().union(*found) if testing else None

        subdivisions = named(EmbargoView.USE, "subdivisions")
        use = named(EmbargoView.USE, "countries")
        if use is not None and subdivisions is not None:
            use |= {code.partition("-")[0] for code in subdivisions}
        return cls(
            use=use,
            subdivisions=subdivisions or frozenset(),
            registration=named(EmbargoView.REGISTRATION, "countries"),
            asns=named(EmbargoView.ASN, "asns"),
            as_owners=named(EmbargoView.ASN, "owners") or frozenset(),
            as_countries=named(EmbargoView.ASN, "countries") or frozenset(),
            owners=named(EmbargoView.ORGANIZATION, "owners"),
            owner_countries=named(EmbargoView.ORGANIZATION, "countries") or frozenset(),
        )


@dataclass(frozen=True, slots=True)
class CapabilityRule:
    """A class of calls that are for the same; unknown puts a call into none."""

    id: str
    description: str
    when: Condition
    """Reads fields of the call alone."""


@dataclass(frozen=True, slots=True)
class SignalRule:
    """A named observation worth ``points`` when its condition is true; unknown counts nothing."""

    id: str
    description: str
    mode: Mode
    when: Condition
    points: int


@dataclass(frozen=True, slots=True)
class ThresholdRule:
    """What a score of ``at_least`` means: a verdict, tighter limits, or both."""

    id: str
    description: str
    mode: Mode
    at_least: int
    verdict: Verdict
    """``ALLOW`` (only ``tighten`` applies), ``STEP_UP`` or ``DENY``."""
    assurance: Assurance
    """What satisfies a ``STEP_UP`` verdict."""
    tighten: float
    """Factor in (0, 1] on burst and rate of every quota."""


@dataclass(frozen=True, slots=True)
class TierRule:
    """What accounts of one tier may do. Exactly one rule per :class:`Tier`."""

    id: str
    description: str
    mode: Mode
    tier: Tier
    models: tuple[str, ...]
    """Shell-style patterns of model names; a call without a model always matches."""
    assurance: Assurance
    """Identity proof needed before anything goes through."""
    max_output_tokens: int | None
    max_input_tokens: int | None


@dataclass(frozen=True, slots=True)
class LimitRule:
    """A token bucket (or, for concurrency, a pool of leases) per partition."""

    id: str
    description: str
    mode: Mode
    unit: Unit
    per: tuple[str, ...]
    """Partition: any of organization, account, key, model, campaign, address, prefix, asn, country.

    An empty tuple is one bucket for everybody. A call that has no organization, model or campaign
    is not counted by a rule that names it; unknown asn and country are a partition of their own.
    """
    amount: int
    """Units that flow back in ``period_s``; slots for concurrency."""
    period_s: int
    """Seconds; lease length for concurrency."""
    burst: int
    """The most that can be taken at once; defaults to ``amount``."""
    tiers: frozenset[Tier]
    """Tiers it applies to; all of them when the file names none."""
    when: Condition | None
    """Applies only when true or unknown (a limit never vanishes for want of a fact)."""
    on_store_failure: OnFailure | None
    """``None``: as the settings of the store say."""
    at_end: AtEnd = AtEnd.REFUSE
    """What happens when less is left than a call may write (``output_tokens`` only)."""
    used_up: Assurance | None = None
    """What a caller must prove when nothing is left, instead of waiting; ``None``: it waits."""

    @property
    def own(self) -> bool:
        """Whether the quota belongs to the caller alone and may be told to it."""
        return "account" in self.per or "key" in self.per


@dataclass(frozen=True, slots=True)
class ContainmentRule:
    """When a campaign comes to a stage, and when it falls below. Other rules say what that does."""

    id: str
    description: str
    mode: Mode
    stage: Stage
    raise_at: float
    """Score from which a campaign is raised to the stage."""
    lower_below: float
    """Score below which the stage is no longer borne out; at most ``raise_at``."""
    hold_s: int
    """How long that must last before the campaign is lowered."""
    members: int
    """Fewest members."""
    layers: int
    """Fewest independent layers that link them."""
    percent: float | None
    """Share of the members that a probe asks; ``None`` for other stages."""
    confirmed: bool
    """Whether only a campaign that an admin confirmed comes this far."""
    newcomers_s: int
    """Age below which any account may inherit the stage. Accounts made since the campaign was first
    seen may in any case."""

    def reached(self, score: float, members: int, layers: int, *, confirmed: bool) -> bool:
        """Tell whether a campaign is to be raised to this stage."""
        return score >= self.raise_at and self._met(members, layers, confirmed=confirmed)

    def borne_out(self, score: float, members: int, layers: int, *, confirmed: bool) -> bool:
        """Tell whether a campaign that came to this stage may stay."""
        return score >= self.lower_below and self._met(members, layers, confirmed=confirmed)

    def _met(self, members: int, layers: int, *, confirmed: bool) -> bool:
        enough = members >= self.members and layers >= self.layers
        return enough and (confirmed or not self.confirmed)


@dataclass(frozen=True, slots=True)
class ShapingRule:
    """Change what a call may ask and what its answer reveals, from a score or tier on."""

    id: str
    description: str
    mode: Mode
    tiers: frozenset[Tier]
    """Tiers it applies to; all of them when the file names none."""
    at_least: int | None
    """Score from which it applies; ``None``: whatever the score."""
    when: Condition | None
    """Applies only when true or unknown (what is revealed never grows for want of a fact)."""
    shaping: Shaping
    """What it asks for; its ``rules`` are empty."""
    refuse: frozenset[Parameter]


@dataclass(frozen=True, slots=True)
class StepUpRule:
    """Ask for proof of identity when the condition is true and assurance is below ``assurance``."""

    id: str
    description: str
    mode: Mode
    when: Condition
    assurance: Assurance


@dataclass(frozen=True, slots=True)
class Exemption:
    """Switch named rules off where the condition is true, with a reason, until it expires.

    Embargo rules cannot be exempted from. An unknown condition exempts nothing.
    """

    id: str
    description: str
    mode: Mode
    when: Condition
    rules: frozenset[str]
    reason: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class ModelRule:
    """What a model costs and how much it may write; the first pattern that matches counts."""

    model: str
    """Shell-style pattern of model names; the pack ends with ``*``."""
    input_cents_per_million: float
    output_cents_per_million: float
    max_output_tokens: int
    """Worst case held for one choice when the caller names no bound."""
    cached_input_cents_per_million: float | None = None
    """Of a part of the input or output; ``None``: it costs what the whole does."""
    cache_write_cents_per_million: float | None = None
    cache_write_1h_cents_per_million: float | None = None
    audio_input_cents_per_million: float | None = None
    image_input_cents_per_million: float | None = None
    reasoning_cents_per_million: float | None = None
    audio_output_cents_per_million: float | None = None
    image_output_cents_per_million: float | None = None
    characters_cents_per_million: float = 0.0
    image_cents: float = 0.0
    audio_cents_per_minute: float = 0.0


@dataclass(frozen=True, slots=True)
class PrivateAddresses:
    """What to do with callers whose address is private (loopback, RFC 1918, ULA, ...)."""

    allow: bool


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All rules in force, with the hash of their content."""

    revision: str
    """First 12 hexadecimal digits of the SHA-256 of the canonical content."""
    private: PrivateAddresses
    embargo: tuple[EmbargoRule, ...]
    signals: tuple[SignalRule, ...]
    thresholds: tuple[ThresholdRule, ...]
    tiers: dict[Tier, TierRule]
    limits: tuple[LimitRule, ...]
    step_up: tuple[StepUpRule, ...]
    exemptions: tuple[Exemption, ...]
    models: tuple[ModelRule, ...]
    shaping: tuple[ShapingRule, ...] = ()
    containment: tuple[ContainmentRule, ...] = ()
    capabilities: tuple[CapabilityRule, ...] = ()
    reach: EmbargoReach = field(init=False, repr=False, compare=False)
    observed: tuple[tuple[Callable[[View], bool | None], SignalRule], ...] = field(
        init=False, repr=False, compare=False
    )
    """The signals, each behind what evaluates its condition."""
    _shaping_of: dict[Tier, tuple[float, tuple[ShapingRule, ...], tuple[ShapingRule, ...]]] = field(
        init=False, repr=False, compare=False
    )
    """The shaping rules of each tier: the score from which the first that asks for one applies, all
    of them, and those that apply whatever the score."""

    def __post_init__(self) -> None:
        """Work out once what most calls are cleared by."""
        object.__setattr__(self, "reach", EmbargoReach.of(self.embargo))
        observed = tuple((signal.when.evaluate, signal) for signal in self.signals)
        object.__setattr__(self, "observed", observed)
        shaping_of = {}
        for tier in Tier:
            some = tuple(rule for rule in self.shaping if tier in rule.tiers)
            scores = (rule.at_least for rule in some if rule.at_least is not None)
            always = tuple(rule for rule in some if rule.at_least is None)
            shaping_of[tier] = (min(scores, default=math.inf), some, always)
        object.__setattr__(self, "_shaping_of", shaping_of)

    def shaping_for(self, tier: Tier, risk: RiskScore) -> tuple[ShapingRule, ...]:
        """Return the shaping rules that may apply to a call of an account of ``tier``."""
        least, some, always = self._shaping_of[tier]
        return some if risk.total >= least or risk.shadow_total >= least else always
