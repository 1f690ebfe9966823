"""One transaction across all who use a database: all or nothing, and nobody between."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gatekeeper.facts.api_keys import issue_key
from gatekeeper.policy.words import Tier
from gatekeeper.storage.admin_keys import AdminKeyRow, AdminKeys, Role
from gatekeeper.storage.audit import AuditEntry, AuditQuery, AuditTrail
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


async def test_all_of_it_is_kept_or_nothing(records: Records) -> None:
    """An exception takes everything back that was written inside, by whichever accessor."""
    trail, notes = AuditTrail(records.database), Notes(records.database)

    async def change(*, fails: bool) -> None:
        async with records.database.together():
            await records.upsert_account(AccountPatch("acme", {"tier": Tier.TRUSTED}), at=AT)
            await notes.add(NoteRow("note_1", "acme", AT, "ops", "text"))
            await trail.write(AuditEntry(at=AT, actor="gka_a", action="x"))
            if fails:
                raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        await change(fails=True)
    assert await records.account("acme") is None
    assert await trail.page(AuditQuery()) == ()
    await change(fails=False)
    assert (await records.account("acme")) is not None
    assert len(await trail.page(AuditQuery())) == 1
    assert len(await notes.page("acme")) == 1


async def test_what_is_written_inside_is_read_inside_and_not_yet_outside(records: Records) -> None:
    """Reads of the same task belong to the transaction, those of others do not."""
    async with records.database.together():
        await records.upsert_account(AccountPatch("acme", {}), at=AT)
        assert await records.account("acme") is not None
    async with records.database.together():
        await records.upsert_account(AccountPatch("acme", {"organization": "new"}), at=AT)
        outside = await asyncio.create_task(_read_elsewhere(records))
        assert outside is None


async def _read_elsewhere(records: Records) -> str | None:
    """Read as another process would, on a connection of its own."""
    own = Records(type(records.database)(records.database._engine))
    row = await own.account("acme")
    assert row is not None
    return row.organization


async def test_other_writers_wait_from_the_start(records: Records) -> None:
    """What is read inside is still so when it is written: no change of others is lost."""
    await records.upsert_account(AccountPatch("acme", {"organization": "0"}), at=AT)

    async def add_one() -> None:
        async with records.database.together():
            row = await records.account("acme")
            assert row is not None
            await asyncio.sleep(0)
            number = str(int(row.organization or "0") + 1)
            await records.upsert_account(AccountPatch("acme", {"organization": number}), at=AT)

    await asyncio.gather(*(add_one() for _ in range(20)))
    row = await records.account("acme")
    assert row is not None
    assert row.organization == "20"


async def test_a_taken_id_inside_is_drawn_again(records: Records) -> None:
    """An insert that meets a row is undone alone; what surrounds it goes on."""
    draws = iter([b"aaaaa", b"A" * 20, b"aaaaa", b"B" * 20, b"bbbbb", b"C" * 20])
    keys = {"subkey": b"s" * 32, "label": "", "at": AT, "expires_at": None}
    await issue_key(records, account_id="acme", random_bytes=lambda _: next(draws), **keys)
    async with records.database.together():
        await records.upsert_account(AccountPatch("acme", {"organization": "before"}), at=AT)
        made = await issue_key(
            records, account_id="acme", random_bytes=lambda _: next(draws), **keys
        )
    assert made.text.startswith("gk_mjrgeytc_")
    assert len(await records.keys()) == 2
    row = await records.account("acme")
    assert row is not None
    assert row.organization == "before"


async def test_admin_keys_are_found_by_digest_and_end_once(records: Records) -> None:
    """A key is its digest; one that is taken is told, one that is revoked stays so."""
    keys = AdminKeys(records.database)
    row = AdminKeyRow("gka_aaaaaaaa", b"d" * 32, "alice", Role.ADMIN, AT, expires_at=AT + 10)
    assert await keys.create(row)
    assert not await keys.create(row)
    assert await keys.by_digest(b"d" * 32) == row
    assert await keys.by_digest(b"e" * 32) is None
    assert row.usable(AT)
    assert not row.usable(AT + 10)
    assert (await keys.revoke("gka_aaaaaaaa", at=AT + 1)).value == "revoked"
    assert (await keys.revoke("gka_aaaaaaaa", at=AT + 2)).value == "already_revoked"
    assert (await keys.revoke("gka_zzzzzzzz", at=AT)).value == "unknown_key"
    ended = await keys.get("gka_aaaaaaaa")
    assert ended is not None
    assert ended.revoked_at == AT + 1
    assert not ended.usable(AT + 5)


def test_roles_include_those_below() -> None:
    """An admin may do what an operator may, an operator what a viewer may."""
    assert [[high.includes(low) for low in Role] for high in Role] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


async def test_the_trail_is_paged_and_filtered(records: Records) -> None:
    """Newest first, by whoever did it, to what, when."""
    trail = AuditTrail(records.database)
    for number in range(5):
        await trail.write(
            AuditEntry(
                at=AT + number,
                actor=f"gka_{number % 2}",
                action="putAccount",
                target_kind="account",
                target_id=str(number),
                detail={"changed": {"tier": [None, "trusted"]}},
            )
        )
    first = await trail.page(AuditQuery(), limit=2)
    assert [entry.target_id for entry in first] == ["4", "3"]
    rest = await trail.page(AuditQuery(), before=first[-1].id)
    assert [entry.target_id for entry in rest] == ["2", "1", "0"]
    found = await trail.page(AuditQuery(actor="gka_1", since=AT + 2, until=AT + 4))
    assert [entry.target_id for entry in found] == ["3"]
    assert found[0].detail == {"changed": {"tier": [None, "trusted"]}}
