"""The audit trail: who did what through the management API or the command line, and how it ended.

An entry is written in the transaction of the change it tells of, so that neither is kept without
the other. It never holds a secret, nor the full address of whoever asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import JSON, BigInteger, Column, Double, Integer, String, Table, insert, select
from sqlalchemy import update as sql_update

from gatekeeper.storage.schema import METADATA

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gatekeeper.storage.database import Database


class AuditOutcome(StrEnum):
    """How what was asked for ended."""

    STARTED = "started"
    """Written before a change that no transaction can hold; the process ended before it did."""
    DONE = "done"
    REFUSED = "refused"
    """Nothing was changed: not allowed, not valid, or not as it was expected."""
    FAILED = "failed"


HIDDEN: Final = frozenset({"email_digest", "payment_fingerprint", "signup_address"})
"""Fields that point at a person: the trail, which is kept for ever, tells that they changed."""


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return each field that differs, with both of its values."""
    return {
        name: [_shown(name, before.get(name)), _shown(name, value)]
        for name, value in after.items()
        if before.get(name) != value
    }


def _shown(name: str, value: object) -> object:
    return "hidden" if name in HIDDEN and value is not None else value


AUDIT: Final = Table(
    "audit",
    METADATA,
    # SQLite gives numbers by itself only to a column that it calls INTEGER.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at", Double, nullable=False, index=True),
    Column("actor", String(255), nullable=False, index=True),
    Column("actor_name", String(200), nullable=False),
    Column("role", String(16), nullable=False),
    Column("action", String(64), nullable=False),
    Column("target_kind", String(32), nullable=False),
    Column("target_id", String(255), nullable=False, index=True),
    Column("outcome", String(16), nullable=False),
    Column("status", Integer, nullable=False),
    Column("request_id", String(40), nullable=False),
    Column("peer", String(64), nullable=False),
    Column("detail", JSON, nullable=False),
)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of the trail. ``id`` is 0 until it is written."""

    at: float
    actor: str
    """Readable id of the admin key, ``cli:<user>`` for a command, empty when nobody was known."""
    action: str
    """Operation of the management API, or the command."""
    actor_name: str = ""
    role: str = ""
    target_kind: str = ""
    target_id: str = ""
    outcome: AuditOutcome = AuditOutcome.DONE
    status: int = 0
    """HTTP status of the answer; 0 for a command."""
    request_id: str = ""
    peer: str = ""
    """First half of the address it came from."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """What changed, with the values before and after."""
    id: int = 0


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which entries are wanted; what is ``None`` does not matter."""

    actor: str | None = None
    action: str | None = None
    target_kind: str | None = None
    target_id: str | None = None
    outcome: AuditOutcome | None = None
    since: float | None = None
    """Unix seconds, inclusive."""
    until: float | None = None
    """Unix seconds, exclusive."""


_NAMES: Final = tuple(column.name for column in AUDIT.columns)


class AuditTrail:
    """The trail in the records. Methods raise ``RecordsError`` when SQL could not."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, entry: AuditEntry) -> int:
        """Add an entry and return its id; joins the transaction under way, if there is one."""
        async with self._database.writing() as connection:
            made = await connection.execute(insert(AUDIT).values(_row(entry)).returning(AUDIT.c.id))
            return int(made.scalar_one())

    async def finish(self, entry_id: int, entry: AuditEntry) -> None:
        """Tell how an entry that was written as started has ended."""
        async with self._database.writing() as connection:
            await connection.execute(
                sql_update(AUDIT).where(AUDIT.c.id == entry_id).values(_row(entry))
            )

    async def page(
        self, query: AuditQuery, *, before: int | None = None, limit: int = 100
    ) -> tuple[AuditEntry, ...]:
        """Return entries, newest first, from the one before the id ``before``."""
        wanted = select(AUDIT).order_by(AUDIT.c.id.desc()).limit(limit)
        for name in ("actor", "action", "target_kind", "target_id", "outcome"):
            value = getattr(query, name)
            if value is not None:
                wanted = wanted.where(AUDIT.c[name] == str(value))
        if query.since is not None:
            wanted = wanted.where(AUDIT.c.at >= query.since)
        if query.until is not None:
            wanted = wanted.where(AUDIT.c.at < query.until)
        if before is not None:
            wanted = wanted.where(AUDIT.c.id < before)
        async with self._database.reading() as connection:
            return tuple(_entry(row) for row in await connection.execute(wanted))


def _row(entry: AuditEntry) -> dict[str, Any]:
    values = {name: getattr(entry, name) for name in _NAMES if name != "id"}
    return values | {"outcome": entry.outcome.value, "detail": dict(entry.detail)}


def _entry(row: Sequence[Any]) -> AuditEntry:
    values = dict(zip(_NAMES, row, strict=True))
    return AuditEntry(**values | {"outcome": AuditOutcome(values["outcome"])})
