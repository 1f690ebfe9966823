"""Keeps the rules in force: those of the newest activation in the records, or of our own files.

Files that change while the gate runs are activated for the whole fleet, and so are they on SIGHUP.
At a start, files that were never in force are activated, and so are those that changed while the
gate was stopped; others give way to the rules that are in force.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog

from gatekeeper.live.files import Cause
from gatekeeper.live.outcome import Outcome, Refusal, What
from gatekeeper.live.rule_files import Remembered, RuleFiles
from gatekeeper.policy.rule_changes import rule_changes, weakened_embargoes
from gatekeeper.snapshot import Snapshot
from gatekeeper.sources import unknown_owners
from gatekeeper.storage.database import RecordsError
from gatekeeper.storage.rule_history import Conflict, Source, missing_files
from gatekeeper.storage.rule_store import archive

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gatekeeper.live.files import FileWatch
    from gatekeeper.live.outcome import Judging
    from gatekeeper.policy.mistake import Mistake
    from gatekeeper.policy.ruleset import RuleSet
    from gatekeeper.storage.rule_history import Activation, RuleHistory
    from gatekeeper.telemetry import Metrics

_MEMORY: Final = "files.json"
STEP_TIMEOUT_S: Final = 10.0
"""How long the records may take for one step."""


class RuleKeeper:
    """Keeps ``gate.snapshot.rules``. One change at a time; calls under way keep theirs."""

    def __init__(
        self,
        gate: Judging,
        history: RuleHistory,
        directory: Path,
        files: RuleFiles,
        *,
        archive_dir: Path,
        name: str,
        clock: Callable[[], float],
        metrics: Metrics,
        watch: FileWatch,
    ) -> None:
        """Start from ``files``, the rules that the gate was built with."""
        self._gate = gate
        self._history = history
        self._directory = directory
        self._files = files
        self._files_seq = 0
        """Number of the activation by which our files last came or could have come into force."""
        self._waiting: RuleFiles | None = None
        """Files that serve here already and wait for the records to be activated everywhere."""
        self._archive_dir = archive_dir
        self._memory = archive_dir / _MEMORY
        self._name = name
        self._clock = clock
        self._metrics = metrics
        self._changing = asyncio.Lock()
        self._log = structlog.get_logger("gatekeeper")
        self.watch = watch
        self._bad_files: Refusal | None = None
        self._bad_activation: Refusal | None = None
        self._seen = 0
        """Number of the last activation that was taken, or could not be."""
        self.active: Activation | None = None
        """What put the rules in force here; ``None`` while the records never told."""

    @property
    def rules(self) -> RuleSet:
        """The rules in force here."""
        return self._gate.snapshot.rules

    @property
    def last_refused(self) -> Refusal | None:
        """Why the newest files or activation do not take effect; ``None`` when they do."""
        return self._bad_files or self._bad_activation

    @property
    def files_revision(self) -> str:
        """Revision of our own files when they were last good."""
        return self._files.rules.revision

    @property
    def waiting(self) -> bool:
        """Whether our rules must still be told to the records."""
        return self._waiting is not None

    async def start(self) -> None:
        """Agree with the records on what is in force; without them, our files serve."""
        remembered = await asyncio.to_thread(Remembered.read, self._memory)
        async with self._changing:
            try:
                async with asyncio.timeout(STEP_TIMEOUT_S):
                    latest = await self._history.latest()
                    known = await self._history.last_of(self.files_revision)
                    changed_while_stopped = (
                        remembered is not None
                        and known is not None
                        and remembered.revision != self.files_revision
                        and known <= remembered.seq
                    )
                    if latest is None or known is None or changed_while_stopped:
                        await self._activate(self._files)
                        return
                    await self._remember(known)
                    await self._take(latest)
            except (RecordsError, TimeoutError) as error:
                self._wait_with(self._files, error)
        self._tell_when_files_differ()

    async def follow(self) -> None:
        """Take what others activated; raises :class:`RecordsError` or :class:`TimeoutError`."""
        async with self._changing, asyncio.timeout(STEP_TIMEOUT_S):
            latest = await self._history.latest()
            newer = latest is not None and latest.seq != self._seen
            if self._waiting is not None and not newer:
                await self._activate(self._waiting)
            if latest is not None and newer:
                await self._take(latest)
                if self._waiting is not None:
                    self._waiting = None
                    self._tell_when_files_differ()

    async def reload(self, cause: Cause) -> None:
        """Read our files; activate them if they say something else than before, or if asked to."""
        async with self._changing:
            read = await asyncio.to_thread(RuleFiles.read, self._directory)
            if read is None:  # the watch sees it too, but would not know that somebody asked
                if cause is Cause.ASKED:
                    self.watch.ask()
                return
            if isinstance(read, list):
                self._bad_files = self._refusal(read)
                return
            changed = read.rules.revision != self.files_revision
            self._files, self._bad_files = read, None
            if not (changed or cause is Cause.ASKED) or read.rules.revision == self.rules.revision:
                self._metrics.count("gatekeeper_reloads", What.RULES, Outcome.UNCHANGED)
                return
            try:
                async with asyncio.timeout(STEP_TIMEOUT_S):
                    if cause is Cause.CHANGED and await self._catching_up(read):
                        return
                    await self._activate(read)
            except (RecordsError, TimeoutError) as error:
                self._wait_with(read, error)
            await self._publish(read, self._name)

    async def _catching_up(self, read: RuleFiles) -> bool:
        """Tell whether our files only come to be what others activated since ours last changed.

        A folder that is synchronised late must not undo what was activated meanwhile.
        """
        last = await self._history.last_of(read.rules.revision)
        if last is None or last <= self._files_seq:
            return False
        await self._remember(last)
        self._metrics.count("gatekeeper_reloads", What.RULES, Outcome.UNCHANGED)
        self._tell_when_files_differ()
        return True

    async def _activate(self, files: RuleFiles) -> None:
        """Tell the records that our files are in force everywhere."""
        made = await self._history.activate(
            files.rules.revision,
            files.texts,
            at=self._clock(),
            by=self._name,
            source=Source.FILES,
        )
        if isinstance(made, Conflict):  # none was expected
            raise RecordsError("another revision was activated meanwhile")
        self.active = made
        self._seen = made.seq
        self._waiting = None
        await self._remember(made.seq)

    async def _remember(self, seq: int) -> None:
        """Keep what our files were, so that a change while this gate is stopped is seen as one."""
        self._files_seq = seq
        try:
            remembered = Remembered(self.files_revision, seq)
            await asyncio.to_thread(remembered.write, self._memory)
        except OSError as error:
            self._log.warning("rule_files_not_remembered", error=error.strerror)

    async def _take(self, latest: Activation) -> None:
        """Put the rules of an activation in force, if they can be had."""
        refused = None
        if latest.revision != self.rules.revision:
            files = await self._files_of(latest.revision)
            if isinstance(files, list):
                refused = self._refusal(files)
            else:
                await self._publish(files, latest.by)
        self._seen, self._bad_activation = latest.seq, refused
        if refused is None:
            self.active = latest

    async def _files_of(self, revision: str) -> RuleFiles | list[Mistake]:
        if revision == self.files_revision:
            return self._files
        texts = await self._history.texts(revision)
        if texts is None:
            return [missing_files(revision)]
        found = await asyncio.to_thread(RuleFiles.parse, texts)
        if isinstance(found, list):  # written for another release
            return [replace(each, file=f"{revision}/{each.file}") for each in found]
        return found

    async def _publish(self, files: RuleFiles, by: str) -> None:
        """Archive rules, then let every call from now on be judged by them."""
        rules = files.rules
        try:
            await asyncio.to_thread(archive, self._archive_dir, rules.revision, dict(files.texts))
        except OSError as error:
            # The records hold the texts too: protection goes before the convenience of `explain`.
            self._log.error("rules_not_archived", revision=rules.revision, error=error.strerror)
        before = self._gate.snapshot
        self._gate.snapshot = Snapshot.of(rules, before.network, before.mode, before.containment)
        self._metrics.count("gatekeeper_reloads", What.RULES, Outcome.APPLIED)
        self._log.info(
            "rules_in_force",
            revision=rules.revision,
            before=before.rules.revision,
            by=by,
            changes=[
                f"{change.kind} {change.section} {change.rule}"
                for change in rule_changes(before.rules, rules)
            ],
        )
        for loss in weakened_embargoes(before.rules, rules):
            self._log.warning("embargo_weakened", revision=rules.revision, by=by, embargo=loss)
        for mistake in unknown_owners(rules, before.network):
            self._log.warning("rules", problem=str(mistake))

    def _wait_with(self, files: RuleFiles, error: Exception) -> None:
        self._waiting = files
        self._log.warning(
            "rules_not_shared",
            revision=files.rules.revision,
            error=str(error) or "the records did not answer in time",
            hint="they serve on this gate, and on the others once the records answer",
        )

    def _refusal(self, mistakes: list[Mistake]) -> Refusal:
        self._metrics.count("gatekeeper_reloads", What.RULES, Outcome.REFUSED)
        for mistake in mistakes:
            self._log.error("rules_refused", problem=str(mistake), serving=self.rules.revision)
        return Refusal(self._clock(), tuple(mistakes))

    def _tell_when_files_differ(self) -> None:
        if self.files_revision != self.rules.revision:
            self._log.warning(
                "rule_files_not_in_force",
                files=self.files_revision,
                serving=self.rules.revision,
                hint="others were activated since; send SIGHUP to activate the files of this gate",
            )
