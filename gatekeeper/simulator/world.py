"""All accounts of a simulation, as columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gatekeeper.simulator.scenario import Scenario

Ints = Any
"""An array of whole numbers; of numpy's own types only tests would tell more."""

CAMPAIGN: Final = "campaign"
"""Label of the accounts of the campaign; those of honest ones say what they are."""
NOBODY: Final = -1
"""Stands for no organization and no cell."""


class Place(IntEnum):
    """How an account comes by its addresses."""

    HOME = 0
    """One for some days, then another of the same provider."""
    POOL = 1
    """Another of a pool with every call."""
    SESSION = 2
    """One of a pool for some minutes."""
    FIXED = 3
    """One for good."""


class Net(IntEnum):
    """Kinds of network, as codes of :data:`NETS`."""

    RESIDENTIAL = 0
    MOBILE = 1
    HOSTING = 2
    VPN = 3
    BUSINESS = 4


class Hours(IntEnum):
    """When an account calls."""

    DAY = 0
    """Around its middle of the day."""
    ALWAYS = 1
    """At any time but the operator's rest."""
    CRON = 2
    """At full hours."""


class Ask(IntEnum):
    """What a call asks for, as codes of :data:`ASKS`."""

    CHAT = 0
    CODE = 1
    TOOLS = 2
    REASONING = 3
    GRADING = 4


ASKS: Final = (
    (),
    ("code",),
    ("agentic", "code", "tools"),
    ("reasoning",),
    ("grading", "reasoning"),
)
"""Words of what is asked, by code."""
_COLUMNS: Final = (
    "created",
    "card",
    "mail",
    "signup",
    "organization",
    "verified",
    "rate",
    "present",
    "zone",
    "hours",
    "place",
    "first",
    "room",
    "stay",
    "net",
    "client",
    "system",
    "tools",
    "shape",
    "wobble",
    "ask",
    "cover",
    "sigma",
    "tasks",
    "begins",
    "moves",
    "gate",
    "cell",
    "passes",
)


@dataclass(slots=True)
class World:
    """All accounts, as columns; what is -1 or 0 is not there.

    ``first`` and ``room`` are a range of places, of which addresses are made; ``stay``
    is for how many seconds one is kept. ``created`` and ``begins`` are Unix seconds.
    """

    scenario: Scenario
    drawn: dict[str, float]
    names: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)
    spare: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Accounts of the campaign that wait to replace others; they are not there yet."""
    released_day: int = 0
    """Day on which a new model comes out."""

    def __getattr__(self, name: str) -> NDArray[Any]:
        """Return a column."""
        try:
            columns: dict[str, NDArray[Any]] = object.__getattribute__(self, "columns")
            return columns[name]
        except KeyError as error:
            raise AttributeError(name) from error

    @property
    def size(self) -> int:
        """How many accounts there are."""
        return len(self.names)

    @property
    def fake(self) -> NDArray[Any]:
        """Which accounts are the campaign's."""
        return np.array([label == CAMPAIGN for label in self.labels])


class Maker:
    """Draws accounts, and keeps count of what is given to one of them alone."""

    def __init__(self, world: World, stream: int, serial: int) -> None:
        self.world = world
        self.scenario = world.scenario
        self.chance = np.random.default_rng([world.scenario.seed, stream])
        self._serial = serial

    def own(self, count: int) -> Ints:
        """Return numbers that nobody else has."""
        self._serial += count
        return np.arange(self._serial - count, self._serial)

    def add(self, label: str, count: int, **columns: Any) -> None:
        """Add accounts; a single value stands for all of them."""
        world, start = self.world, len(self.world.names)
        world.names += [f"acct-{start + n:07}" for n in range(count)]
        world.labels += [label] * count
        for name in _COLUMNS:
            value = np.broadcast_to(np.asarray(columns[name]), (count,))
            had = world.columns.get(name)
            world.columns[name] = value.copy() if had is None else np.concatenate([had, value])
