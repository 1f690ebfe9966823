"""The SQL database behind the records: opened, prepared, read and written in transactions."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from sqlalchemy import Table, event, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.schema import CreateIndex, CreateTable

from gatekeeper.storage.schema import META, METADATA, SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_BUSY_TIMEOUT_MS: Final = 5_000
_DRIVERS: Final = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}


class RecordsError(Exception):
    """The records could not be opened, read or written."""


class Database:
    """One SQLite or PostgreSQL database. Methods raise :class:`RecordsError` when SQL could not."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        # SQLite lets waiting writers sleep and race; ours queue.
        self._writing = asyncio.Lock()
        self._insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert

    @classmethod
    async def open(cls, url: str) -> Self:
        """Open the database at an SQLAlchemy ``url``, making the tables when there are none.

        A database written by another schema version is refused, never altered.
        """
        target = _parse_url(url)
        place = target.render_as_string(hide_password=True)
        try:
            if target.get_backend_name() == "sqlite":
                await asyncio.to_thread(_make_private_file, target.database)
            engine = create_async_engine(target)
        except (OSError, ImportError, SQLAlchemyError) as error:
            raise RecordsError(f"cannot open the records at {place}: {error}") from error
        if target.get_backend_name() == "sqlite":
            event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        database = cls(engine)
        try:
            version = await database._prepare_tables()
        except (OSError, SQLAlchemyError) as error:
            await engine.dispose()
            raise RecordsError(f"cannot open the records at {place}: {_cause(error)}") from error
        if version != SCHEMA_VERSION:
            await engine.dispose()
            raise RecordsError(
                f"the records at {place} have schema version {version}, this Gatekeeper needs "
                f"{SCHEMA_VERSION}: use the release that wrote them, or migrate a copy"
            )
        return database

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    def insert(self, table: Table) -> Any:
        """Return an ``INSERT`` of this dialect, which knows ``on_conflict_do_...``."""
        return self._insert(table)

    async def last_write(self) -> int:
        """Return the number of the last write, which tells followers whether to look closer."""
        async with self.reading() as connection:
            return await connection.scalar(select(META.c.seq).where(META.c.id == 1)) or 0

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection to read from."""
        try:
            async with self._engine.connect() as connection:
                yield connection
        except (OSError, SQLAlchemyError) as error:
            raise RecordsError(f"the records could not be read: {_cause(error)}") from error

    @asynccontextmanager
    async def writing(
        self, *, passing: type[SQLAlchemyError] | None = None
    ) -> AsyncIterator[AsyncConnection]:
        """Open a transaction; an error of type ``passing`` is the caller's to read."""
        try:
            async with self._writing, self._engine.begin() as connection:
                yield connection
        except (OSError, SQLAlchemyError) as error:
            if passing is not None and isinstance(error, passing):
                raise
            raise RecordsError(f"the records could not be written: {_cause(error)}") from error

    async def _prepare_tables(self) -> int:
        """Create what is missing unless the schema is another version's; return that version."""
        async with self._engine.begin() as connection:
            await connection.execute(CreateTable(META, if_not_exists=True))
            await connection.execute(
                self._insert(META)
                .values(id=1, version=SCHEMA_VERSION, seq=0)
                .on_conflict_do_nothing()
            )
            version = await connection.scalar(select(META.c.version).where(META.c.id == 1))
            if version != SCHEMA_VERSION:
                return int(version or 0)
            for table in METADATA.sorted_tables:
                await connection.execute(CreateTable(table, if_not_exists=True))
                for index in table.indexes:
                    await connection.execute(CreateIndex(index, if_not_exists=True))
            return SCHEMA_VERSION


async def take_numbers(connection: AsyncConnection, count: int) -> int:
    """Reserve ``count`` change numbers and return the first; other writers wait until commit."""
    last = await connection.scalar(
        update(META).where(META.c.id == 1).values(seq=META.c.seq + count).returning(META.c.seq)
    )
    return int(last) - count + 1


def _parse_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        # The text may hold a password: it is not repeated.
        raise RecordsError("records_url is not an SQLAlchemy URL such as sqlite:///file") from None
    driver = _DRIVERS.get(parsed.get_backend_name())
    if driver is None:
        raise RecordsError(
            f"records_url: {parsed.get_backend_name()} is not supported: use sqlite or postgresql"
        )
    return parsed.set(drivername=driver)


def _make_private_file(database: str | None) -> None:
    """Create the file for its owner alone: it lists who the callers are."""
    if not database or database == ":memory:":
        return
    path = Path(database)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _prepare_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout = {_BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "synchronous = NORMAL",
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _cause(error: Exception) -> str:
    """Say what the driver said, without the statement and its values."""
    original = getattr(error, "orig", None)
    return str(original or type(error).__name__)
