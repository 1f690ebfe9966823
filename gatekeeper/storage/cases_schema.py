"""What the records keep of identity checks: rows as values, tables as SQLAlchemy sees them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    UniqueConstraint,
)

from gatekeeper.policy.words import Assurance
from gatekeeper.storage.schema import METADATA

if TYPE_CHECKING:
    from gatekeeper.policy.lifecycles import CaseEvent, CaseState

MAX_REASON: Final = 200
"""Characters of a reason that are kept."""
MAX_ACTOR: Final = 100
"""Characters of an actor's name that are kept."""


_CASE_ID: Final = re.compile(r"[a-z0-9_]{1,64}")


def is_case_id(text: str) -> bool:
    """Tell whether ``text`` can name a case."""
    return _CASE_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class CaseRow:
    """One identity check as it is recorded. Times are Unix seconds.

    There is one for each account and level: a new try restarts it.
    """

    id: str
    account_id: str
    assurance: Assurance
    """The level that is asked for."""
    state: CaseState
    link_id: str
    """Decision whose link began the current try."""
    vendor: str = ""
    """Empty: an admin decides."""
    reference: str | None = None
    """The vendor's name for the current try; ``None`` until the vendor has given one."""
    attempt: int = 0
    """Number of the current try; never goes back."""
    tries: int = 0
    """Tries since ``tries_since``; an admin's restart forgets them."""
    tries_since: float = 0.0
    started_at: float | None = None
    """When the current try began."""
    expires_at: float | None = None
    """Pending: when the try lapses. Verified: when the proof does, ``None`` for never."""
    next_check_at: float | None = None
    """When the vendor is to be asked, if its webhook has not come; ``None`` for never."""
    decided_at: float | None = None
    reason: str = ""
    """Why it ended as it did: the vendor's code or an admin's words."""
    actor: str = ""
    """Who decided: ``vendor:NAME``, or an admin."""
    created_at: float = 0.0
    updated_at: float = 0.0


@dataclass(frozen=True, slots=True)
class CaseStep:
    """One thing that happened to a case, as its history tells it."""

    at: float
    event: CaseEvent
    state: CaseState
    """The state after it."""
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class TryRules:
    """How often an account may try, and for how long a try and a proof are good."""

    pending_s: float
    valid_s: float | None
    """``None`` for a proof without end."""
    max_tries: int
    period_s: float


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about a case, by a vendor or an admin."""

    event: CaseEvent
    actor: str
    reason: str = ""
    assurance: Assurance = Assurance.NONE
    """The level that was reached; read for approvals only."""


class Opening(StrEnum):
    """How opening a link ended."""

    STARTED = "started"
    """A new try began."""
    UNDER_WAY = "under_way"
    """The try that was begun before goes on."""
    PROVEN = "proven"
    """The account meets the level already."""
    ENDED = "ended"
    """This link's try is over: another needs a new link."""
    EXHAUSTED = "exhausted"
    """No try is left in this period: an admin decides."""
    NOT_ELIGIBLE = "not_eligible"
    """The account is not on record, or is banned."""


class Change(StrEnum):
    """How applying a finding ended."""

    DONE = "done"
    DUPLICATE = "duplicate"
    """This delivery was applied before."""
    NOT_NOW = "not_now"
    """The case is in no state for it; nothing changed."""
    NO_CASE = "no_case"


CASES: Final = Table(
    "verification_cases",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("account_id", String(255), ForeignKey("accounts.id"), nullable=False),
    Column("assurance", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("link_id", String(64), nullable=False),
    Column("vendor", String(32), nullable=False),
    Column("reference", String(200)),
    Column("attempt", Integer, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("tries_since", Double, nullable=False),
    Column("started_at", Double),
    Column("expires_at", Double),
    Column("next_check_at", Double, index=True),
    Column("decided_at", Double),
    Column("reason", String(MAX_REASON), nullable=False),
    Column("actor", String(MAX_ACTOR), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("seq", BigInteger, nullable=False, index=True),
    UniqueConstraint("account_id", "assurance"),
    UniqueConstraint("vendor", "reference"),
)

CASE_STEPS: Final = Table(
    "verification_steps",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("case_id", String(64), ForeignKey("verification_cases.id"), nullable=False),
    Column("at", Double, nullable=False),
    Column("event", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("actor", String(MAX_ACTOR), nullable=False),
    Column("reason", String(MAX_REASON), nullable=False),
    Index("ix_verification_steps_case", "case_id", "seq"),
)
"""What happened to each case, in order; rows are only added."""

VENDOR_EVENTS: Final = Table(
    "vendor_events",
    METADATA,
    Column("vendor", String(32), primary_key=True),
    Column("id", String(200), primary_key=True),
    Column("received_at", Double, nullable=False, index=True),
)
"""Webhook deliveries that were dealt with, so that each has its effect once."""
