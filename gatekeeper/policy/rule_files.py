"""The format of rule files: what each key is called, what it may hold, what it defaults to.

Only shapes live here, with what a single rule can tell about itself; ``docs/rules.md`` is the
same for people, ``rules/schema.json`` for editors. :mod:`gatekeeper.policy.rules` does the rest.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from gatekeeper.policy.conditions import ConditionError, compile_condition
from gatekeeper.policy.countries import COUNTRIES, country_problem, subdivision_problem
from gatekeeper.policy.limits import MAX_UNITS
from gatekeeper.policy.notation import RATE, duration_s, instant_s, rate_of
from gatekeeper.policy.ruleset import EmbargoView, OnUnknown
from gatekeeper.policy.words import Assurance, AtEnd, Mode, OnFailure, Tier, Unit

_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}", re.ASCII)

T = TypeVar("T")


def _reads_with(read: Callable[[str], object]) -> Callable[[str], str]:
    def check(text: str) -> str:
        read(text)
        return text

    return check


def _condition(text: str) -> None:
    try:
        compile_condition(text)
    except ConditionError as error:
        message = f"The condition is wrong at character {error.position + 1}: {error}."
        raise ValueError(message) from None


def _without(problem_of: Callable[[str], str | None]) -> Callable[[str], str]:
    def check(text: str) -> str:
        problem = problem_of(text)
        if problem is not None:
            raise ValueError(problem)
        return text

    return check


def _id_problem(text: str) -> str | None:
    if _ID.fullmatch(text):
        return None
    return f"`{text[:40]}` is not an id: small letters, digits and `-`, at most 64 of them."


def _once(items: list[T]) -> list[T]:
    for index, item in enumerate(items):
        if item in items[:index]:
            raise ValueError(f"`{item}` stands twice in this list.")
    return items


def _not_blank(text: str) -> str | None:
    return None if text.strip() else "This must not be blank."


_ID_SCHEMA: Final = {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,63}$"}
Id = Annotated[str, AfterValidator(_without(_id_problem)), WithJsonSchema(_ID_SCHEMA)]
Text = Annotated[
    str,
    AfterValidator(_without(_not_blank)),
    WithJsonSchema({"type": "string", "pattern": r"\S", "maxLength": 1000}),
    Field(max_length=1000),
]
When = Annotated[
    str,
    AfterValidator(_reads_with(_condition)),
    WithJsonSchema({"type": "string", "minLength": 1, "examples": ['network.kind == "tor"']}),
]
Country = Annotated[
    str,
    AfterValidator(_without(country_problem)),
    WithJsonSchema({"type": "string", "enum": sorted(COUNTRIES)}),
]
Subdivision = Annotated[
    str,
    AfterValidator(_without(subdivision_problem)),
    WithJsonSchema({"type": "string", "pattern": "^[A-Z]{2}-[A-Z0-9]{1,3}$"}),
]
Rate = Annotated[
    str,
    AfterValidator(_reads_with(rate_of)),
    WithJsonSchema({"type": "string", "examples": ["600/minute"], "pattern": f"^{RATE.pattern}$"}),
]
Duration = Annotated[
    str,
    AfterValidator(_reads_with(duration_s)),
    WithJsonSchema({"type": "string", "examples": ["10 minutes"]}),
]
Instant = Annotated[
    str,
    AfterValidator(_reads_with(instant_s)),
    WithJsonSchema({"type": "string", "examples": ["2026-01-31"], "pattern": "^[0-9]{4}-"}),
]
Asn = Annotated[int, Field(ge=1, le=4_294_967_295)]
Units = Annotated[int, Field(ge=1, le=MAX_UNITS)]
Tokens = Annotated[int, Field(ge=1, le=100_000_000)]
CentsPerMillion = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
Required = Literal["ial1", "ial2"]
Partition = Literal[
    "everyone",
    "organization",
    "account",
    "key",
    "model",
    "campaign",
    "address",
    "prefix",
    "asn",
    "country",
]


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class _Rule(_Part):
    id: Id
    """Name of the rule in records, metrics and exemptions; unique over all sections and files."""
    description: Text
    """What the rule is for, for people."""
    mode: Mode = Mode.ENFORCE
    """`shadow` only records what the rule would have done."""


class PrivateFile(_Part):
    """What to do with callers whose address is private (loopback, RFC 1918, ULA, ...)."""

    allow: bool
    """Whether they are served. They have no region, so no region rule tests them."""


class EffectiveFile(_Part):
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


class EmbargoFile(_Rule):
    """Refuse calls from regions, networks or owners. Nothing exempts from it."""

    on: Annotated[list[EmbargoView], Field(min_length=1), AfterValidator(_once)] = Field(
        default=[EmbargoView.USE, EmbargoView.ASN]
    )
    """Which views of a call are tested: where its address is used, where that is registered, whose
    AS announces it, who owns the organization."""
    countries: Annotated[list[Country], AfterValidator(_once)] = Field(
        default_factory=list, min_length=1
    )
    """ISO 3166-1 alpha-2 codes: country of use (`use`), of registration (`registration`), home
    of the AS's owner (`asn`), homes of the organization's owners (`organization`)."""
    subdivisions: Annotated[list[Subdivision], AfterValidator(_once)] = Field(
        default_factory=list, min_length=1
    )
    """ISO 3166-2 codes, tested against where the address is used (`use`)."""
    asns: Annotated[list[Asn], AfterValidator(_once)] = Field(default_factory=list, min_length=1)
    """AS numbers (`asn`)."""
    owners: Annotated[list[Id], AfterValidator(_once)] = Field(default_factory=list, min_length=1)
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


class SignalFile(_Rule):
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


class ThresholdFile(_Rule):
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


class TierFile(_Rule):
    """What accounts of one tier may do; every tier has exactly one rule."""

    tier: Tier
    """Which accounts; `elevated` means elevated risk."""
    models: Annotated[list[Text], Field(min_length=1), AfterValidator(_once)]
    """Shell-style patterns of model names; case counts."""
    assurance: Assurance = Assurance.NONE
    """Identity proof needed before anything goes through."""
    max_output_tokens: Tokens | None = None
    """Most output tokens one call may ask for, over all its choices."""
    max_input_tokens: Tokens | None = None
    """Most input tokens one call may carry."""


class LimitFile(_Rule):
    """A token bucket per partition, or a pool of leases for `unit: concurrency`."""

    unit: Unit
    """What is counted; `cost` in US cents."""
    per: Annotated[list[Partition], Field(min_length=1), AfterValidator(_once)]
    """One bucket for each value of these together; `[everyone]` is one bucket for all."""
    rate: Rate | None = None
    """How much flows back, such as `600/minute`; second to month."""
    burst: Units | None = None
    """The most that can be taken at once; the rate's amount when left out."""
    slots: Units | None = None
    """Calls at the same time (`unit: concurrency` only)."""
    lease: Duration | None = None
    """When a slot whose call never ended comes back (`unit: concurrency` only)."""
    tiers: Annotated[list[Tier], AfterValidator(_once)] = Field(default_factory=list, min_length=1)
    """Tiers it applies to; all of them when left out."""
    when: When | None = None
    """Applies only when this CEL condition is true or unknown."""
    at_end: AtEnd = AtEnd.REFUSE
    """When less is left than a call may write (`unit: output_tokens` only): refuse the call, or let
    it write what is left and end its answer there."""
    on_store_failure: OnFailure | None = None
    """When the limiter's store cannot answer: let pass, refuse, or count this node's share. Left
    out: as `store.on_failure` of the settings says."""

    @model_validator(mode="after")
    def _fits_its_unit(self) -> Self:
        leases = self.unit is Unit.CONCURRENCY
        wanted = {"slots", "lease"} if leases else {"rate"}
        unwanted = {"rate", "burst"} if leases else {"slots", "lease"}
        given = {name for name, value in self if value is not None}
        problems = [f"`unit: {self.unit.value}` needs `{n}`." for n in sorted(wanted - given)]
        problems += [
            f"`{n}` does not belong to `unit: {self.unit.value}`." for n in sorted(unwanted & given)
        ]
        if self.at_end is AtEnd.STOP and self.unit is not Unit.OUTPUT_TOKENS:
            problems.append("`at_end: stop` belongs to `unit: output_tokens` only.")
        if "everyone" in self.per and len(self.per) > 1:
            problems.append("`everyone` stands alone in `per`.")
        if problems:
            raise ValueError(" ".join(problems))
        return self


class StepUpFile(_Rule):
    """Ask for proof of identity where a condition is true."""

    when: When
    """CEL condition; nothing is asked when it is false or unknown."""
    assurance: Required = "ial1"
    """What satisfies the rule (NIST SP 800-63A)."""


class ExemptionFile(_Rule):
    """Switch named rules off where a condition is true, with a reason, until a date."""

    when: When
    """CEL condition; nothing is exempted when it is false or unknown."""
    rules: Annotated[list[Id], Field(min_length=1), AfterValidator(_once)]
    """Ids of the rules switched off; never embargo rules."""
    reason: Text
    """Why, for those who ask later."""
    expires: Instant
    """First moment it no longer applies; a date alone is the start of that day, UTC."""


class ModelFile(_Part):
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


class RuleFile(_Part):
    """Rules of Gatekeeper. Sections may be spread over files; the last line is `...`."""

    version: Literal[1]
    """Version of this format."""
    private: PrivateFile | None = None
    embargo: list[EmbargoFile] = Field(default_factory=list, min_length=1)
    """Regions, networks and owners that are refused, whatever else is true."""
    signals: list[SignalFile] = Field(default_factory=list, min_length=1)
    """Observations that add up to the risk score."""
    thresholds: list[ThresholdFile] = Field(default_factory=list, min_length=1)
    """What a score means."""
    tiers: list[TierFile] = Field(default_factory=list, min_length=1)
    """What accounts may do."""
    limits: list[LimitFile] = Field(default_factory=list, min_length=1)
    """How much of everything."""
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
