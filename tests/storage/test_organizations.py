"""Organizations: set field by field, versioned, and no address is two organizations'."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.storage.organizations import (
    ORGANIZATIONS,
    EgressOverlap,
    OrganizationConflict,
    OrganizationPatch,
    OrganizationRow,
    Organizations,
    _demand_apart,
    _RefusedError,
)
from gatekeeper.storage.records import Records
from gatekeeper.storage.records_schema import Position

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

AT = 1_790_000_000.0


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of fresh records, on SQLite and on a real PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'records.db'}"
    made: str = request.getfixturevalue("postgres").new_url()
    return made


@pytest.fixture
async def records(url: str) -> AsyncIterator[Records]:
    """Open fresh records."""
    opened = await Records.open(url)
    yield opened
    await opened.close()


def egress(organization: str, *prefixes: str) -> OrganizationPatch:
    """Return a patch that registers ranges."""
    return OrganizationPatch(organization, {"egress": prefixes})


async def test_an_organization_keeps_what_a_patch_does_not_name(records: Records) -> None:
    """It is created with its id as its name; fields are set one by one."""
    known = Organizations(records.database)
    assert await known.put(egress("acme", "8.8.8.0/24"), at=AT) == OrganizationRow(
        "acme", "acme", egress=("8.8.8.0/24",), updated_at=AT
    )
    more = OrganizationPatch("acme", {"name": "Acme AG", "verified": True})
    row = await known.put(more, at=AT + 1)
    assert row == OrganizationRow(
        "acme", "Acme AG", verified=True, egress=("8.8.8.0/24",), updated_at=AT + 1
    )
    assert await known.get("acme") == row
    assert await known.get("nobody") is None


async def test_pages_meet_without_gap(records: Records) -> None:
    """Following the last id gives every organization once."""
    known = Organizations(records.database)
    for number in range(5):
        await known.put(OrganizationPatch(f"o{number}", {}), at=AT)
    first = await known.page(limit=2)
    rest = await known.page(after=first[-1].id)
    assert [row.id for row in (*first, *rest)] == ["o0", "o1", "o2", "o3", "o4"]


async def test_a_write_can_demand_the_version_it_has_seen(records: Records) -> None:
    """Of two who read the same version one writes; the other gets what now stands."""
    known = Organizations(records.database)
    row = await known.put(OrganizationPatch("acme", {}), at=AT, expected_seq=0)
    assert isinstance(row, OrganizationRow)
    patch = OrganizationPatch("acme", {"verified": True})
    ends = await asyncio.gather(
        *(known.put(patch, at=AT, expected_seq=row.seq) for _ in range(2)),
        known.put(patch, at=AT, expected_seq=0),
    )
    assert sum(isinstance(end, OrganizationRow) for end in ends) == 1
    refused = [end for end in ends if isinstance(end, OrganizationConflict)]
    assert len(refused) == 2
    assert {end.current.seq for end in refused if end.current} <= {row.seq, row.seq + 1}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("8.8.8.0/24", "8.8.8.0/24"),
        ("8.8.0.0/16", "8.8.8.8/32"),
        ("8.8.8.8/32", "8.8.0.0/16"),
        ("2001:4860::/32", "2001:4860:4860::/48"),
    ],
)
async def test_no_address_is_two_organizations(records: Records, theirs: str, ours: str) -> None:
    """Equal, wider and narrower ranges are refused; the owner's own may nest."""
    known = Organizations(records.database)
    await known.put(egress("first", "1.1.1.0/24", theirs, "9.9.9.0/24"), at=AT)
    assert await known.put(egress("second", "4.4.4.0/24", ours), at=AT) == EgressOverlap(
        ours, "first", theirs
    )
    assert await known.get("second") is None, "nothing of it was written"
    assert isinstance(await known.put(egress("first", theirs, ours), at=AT), OrganizationRow)
    await known.put(egress("first"), at=AT)
    assert isinstance(await known.put(egress("second", ours), at=AT), OrganizationRow)


async def test_of_two_who_register_one_range_at_once_one_gets_it(
    records: Records, url: str
) -> None:
    """Two gates cannot both find that nobody has it."""
    other = await Records.open(url)
    try:
        ends = await asyncio.gather(
            Organizations(records.database).put(egress("first", "8.8.8.0/24"), at=AT),
            Organizations(other.database).put(egress("second", "8.8.0.0/16"), at=AT),
        )
    finally:
        await other.close()
    assert sorted(type(end).__name__ for end in ends) == ["EgressOverlap", "OrganizationRow"]


async def test_organizations_are_followed_with_accounts_and_keys(records: Records) -> None:
    """A reader learns of a change by the same number."""
    known = Organizations(records.database)
    await known.put(egress("acme", "8.8.8.0/24"), at=AT)
    changes = await records.changes_since(Position())
    assert [row.egress for row in changes.organizations] == [("8.8.8.0/24",)]
    await known.put(egress("acme"), at=AT)
    changes = await records.changes_since(changes.position)
    assert [row.egress for row in changes.organizations] == [()]
    assert (await records.changes_since(changes.position)).organizations == ()


_PREFIXES = st.builds(
    lambda start, length: f"8.8.{start >> (8 - length) << (8 - length)}.0/{16 + length}",
    st.integers(0, 255),
    st.integers(0, 8),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), _PREFIXES), max_size=8))
def test_overlaps_are_what_comparing_each_pair_finds(owned: list[tuple[str, str]]) -> None:
    """One pass over sorted ranges misses none and invents none."""
    from ipaddress import ip_network  # noqa: PLC0415 - only the reference needs it

    rows: dict[str, OrganizationRow] = {}
    for owner, prefix in owned:
        before = rows.get(owner, OrganizationRow(owner, owner)).egress
        row = OrganizationRow(owner, owner, egress=(*before, prefix))
        others = [each for each in rows.values() if each.id != owner]
        clash = any(
            ip_network(mine).overlaps(ip_network(theirs))
            for mine in row.egress
            for other in others
            for theirs in other.egress
        )
        if clash:
            with pytest.raises(_RefusedError):
                _demand_apart(row, others)
        else:
            _demand_apart(row, others)
            rows[owner] = row


def test_the_table_is_followed_by_an_index() -> None:
    """Every node asks for what is newer than a number, twice a second."""
    assert ORGANIZATIONS.c.seq.index
