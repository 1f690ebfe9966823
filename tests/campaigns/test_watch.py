"""Runs of the watcher: found, told to the records, judged by people, and known again."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from support.builders import RULES_FOLDER, rules
from support.campaigns import STAGES, words
from support.gates import eventually
from support.sightings import DAY, START, Town

from gatekeeper.campaigns.detector import Detector
from gatekeeper.campaigns.intake import Intake
from gatekeeper.campaigns.watch import (
    Ran,
    Watcher,
    WatchError,
    alone,
    asked_for_identity,
    keep_watching,
)
from gatekeeper.policy.campaign_steps import dismiss
from gatekeeper.policy.campaigns import Campaign, CampaignState, Stage
from gatekeeper.policy.rules import parse_rules
from gatekeeper.policy.ruleset import RuleSet
from gatekeeper.policy.words import Assurance
from gatekeeper.storage.campaigns import CampaignBook
from gatekeeper.storage.database import RecordsError
from gatekeeper.storage.records import Records
from gatekeeper.storage.records_schema import AccountPatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

END = START + 14 * DAY


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Return a directory with the sightings of a small town and one campaign, and the labels."""
    directory = tmp_path_factory.mktemp("watched")
    place = Town()
    place.people("individual", 2_000)
    place.campaign("rotating", 120)
    return directory, place.write(directory)


@pytest.fixture
async def records(tmp_path: Path) -> AsyncIterator[Records]:
    """Open fresh records."""
    opened = await Records.open(f"sqlite:///{tmp_path / 'records.db'}")
    yield opened
    await opened.close()


def shipped() -> RuleSet:
    """Return the rules that are shipped."""
    texts = {path.name: path.read_text() for path in RULES_FOLDER.glob("*.yaml")}
    found = parse_rules(texts)
    assert isinstance(found, RuleSet)
    return found


def watcher(directory: Path, book: Any, some: RuleSet | None = None) -> Watcher:
    """Return a watcher of sightings that are there already."""
    numbers, engine = count(1), duckdb.connect()

    async def rules() -> RuleSet:
        return shipped() if some is None else some

    return Watcher(
        directory,
        engine,
        Intake(engine, directory, (), retention_days=15),
        Detector(directory),
        book,
        rules,
        lambda: f"cmp_{next(numbers):012x}",
    )


async def surest(book: CampaignBook) -> Campaign:
    """Return the campaign of the highest score: chance makes others that are only observed."""
    first, *others = sorted(await book.contained(), key=lambda each: -each.group.score)
    assert all(each.stage is Stage.OBSERVE for each in others)
    return first


async def test_a_campaign_is_found_contained_and_known_again(
    town: tuple[Path, dict[str, str]], records: Records
) -> None:
    """By the shipped rules its members come to step-up; the next run finds it under its id."""
    directory, labels = town
    book = CampaignBook(records.database)
    runs = watcher(directory, book)
    ran = await runs.run(END)
    assert ran.campaigns == ran.changed >= 1
    assert 1 <= ran.typical_calls_per_day <= 8
    found = await surest(book)
    members = [labels[member] for member in found.group.members]
    assert members.count("rotating") >= 114
    assert set(members) == {"rotating"}
    assert found.stage is Stage.STEP_UP
    assert len(set(found.group.layers)) >= 2
    again = await runs.run(END)
    assert again.campaigns == ran.campaigns
    assert (await surest(book)).id == found.id


async def test_what_an_admin_dismissed_stays_dismissed(
    town: tuple[Path, dict[str, str]], records: Records
) -> None:
    """The same evidence is not proposed again, run after run."""
    book = CampaignBook(records.database)
    runs = watcher(town[0], book)
    await runs.run(END)
    found = await surest(book)

    def dismissed(each: Any) -> tuple[Any, ...]:
        stepped = dismiss(each, "ada", END, "a customer of ours")
        assert stepped is not None
        return (stepped,)

    await book.change((found.id,), dismissed, at=END)
    for hours in (1, 2):
        await runs.run(END + hours * 3_600)
        contained = [member for each in await book.contained() for member in each.contained]
        assert found.contained.isdisjoint(contained)
    [kept] = [each for each in (await book.all()).campaigns if each.id == found.id]
    assert kept.state is CampaignState.DISMISSED
    assert words(kept)[-1] == "dismissed"


async def test_a_member_that_proves_who_it_is_leaves(
    town: tuple[Path, dict[str, str]], records: Records
) -> None:
    """Its proof stands in the records; no sighting need have shown it."""
    book = CampaignBook(records.database)
    runs = watcher(town[0], book)
    await runs.run(END)
    found = await surest(book)
    proven, expired = found.group.members[:2]
    for name, ends in ((proven, None), (expired, END - 1)):
        fields = {"assurance": Assurance.IAL2, "assurance_expires": ends}
        await records.upsert_account(AccountPatch(name, fields), at=END)
    await runs.run(END)
    after = await surest(book)
    assert after.left == (proven,)
    assert proven not in after.contained
    assert expired in after.contained
    assert "verified" in words(after)


class Contended(CampaignBook):
    """A book in which an admin writes whenever the watcher is about to."""

    left = 0

    async def write(self, campaigns: Any, *, at: float, seen: int) -> None:
        """Let somebody else be first, so many times."""
        if self.left:
            self.left -= 1
            await super().write(campaigns[:1], at=at, seen=seen)
        await super().write(campaigns, at=at, seen=seen)


async def test_the_watcher_starts_again_from_what_an_admin_said(
    town: tuple[Path, dict[str, str]], records: Records
) -> None:
    """Nothing of theirs is overwritten; one that never gets its turn says so."""
    book = Contended(records.database)
    book.left = 1
    ran = await watcher(town[0], book).run(END)
    assert len((await book.all()).campaigns) == ran.campaigns
    busy = Contended(records.database)
    busy.left = 100
    with pytest.raises(RecordsError, match="each time"):
        # Other rules, so that each run has something to write.
        await watcher(town[0], _Restless(busy), rules(STAGES)).run(END + DAY)


class _Restless:
    """A book that has always been written since it was read."""

    def __init__(self, book: CampaignBook) -> None:
        self._book = book
        self.all = book.all
        self.proven = book.proven

    async def write(self, campaigns: Any, *, at: float, seen: int) -> None:
        """Write with what was seen long ago."""
        await self._book.write(campaigns, at=at, seen=seen - 1)


def test_who_was_asked_is_counted_by_campaign(tmp_path: Path) -> None:
    """Calls that were refused for want of identity at a stage that asks; each account once."""
    with duckdb.connect() as engine:
        assert asked_for_identity(engine, tmp_path) == {}
    folder = tmp_path / "sightings" / "day=2026-01-01"
    folder.mkdir(parents=True)
    rows = [
        ("a", "cmp_1", "step_up", "probe"),
        ("a", "cmp_1", "step_up", "probe"),
        ("b", "cmp_1", "step_up", "step_up"),
        ("c", "cmp_1", "step_up", "budget"),
        ("d", "cmp_1", "allow", "probe"),
        ("e", None, "step_up", None),
    ]
    with duckdb.connect() as engine:
        engine.execute("CREATE TABLE t (account TEXT, campaign TEXT, verdict TEXT, stage TEXT)")
        engine.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
        engine.execute(f"COPY t TO '{folder / 'run.parquet'}'")
        assert asked_for_identity(engine, tmp_path) == {"cmp_1": frozenset({"a", "b"})}


async def test_a_run_that_fails_does_not_end_the_watch() -> None:
    """It is told, and the next one follows; what is asked to stop, stops."""
    stop, runs = asyncio.Event(), []

    class Failing:
        timer = staticmethod(asyncio.get_running_loop().time)

        async def run(self, at: float) -> Ran:
            runs.append(at)
            if len(runs) == 1:
                raise RecordsError("gone")
            return Ran(0, 0, 0, 0, 0.0, 0.0)

    failing: Any = Failing()
    watching = asyncio.create_task(keep_watching(failing, 0.01, stop, lambda: 5.0))

    async def twice() -> bool:
        return len(runs) >= 2

    await eventually(twice)
    stop.set()
    await watching
    assert set(runs) == {5.0}


def test_one_watcher_works_on_a_directory(tmp_path: Path) -> None:
    """A second one is told what to do, and may have it once the first is gone."""
    with alone(tmp_path), pytest.raises(WatchError, match="Another watcher"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass
