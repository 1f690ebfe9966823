"""The lifecycle of one identity check, as a literal table."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class CaseState(StrEnum):
    """Where an identity check stands."""

    REQUIRED = "required"
    PENDING = "pending"
    VERIFIED = "verified"
    REJECTED = "rejected"
    EXPIRED = "expired"


class CaseEvent(StrEnum):
    """What can happen to an identity check."""

    OPENED = "opened"
    """The caller opened the link."""
    APPROVED = "approved"
    """The vendor, or an admin, found the identity proven."""
    DECLINED = "declined"
    """The vendor, or an admin, found it not proven."""
    LAPSED = "lapsed"
    """The time allowed for the step, or the validity of the proof, ran out."""
    RESTARTED = "restarted"
    """The caller may try again."""


TRANSITIONS: Final[dict[tuple[CaseState, CaseEvent], CaseState]] = {
    (CaseState.REQUIRED, CaseEvent.OPENED): CaseState.PENDING,
    (CaseState.REQUIRED, CaseEvent.APPROVED): CaseState.VERIFIED,
    (CaseState.REQUIRED, CaseEvent.DECLINED): CaseState.REJECTED,
    (CaseState.REQUIRED, CaseEvent.LAPSED): CaseState.EXPIRED,
    (CaseState.PENDING, CaseEvent.APPROVED): CaseState.VERIFIED,
    (CaseState.PENDING, CaseEvent.DECLINED): CaseState.REJECTED,
    (CaseState.PENDING, CaseEvent.LAPSED): CaseState.EXPIRED,
    (CaseState.VERIFIED, CaseEvent.LAPSED): CaseState.EXPIRED,
    (CaseState.REJECTED, CaseEvent.RESTARTED): CaseState.REQUIRED,
    (CaseState.EXPIRED, CaseEvent.RESTARTED): CaseState.REQUIRED,
}
"""Every allowed step; what is not here does not happen (a late ``pending`` changes nothing)."""


def step(state: CaseState, event: CaseEvent) -> CaseState | None:
    """Return the state after ``event``, or ``None`` when it does not apply in ``state``."""
    return TRANSITIONS.get((state, event))
