"""The records: what is written stays, what changed is seen, and nothing is half done."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import stat
from typing import TYPE_CHECKING

import pytest

from gatekeeper.policy.words import Assurance, Tier
from gatekeeper.storage.database import RecordsError
from gatekeeper.storage.records import Records
from gatekeeper.storage.records_schema import (
    AccountConflict,
    AccountPatch,
    AccountRow,
    ImportCount,
    KeyCreation,
    KeyRow,
    Position,
    Revocation,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

AT = 1_790_000_000.0


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a database without tables, on SQLite and on a real PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new' / 'records.db'}"
    made: str = request.getfixturevalue("postgres").new_url()
    return made


@pytest.fixture
async def records(url: str) -> AsyncIterator[Records]:
    """Open fresh records."""
    opened = await Records.open(url)
    yield opened
    await opened.close()


@pytest.fixture
async def in_file(tmp_path: Path) -> AsyncIterator[Records]:
    """Open fresh records in a file, for what is SQLite's own."""
    opened = await Records.open(f"sqlite:///{tmp_path / 'new' / 'records.db'}")
    yield opened
    await opened.close()


def a_key(number: int, account_id: str = "acme", **more: float) -> KeyRow:
    """Return a key with its own id and digest."""
    return KeyRow(f"gk_{number:08d}", bytes([number]) * 32, account_id, "ci", AT, **more)


async def test_an_account_keeps_what_a_patch_does_not_name(records: Records) -> None:
    """Setting one field leaves the others; what was never set has its default."""
    first = AccountPatch(
        "acme",
        {
            "organization": "Acme AG",
            "tier": Tier.TRUSTED,
            "assurance": Assurance.IAL2,
            "owners": ("bytedance",),
            "owner_countries": ("CN",),
            "banned_until": math.inf,
        },
    )
    await records.upsert_account(first, at=AT)
    after = await records.upsert_account(
        AccountPatch("acme", {"tier": Tier.RESTRICTED, "banned_until": None}), at=AT + 1
    )
    assert after == AccountRow(
        "acme",
        organization="Acme AG",
        tier=Tier.RESTRICTED,
        assurance=Assurance.IAL2,
        owners=("bytedance",),
        owner_countries=("CN",),
        updated_at=AT + 1,
    )
    assert await records.account("acme") == after
    assert await records.account("nobody") is None


async def test_a_ban_without_end_survives_the_database(records: Records) -> None:
    """Infinity is stored as itself."""
    patch = AccountPatch("acme", {"banned_until": math.inf})
    assert (await records.upsert_account(patch, at=AT)).banned_until == math.inf


async def test_import_counts_new_and_known_accounts(records: Records) -> None:
    """Patches that name different fields are applied in one import."""
    await records.upsert_account(AccountPatch("a000", {"organization": "Acme"}), at=AT)
    patches = [AccountPatch(f"a{n:03d}", {"tier": Tier.ELEVATED}) for n in range(600)]
    patches.append(AccountPatch("b", {"email_domain": "example.com"}))
    assert await records.import_accounts(patches, at=AT) == ImportCount(created=600, updated=1)
    kept = await records.account("a000")
    assert kept is not None
    assert (kept.organization, kept.tier) == ("Acme", Tier.ELEVATED)


async def test_an_import_that_breaks_off_changes_nothing(records: Records) -> None:
    """An exception in the middle rolls the whole import back."""

    def patches() -> Iterator[AccountPatch]:
        for number in range(700):
            yield AccountPatch(f"a{number}", {})
        raise RuntimeError("source broke")

    with pytest.raises(RuntimeError, match="source broke"):
        await records.import_accounts(patches(), at=AT)
    assert await records.accounts() == ()
    assert (await records.changes_since(Position())).position == Position()


async def test_pages_of_accounts_and_keys_meet_without_gap(records: Records) -> None:
    """Following the last id gives every row once, in order."""
    await records.import_accounts([AccountPatch(f"a{n}", {}) for n in range(5)], at=AT)
    for number in range(3):
        await records.create_key(a_key(number, "a0"))
    first = await records.accounts(limit=2)
    rest = await records.accounts(after=first[-1].id)
    assert [row.id for row in (*first, *rest)] == ["a0", "a1", "a2", "a3", "a4"]
    keys = await records.keys(limit=2)
    assert [key.key_id for key in await records.keys(after=keys[-1].key_id)] == ["gk_00000002"]
    assert await records.keys(account_id="a1") == ()


async def test_creating_a_key_creates_its_account_once(records: Records) -> None:
    """The first key of an unknown account makes the account; a taken id or digest is told."""
    assert await records.create_key(a_key(1)) is KeyCreation.CREATED_WITH_ACCOUNT
    assert await records.create_key(a_key(2)) is KeyCreation.CREATED
    assert await records.create_key(a_key(2, "other")) is KeyCreation.TAKEN
    account = await records.account("acme")
    assert account is not None
    assert account.created_at == AT
    assert await records.account("other") is None, "a refused key leaves no account behind"


async def test_a_key_is_revoked_once(records: Records) -> None:
    """Revoking again and revoking what never was are told apart."""
    await records.create_key(a_key(1))
    assert await records.revoke_key("gk_00000001", at=AT + 5) is Revocation.REVOKED
    assert await records.revoke_key("gk_00000001", at=AT + 9) is Revocation.ALREADY_REVOKED
    assert await records.revoke_key("gk_00000009", at=AT) is Revocation.UNKNOWN_KEY
    (key,) = await records.keys()
    assert key.revoked_at == AT + 5


async def test_changes_are_seen_from_another_process_in_order(records: Records, url: str) -> None:
    """A second set of records on the same file follows every write, page by page."""
    other = await Records.open(url)
    try:
        await records.import_accounts([AccountPatch(f"a{n}", {}) for n in range(5)], at=AT)
        await records.create_key(a_key(1, "a0"))
        seen: list[str] = []
        position, complete = Position(), False
        while not complete:
            changes = await other.changes_since(position, limit=2)
            seen += [row.id for row in changes.accounts] + [key.key_id for key in changes.keys]
            position, complete = changes.position, changes.complete
        assert sorted(seen) == ["a0", "a1", "a2", "a3", "a4", "gk_00000001"]

        await records.revoke_key("gk_00000001", at=AT)
        await records.upsert_account(AccountPatch("a3", {"tier": Tier.RESTRICTED}), at=AT)
        changes = await other.changes_since(position)
        assert [row.id for row in changes.accounts] == ["a3"]
        assert [key.revoked_at for key in changes.keys] == [AT]
        assert changes.complete
        assert changes.position.all_of == changes.position.accounts
        again = await other.changes_since(changes.position)
        assert (again.accounts, again.keys) == ((), ())
    finally:
        await other.close()


async def test_simultaneous_writers_lose_no_change(records: Records, url: str) -> None:
    """Two processes writing at once give every row its own number, and a reader sees them all."""
    other = await Records.open(url)
    try:
        writes = [
            (records if n % 2 else other).upsert_account(AccountPatch(f"a{n}", {}), at=AT)
            for n in range(20)
        ]
        await asyncio.gather(*writes)
    finally:
        await other.close()
    changes = await records.changes_since(Position())
    assert len({row.id for row in changes.accounts}) == 20
    assert changes.position.accounts == 20


async def test_opaque_accounts_never_overwrite_an_operators(records: Records) -> None:
    """A first success creates an account; one that an operator has set stays as it was."""
    patch = AccountPatch("opaque-1", {"tier": Tier.RESTRICTED})
    await records.upsert_account(patch, at=AT)
    await records.keep_opaque({"opaque-1": AT + 1, "opaque-2": AT + 2})
    first, second = await records.accounts()
    assert (first.tier, first.opaque) == (Tier.RESTRICTED, False)
    assert (second.created_at, second.opaque) == (AT + 2, True)
    await records.keep_opaque({})


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    """Opening any other file raises the one error that callers expect."""
    file = tmp_path / "notes.txt"
    file.write_text("this is not a database, whatever its name may say " * 100)
    with pytest.raises(RecordsError, match="cannot open the records"):
        await Records.open(f"sqlite:///{file}")


@pytest.mark.parametrize(
    "url", ["mysql://u:hunter2@host/db", "hunter2", "", "postgresql://u:hunter2@[db/x"]
)
async def test_a_bad_url_is_refused_without_repeating_its_password(url: str) -> None:
    """Only SQLite and PostgreSQL are known; what may hold a secret is not shown."""
    with pytest.raises(RecordsError) as raised:
        await Records.open(url)
    assert "hunter2" not in str(raised.value)


async def test_the_database_file_is_private_and_journaled(in_file: Records, tmp_path: Path) -> None:
    """Only its owner may read the file, and readers do not block the writer."""
    file = tmp_path / "new" / "records.db"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


async def test_a_damaged_or_missing_table_is_an_error_not_a_crash(
    in_file: Records, tmp_path: Path
) -> None:
    """Reads raise the one expected error, for rows edited by hand and for tables dropped."""
    await in_file.upsert_account(AccountPatch("acme", {}), at=AT)
    connection = sqlite3.connect(tmp_path / "new" / "records.db")
    with connection:
        connection.execute("UPDATE accounts SET tier = 'emperor'")
    with pytest.raises(RecordsError, match="damaged by hand"):
        await in_file.account("acme")
    with connection:
        connection.execute("DROP TABLE api_keys")
    connection.close()
    with pytest.raises(RecordsError, match="could not be read"):
        await in_file.keys()
    with pytest.raises(RecordsError, match="could not be written"):
        await in_file.revoke_key("gk_00000001", at=AT)


async def test_a_write_can_demand_the_version_it_has_seen(records: Records, url: str) -> None:
    """Of many who read one version, one writes; the others get what now stands, on any node."""
    first = await records.upsert_account(AccountPatch("acme", {}), at=AT, expected_seq=0)
    assert isinstance(first, AccountRow)
    other = await Records.open(url)
    try:
        ends = await asyncio.gather(
            *(
                (records if n % 2 else other).upsert_account(
                    AccountPatch("acme", {"ban_reason": f"r{n}"}), at=AT, expected_seq=first.seq
                )
                for n in range(6)
            )
        )
    finally:
        await other.close()
    (won,) = [end for end in ends if isinstance(end, AccountRow)]
    lost = [end for end in ends if isinstance(end, AccountConflict)]
    assert [conflict.current for conflict in lost] == [won] * 5
    assert won.seq > first.seq
    unseen = await records.upsert_account(AccountPatch("new", {}), at=AT, expected_seq=won.seq)
    assert unseen == AccountConflict(None)
    assert await records.account("new") is None
    again = await records.upsert_account(AccountPatch("acme", {}), at=AT, expected_seq=0)
    assert again == AccountConflict(won)


async def test_what_an_operator_pushes_of_an_account_is_kept(records: Records) -> None:
    """Signup data survives the database, and a null clears it."""
    fields = {
        "created_at": AT - 9,
        "email_domain": "example.com",
        "email_pattern": "aaaa.9999",
        "email_digest": "0123456789abcdef",
        "payment_fingerprint": "pm_1abc",
        "signup_address": "2001:db8::7",
    }
    await records.upsert_account(AccountPatch("acme", fields), at=AT)
    row = await records.account("acme")
    assert row is not None
    assert {name: getattr(row, name) for name in fields} == fields
    cleared = await records.upsert_account(AccountPatch("acme", {"email_digest": None}), at=AT)
    assert (cleared.email_digest, cleared.email_pattern) == (None, "aaaa.9999")
