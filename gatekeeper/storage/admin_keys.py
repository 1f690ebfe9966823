"""Keys of those who run the gate: who may ask the management API, and for what."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Column, Double, LargeBinary, String, Table, insert, select, update
from sqlalchemy.exc import IntegrityError

from gatekeeper.storage.database import RecordsError
from gatekeeper.storage.records_schema import Revocation
from gatekeeper.storage.schema import METADATA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gatekeeper.storage.database import Database


class Role(StrEnum):
    """What the holder of an admin key may do; each includes the one before."""

    VIEWER = "viewer"
    """Reads everything that is no secret."""
    OPERATOR = "operator"
    """Handles accounts, their keys and their identity checks."""
    ADMIN = "admin"
    """Changes what the gate decides by, and who may manage it."""

    def includes(self, needed: Role) -> bool:
        """Tell whether this role may do what ``needed`` may."""
        return _RANKS[self] >= _RANKS[needed]


_RANKS: Final = {role: rank for rank, role in enumerate(Role)}

ADMIN_KEYS: Final = Table(
    "admin_keys",
    METADATA,
    Column("key_id", String(32), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("name", String(200), nullable=False),
    Column("role", String(16), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
)


@dataclass(frozen=True, slots=True)
class AdminKeyRow:
    """One admin key as it is recorded: its keyed digest, never the key."""

    key_id: str
    """Readable prefix of the key, such as ``gka_7f3a9c2e``; safe to show and log."""
    digest: bytes
    name: str
    """Whose it is, for the audit trail."""
    role: Role
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None

    def usable(self, at: float) -> bool:
        """Tell whether it opens anything at ``at``."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > at)


_COLUMNS: Final = tuple(ADMIN_KEYS.c[field.name] for field in fields(AdminKeyRow))


class AdminKeys:
    """The admin keys in the records. Methods raise :class:`RecordsError` when SQL could not."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, key: AdminKeyRow) -> bool:
        """Record ``key``; ``False`` when its id or digest is taken: draw again."""
        row = {field.name: getattr(key, field.name) for field in fields(AdminKeyRow)}
        try:
            async with self._database.writing(passing=IntegrityError) as connection:
                await connection.execute(insert(ADMIN_KEYS).values(row | {"role": key.role.value}))
        except IntegrityError:
            return False
        return True

    async def by_digest(self, digest: bytes) -> AdminKeyRow | None:
        """Return the key with this keyed digest, whether it is still usable or not."""
        return await self._one(ADMIN_KEYS.c.digest == digest)

    async def get(self, key_id: str) -> AdminKeyRow | None:
        """Return one key by its readable id."""
        return await self._one(ADMIN_KEYS.c.key_id == key_id)

    async def page(self, *, after: str = "", limit: int = 100) -> tuple[AdminKeyRow, ...]:
        """Return a page of keys by id."""
        query = select(*_COLUMNS).where(ADMIN_KEYS.c.key_id > after)
        async with self._database.reading() as connection:
            rows = await connection.execute(query.order_by(ADMIN_KEYS.c.key_id).limit(limit))
            return tuple(_key(row) for row in rows)

    async def revoke(self, key_id: str, *, at: float) -> Revocation:
        """End a key at once and for good, on every node."""
        async with self._database.writing() as connection:
            done = await connection.execute(
                update(ADMIN_KEYS)
                .where(ADMIN_KEYS.c.key_id == key_id, ADMIN_KEYS.c.revoked_at.is_(None))
                .values(revoked_at=at)
            )
            if done.rowcount:
                return Revocation.REVOKED
            found = await connection.scalar(
                select(ADMIN_KEYS.c.key_id).where(ADMIN_KEYS.c.key_id == key_id)
            )
        return Revocation.UNKNOWN_KEY if found is None else Revocation.ALREADY_REVOKED

    async def _one(self, which: Any) -> AdminKeyRow | None:
        async with self._database.reading() as connection:
            row = (await connection.execute(select(*_COLUMNS).where(which))).one_or_none()
        return None if row is None else _key(row)


def _key(row: Sequence[Any]) -> AdminKeyRow:
    values = dict(zip((column.name for column in _COLUMNS), row, strict=True))
    try:
        values["role"] = Role(values["role"])
    except ValueError as error:
        raise RecordsError(f"admin key {values['key_id']!r} was damaged by hand") from error
    return AdminKeyRow(**values)
