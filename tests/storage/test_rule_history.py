"""The history of rules: numbered in order, one at a time, with every text."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from gatekeeper.storage.database import Database, RecordsError
from gatekeeper.storage.rule_history import (
    RULE_REVISIONS,
    Activation,
    Conflict,
    RuleHistory,
    Source,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TEXTS = {"rules.yaml": "version: 1\n...\n"}


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """Open fresh records."""
    opened = await Database.open(f"sqlite:///{tmp_path / 'records.db'}")
    yield opened
    await opened.close()


async def activate(
    history: RuleHistory, revision: str, expected: str | None = None
) -> Activation | Conflict:
    """Activate a revision as somebody."""
    return await history.activate(
        revision, TEXTS, at=5.0, by="ops", source=Source.API, comment="why", expected=expected
    )


async def test_the_newest_activation_is_in_force(database: Database) -> None:
    """Pages go back in time; what is in force already is not activated again."""
    history = RuleHistory(database)
    assert await history.latest() is None
    made = [await activate(history, revision) for revision in ("a", "b", "a")]
    assert await activate(history, "a") == made[-1] == await history.latest()
    assert await history.page() == tuple(reversed(made))
    last = made[-1]
    assert isinstance(last, Activation)
    assert last == Activation(last.seq, "a", 5.0, "ops", Source.API, "why")
    assert await history.page(before=last.seq, limit=1) == (made[1],)
    assert await history.last_of("a") == last.seq
    assert await history.last_of("c") is None
    assert await database.last_write() >= last.seq


async def test_texts_are_kept_once_and_whole(database: Database) -> None:
    """A revision is its content: who brings it again changes nothing."""
    history = RuleHistory(database)
    await activate(history, "a")
    await history.activate("b", {"x.yaml": "\u00e9"}, at=6.0, by="o", source=Source.FILES)
    assert await history.texts("a") == TEXTS
    assert await history.texts("b") == {"x.yaml": "\u00e9"}
    assert await history.texts("c") is None


async def test_of_ten_who_expect_the_same_one_wins(database: Database) -> None:
    """The others are told what is in force, and have changed nothing."""
    history = RuleHistory(database)
    await activate(history, "start")
    made = await asyncio.gather(*(activate(history, f"r{n}", "start") for n in range(10)))
    (winner,) = [each for each in made if isinstance(each, Activation)]
    assert [each for each in made if each is not winner] == [Conflict(winner.revision)] * 9
    assert len(await history.page()) == 2


async def test_rows_damaged_by_hand_are_told(database: Database) -> None:
    """They must not become rules."""
    history = RuleHistory(database)
    await activate(history, "a")
    async with database.writing() as connection:
        await connection.execute(update(RULE_REVISIONS).values(texts=["x"]))
    with pytest.raises(RecordsError, match="damaged"):
        await history.texts("a")
