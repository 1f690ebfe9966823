"""The watcher of a rehearsal: its runs come when the time of the calls says so."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import duckdb

from gatekeeper.campaigns.detector import Detector
from gatekeeper.campaigns.intake import Intake
from gatekeeper.campaigns.options import DetectionOptions
from gatekeeper.campaigns.watch import Watcher
from gatekeeper.policy.containment import Containment
from gatekeeper.storage.campaigns import Book

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from gatekeeper.policy.campaigns import Campaign
    from gatekeeper.policy.ruleset import RuleSet
    from gatekeeper.rehearsal.engine import Engine
    from gatekeeper.rehearsal.people import People

_RETENTION_DAYS: Final = 15
_BUFFER_BYTES: Final = 1 << 20


class MemoryBook:
    """The campaigns of a rehearsal, and who has proven who they are."""

    def __init__(self, people: People) -> None:
        """Know no campaign yet."""
        self.campaigns: dict[str, Campaign] = {}
        self.revision = 0
        self._people = people

    async def all(self) -> Book:
        """Return every campaign."""
        return Book(tuple(self.campaigns.values()), self.revision)

    async def proven(self, at: float) -> frozenset[str]:  # noqa: ARG002 - as records answer
        """Return the accounts that have proven who they are."""
        return self._people.proven

    async def write(
        self,
        campaigns: tuple[Campaign, ...],
        *,
        at: float,  # noqa: ARG002 - as records take it
        seen: int,  # noqa: ARG002 - nobody else writes
    ) -> None:
        """Keep what changed."""
        self.campaigns |= {each.id: each for each in campaigns}
        self.revision += 1


class Watching:
    """Keeps the decision log of a rehearsal, runs the watcher on it and contains what it finds."""

    def __init__(
        self, directory: Path, engine: Engine, people: People, *, every_s: float, probe_key: bytes
    ) -> None:
        """Work in ``directory``, which must be empty; hold it by :meth:`close`."""
        self.book = MemoryBook(people)
        self.runs = 0
        self._engine = engine
        self._every_s = every_s
        self._probe_key = probe_key
        self._due: float | None = None
        self._files = self._made = 0
        self._logs = directory / "log"
        self._logs.mkdir()
        self._log = self._next_log()
        self._sql = duckdb.connect(
            config={"threads": 1, "temp_directory": str(directory / "spill")}
        )
        self._watcher = Watcher(
            directory,
            self._sql,
            Intake(self._sql, directory, [self._logs], retention_days=_RETENTION_DAYS),
            Detector(directory, DetectionOptions()),
            self.book,
            self._rules,
            self._new_id,
        )
        engine.log = self.write

    def close(self) -> None:
        """Let go of files and the engine of the SQL."""
        self._log.close()
        self._sql.close()

    def write(self, line: bytes) -> None:
        """Take a line of the decision log."""
        self._log.write(line)

    async def until(self, at: float) -> None:
        """Do the runs that are due up to ``at``; of those in which nothing happened, the last."""
        if self._due is None:
            self._due = at + self._every_s
        if at < self._due:
            return
        await self.run(self._due)
        missed = (at - self._due) // self._every_s
        if missed:
            await self.run(self._due + missed * self._every_s)
        self._due += (missed + 1) * self._every_s

    async def run(self, at: float) -> None:
        """Do one run: all calls so far are in it, and those that follow know what it found."""
        self._log.close()
        await self._watcher.run(at)
        self.runs += 1
        for path in self._logs.iterdir():
            path.unlink()
        self._log = self._next_log()
        rules, before = self._engine.snapshot.rules, self._engine.snapshot.containment
        contained = [each for each in self.book.campaigns.values() if each.state.contains]
        fresh = Containment.of_campaigns(contained, rules, self._probe_key)
        if fresh.revision != before.revision:
            self._engine.snapshot = replace(self._engine.snapshot, containment=fresh)

    async def _rules(self) -> RuleSet:
        return self._engine.snapshot.rules

    def _next_log(self) -> BinaryIO:
        self._files += 1
        path = self._logs / f"decisions-20000101T000000-{self._files}.jsonl"
        return path.open("wb", buffering=_BUFFER_BYTES)

    def _new_id(self) -> str:
        """Return an id of a campaign: numbered, so that two rehearsals tell the same."""
        self._made += 1
        return f"cmp_{self._made:012x}"
