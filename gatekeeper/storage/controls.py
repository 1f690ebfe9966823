"""Switches that people set for all gates at once: the mode that overrides the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import JSON, BigInteger, Column, Double, String, Table, Text, select

from gatekeeper.policy.words import GateMode
from gatekeeper.storage.database import RecordsError, take_numbers
from gatekeeper.storage.schema import METADATA

if TYPE_CHECKING:
    from gatekeeper.storage.database import Database

CONTROLS: Final = Table(
    "controls",
    METADATA,
    Column("name", String(32), primary_key=True),
    Column("value", JSON(none_as_null=True)),
    Column("at", Double, nullable=False),
    Column("by", String(200), nullable=False),
    Column("reason", Text, nullable=False),
    Column("expires_at", Double),
    Column("seq", BigInteger, nullable=False, index=True),
)
"""One row a switch; a switch that was taken back keeps its row, without a value."""

_MODE: Final = "mode"


@dataclass(frozen=True, slots=True)
class ModeOverride:
    """The mode that somebody set for all gates."""

    mode: GateMode
    at: float
    """Unix seconds."""
    by: str
    reason: str
    expires_at: float | None = None

    def holds(self, at: float) -> bool:
        """Tell whether it has not run out."""
        return self.expires_at is None or at < self.expires_at


class Controls:
    """The switches. Methods raise :class:`RecordsError` when SQL could not."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def mode(self) -> ModeOverride | None:
        """Return the override of the mode, run out or not."""
        query = select(
            CONTROLS.c["value"],
            CONTROLS.c["at"],
            CONTROLS.c["by"],
            CONTROLS.c["reason"],
            CONTROLS.c["expires_at"],
        ).where(CONTROLS.c.name == _MODE)
        async with self._database.reading() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None or row[0] is None:
            return None
        try:
            return ModeOverride(GateMode(row[0]), *row[1:])
        except ValueError as error:
            raise RecordsError("the mode of the gates was damaged by hand") from error

    async def set_mode(self, override: ModeOverride) -> None:
        """Set the mode of all gates; they follow within a second."""
        await self._put(
            override.mode.value, override.at, override.by, override.reason, override.expires_at
        )

    async def clear_mode(self, *, by: str, at: float) -> None:
        """Give the mode back to each gate's own settings."""
        await self._put(None, at, by, "", None)

    async def _put(
        self, value: str | None, at: float, by: str, reason: str, expires_at: float | None
    ) -> None:
        async with self._database.writing() as connection:
            row = {
                "value": value,
                "at": at,
                "by": by,
                "reason": reason,
                "expires_at": expires_at,
                "seq": await take_numbers(connection, 1),
            }
            await connection.execute(
                self._database.insert(CONTROLS)
                .values(name=_MODE, **row)
                .on_conflict_do_update(index_elements=[CONTROLS.c.name], set_=row)
            )
