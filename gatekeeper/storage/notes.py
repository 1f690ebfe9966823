"""Notes that people write about accounts: added, never changed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from sqlalchemy import Column, Double, ForeignKey, Index, String, Table, Text, insert, select
from sqlalchemy.exc import IntegrityError

from gatekeeper.storage.schema import METADATA

if TYPE_CHECKING:
    from gatekeeper.storage.database import Database

MAX_NOTE_CHARS: Final = 4_000
"""Of the text of one note."""


@dataclass(frozen=True, slots=True)
class NoteRow:
    """One note. Ids sort by time."""

    id: str
    account_id: str
    at: float
    author: str
    text: str


ACCOUNT_NOTES: Final = Table(
    "account_notes",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("account_id", String(255), ForeignKey("accounts.id"), nullable=False),
    Column("at", Double, nullable=False),
    Column("author", String(200), nullable=False),
    Column("text", Text, nullable=False),
    Index("ix_account_notes_account_id", "account_id", "id"),
)

_COLUMNS: Final = tuple(ACCOUNT_NOTES.c[field.name] for field in fields(NoteRow))


class Notes:
    """Notes on accounts. Every method raises :class:`RecordsError` when SQL could not."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, note: NoteRow) -> bool:
        """Keep ``note``; ``False`` when there is no such account."""
        try:
            async with self._database.writing(passing=IntegrityError) as connection:
                await connection.execute(
                    insert(ACCOUNT_NOTES).values(
                        id=note.id,
                        account_id=note.account_id,
                        at=note.at,
                        author=note.author,
                        text=note.text,
                    )
                )
        except IntegrityError:
            return False
        return True

    async def page(
        self, account_id: str, *, before: str | None = None, limit: int = 100
    ) -> tuple[NoteRow, ...]:
        """Return notes on an account, the newest first, those older than the id ``before``."""
        query = select(*_COLUMNS).where(ACCOUNT_NOTES.c.account_id == account_id)
        if before is not None:
            query = query.where(ACCOUNT_NOTES.c.id < before)
        async with self._database.reading() as connection:
            rows = await connection.execute(query.order_by(ACCOUNT_NOTES.c.id.desc()).limit(limit))
            return tuple(NoteRow(*row) for row in rows)
