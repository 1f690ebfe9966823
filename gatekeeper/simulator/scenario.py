"""Scenarios: who is there, for how long, and in which ranges the rest is drawn."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import numpy as np
import yaml
from msgspec import Meta, Struct

if TYPE_CHECKING:
    from pathlib import Path

DAY_S: Final = 86_400.0
_START: Final = 1_776_816_000.0
"""2026-04-22, midnight (UTC)."""


class Adversary(StrEnum):
    """How a campaign hides."""

    NONE = "none"
    A = "a"
    """Residential pools that rotate with every request: 9 million addresses and 1 million."""
    B = "b"
    """Sticky sessions: an address for some minutes."""
    C = "c"
    """An address of an ISP for each account, for good."""
    D = "d"
    """Addresses of hosting providers."""
    E = "e"
    """Addresses of mobile carriers, which honest people share."""
    F = "f"
    """As C, with a fifth of innocent traffic."""
    G = "g"
    """As C, with a scaffold for each account, the same in other words."""
    H = "h"
    """As A, growing for weeks from a tenth."""
    I = "i"  # noqa: E741 - the letter that all tables use
    """As A; an account that is refused for good is replaced at once."""
    J = "j"
    """As B, in cells with scaffolds of their own; cards and mail may reach over a border."""
    K = "k"
    """As A, half of the traffic of each account through another gate."""
    L = "l"
    """As B, with bought accounts: aged, with cards and mail addresses of their own."""


class Ranges(StrEnum):
    """Whether a scenario may be looked at while the detector is worked on."""

    TUNING = "tuning"
    REPORTING = "reporting"


Range = tuple[float, float]
RANGES: Final[dict[str, dict[Ranges, Range]]] = {
    name: {Ranges.TUNING: tuning, Ranges.REPORTING: reporting}
    for name, tuning, reporting in (
        ("large_pool_per_account", (180.0, 280.0), (330.0, 390.0)),
        ("small_pool_per_account", (20.0, 32.0), (36.0, 44.0)),
        ("small_pool_share", (0.55, 0.7), (0.3, 0.5)),
        ("session_minutes", (45.0, 90.0), (10.0, 30.0)),
        ("accounts_per_subnet", (22.0, 40.0), (9.0, 18.0)),
        ("hosting_per_account", (0.8, 1.4), (0.3, 0.6)),
        ("mobile_per_account", (0.08, 0.14), (0.03, 0.06)),
        ("accounts_per_card", (4.0, 6.0), (2.0, 3.0)),
        ("accounts_per_mail_pattern", (60.0, 100.0), (20.0, 45.0)),
        ("pipelines", (2.0, 4.0), (5.0, 8.0)),
        ("volume_sigma", (0.0, 0.15), (0.2, 0.35)),
        ("signup_days", (2.0, 6.0), (8.0, 20.0)),
        ("cover", (0.10, 0.15), (0.18, 0.22)),
        ("ramp_days", (7.0, 11.0), (14.0, 21.0)),
        ("full_cell", (700.0, 900.0), (450.0, 550.0)),
        ("aged_days", (200.0, 400.0), (60.0, 180.0)),
        ("idle_hours", (0.0, 2.0), (3.0, 6.0)),
    )
}
"""What a scenario draws from, by name: one range for tuning and one for reporting, disjoint.

``idle_hours`` is how long in a day the operator's machines rest."""
FULL_ACCOUNTS: Final = 25_000
"""Accounts of a campaign at full scale."""


class ScenarioError(Exception):
    """A scenario cannot be used; says why."""


class Scenario(Struct, frozen=True, forbid_unknown_fields=True):
    """What is simulated. Defaults are a campaign of 1:100 among 10,000 honest accounts."""

    name: Annotated[str, Meta(min_length=1, max_length=60)]
    adversary: Adversary = Adversary.NONE
    seed: Annotated[int, Meta(ge=0, le=2**31)] = 1
    days: Annotated[int, Meta(ge=1, le=90)] = 44
    honest: Annotated[int, Meta(ge=100, le=1_000_000)] = 10_000
    accounts: Annotated[int, Meta(ge=0, le=100_000)] = 250
    """Of the campaign at any time, replacements aside."""
    calls_per_day: Annotated[float, Meta(gt=0, le=10_000)] = 26.0
    first_day: Annotated[int, Meta(ge=0, le=60)] = 4
    """Day on which the campaign begins to call."""
    confounders: bool = True
    """Whether honest accounts that share much are among the honest ones."""
    ranges: Ranges = Ranges.TUNING
    parameters: dict[str, float] = {}
    """Sets what is drawn otherwise, by names of :data:`RANGES`."""
    start: float = _START
    """Unix seconds, a midnight (UTC)."""

    def drawn(self) -> dict[str, float]:
        """Return all parameters, drawn by the seed or as set."""
        chance = np.random.default_rng([self.seed, 1])
        drawn = {name: float(chance.uniform(*by[self.ranges])) for name, by in RANGES.items()}
        return drawn | self.parameters


def read_scenario(path: Path) -> Scenario:
    """Read a scenario; raises :class:`ScenarioError`."""
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
        scenario = msgspec.convert(found, Scenario)
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ScenarioError(f"{path}: {error}") from error
    unknown = sorted(scenario.parameters.keys() - RANGES.keys())
    if unknown:
        raise ScenarioError(f"{path}: parameters: no `{unknown[0]}`; there are {', '.join(RANGES)}")
    if scenario.first_day >= scenario.days:
        raise ScenarioError(f"{path}: `first_day` must be before the last of `days`")
    return scenario
