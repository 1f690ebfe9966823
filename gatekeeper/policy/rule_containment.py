"""The format of the stages of containment in rule files."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from gatekeeper.policy.campaigns import Stage
from gatekeeper.policy.rule_parts import Duration, Rule

Score = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]

_INDEPENDENT = 2
"""Layers that must agree before anything beyond throttling."""


class ContainmentFile(Rule):
    """When a campaign comes to a stage, and when it falls below; every stage has at most one."""

    stage: Stage
    """Which one. What it does, other rules say, by conditions on `campaign.stage`."""
    raise_at: Score
    """A campaign that scores as much is raised to the stage, past those below it."""
    lower_below: Score
    """One that scores less for the time of `hold` is lowered."""
    hold: Duration
    """How long a campaign must fall short before it is lowered, and how long a member stays that
    the watcher no longer finds."""
    members: Annotated[int, Field(ge=2, le=100_000_000)] = 2
    """Fewest members."""
    layers: Annotated[int, Field(ge=1, le=7)] = _INDEPENDENT
    """Fewest independent layers that link them; at least 2 beyond `budget`."""
    percent: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] | None = None
    """Share of the members that is asked who they are (`stage: probe` only)."""
    confirmed: bool = False
    """Whether only campaigns that an admin confirmed come this far; always for `ban`."""
    newcomers: Duration | None = None
    """Accounts younger than this inherit the stage when they show the campaign's traits from two
    layers; only those made since the campaign was first seen when left out."""

    @model_validator(mode="after")
    def _fits_its_stage(self) -> Self:
        problems = []
        if self.lower_below > self.raise_at:
            problems.append("`lower_below` must not be above `raise_at`.")
        if self.layers < _INDEPENDENT and self.stage.rank > Stage.BUDGET.rank:
            problems.append("A stage beyond `budget` needs `layers: 2` or more.")
        if (self.percent is None) == (self.stage is Stage.PROBE):
            problems.append("`percent` belongs to `stage: probe`, which needs it.")
        if self.stage is Stage.BAN and not self.confirmed:
            problems.append("`stage: ban` needs `confirmed: true`: people ban, scores do not.")
        if problems:
            raise ValueError(" ".join(problems))
        return self
