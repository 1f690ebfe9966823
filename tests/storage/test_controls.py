"""The switch of the mode: one row that is set, replaced and taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from gatekeeper.policy.words import GateMode
from gatekeeper.storage.controls import CONTROLS, Controls, ModeOverride
from gatekeeper.storage.database import Database, RecordsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """Open fresh records."""
    opened = await Database.open(f"sqlite:///{tmp_path / 'records.db'}")
    yield opened
    await opened.close()


async def test_set_replace_and_take_back(database: Database) -> None:
    """Each step has a number that followers see."""
    controls = Controls(database)
    assert await controls.mode() is None
    heads = [await database.last_write()]
    for override in (
        ModeOverride(GateMode.CLOSED, 1.0, "ops", "broken", 9.5),
        ModeOverride(GateMode.BYPASS, 2.0, "ops", "store is down"),
    ):
        await controls.set_mode(override)
        assert await controls.mode() == override
        heads.append(await database.last_write())
    await controls.clear_mode(by="ops", at=3.0)
    assert await controls.mode() is None
    heads.append(await database.last_write())
    assert heads == sorted(set(heads))


@pytest.mark.parametrize(("expires_at", "holds"), [(None, True), (10.0, False), (10.1, True)])
def test_an_override_ends_at_its_hour(expires_at: float | None, *, holds: bool) -> None:
    """Without one it has no end."""
    assert ModeOverride(GateMode.CLOSED, 1.0, "o", "r", expires_at).holds(10.0) is holds


async def test_a_mode_that_is_none_is_told(database: Database) -> None:
    """Whoever writes into the table by hand does not switch anything."""
    controls = Controls(database)
    await controls.set_mode(ModeOverride(GateMode.CLOSED, 1.0, "o", "r"))
    async with database.writing() as connection:
        await connection.execute(update(CONTROLS).values(value="asleep"))
    with pytest.raises(RecordsError, match="damaged"):
        await controls.mode()
