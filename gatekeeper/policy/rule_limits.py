"""The format of limits in rule files."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from gatekeeper.policy.rule_parts import (
    Duration,
    Partition,
    Rate,
    Required,
    Rule,
    Units,
    When,
    once,
)
from gatekeeper.policy.words import AtEnd, OnFailure, Tier, Unit


class LimitFile(Rule):
    """A token bucket per partition, or a pool of leases for `unit: concurrency`."""

    unit: Unit
    """What is counted; `cost` in US cents."""
    per: Annotated[list[Partition], Field(min_length=1), AfterValidator(once)]
    """One bucket for each value of these together; `[everyone]` is one bucket for all."""
    rate: Rate | None = None
    """How much flows back, such as `600/minute`; second to month."""
    burst: Units | None = None
    """The most that can be taken at once; the rate's amount when left out."""
    slots: Units | None = None
    """Calls at the same time (`unit: concurrency` only)."""
    lease: Duration | None = None
    """When a slot whose call never ended comes back (`unit: concurrency` only)."""
    tiers: Annotated[list[Tier], AfterValidator(once)] = Field(default_factory=list, min_length=1)
    """Tiers it applies to; all of them when left out."""
    when: When | None = None
    """Applies only when this CEL condition is true or unknown."""
    at_end: AtEnd = AtEnd.REFUSE
    """When less is left than a call may write (`unit: output_tokens` only): refuse the call, or let
    it write what is left and end its answer there."""
    used_up: Literal["step_up"] | None = None
    """What happens when nothing is left (`per` with `campaign` only): refuse the call for a while
    when left out, or ask unverified callers to prove who they are, which takes them out of it."""
    assurance: Required | None = None
    """What satisfies `used_up: step_up`; `ial1` when left out."""
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
        if self.used_up is not None and "campaign" not in self.per:
            problems.append("`used_up` belongs to limits `per` `campaign` only.")
        if self.assurance is not None and self.used_up is None:
            problems.append("`assurance` belongs to `used_up: step_up` only.")
        if "everyone" in self.per and len(self.per) > 1:
            problems.append("`everyone` stands alone in `per`.")
        if problems:
            raise ValueError(" ".join(problems))
        return self
