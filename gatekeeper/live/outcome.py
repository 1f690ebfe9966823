"""How an attempt to change something ended, in one form for log, metrics and alerts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gatekeeper.policy.mistake import Mistake
    from gatekeeper.snapshot import Snapshot


class What(StrEnum):
    """What can change under way."""

    RULES = "rules"
    NETWORKS = "networks"
    MODE = "mode"
    CONTAINMENT = "containment"


class Outcome(StrEnum):
    """Whether a new state took effect."""

    APPLIED = "applied"
    REFUSED = "refused"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A state that did not take effect, because of ``mistakes``; the last good one serves on."""

    at: float
    """Unix seconds."""
    mistakes: tuple[Mistake, ...]

    def __str__(self) -> str:
        """Return a sentence for status and alerts."""
        more = f" and {len(self.mistakes) - 1} more" if len(self.mistakes) > 1 else ""
        return f"{self.mistakes[0]}{more}"


class Judging(Protocol):
    """What has a snapshot that may be replaced at any time: a gate."""

    snapshot: Snapshot
