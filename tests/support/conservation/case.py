"""One request of a conservation test in all books."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from support.conservation.client import Seen
    from support.conservation.fleet import Process

_AT_RISK_S: Final = 2.0
"""Records of so long before a worker is killed may not be written on a busy machine."""


@dataclass(frozen=True)
class Case:
    """One request in all books."""

    seen: Seen
    life: Process
    decision: dict[str, Any] | None
    outcome: dict[str, Any] | None
    upstream: dict[str, Any] | None
    turns: tuple[dict[str, Any], ...] = ()
    """Of a conversation, as they were charged."""

    @property
    def id(self) -> str:
        """Its name in every book."""
        return self.seen.planned.id

    @property
    def at_risk(self) -> bool:
        """Whether its worker was killed about when it was there, so that a record may be lost."""
        killed_s = self.life.killed_s
        return killed_s is not None and self.seen.ended_s > killed_s - _AT_RISK_S

    @property
    def left(self) -> bool:
        """Whether its gate was asked to end, and no longer took calls."""
        leaves_s = self.life.terminated_s
        return leaves_s is not None and self.seen.ended_s > leaves_s

    @property
    def allowed(self) -> bool:
        """Whether the gate let it go on."""
        return self.decision is not None and self.decision["verdict"] == "allow"

    def held(self, rule: str) -> float:
        """Return what it held of a rule, in its units."""
        assert self.decision is not None
        return next(
            float(status["requested"])
            for status in self.decision["limits"]
            if status["rule"] == rule
        )
