"""Campaigns in the records: written whole, followed by number, never half believed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update
from support.builders import AT
from support.campaigns import accounts, campaign, group, words

from gatekeeper.policy.campaign_steps import confirm, dismiss, merge
from gatekeeper.policy.campaigns import CampaignState, Event, Stage
from gatekeeper.storage.campaigns import CAMPAIGNS, CampaignBook, CampaignConflictError
from gatekeeper.storage.database import RecordsError
from gatekeeper.storage.records import Records

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ONE = campaign()
OTHER = campaign(group(accounts(20, 40)), id="cmp_000000000002", stage=Stage.STEP_UP)
GONE = campaign(id="cmp_000000000003", state=CampaignState.DISMISSED)


@pytest.fixture(params=["sqlite", "postgresql"])
async def book(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CampaignBook]:
    """Open a fresh book, on SQLite and on a real PostgreSQL."""
    url = f"sqlite:///{tmp_path / 'records.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").new_url()
    records = await Records.open(url)
    yield CampaignBook(records.database)
    await records.close()


async def test_what_is_written_is_read_again(book: CampaignBook) -> None:
    """Every field, history and members that are missing included."""
    full = campaign(
        left=("a00001",),
        missing={"b": AT},
        weak_since=AT,
        history=(Event(AT, "found", "10 members, 2 layers"),),
    )
    await book.write((full, OTHER, GONE), at=AT, seen=0)
    found = await book.all()
    assert found.campaigns == (full, OTHER, GONE)
    assert found.revision == await book.revision()
    assert await book.contained() == (full, OTHER)


async def test_an_empty_book_has_no_revision(book: CampaignBook) -> None:
    """A new installation has no campaign, and nobody to contain."""
    assert await book.revision() == 0
    assert await book.contained() == ()
    assert await book.get("cmp_000000000001") is None
    assert await book.change(("cmp_000000000001",), lambda each: (each,), at=AT) is None


async def test_gates_notice_each_write(book: CampaignBook) -> None:
    """The number of the last write rises with the book's revision, so that followers look."""
    before = await book._database.last_write()
    await book.write((ONE, OTHER), at=AT, seen=0)
    first = await book.revision()
    assert await book._database.last_write() == first > before
    await book.write((ONE,), at=AT, seen=first)
    assert await book.revision() > first
    assert len((await book.all()).campaigns) == 2


async def test_what_somebody_wrote_since_is_not_overwritten(book: CampaignBook) -> None:
    """The watcher's run began before an admin dismissed: nothing of the run is kept."""
    await book.write((ONE, OTHER), at=AT, seen=0)
    seen = await book.revision()
    await book.change((ONE.id,), lambda each: _one(dismiss(each, "ada", AT)), at=AT)
    with pytest.raises(CampaignConflictError):
        await book.write((ONE, OTHER), at=AT, seen=seen)
    found = await book.get(ONE.id)
    assert found is not None
    assert found[0].state is found[1].state is CampaignState.DISMISSED


async def test_lists_show_what_matters(book: CampaignBook) -> None:
    """By id, a page at a time, of some states or of all."""
    await book.write((ONE, OTHER, GONE), at=AT, seen=0)
    [first] = await book.page(limit=1)
    assert (first.id, first.state, first.stage) == (ONE.id, ONE.state, ONE.stage)
    assert (first.members, first.score, first.since) == (10, 55.0, ONE.since)
    rest = await book.page(after=first.id)
    assert [each.id for each in rest] == [OTHER.id, GONE.id]
    dismissed = await book.page(states=(CampaignState.DISMISSED,))
    assert [each.id for each in dismissed] == [GONE.id]


def _one(stepped: object) -> tuple[object, ...] | None:
    return None if stepped is None else (stepped,)


async def test_a_step_is_taken_with_what_is_there(book: CampaignBook) -> None:
    """What does not apply changes nothing, nor does a step with one that is not there."""
    await book.write((ONE, OTHER), at=AT, seen=0)
    confirmed = await book.change((ONE.id,), lambda each: _one(confirm(each, "ada", AT)), at=AT)
    assert confirmed is not None
    assert words(confirmed[0]) == ["confirmed"]
    seen = await book.revision()
    again = await book.change((ONE.id,), lambda each: _one(confirm(each, "ada", AT)), at=AT)
    alone = await book.change(
        (ONE.id, "cmp_00000000000f"), lambda one, other: merge(one, other, "ada", AT), at=AT
    )
    assert again is alone is None
    assert await book.revision() == seen


async def test_steps_of_two_people_are_both_kept(book: CampaignBook) -> None:
    """Each is taken with what the other has left, and neither hears of a conflict."""
    await book.write((ONE, OTHER), at=AT, seen=0)
    await asyncio.gather(
        book.change((ONE.id,), lambda each: _one(confirm(each, "ada", AT)), at=AT),
        book.change((ONE.id,), lambda each: _one(dismiss(each, "bob", AT)), at=AT),
        book.change((OTHER.id,), lambda each: _one(confirm(each, "eve", AT)), at=AT),
    )
    one, other = await book.get(ONE.id), await book.get(OTHER.id)
    assert one is not None
    assert other is not None
    assert sorted(words(one[0])) == ["confirmed", "dismissed"]
    assert words(other[0]) == ["confirmed"]


async def test_two_become_one_or_neither(book: CampaignBook) -> None:
    """A merge changes both in one write."""
    await book.write((ONE, OTHER), at=AT, seen=0)
    both = await book.change(
        (ONE.id, OTHER.id), lambda one, other: merge(one, other, "ada", AT), at=AT
    )
    assert both is not None
    [led] = await book.contained()
    assert led.id == ONE.id
    assert len(led.contained) == 30


async def test_a_large_campaign_fits(book: CampaignBook) -> None:
    """25,000 members are one row."""
    large = campaign(group(accounts(0, 25_000)))
    await book.write((large,), at=AT, seen=0)
    assert await book.contained() == (large,)


async def test_a_damaged_campaign_is_said_to_be_one(book: CampaignBook) -> None:
    """It is not read in part, nor taken for none."""
    await book.write((ONE,), at=AT, seen=0)
    async with book._database.writing() as connection:
        await connection.execute(update(CAMPAIGNS).values(body=b"junk"))
    with pytest.raises(RecordsError, match="damaged"):
        await book.contained()
