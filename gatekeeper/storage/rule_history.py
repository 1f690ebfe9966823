"""Which rules were put in force, when and by whom, with the text of every revision.

Gates follow the newest activation, so that one change reaches a whole fleet.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    String,
    Table,
    Text,
    func,
    select,
)

from gatekeeper.policy.mistake import Mistake
from gatekeeper.storage.database import RecordsError, take_numbers
from gatekeeper.storage.schema import METADATA

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from gatekeeper.storage.database import Database

RULE_REVISIONS: Final = Table(
    "rule_revisions",
    METADATA,
    Column("revision", String(64), primary_key=True),
    Column("texts", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("created_by", String(200), nullable=False),
)
RULE_ACTIVATIONS: Final = Table(
    "rule_activations",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("revision", String(64), ForeignKey("rule_revisions.revision"), nullable=False),
    Column("at", Double, nullable=False),
    Column("by", String(200), nullable=False),
    Column("source", String(16), nullable=False),
    Column("comment", Text, nullable=False),
)


class Source(StrEnum):
    """Where an activation came from."""

    FILES = "files"
    API = "api"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class Activation:
    """A revision that was put in force; of all of them, the one with the highest ``seq`` is."""

    seq: int
    revision: str
    at: float
    """Unix seconds."""
    by: str
    source: Source
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing was activated: another revision is in force than the caller expected."""

    active: str


_COLUMNS: Final = tuple(
    RULE_ACTIVATIONS.c[name] for name in ("seq", "revision", "at", "by", "source", "comment")
)


def missing_files(revision: str) -> Mistake:
    """Return what is wrong with a revision that is in force and has no text."""
    return Mistake("records", None, "", f"The files of the rules {revision} are missing.")


class RuleHistory:
    """Revisions and activations. Methods raise :class:`RecordsError` when SQL could not."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def latest(self) -> Activation | None:
        """Return the activation in force."""
        async with self._database.reading() as connection:
            return await _latest(connection)

    async def page(self, *, before: int | None = None, limit: int = 100) -> tuple[Activation, ...]:
        """Return activations, newest first, older than number ``before``."""
        query = select(*_COLUMNS).order_by(RULE_ACTIVATIONS.c.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(RULE_ACTIVATIONS.c.seq < before)
        async with self._database.reading() as connection:
            return tuple(_activation(row) for row in await connection.execute(query))

    async def last_of(self, revision: str) -> int | None:
        """Return the number of the last activation of a revision."""
        query = select(func.max(RULE_ACTIVATIONS.c.seq))
        async with self._database.reading() as connection:
            found = await connection.scalar(query.where(RULE_ACTIVATIONS.c.revision == revision))
        return None if found is None else int(found)

    async def texts(self, revision: str) -> dict[str, str] | None:
        """Return the files of a revision by name."""
        query = select(RULE_REVISIONS.c.texts).where(RULE_REVISIONS.c.revision == revision)
        async with self._database.reading() as connection:
            texts = await connection.scalar(query)
        if texts is None:
            return None
        if not isinstance(texts, dict):
            raise RecordsError(f"the rules {revision} were damaged by hand")
        return {str(name): str(text) for name, text in texts.items()}

    async def activate(
        self,
        revision: str,
        texts: Mapping[str, str],
        *,
        at: float,
        by: str,
        source: Source,
        comment: str = "",
        expected: str | None = None,
    ) -> Activation | Conflict:
        """Put a revision in force, and keep its files; the one in force stays as it is.

        ``expected`` is the revision that the caller believes to be in force.
        """
        async with self._database.writing() as connection:
            # First, so that two who activate at once queue here and see each other.
            seq = await take_numbers(connection, 1)
            latest = await _latest(connection)
            if expected is not None and latest is not None and latest.revision != expected:
                return Conflict(latest.revision)
            if latest is not None and latest.revision == revision:
                return latest
            await connection.execute(
                self._database.insert(RULE_REVISIONS)
                .values(revision=revision, texts=dict(texts), created_at=at, created_by=by)
                .on_conflict_do_nothing()
            )
            await connection.execute(
                RULE_ACTIVATIONS.insert().values(
                    seq=seq, revision=revision, at=at, by=by, source=source.value, comment=comment
                )
            )
        return Activation(seq, revision, at, by, source, comment)


async def _latest(connection: AsyncConnection) -> Activation | None:
    query = select(*_COLUMNS).order_by(RULE_ACTIVATIONS.c.seq.desc()).limit(1)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _activation(row)


def _activation(row: Row[Any]) -> Activation:
    return Activation(row.seq, row.revision, row.at, row.by, Source(row.source), row.comment)
