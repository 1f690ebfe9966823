"""Records of the release before come up to date with their rows, whoever starts first."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata, produce_migrations, render_python_code
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.ext.asyncio import create_async_engine
from support.old_records import ACCOUNT, AT, in_dialect, version_1

from gatekeeper.policy.words import Assurance, Tier
from gatekeeper.storage import database
from gatekeeper.storage.database import RecordsError
from gatekeeper.storage.migrations import STEPS
from gatekeeper.storage.records import Records
from gatekeeper.storage.records_schema import AccountPatch, AccountRow, Position
from gatekeeper.storage.schema import SCHEMA_VERSION
from gatekeeper.storage.tables import METADATA

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection
    from support.postgres import Postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a database without tables, on SQLite and on a real PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'records.db'}"
    made: str = request.getfixturevalue("postgres").new_url()
    return made


async def sql(url: str, *statements: str) -> None:
    """Run statements as another program would."""
    engine = engine_of(url)
    async with engine.begin() as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)
    await engine.dispose()


async def ask(url: str, question: Any) -> Any:
    """Ask a function of a connection."""
    engine = engine_of(url)
    async with engine.connect() as connection:
        answer = await connection.run_sync(question)
    await engine.dispose()
    return answer


def engine_of(url: str) -> Any:
    """Return an engine of our own."""
    driver = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
    name, rest = url.split("://", 1)
    return create_async_engine(f"{driver[name]}://{rest}")


def dialect(url: str) -> str:
    """Return ``sqlite`` or ``postgresql``."""
    return url.split(":", 1)[0]


def shape(connection: Connection) -> dict[str, Any]:
    """Return tables, columns, indexes and keys as the database itself tells them."""
    found = inspect(connection)
    return {
        table: (
            {
                column["name"]: (str(column["type"]), column["nullable"])
                for column in found.get_columns(table)
            },
            sorted((index["name"], *index["column_names"]) for index in found.get_indexes(table)),
            found.get_pk_constraint(table)["constrained_columns"],
            sorted(map(str, found.get_foreign_keys(table))),
            sorted(str(unique["column_names"]) for unique in found.get_unique_constraints(table)),
        )
        for table in found.get_table_names()
    }


def differences(connection: Connection) -> list[Any]:
    """Return what alembic would still change."""
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, METADATA))


def missing_step(connection: Connection) -> str:
    """Return the step that would close the gap, as code for the module of the next version."""
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    operations = produce_migrations(context, METADATA).upgrade_ops
    assert operations is not None
    return str(render_python_code(operations, migration_context=context))


async def test_every_version_has_its_step() -> None:
    """A schema version that nothing leads to would strand every database."""
    assert list(STEPS) == list(range(2, SCHEMA_VERSION + 1))


async def test_records_of_the_release_before_keep_their_rows(url: str) -> None:
    """Opening brings them up to date; accounts, keys and the number of the last write stay."""
    await sql(url, *version_1(dialect(url)))
    records = await Records.open(url)
    try:
        account = await records.account("acme")
        assert account == AccountRow(
            "acme",
            organization="Acme AG",
            tier=Tier.TRUSTED,
            assurance=Assurance.IAL2,
            created_at=1_700_000_000.5,
            email_domain="acme.example",
            owners=("bytedance",),
            owner_countries=("CN",),
            updated_at=AT,
        )
        (key,) = await records.keys()
        assert (key.key_id, key.digest, key.account_id) == ("gk_old", b"\xaa" * 32, "acme")
        row = await records.upsert_account(AccountPatch("acme", {"email_pattern": "aaa"}), at=AT)
        assert (row.email_pattern, row.seq) == ("aaa", 3), "numbers go on where they were"
    finally:
        await records.close()


async def test_a_migrated_database_is_like_a_new_one(
    url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A column, index or table that a step forgets is found, as is one it adds too much."""
    await sql(url, *version_1(dialect(url)))
    await (await Records.open(url)).close()
    assert await ask(url, differences) == [], await ask(url, missing_step)

    other = f"sqlite:///{tmp_path / 'new.db'}"
    if dialect(url) == "postgresql":
        other = request.getfixturevalue("postgres").new_url()
    await (await Records.open(other)).close()
    assert await ask(other, differences) == []
    migrated, new = await ask(url, shape), await ask(other, shape)
    assert migrated == new
    assert set(new) == set(METADATA.tables)


async def test_the_comparison_can_tell(url: str) -> None:
    """An extra column and a missing index are differences, and it says what to do about them."""
    await (await Records.open(url)).close()
    await sql(url, "ALTER TABLE accounts ADD COLUMN extra TEXT", "DROP INDEX ix_accounts_seq")
    assert len(await ask(url, differences)) == 2
    assert "'ix_accounts_seq'), 'accounts', ['seq']" in await ask(url, missing_step)


async def test_no_table_is_left_out_of_new_databases() -> None:
    """Whatever module declares a table, ``storage/tables.py`` imports it."""
    program = (
        "import importlib, pkgutil, gatekeeper\n"
        "from gatekeeper.storage.tables import METADATA\n"
        "known = set(METADATA.tables)\n"
        "for module in pkgutil.walk_packages(gatekeeper.__path__, 'gatekeeper.'):\n"
        "    if not module.name.endswith(('__main__', 'geoip_build')):\n"
        "        importlib.import_module(module.name)\n"
        "print(sorted(set(METADATA.tables) - known))\n"
    )
    command = [sys.executable, "-c", program]
    done = await asyncio.to_thread(
        subprocess.run, command, check=True, capture_output=True, timeout=120
    )
    assert done.stdout == b"[]\n"


@pytest.mark.parametrize("old", [True, False])
async def test_gates_that_start_at_once_make_the_tables_once(url: str, old: bool) -> None:
    """Eight open the same records together; all find them whole."""
    if old:
        await sql(url, *version_1(dialect(url)))
    opened = await asyncio.gather(*(Records.open(url) for _ in range(8)))
    rows = [len(await records.accounts()) for records in opened]
    await asyncio.gather(*(records.close() for records in opened))
    assert rows == [int(old)] * 8
    assert await ask(url, differences) == []


async def test_a_gate_waits_for_whoever_makes_the_file(tmp_path: Path) -> None:
    """SQLite itself would not wait for another connection's work to change the kind of its log."""
    path = tmp_path / "records.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE theirs (id)")
        other.execute("BEGIN IMMEDIATE")
        opening = asyncio.create_task(Records.open(f"sqlite:///{path}"))
        done, _ = await asyncio.wait([opening], timeout=0.2)
        assert not done
        other.execute("COMMIT")
        records = await opening
    try:
        assert len(await records.accounts()) == 0
    finally:
        await records.close()
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_processes_that_start_at_once_make_the_tables_once(url: str) -> None:
    """As above, with nothing in common but the database."""
    await sql(url, *version_1(dialect(url)))
    program = (
        "import asyncio, sys\n"
        "from gatekeeper.storage.records import Records\n"
        "async def go():\n"
        "    records = await Records.open(sys.argv[1])\n"
        "    print(len(await records.accounts()))\n"
        "    await records.close()\n"
        "asyncio.run(go())\n"
    )
    started = [
        subprocess.Popen(  # noqa: ASYNC220 - waited for in threads below
            [sys.executable, "-c", program, url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for _ in range(3)
    ]
    said = [(await asyncio.to_thread(each.communicate, timeout=60))[0] for each in started]
    assert said == [b"1\n"] * 3


async def test_a_gate_of_the_release_before_works_on_beside_us(url: str) -> None:
    """During a rolling upgrade its inserts fit, and are followed like our own."""
    await sql(url, *version_1(dialect(url)))
    records = await Records.open(url)
    try:
        before = (await records.changes_since(Position())).position
        old = ACCOUNT.replace("{id}", "beta").replace("{seq}", "3")
        number = "UPDATE records_meta SET seq = 3 WHERE id = 1"
        await sql(url, number, in_dialect(old, dialect(url)))
        changes = await records.changes_since(before)
        assert [row.id for row in changes.accounts] == ["beta"]
    finally:
        await records.close()


async def test_a_newer_schema_is_refused_with_what_to_do(url: str) -> None:
    """Records of a later release are not touched."""
    await (await Records.open(url)).close()
    await sql(url, "UPDATE records_meta SET version = 99")
    with pytest.raises(
        RecordsError, match=f"version 99, this Gatekeeper knows {SCHEMA_VERSION}: use the release"
    ):
        await Records.open(url)

    def version(connection: Connection) -> Any:
        return connection.scalar(text("SELECT version FROM records_meta"))

    assert await ask(url, version) == 99


async def test_a_step_that_fails_changes_nothing(url: str) -> None:
    """The next start tries the whole step again."""
    await sql(url, *version_1(dialect(url)), "CREATE TABLE account_notes (id TEXT)")
    with pytest.raises(RecordsError, match="cannot open the records"):
        await Records.open(url)
    assert "email_pattern" not in (await ask(url, shape))["accounts"][0]
    await sql(url, "DROP TABLE account_notes")
    await (await Records.open(url)).close()
    assert await ask(url, differences) == []


async def test_a_table_in_use_is_not_waited_for_without_end(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade beside a large import gives up, so that readers need not queue behind it."""
    monkeypatch.setattr(database, "_DEADLINE_S", 0.3)
    url = postgres.new_url()
    await sql(url, *version_1("postgresql"))
    engine = engine_of(url)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("LOCK TABLE accounts IN ROW EXCLUSIVE MODE")
        with pytest.raises(RecordsError, match="lock timeout"):
            await Records.open(url)
    await engine.dispose()
    monkeypatch.undo()
    await (await Records.open(url)).close()
    assert await ask(url, differences) == []


async def test_opening_records_that_are_up_to_date_loads_no_alembic(tmp_path: Path) -> None:
    """Commands and gates pay for migrations only when there is one."""
    url = f"sqlite:///{tmp_path / 'records.db'}"
    await (await Records.open(url)).close()
    program = (
        "import asyncio, sys\n"
        "from gatekeeper.storage.records import Records\n"
        "async def go(): await (await Records.open(sys.argv[1])).close()\n"
        "asyncio.run(go())\n"
        "print('alembic' in sys.modules)\n"
    )
    command = [sys.executable, "-c", program, url]
    done = await asyncio.to_thread(
        subprocess.run, command, check=True, capture_output=True, timeout=60
    )
    assert done.stdout == b"False\n"
