"""Notes on accounts: kept as written, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gatekeeper.storage.notes import NoteRow, Notes
from gatekeeper.storage.records import Records
from gatekeeper.storage.records_schema import AccountPatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

AT = 1_790_000_000.0


@pytest.fixture(params=["sqlite", "postgresql"])
async def records(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Records]:
    """Open fresh records, on SQLite and on a real PostgreSQL."""
    url = f"sqlite:///{tmp_path / 'records.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").new_url()
    opened = await Records.open(url)
    yield opened
    await opened.close()


async def test_notes_are_paged_newest_first(records: Records) -> None:
    """Each account has its own; the page after an id holds what is older."""
    notes = Notes(records.database)
    for account in ("acme", "beta"):
        await records.upsert_account(AccountPatch(account, {}), at=AT)
    written = [
        NoteRow(f"note_{number}", "acme", AT + number, "ops@example", f"line\nÜ {number}")
        for number in range(5)
    ]
    for note in written:
        assert await notes.add(note)
    assert await notes.add(NoteRow("note_9", "beta", AT, "ops", "other"))
    first = await notes.page("acme", limit=2)
    rest = await notes.page("acme", before=first[-1].id)
    assert [*first, *rest] == written[::-1]


async def test_a_note_needs_its_account(records: Records) -> None:
    """Nothing is kept about an account that is not there."""
    notes = Notes(records.database)
    assert not await notes.add(NoteRow("note_1", "ghost", AT, "ops", "text"))
    assert await notes.page("ghost") == ()
