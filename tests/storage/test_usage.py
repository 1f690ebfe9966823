"""Usage: added up over nodes, exactly once, and bounded while it waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gatekeeper.policy.model import Usage
from gatekeeper.storage.database import RecordsError
from gatekeeper.storage.records import Records
from gatekeeper.storage.usage import UsageBook, UsageQuery, UsageRow, UsageTable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

DAY = 20_000
NOON = DAY * 86_400 + 43_200.0
EVER = UsageQuery(0, 100_000)


@pytest.fixture(params=["sqlite", "postgresql"])
async def table(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[UsageTable]:
    """Open the usage of fresh records, on SQLite and on a real PostgreSQL."""
    url = f"sqlite:///{tmp_path / 'records.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").new_url()
    opened = await Records.open(url)
    yield UsageTable(opened.database)
    await opened.close()


async def test_nodes_add_up(table: UsageTable) -> None:
    """Calls of one account on two nodes are one row a day and model."""
    books = [UsageBook(table, process=name) for name in ("one", "two")]
    for book in books:
        book.settled("acme", NOON, "gpt-*", Usage(100, 10, 0.25))
        book.settled("acme", NOON, "gpt-*", Usage(1, 1, 0.000_001, estimated=True))
        book.settled("acme", NOON + 86_400, "gpt-*", Usage(5, 5, 1.0))
        book.refused("acme", NOON)
        assert await book.flush(NOON)
        assert await book.flush(NOON), "again adds nothing"
    assert await table.page(EVER) == (
        UsageRow("acme", DAY, "", refused=2),
        UsageRow("acme", DAY, "gpt-*", 4, 0, 2, 202, 22, 500_002),
        UsageRow("acme", DAY + 1, "gpt-*", 2, 0, 0, 10, 10, 2_000_000),
    )


async def test_days_end_at_midnight_utc(table: UsageTable) -> None:
    """The last second of a day and the first of the next are two rows."""
    book = UsageBook(table, process="one")
    book.refused("acme", DAY * 86_400 - 0.001)
    book.refused("acme", DAY * 86_400)
    await book.flush(NOON)
    assert [row.day for row in await table.page(EVER)] == [DAY - 1, DAY]


async def test_a_batch_whose_commit_was_in_doubt_counts_once(table: UsageTable) -> None:
    """It arrived, the answer did not: sent again under its number, it does nothing."""

    class Lossy(UsageTable):
        """Adds, then fails, as a connection that breaks after COMMIT does."""

        losing = True

        async def add(
            self,
            rows: Mapping[tuple[str, int, str], list[int]],
            *,
            process: str,
            number: int,
            at: float,
        ) -> bool:
            done = await super().add(rows, process=process, number=number, at=at)
            if self.losing:
                raise RecordsError("the answer was lost")
            return done

    lossy = Lossy(table._database)
    book = UsageBook(lossy, process="one")
    book.settled("acme", NOON, "m", Usage(7, 0))
    assert not await book.flush(NOON)
    book.settled("acme", NOON, "m", Usage(1, 0))
    assert book.waiting == 2
    assert not await book.flush(NOON)
    lossy.losing = False
    while book.waiting:
        assert await book.flush(NOON)
    assert [row.input_tokens for row in await table.page(EVER)] == [8]
    assert book.failures == 2


async def test_what_waits_is_bounded(table: UsageTable) -> None:
    """Beyond the bound new rows are given up and counted; known ones go on."""
    book = UsageBook(table, process="one", most_rows=2)
    for name in ("a", "b", "c", "a", "d"):
        book.refused(name, NOON)
    assert (book.waiting, book.dropped) == (2, 2)
    await book.flush(NOON)
    assert [(row.account_id, row.refused) for row in await table.page(EVER)] == [("a", 2), ("b", 1)]


async def test_pages_and_ranges(table: UsageTable) -> None:
    """Rows come by day, account and model, from the place after the last one."""
    book = UsageBook(table, process="one")
    for day in range(3):
        for account in ("a", "b"):
            for model in ("x", "y"):
                book.settled(account, NOON + day * 86_400, model, Usage(1, 1))
    await book.flush(NOON)
    seen: list[tuple[int, str, str]] = []
    after: tuple[int, str, str] | None = None
    while page := await table.page(EVER, after=after, limit=5):
        seen += [(row.day, row.account_id, row.model) for row in page]
        after = seen[-1]
    assert seen == sorted(seen)
    assert len(seen) == 12
    only = await table.page(UsageQuery(DAY + 1, DAY + 1, "b"))
    assert [(row.day, row.account_id) for row in only] == [(DAY + 1, "b")] * 2


async def test_processes_of_long_ago_are_forgotten(table: UsageTable) -> None:
    """The numbers of flushes do not pile up with each restart."""
    for number in range(3):
        book = UsageBook(table, process=f"p{number}")
        book.refused("a", NOON)
        await book.flush(NOON + number * 86_400 * 10)
    await table.forget_processes(at=NOON + 86_400 * 20)
    async with table._database.reading() as connection:
        left = (await connection.exec_driver_sql("SELECT process FROM usage_flushes")).all()
    assert [row[0] for row in left] == ["p2"]
