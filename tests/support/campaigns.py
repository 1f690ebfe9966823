"""Groups and campaigns for tests, and rules that contain them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support.builders import AT, DAY_S, rules

from gatekeeper.policy.campaigns import (
    Campaign,
    CampaignState,
    Group,
    Layer,
    SharedTrait,
    Stage,
)
from gatekeeper.storage.database import RecordsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

STAGES = """
containment:
  - {id: observe, description: d, stage: observe, raise_at: 30, lower_below: 20, hold: 1 day,
     layers: 1}
  - {id: budget, description: d, stage: budget, raise_at: 50, lower_below: 40, hold: 2 days,
     layers: 1}
  - {id: probe, description: d, stage: probe, raise_at: 60, lower_below: 50, hold: 2 days,
     members: 3, percent: 25}
  - {id: step-up, description: d, stage: step_up, raise_at: 70, lower_below: 60, hold: 3 days,
     members: 3, newcomers: 5 days}
  - {id: banned, description: d, stage: ban, raise_at: 90, lower_below: 80, hold: 3 days,
     members: 3, confirmed: true}
"""
"""Every stage but ``shape``."""
STAGED = rules(STAGES)
LAYERS = (Layer.ADDRESS, Layer.SCAFFOLD)
PROBE_KEY = b"0123456789abcdef"


def accounts(first: int, past: int) -> tuple[str, ...]:
    """Name accounts by number, sorted."""
    return tuple(f"a{number:05}" for number in range(first, past))


def trait(digest: int, *, kind: str = "address", **changes: Any) -> SharedTrait:
    """Return a trait that only members have."""
    layer = Layer.ADDRESS if kind == "address" else Layer.SCAFFOLD
    ordinary: dict[str, Any] = {"layer": layer, "kind": kind, "members": 4, "accounts": 5}
    return SharedTrait(**(ordinary | changes), digest=digest)


def traits(*digests: int) -> tuple[SharedTrait, ...]:
    """Return traits, addresses and scaffolds in turn."""
    kinds = ("address", "scaffold")
    return tuple(trait(each, kind=kinds[at % 2]) for at, each in enumerate(digests))


def group(members: Iterable[str] = accounts(0, 10), **changes: Any) -> Group:
    """Return a group that is worth a shared budget."""
    ordinary: dict[str, Any] = {
        "shared": traits(11, 12, 13, 14),
        "layers": LAYERS,
        "score": 55.0,
        "q_value": 0.01,
        "first_seen": AT - 10 * DAY_S,
        "last_seen": AT,
        "calls": 100,
    }
    return Group(tuple(members), **(ordinary | changes))


def campaign(found: Group | None = None, **changes: Any) -> Campaign:
    """Return a campaign that was proposed a day ago and shares a budget."""
    ordinary: dict[str, Any] = {
        "id": "cmp_000000000001",
        "state": CampaignState.PROPOSED,
        "stage": Stage.BUDGET,
        "group": group() if found is None else found,
        "since": AT - DAY_S,
        "staged_at": AT - DAY_S,
    }
    return Campaign(**(ordinary | changes))


def ids(first: int = 100) -> Callable[[], str]:
    """Return what makes ids one after the other."""
    numbers = iter(range(first, 10**6))
    return lambda: f"cmp_{next(numbers):012x}"


def words(of: Campaign) -> list[str]:
    """Return the words of a history."""
    return [event.what for event in of.history]


class Book:
    """Campaigns in memory, which may be lost."""

    def __init__(self, *campaigns: Campaign) -> None:
        """Hold ``campaigns`` under the first revision."""
        self.broken = False
        self.reads = 0
        self._revision = 1
        self._campaigns = campaigns

    def write(self, *campaigns: Campaign) -> None:
        """Replace all of them."""
        self._revision += 1
        self._campaigns = campaigns

    async def revision(self) -> int:
        """Return how often they were written."""
        if self.broken:
            raise RecordsError("gone")
        return self._revision

    async def contained(self) -> Sequence[Campaign]:
        """Return all that are open."""
        self.reads += 1
        return [each for each in self._campaigns if each.state.contains]
