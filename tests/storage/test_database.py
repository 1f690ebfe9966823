"""The database lost: frozen, killed, cut off or held up, every call ends and the next one works."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from support.gates import eventually

from gatekeeper.storage import database
from gatekeeper.storage.database import RecordsError
from gatekeeper.storage.records import Records
from gatekeeper.storage.records_schema import ACCOUNTS, AccountPatch, Position

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from support.postgres import Postgres

AT = 1_790_000_000.0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make deadlines short, so that tests need not wait for the real ones."""
    monkeypatch.setattr(database, "_DEADLINE_S", 1.0)
    monkeypatch.setattr(database, "_CONNECT_S", 1.0)


@pytest.fixture
async def records(quick: None, postgres: Postgres) -> AsyncIterator[Records]:
    """Open fresh records on PostgreSQL."""
    opened = await Records.open(postgres.new_url())
    yield opened
    await opened.close()


async def write(records: Records, account_id: str) -> None:
    """Write one account."""
    await records.upsert_account(AccountPatch(account_id, {}), at=AT)


async def test_h19_a_frozen_database_holds_nobody_up(records: Records, postgres: Postgres) -> None:
    """Reads and writes end with the one expected error; thawed, the very next ones work."""
    await write(records, "before")
    postgres.freeze()
    try:
        for _ in range(2):  # the second finds no connection to reuse
            with pytest.raises(RecordsError, match="could not be read: no answer in time"):
                await records.accounts()
            with pytest.raises(RecordsError, match="could not be written: no answer in time"):
                await write(records, "during")
    finally:
        postgres.thaw()
    await write(records, "after")
    assert {row.id for row in await records.accounts()} >= {"before", "after"}


async def test_h19_a_killed_database_is_told_at_once(records: Records, postgres: Postgres) -> None:
    """Nothing waits for a server that is gone, and what was written is there when it is back."""
    await write(records, "before")
    postgres.kill()
    try:
        for _ in range(2):
            with pytest.raises(RecordsError, match="could not be read"):
                await records.accounts()
            with pytest.raises(RecordsError, match="could not be written"):
                await write(records, "during")
        with pytest.raises(RecordsError, match="cannot open the records"):
            await Records.open(postgres.url_of("any"))
    finally:
        postgres.start()

    async def answers() -> bool:
        try:
            return [row.id for row in await records.accounts()] == ["before"]
        except RecordsError:  # "the database system is starting up"
            return False

    await eventually(answers)


async def test_h19_connections_that_were_cut_are_not_used_again(
    records: Records, postgres: Postgres
) -> None:
    """An administrator who ends every connection is not noticed by anybody."""
    await write(records, "before")
    for number in range(3):
        postgres.cut()
        assert await records.accounts()
        postgres.cut()
        await write(records, f"after-{number}")
        postgres.cut()
        assert len((await records.changes_since(Position())).accounts) == number + 2


async def in_the_middle(records: Records, work: Callable[[], Awaitable[None]]) -> None:
    """Do ``work`` while ``records`` hold the lock that all writers need."""
    async with records.database.writing() as connection:
        await database.take_numbers(connection, 1)
        await work()  # waits until the server has ended our transaction
        await database.take_numbers(connection, 1)


async def test_a_writer_who_falls_silent_does_not_stop_the_others(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gate frozen in the middle of a write loses its transaction, not the fleet its writers."""
    monkeypatch.setattr(database, "_SILENCE_S", 0.2)
    url = postgres.new_url()
    frozen, other = await Records.open(url), await Records.open(url)
    try:
        with pytest.raises(RecordsError, match="could not be written"):
            await in_the_middle(frozen, lambda: write(other, "acme"))
        assert [row.id for row in await other.accounts()] == ["acme"]
        await write(frozen, "later")
    finally:
        await frozen.close()
        await other.close()


async def test_waiting_for_another_writer_ends(records: Records) -> None:
    """Whoever waits behind a long write of the same process is told, and may try again."""
    async with records.database.writing():
        with pytest.raises(RecordsError, match="no answer in time"):
            await write(records, "acme")
    await write(records, "acme")


async def test_more_readers_than_connections_take_turns(records: Records) -> None:
    """A crowd of readers shares a few connections and loses none."""
    await write(records, "acme")
    pages = await asyncio.gather(*(records.accounts() for _ in range(40)))
    assert [len(page) for page in pages] == [1] * 40
    assert (await asyncio.gather(records.accounts()))[0] == pages[0]


async def test_tls_is_asked_for_as_everybody_spells_it(postgres: Postgres) -> None:
    """``sslmode`` is understood, which asyncpg by itself would not know."""
    await (await Records.open(f"{postgres.new_url()}&sslmode=prefer")).close()
    with pytest.raises(RecordsError, match="cannot open the records"):
        await Records.open("postgresql://postgres@127.0.0.1:9/records?sslmode=require")


async def test_a_parameter_that_nobody_knows_is_told_without_secrets(postgres: Postgres) -> None:
    """A misspelt one stops the start with its name; values are not repeated."""
    with pytest.raises(RecordsError, match="not known, one of colour, host, password") as raised:
        await Records.open(f"{postgres.new_url()}&password=hunter2&colour=red")
    assert "hunter2" not in str(raised.value)


async def test_what_the_server_says_is_told_without_values(records: Records) -> None:
    """Its first line is a sentence for people; the detail would name rows."""
    with pytest.raises(RecordsError, match="duplicate key value") as raised:
        await twice(records, "acme-and-nobody-else")
    assert "nobody-else" not in str(raised.value)


async def twice(records: Records, account_id: str) -> None:
    """Insert one account twice."""
    row = {"id": account_id, "tier": "standard", "assurance": "none", "owners": []}
    row |= {"owner_countries": [], "opaque": False, "updated_at": AT, "seq": 1}
    async with records.database.writing() as connection:
        for _ in range(2):
            await connection.execute(ACCOUNTS.insert().values(row))


async def test_a_database_that_does_not_exist_is_told(quick: None, postgres: Postgres) -> None:
    """The reason is the server's own."""
    with pytest.raises(RecordsError, match='database "nowhere" does not exist'):
        await Records.open(postgres.url_of("nowhere"))


async def test_records_in_memory_have_their_tables() -> None:
    """For whoever tries something out: nothing is left behind."""
    records = await Records.open("sqlite:///:memory:")
    await write(records, "acme")
    assert len(await records.accounts()) == 1
    await records.close()
