"""One run of the watcher after the other: take what is new, find groups, tell the records."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import duckdb
import structlog

from gatekeeper.policy.campaign_ledger import advance
from gatekeeper.policy.campaigns import ProbeCount
from gatekeeper.storage.campaigns import CampaignConflictError
from gatekeeper.storage.database import RecordsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from pathlib import Path

    from gatekeeper.campaigns.intake import Taken
    from gatekeeper.policy.campaigns import Campaign, Group
    from gatekeeper.policy.ruleset import RuleSet
    from gatekeeper.storage.campaigns import Book

FAILURES: Final = (OSError, RecordsError, TimeoutError, duckdb.Error)
"""What keeps a run from being done, and may be gone with the next."""
_ATTEMPTS: Final = 5
"""How often a run is told to the records when admins write at the same time."""
_ASKED: Final = """
SELECT DISTINCT campaign, account FROM read_parquet($files, union_by_name = true)
WHERE campaign IS NOT NULL AND verdict = 'step_up' AND stage IN ('probe', 'step_up')
"""


class Taking(Protocol):
    """What brings in new sightings."""

    def run(self, at: float) -> Taken:
        """Take what is new."""
        ...


class Found(Protocol):
    """What a run of a detector found."""

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups."""
        ...

    @property
    def typical_calls_per_day(self) -> float:
        """Calls that an ordinary account makes on a day."""
        ...


class Detecting(Protocol):
    """What finds groups in sightings."""

    def run(self, at: float) -> Found:
        """Look at all windows that end at a moment."""
        ...


class Campaigns(Protocol):
    """The campaigns in the records."""

    async def all(self) -> Book:
        """Return every campaign, and the revision at which they were read."""
        ...

    async def proven(self, at: float) -> frozenset[str]:
        """Return the accounts that have proven who they are."""
        ...

    async def write(self, campaigns: tuple[Campaign, ...], *, at: float, seen: int) -> None:
        """Keep what changed, unless somebody has written since."""
        ...


class WatchError(Exception):
    """The watcher cannot run; says what to do."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What one run did."""

    sightings: int
    groups: int
    campaigns: int
    """Campaigns that are contained in any way afterwards."""
    changed: int
    typical_calls_per_day: float
    """Calls of an account in no group, on a day on which it calls at all: the median."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Watcher:
    """Finds campaigns in the sightings of a directory."""

    directory: Path
    engine: duckdb.DuckDBPyConnection
    intake: Taking
    detector: Detecting
    campaigns: Campaigns
    rules: Callable[[], Awaitable[RuleSet]]
    """Reads the rules in force, whose stages say how far campaigns are contained."""
    new_id: Callable[[], str]
    timer: Callable[[], float] = time.monotonic

    async def run(self, at: float) -> Ran:
        """Do one run; raises what kept it from being done, and then no campaign has changed."""
        began = self.timer()
        taken = await asyncio.to_thread(self.intake.run, at)
        found = await asyncio.to_thread(self.detector.run, at)
        asked = await asyncio.to_thread(asked_for_identity, self.engine, self.directory)
        rules = await self.rules()
        for _ in range(_ATTEMPTS):
            book = await self.campaigns.all()
            proven = await self.campaigns.proven(at)
            probes = {
                campaign: ProbeCount(len(accounts), len(accounts & proven))
                for campaign, accounts in asked.items()
            }
            judged = partial(advance, verified=proven, probes=probes)
            after = await asyncio.to_thread(
                judged, book.campaigns, found.groups, rules, at, self.new_id
            )
            before = {each.id: each for each in book.campaigns}
            changed = tuple(each for each in after if before.get(each.id) != each)
            try:
                if changed:
                    await self.campaigns.write(changed, at=at, seen=book.revision)
            except CampaignConflictError:
                continue  # an admin has judged one meanwhile: start from what they said
            contained = sum(each.state.contains for each in after)
            return Ran(
                taken.sightings,
                len(found.groups),
                contained,
                len(changed),
                found.typical_calls_per_day,
                self.timer() - began,
            )
        raise RecordsError("campaigns were written by others each time that the watcher tried")


def asked_for_identity(
    engine: duckdb.DuckDBPyConnection, directory: Path
) -> Mapping[str, frozenset[str]]:
    """Return by campaign the accounts that were asked who they are because of it."""
    files = [str(path) for path in directory.glob("sightings/day=*/*.parquet")]
    asked: defaultdict[str, set[str]] = defaultdict(set)
    if files:
        for campaign, account in engine.execute(_ASKED, {"files": files}).fetchall():
            asked[campaign].add(account)
    return {campaign: frozenset(accounts) for campaign, accounts in asked.items()}


async def keep_watching(
    watcher: Watcher, every_s: float, stop: asyncio.Event, clock: Callable[[], float]
) -> None:
    """Run until ``stop``, first after ``every_s``; a run that fails is told, and the next follows.

    What is asked to stop in the middle of a run ends with that run's step.
    """
    log = structlog.get_logger("gatekeeper")
    due = watcher.timer() + every_s
    while not await stopped_within(stop, due - watcher.timer()):
        due = max(due, watcher.timer() - every_s) + every_s
        try:
            ran = await watcher.run(clock())
        except FAILURES as error:
            log.warning("watch_failed", error=str(error)[:500])
        else:
            log.info(
                "watched",
                sightings=ran.sightings,
                groups=ran.groups,
                campaigns=ran.campaigns,
                changed=ran.changed,
                typical_calls_per_day=round(ran.typical_calls_per_day, 1),
                seconds=round(ran.seconds, 3),
            )


async def stopped_within(stop: asyncio.Event, within_s: float) -> bool:
    """Wait for so many seconds, or until it is asked to stop; tell whether it is."""
    try:
        async with asyncio.timeout(max(0.0, within_s)):
            await stop.wait()
    except TimeoutError:
        return stop.is_set()
    return True


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Hold the directory for one watcher; raises :class:`WatchError` when another has it."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise WatchError(f"{directory} cannot be written: {error.strerror}.") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WatchError(
                f"Another watcher works in {directory}: one is enough, or name another `directory`."
            ) from error
        yield
    finally:
        os.close(handle)
