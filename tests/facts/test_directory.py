"""The replica in memory: it follows the records, and serves on when they fail."""

from __future__ import annotations

import math
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from support.flaky import FlakyDatabase

from gatekeeper.facts.address import AddressSource, ClientAddress
from gatekeeper.facts.directory import Directory
from gatekeeper.facts.replica import KeyEntry
from gatekeeper.policy.model import FOREVER, Account, NetworkFacts
from gatekeeper.policy.words import Assurance, LookupStatus, Tier
from gatekeeper.storage.database import RecordsError
from gatekeeper.storage.organizations import OrganizationPatch, Organizations
from gatekeeper.storage.records import Records
from gatekeeper.storage.records_schema import AccountPatch, KeyRow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

AT = 1_790_000_000.0
DIGEST = b"d" * 32


def no_lists(domain: str | None) -> tuple[str, ...]:
    """Know of no list of mail domains."""
    return ()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of fresh records, on SQLite and on a real PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'records.db'}"
    made: str = request.getfixturevalue("postgres").new_url()
    return made


@pytest.fixture
async def records(url: str) -> AsyncIterator[Records]:
    """Open the records of the gate."""
    opened = await Records.open(url)
    yield opened
    await opened.close()


@pytest.fixture
async def cli(url: str) -> AsyncIterator[Records]:
    """Open the same records as another process does."""
    opened = await Records.open(url)
    yield opened
    await opened.close()


@pytest.fixture
async def failing(url: str) -> AsyncIterator[FlakyDatabase]:
    """Open a database that can be broken."""
    opened = await FlakyDatabase.open(url)
    yield opened
    await opened.close()


async def test_load_and_refresh_follow_another_process(records: Records, cli: Records) -> None:
    """What stood in the records is there after load, what changes is there after refresh."""
    await cli.upsert_account(
        AccountPatch(
            "acme",
            {
                "organization": "Acme",
                "tier": Tier.TRUSTED,
                "email_domain": "mail.example",
                "owners": ("bytedance",),
                "owner_countries": ("CN",),
                "created_at": AT - 5,
                "banned_until": math.inf,
                "ban_reason": "abuse",
            },
        ),
        at=AT,
    )
    directory = await Directory.load(
        records, mail_listed_by=lambda domain: ("disposable", str(domain)), at=AT
    )
    assert directory.account("acme", AT) == Account(
        "acme",
        known=True,
        organization="Acme",
        tier=Tier.TRUSTED,
        created_at=AT - 5,
        banned_until=FOREVER,
        ban_reason="abuse",
        email_domain="mail.example",
        email_listed_by=("disposable", "mail.example"),
        owners=("bytedance",),
        owner_countries=("CN",),
    )
    assert directory.key(DIGEST) is None

    await cli.create_key(KeyRow("gk_1", DIGEST, "acme", expires_at=AT + 9))
    await cli.upsert_account(AccountPatch("acme", {"tier": Tier.RESTRICTED}), at=AT)
    assert await directory.refresh(AT + 1)
    assert directory.key(DIGEST) == KeyEntry("gk_1", "acme", AT + 9)
    assert directory.account("acme", AT).tier is Tier.RESTRICTED

    await cli.revoke_key("gk_1", at=AT)
    assert await directory.refresh(AT + 2)
    assert directory.key(DIGEST) is None, "a revoked key is gone after one refresh (H19)"
    assert directory.sizes == (1, 0, 0)


async def test_load_reads_more_than_one_page(records: Records) -> None:
    """Nothing past the first page is left out."""
    await records.import_accounts([AccountPatch(f"a{n}", {}) for n in range(600)], at=AT)
    directory = await Directory.load(records, mail_listed_by=no_lists, at=AT)
    assert directory.account("a599", AT).known


async def test_an_unknown_account_is_a_miss(records: Records) -> None:
    """An id without a record gives an account that is not known."""
    directory = await Directory.load(records, mail_listed_by=no_lists, at=AT)
    assert directory.account("ghost", AT) == Account("ghost", status=LookupStatus.MISS)


async def test_assurance_ends_when_it_expires(records: Records) -> None:
    """Proof of identity counts until its last second, and again when renewed."""
    fields = {"assurance": Assurance.IAL2, "assurance_expires": AT + 10}
    await records.upsert_account(AccountPatch("acme", fields), at=AT)
    directory = await Directory.load(records, mail_listed_by=no_lists, at=AT)
    assert directory.account("acme", AT + 9).assurance is Assurance.IAL2
    assert directory.account("acme", AT + 10).assurance is Assurance.NONE
    await records.upsert_account(AccountPatch("acme", {"assurance_expires": None}), at=AT)
    await directory.refresh(AT)
    assert directory.account("acme", AT + 10).assurance is Assurance.IAL2


async def test_h19_records_lost_the_last_state_serves_on(failing: FlakyDatabase) -> None:
    """While the records fail, known keys work, staleness is told, and a miss is not a no."""
    await Records(failing).create_key(KeyRow("gk_1", DIGEST, "acme"))
    directory = await Directory.load(Records(failing), mail_listed_by=no_lists, at=AT)
    failing.broken = True
    assert not await directory.refresh(AT + 60)
    assert directory.key(DIGEST) is not None
    assert directory.account("acme", AT + 60).known
    assert directory.account("ghost", AT + 60).status is LookupStatus.UNKNOWN
    assert (directory.failing, directory.failures, directory.last_error) == (True, 1, "gone")
    assert directory.staleness_s(AT + 60) == 60

    failing.broken = False
    assert await directory.refresh(AT + 61)
    assert directory.account("ghost", AT + 61).status is LookupStatus.MISS
    assert directory.staleness_s(AT + 61) == 0


async def test_load_fails_when_the_records_do(failing: FlakyDatabase) -> None:
    """A gate does not start without knowing anybody."""
    failing.broken = True
    with pytest.raises(RecordsError):
        await Directory.load(Records(failing), mail_listed_by=no_lists, at=AT)


async def test_an_opaque_account_is_known_after_one_success(records: Records, cli: Records) -> None:
    """A 2xx makes it known at once here, and for everyone with the next refresh; once only."""
    directory = await Directory.load(records, mail_listed_by=no_lists, at=AT)
    assert not directory.account("opaque-1", AT).known
    directory.note_opaque_success("opaque-1", AT)
    directory.note_opaque_success("opaque-1", AT + 5)
    assert directory.account("opaque-1", AT) == Account("opaque-1", known=True, created_at=AT)
    assert await directory.refresh(AT + 6)
    row = await cli.account("opaque-1")
    assert row is not None
    assert (row.opaque, row.created_at) == (True, AT)
    assert directory.sizes == (1, 0, 0)


async def test_h41_successes_wait_in_bounded_memory(failing: FlakyDatabase) -> None:
    """While the records fail only so many new accounts are held; none of those is lost."""
    directory = await Directory.load(
        Records(failing), mail_listed_by=no_lists, at=AT, max_pending=3
    )
    failing.broken = True
    for number in range(5):
        directory.note_opaque_success(f"opaque-{number}", AT)
    assert not await directory.refresh(AT)
    assert (directory.sizes, directory.dropped) == ((3, 0, 3), 2)
    assert not directory.account("opaque-4", AT).known
    failing.broken = False
    assert await directory.refresh(AT)
    assert [row.id for row in await Records(failing).accounts()] == [
        "opaque-0",
        "opaque-1",
        "opaque-2",
    ]


async def test_a_call_is_placed_by_its_organizations_ranges(records: Records, cli: Records) -> None:
    """Inside, outside, nothing registered, and an address that nobody vouches for."""
    known = Organizations(cli.database)
    await known.put(OrganizationPatch("Acme", {"egress": ("8.8.0.0/16", "2001:4860::/32")}), at=AT)
    directory = await Directory.load(records, mail_listed_by=no_lists, at=AT)
    member, other = Account("a", organization="Acme"), Account("b", organization="Other")

    def placed(text: str, who: Account, source: AddressSource = AddressSource.PEER) -> bool | None:
        client = ClientAddress(ip_address(text), source)
        return directory.placed(NetworkFacts("p", "a", "p"), client, who).registered_egress

    assert placed("8.8.4.4", member) is True
    assert placed("2001:4860::8888", member) is True
    assert placed("9.9.9.9", member) is False
    assert placed("8.8.4.4", other) is None
    assert placed("8.8.4.4", Account("c")) is None
    assert placed("8.8.4.4", member, AddressSource.UNKNOWN) is None

    await known.put(OrganizationPatch("Acme", {"egress": ("9.9.9.0/24",)}), at=AT)
    await known.put(OrganizationPatch("Other", {"egress": ("8.8.8.0/24",)}), at=AT)
    assert await directory.refresh(AT)
    assert (placed("8.8.4.4", member), placed("9.9.9.9", member)) == (False, True)
    assert placed("8.8.8.8", other) is True
    await known.put(OrganizationPatch("Acme", {"egress": ()}), at=AT)
    assert await directory.refresh(AT)
    assert placed("9.9.9.9", member) is None


async def test_accounts_of_a_verified_organization_say_so(records: Records, cli: Records) -> None:
    """Whatever came first; until it is verified, and from when it is no longer."""
    known = Organizations(cli.database)
    await known.put(OrganizationPatch("Acme", {"name": "Acme AG"}), at=AT)
    await cli.import_accounts(
        [AccountPatch("a", {"organization": "Acme"}), AccountPatch("b", {})], at=AT
    )
    directory = await Directory.load(records, mail_listed_by=no_lists, at=AT)
    for verified in (False, True, False):
        await known.put(OrganizationPatch("Acme", {"verified": verified}), at=AT)
        assert await directory.refresh(AT)
        assert directory.account("a", AT).organization_verified is verified
        assert not directory.account("b", AT).organization_verified


async def test_records_that_only_cannot_be_written_are_still_followed(
    records: Records, cli: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large import of another process that holds up our writes holds up no news."""
    directory = await Directory.load(records, mail_listed_by=no_lists, at=AT)
    directory.note_opaque_success("opaque-1", AT)
    await cli.create_key(KeyRow("gk_1", DIGEST, "acme"))

    async def held_up(_: object) -> None:
        raise RecordsError("busy")

    monkeypatch.setattr(records, "keep_opaque", held_up)
    assert not await directory.refresh(AT + 1)
    assert directory.key(DIGEST) is not None
    assert (directory.failing, directory.last_error) == (False, "busy")
    assert directory.sizes == (2, 1, 1)
    monkeypatch.undo()
    assert await directory.refresh(AT + 2)
    assert await cli.account("opaque-1") is not None


async def test_many_accounts_share_what_is_equal(records: Records) -> None:
    """Texts and lists that many accounts have in common are held once."""
    fields = {"organization": "Acme Holding", "owners": ("bytedance",)}
    await records.import_accounts([AccountPatch(f"a{n}", fields) for n in range(2)], at=AT)
    directory = await Directory.load(records, mail_listed_by=no_lists, at=AT)
    first, second = directory.account("a0", AT), directory.account("a1", AT)
    assert first.organization is second.organization
    assert first.owners is second.owners
