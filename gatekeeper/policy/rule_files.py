"""The format of rule files: what each key is called, what it may hold, what it defaults to.

Only shapes live here, with what a single rule can tell about itself; ``docs/rules.md`` is the
same for people, ``rules/schema.json`` for editors. :mod:`gatekeeper.policy.rules` does the rest.
"""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from gatekeeper.policy.notation import instant_s
from gatekeeper.policy.rule_containment import ContainmentFile
from gatekeeper.policy.rule_limits import LimitFile
from gatekeeper.policy.rule_parts import (
    Asn,
    CentsPerMillion,
    Country,
    Id,
    Instant,
    Part,
    Required,
    Rule,
    Subdivision,
    Text,
    Tokens,
    When,
    WhenCalled,
    once,
)
from gatekeeper.policy.ruleset import EmbargoView, OnUnknown
from gatekeeper.policy.words import (
    Assurance,
    LogprobsChange,
    Parameter,
    Tier,
)


class PrivateFile(Part):
    """What to do with callers whose address is private (loopback, RFC 1918, ULA, ...)."""

    allow: bool
    """Whether they are served. They have no region, so no region rule tests them."""


class EffectiveFile(Part):
    """When a rule is in force; at least one end."""

    from_: Instant | None = Field(default=None, alias="from")
    """First moment in force; a date alone is the start of that day, UTC."""
    until: Instant | None = None
    """First moment no longer in force; a date alone is the start of that day, UTC."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.from_ is None and self.until is None:
            raise ValueError("Give `from`, `until` or both.")
        if self.from_ and self.until and instant_s(self.from_) >= instant_s(self.until):
            raise ValueError("`from` must be earlier than `until`.")
        return self


class EmbargoFile(Rule):
    """Refuse calls from regions, networks or owners. Nothing exempts from it."""

    on: Annotated[list[EmbargoView], Field(min_length=1), AfterValidator(once)] = Field(
        default=[EmbargoView.USE, EmbargoView.ASN]
    )
    """Which views of a call are tested: where its address is used, where that is registered, whose
    AS announces it, who owns the organization."""
    countries: Annotated[list[Country], AfterValidator(once)] = Field(
        default_factory=list, min_length=1
    )
    """ISO 3166-1 alpha-2 codes: country of use (`use`), of registration (`registration`), home
    of the AS's owner (`asn`), homes of the organization's owners (`organization`)."""
    subdivisions: Annotated[list[Subdivision], AfterValidator(once)] = Field(
        default_factory=list, min_length=1
    )
    """ISO 3166-2 codes, tested against where the address is used (`use`)."""
    asns: Annotated[list[Asn], AfterValidator(once)] = Field(default_factory=list, min_length=1)
    """AS numbers (`asn`)."""
    owners: Annotated[list[Id], AfterValidator(once)] = Field(default_factory=list, min_length=1)
    """Ids of owners in the network list: of the AS (`asn`), of the organization
    (`organization`)."""
    unknown: OnUnknown = OnUnknown.REFUSE
    """What happens when a tested view cannot be looked up."""
    source: Text
    """Where the obligation comes from, such as `31 CFR 515`."""
    effective: EffectiveFile | None = None
    """When the rule is in force; always when left out."""

    @model_validator(mode="after")
    def _tests_something(self) -> Self:
        lists = {"countries", "subdivisions", "asns", "owners"} & {
            name for name, value in self if value
        }
        if not lists:
            raise ValueError("Name at least one of `countries`, `subdivisions`, `asns`, `owners`.")
        problems = [
            f"`{name}` is tested on {' or '.join(f'`{v.value}`' for v in views)}, which `on` "
            "does not name."
            for name, views in _VIEWS_OF.items()
            if name in lists and not set(views) & set(self.on)
        ]
        problems += [
            f"`on` names `{view.value}`, on which none of this rule's lists is tested; remove it."
            for view in self.on
            if not any(view in _VIEWS_OF[name] for name in lists)
        ]
        if problems:
            raise ValueError(" ".join(problems))
        return self


_VIEWS_OF: Final[dict[str, tuple[EmbargoView, ...]]] = {
    "countries": tuple(EmbargoView),
    "subdivisions": (EmbargoView.USE,),
    "asns": (EmbargoView.ASN,),
    "owners": (EmbargoView.ASN, EmbargoView.ORGANIZATION),
}


class CapabilityFile(Part):
    """A class of calls that are for the same; other rules read it in `call.capabilities`."""

    id: Id
    """Name of the class in conditions and records; unique over all sections and files."""
    description: Text
    """What such calls are for, for people."""
    when: WhenCalled
    """CEL condition on fields of the call; when one that it needs is unknown, it is false."""


class SignalFile(Rule):
    """A named observation worth points when its condition is true."""

    when: When
    """CEL condition; when a field that it needs is unknown, the signal counts nothing."""
    points: Annotated[int, Field(ge=-1000, le=1000)]
    """Added to the risk score; negative points lower it."""

    @model_validator(mode="after")
    def _counts(self) -> Self:
        if self.points == 0:
            raise ValueError("`points` must not be 0: the signal would say nothing.")
        return self


class ThresholdFile(Rule):
    """What a risk score means: a verdict, tighter limits, or both."""

    at_least: Annotated[int, Field(ge=1, le=100_000)]
    """Applies to scores from this one up."""
    verdict: Literal["step_up", "deny"] | None = None
    """What happens to the call; only `tighten` applies when left out."""
    assurance: Required | None = None
    """What satisfies `step_up`; `ial1` when left out."""
    tighten: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor on burst and rate of every limit."""

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.verdict is None and self.tighten == 1:
            raise ValueError("Give `verdict`, or `tighten` below 1: the threshold does nothing.")
        if self.assurance is not None and self.verdict != "step_up":
            raise ValueError("`assurance` belongs to `verdict: step_up` only.")
        return self


class TierFile(Rule):
    """What accounts of one tier may do; every tier has exactly one rule."""

    tier: Tier
    """Which accounts; `elevated` means elevated risk."""
    models: Annotated[list[Text], Field(min_length=1), AfterValidator(once)]
    """Shell-style patterns of model names; case counts."""
    assurance: Assurance = Assurance.NONE
    """Identity proof needed before anything goes through."""
    max_output_tokens: Tokens | None = None
    """Most output tokens one call may ask for, over all its choices."""
    max_input_tokens: Tokens | None = None
    """Most input tokens one call may carry."""


class ShapingFile(Rule):
    """Change what calls may ask and what their answers reveal, by tier and score."""

    tiers: Annotated[list[Tier], AfterValidator(once)] = Field(default_factory=list, min_length=1)
    """Tiers it applies to; all of them when left out."""
    at_least: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Score from which it applies; whatever the score when left out."""
    when: When | None = None
    """Applies only when this CEL condition is true or unknown."""
    logprobs: LogprobsChange | None = None
    """What is done to log probabilities: `round`, `noise` or `remove`."""
    decimals: Annotated[int, Field(ge=0, le=6)] | None = None
    """Digits behind the point that `round` and `noise` leave; 1 when left out."""
    epsilon: Annotated[float, Field(gt=0, le=20)] | None = None
    """Privacy parameter of `noise`: how far a single value may give itself away."""
    drop_reasoning: bool = False
    """Whether what a model thinks is taken out of its answers."""
    max_output_tokens: Tokens | None = None
    """Most output tokens of one choice; a larger bound is lowered, a missing one put in."""
    max_choices: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Most answers to one prompt; a larger `n` or `best_of` is lowered."""
    max_context_tokens: Tokens | None = None
    """Most tokens of input and one choice together: lowers the bound, and refuses input alone that
    fills it."""
    refuse: Annotated[list[Parameter], AfterValidator(once)] = Field(
        default_factory=list, min_length=1
    )
    """What a call must not use: `logit_bias`, `prefill`, `logprobs`, `batch`."""

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        problems = []
        if not any(getattr(self, name) for name in _SHAPES):
            names = ", ".join(f"`{name}`" for name in _SHAPES)
            problems.append(f"Give at least one of {names}: the rule does nothing.")
        if (self.epsilon is None) == (self.logprobs is LogprobsChange.NOISE):
            problems.append("`epsilon` belongs to `logprobs: noise`, which needs it.")
        blurs = self.logprobs in {LogprobsChange.NOISE, LogprobsChange.ROUND}
        if self.decimals is not None and not blurs:
            problems.append("`decimals` belongs to `logprobs: round` and `noise` only.")
        if problems:
            raise ValueError(" ".join(problems))
        return self


_SHAPES: Final = (
    "logprobs",
    "drop_reasoning",
    "max_output_tokens",
    "max_choices",
    "max_context_tokens",
    "refuse",
)
"""Keys of which a shaping rule has at least one."""


class StepUpFile(Rule):
    """Ask for proof of identity where a condition is true."""

    when: When
    """CEL condition; nothing is asked when it is false or unknown."""
    assurance: Required = "ial1"
    """What satisfies the rule (NIST SP 800-63A)."""


class ExemptionFile(Rule):
    """Switch named rules off where a condition is true, with a reason, until a date."""

    when: When
    """CEL condition; nothing is exempted when it is false or unknown."""
    rules: Annotated[list[Id], Field(min_length=1), AfterValidator(once)]
    """Ids of the rules switched off; never embargo rules."""
    reason: Text
    """Why, for those who ask later."""
    expires: Instant
    """First moment it no longer applies; a date alone is the start of that day, UTC."""


class ModelFile(Part):
    """What a model costs and how much it may write; the first pattern that matches counts."""

    model: Text
    """Shell-style pattern of model names; the last one is `*`."""
    input_cents_per_million: CentsPerMillion
    """US cents for a million input tokens."""
    output_cents_per_million: CentsPerMillion
    """US cents for a million output tokens."""
    max_output_tokens: Annotated[int, Field(ge=0, le=100_000_000)]
    """Worst case held for one choice when the caller names no bound; 0 for embeddings."""
    cached_input_cents_per_million: CentsPerMillion | None = None
    """Input that the upstream reads from its cache. Left out, here and below: as the whole."""
    cache_write_cents_per_million: CentsPerMillion | None = None
    """Input that the upstream writes to its cache."""
    cache_write_1h_cents_per_million: CentsPerMillion | None = None
    """Input that the upstream writes to its cache for an hour."""
    audio_input_cents_per_million: CentsPerMillion | None = None
    """Audio in the input."""
    image_input_cents_per_million: CentsPerMillion | None = None
    """Images in the input."""
    reasoning_cents_per_million: CentsPerMillion | None = None
    """Output that is thought, not said."""
    audio_output_cents_per_million: CentsPerMillion | None = None
    """Audio in the output."""
    image_output_cents_per_million: CentsPerMillion | None = None
    """Images in the output, where they are billed by tokens."""
    characters_cents_per_million: CentsPerMillion = 0.0
    """Text to speak, where it is billed by its characters."""
    image_cents: CentsPerMillion = 0.0
    """US cents for one generated image, where images are billed by the piece."""
    audio_cents_per_minute: CentsPerMillion = 0.0
    """US cents for a minute of audio, where it is billed by its length."""


class RuleFile(Part):
    """Rules of Gatekeeper. Sections may be spread over files; the last line is `...`."""

    version: Literal[1]
    """Version of this format."""
    private: PrivateFile | None = None
    embargo: list[EmbargoFile] = Field(default_factory=list, min_length=1)
    """Regions, networks and owners that are refused, whatever else is true."""
    capabilities: list[CapabilityFile] = Field(default_factory=list, min_length=1)
    """What calls are for, told by what they ask."""
    signals: list[SignalFile] = Field(default_factory=list, min_length=1)
    """Observations that add up to the risk score."""
    thresholds: list[ThresholdFile] = Field(default_factory=list, min_length=1)
    """What a score means."""
    tiers: list[TierFile] = Field(default_factory=list, min_length=1)
    """What accounts may do."""
    limits: list[LimitFile] = Field(default_factory=list, min_length=1)
    """How much of everything."""
    containment: list[ContainmentFile] = Field(default_factory=list, min_length=1)
    """How far campaigns are contained."""
    shaping: list[ShapingFile] = Field(default_factory=list, min_length=1)
    """What is changed in calls and answers."""
    step_up: list[StepUpFile] = Field(default_factory=list, min_length=1)
    """When identity must be proven."""
    exemptions: list[ExemptionFile] = Field(default_factory=list)
    """Exceptions, each with a reason and an end."""
    models: list[ModelFile] = Field(default_factory=list, min_length=1)
    """Prices and worst cases of models."""


def without_null(schema: Any) -> Any:
    """Drop ``null`` from a JSON Schema: a key is left out, never empty."""
    if isinstance(schema, list):
        return [without_null(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {k: v for k, v in schema.items() if not (k == "default" and v is None)}
    choices = [choice for choice in kept.pop("anyOf", ()) if choice != {"type": "null"}]
    for choice in choices:
        kept = {**choice, **kept}
    return {key: without_null(value) for key, value in kept.items()}
