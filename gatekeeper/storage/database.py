"""The SQL database behind the records: opened, brought up to date, read and written.

Nothing here waits without end. On PostgreSQL each statement, connection attempt and wait for a free
connection has a deadline, the server ends a transaction whose gate has fallen silent, and
a connection is tried before it is used, so that the first call after an outage finds a live one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from sqlalchemy import Table, event, inspect, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from gatekeeper.storage.schema import META, SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Connection
    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_DRIVERS: Final = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
_DEADLINE_S: Final = 5.0
"""For a statement, and for the wait for another writer or a connection."""
_CONNECT_S: Final = 3.0
_AGAIN_S: Final = 0.01
_SILENCE_S: Final = 10.0
"""After which PostgreSQL ends a transaction whose gate is frozen or cut off: it may hold the lock
that all writers need."""
_UPGRADE_S: Final = 600.0
"""For a statement that changes tables: indexes of large tables take their time."""
_POOL: Final = {"pool_size": 2, "max_overflow": 3, "pool_timeout": _DEADLINE_S}
"""Two connections are held, five are the most: 20 gates stay within PostgreSQL's usual 100."""
_UPGRADE_LOCK: Final = 0x6761_7465  # "gate"


class RecordsError(Exception):
    """The records could not be opened, read or written."""


class Database:
    """One SQLite or PostgreSQL database. Methods raise :class:`RecordsError` when SQL could not."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        # SQLite lets waiting writers sleep and race; ours queue.
        self._writing = asyncio.Lock()
        self._joined: ContextVar[AsyncConnection | None] = ContextVar("joined", default=None)
        self._insert: Any = sqlite.insert
        self._reader = engine
        self._errors = _errors_of(engine)
        if engine.dialect.name == "postgresql":
            self._insert = postgresql.insert
            # One look at what changed is then one round trip, without BEGIN and ROLLBACK.
            self._reader = engine.execution_options(isolation_level="AUTOCOMMIT")

    @classmethod
    async def open(cls, url: str) -> Self:
        """Open the database at an SQLAlchemy ``url``, making the tables when there are none.

        A database of an older release is brought up to date, by one gate while others wait. One
        of a newer release is refused, never altered.
        """
        target = _parse_url(url)
        place = _place(target)
        try:
            if target.get_backend_name() == "sqlite":
                await asyncio.to_thread(_make_private_file, target.database)
            engine = _engine(target)
        except (OSError, ImportError, SQLAlchemyError, sqlite3.Error) as error:
            raise RecordsError(f"cannot open the records at {place}: {error}") from error
        database = cls(engine)
        try:
            version = await _version_of(engine)
            if version < SCHEMA_VERSION:
                version = await _bring_up_to_date(engine, target)
        except TypeError as error:
            await engine.dispose()
            names = ", ".join(sorted(target.query))
            raise RecordsError(
                f"cannot open the records at {place}: a parameter is not known, one of {names}"
            ) from error
        except database._errors as error:
            await engine.dispose()
            raise RecordsError(f"cannot open the records at {place}: {_cause(error)}") from error
        if version != SCHEMA_VERSION:
            await engine.dispose()
            raise RecordsError(
                f"the records at {place} have schema version {version}, this Gatekeeper knows "
                f"{SCHEMA_VERSION}: use the release that wrote them, or a newer one"
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
    async def together(self) -> AsyncIterator[None]:
        """Make one transaction of every read and write inside; all or nothing of it is kept.

        It holds for this task, across all who use the database. Other writers wait from the start,
        so what is read inside is still so when it is written. Await nothing slow in it.
        """
        async with self.writing() as connection:
            token = self._joined.set(connection)
            try:
                await take_numbers(connection, 0)
                yield
            finally:
                self._joined.reset(token)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection to read from."""
        joined = self._joined.get()
        try:
            if joined is not None:
                yield joined
                return
            async with self._reader.connect() as connection:
                yield connection
        except self._errors as error:
            raise RecordsError(f"the records could not be read: {_cause(error)}") from error

    @asynccontextmanager
    async def writing(
        self, *, passing: type[SQLAlchemyError] | None = None
    ) -> AsyncIterator[AsyncConnection]:
        """Open a transaction; an error of type ``passing`` is the caller's to read."""
        joined = self._joined.get()
        try:
            if joined is not None:
                if passing is None:
                    yield joined
                    return
                async with joined.begin_nested():  # its error is read, and the rest goes on
                    yield joined
                return
            async with asyncio.timeout(_DEADLINE_S):
                await self._writing.acquire()
            try:
                async with self._engine.begin() as connection:
                    yield connection
            finally:
                self._writing.release()
        except self._errors as error:
            if passing is not None and isinstance(error, passing):
                raise
            raise RecordsError(f"the records could not be written: {_cause(error)}") from error


def _engine(target: URL) -> AsyncEngine:
    """Return an engine whose waits all end."""
    if target.get_backend_name() == "sqlite":
        engine = create_async_engine(target)
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        return engine
    return create_async_engine(
        target,
        pool_pre_ping=True,
        connect_args={
            "timeout": _CONNECT_S,
            "command_timeout": _DEADLINE_S,
            "server_settings": {
                "application_name": "gatekeeper",
                "idle_in_transaction_session_timeout": f"{_SILENCE_S * 1_000:.0f}",
            },
        },
        **_POOL,
    )


def _errors_of(engine: AsyncEngine) -> tuple[type[Exception], ...]:
    """Return what a database that cannot be used raises; asyncpg's own come through unwrapped."""
    if engine.dialect.name != "postgresql":
        return (OSError, SQLAlchemyError)
    import asyncpg  # noqa: PLC0415 - costs a gate on SQLite a tenth of a second

    return (OSError, SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError)


async def _version_of(engine: AsyncEngine) -> int:
    """Return the version of the tables, 0 when there are none."""
    async with engine.connect() as connection:
        return await connection.run_sync(_version)


def _version(connection: Connection) -> int:
    if not inspect(connection).has_table(META.name):
        return 0
    return connection.scalar(select(META.c.version).where(META.c.id == 1)) or 0


async def _bring_up_to_date(engine: AsyncEngine, target: URL) -> int:
    """Make or change the tables in one transaction; return the version they then have."""
    if target.get_backend_name() == "sqlite":
        return await _change_alone(engine, "BEGIN IMMEDIATE")
    patient = create_async_engine(
        target,
        poolclass=NullPool,
        connect_args={"timeout": _CONNECT_S, "command_timeout": _UPGRADE_S},
    )
    try:
        # Whoever comes second waits for the first. A table that an import holds is not waited
        # for: readers would queue behind us.
        return await _change_alone(
            patient,
            f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})",
            f"SET LOCAL lock_timeout = {_DEADLINE_S * 1_000:.0f}",
        )
    finally:
        await patient.dispose()


async def _change_alone(engine: AsyncEngine, *begin: str) -> int:
    async with engine.begin() as connection:
        for statement in begin:
            await connection.execute(text(statement))
        return await connection.run_sync(_change_tables)


def _change_tables(connection: Connection) -> int:
    version = _version(connection)  # another gate may have been first
    if version == 0:
        from gatekeeper.storage.tables import METADATA  # noqa: PLC0415 - its modules import this one

        METADATA.create_all(connection)
        connection.execute(META.insert().values(id=1, version=SCHEMA_VERSION, seq=0))
    elif version < SCHEMA_VERSION:
        from gatekeeper.storage.migrations import upgrade  # noqa: PLC0415 - alembic is slow to load

        upgrade(connection, version=version, to=SCHEMA_VERSION)
        connection.execute(META.update().where(META.c.id == 1).values(version=SCHEMA_VERSION))
    return max(version, SCHEMA_VERSION)


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
    if driver == _DRIVERS["postgresql"] and "sslmode" in parsed.query:
        # As libpq and everybody's documentation spell it; asyncpg calls it ssl.
        mode = parsed.query["sslmode"]
        parsed = parsed.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return parsed.set(drivername=driver)


def _place(target: URL) -> str:
    """Return the URL without what may be secret."""
    query = {name: target.query[name] for name in ("host", "port") if name in target.query}
    return target.set(query=query).render_as_string(hide_password=True)


def _make_private_file(database: str | None) -> None:
    """Create the file for its owner alone: it lists who the callers are. Its log is write-ahead.

    SQLite does not wait (``busy_timeout``) when the log is changed while another connection is at
    work, as when several gates make the file at once: this does, up to the deadline.
    """
    if not database or database == ":memory:":
        return
    path = Path(database)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    until_s = time.monotonic() + _DEADLINE_S
    with contextlib.closing(sqlite3.connect(path, timeout=_DEADLINE_S)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until_s:
                    raise
            else:
                return
            time.sleep(_AGAIN_S)


def _prepare_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout = {_DEADLINE_S * 1_000:.0f}",
        "synchronous = NORMAL",
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _cause(error: Exception) -> str:
    """Say what the driver said, without the statement and its values."""
    if isinstance(error, TimeoutError | PoolTimeoutError):
        return "no answer in time"
    original = getattr(error, "orig", None)
    if original is None and not hasattr(error, "sqlstate"):
        return type(error).__name__
    # PostgreSQL's second line is the detail, which holds values.
    return str(original or error).partition("\n")[0]
