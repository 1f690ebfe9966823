"""What people do with rules while gates run: look, validate, compare, activate, roll back."""

from __future__ import annotations

import asyncio
import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gatekeeper.live.rule_files import RuleFiles
from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.rule_changes import RuleChange, rule_changes, weakened_embargoes
from gatekeeper.storage.rule_history import Conflict, Source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.live.outcome import Refusal
    from gatekeeper.live.rules import RuleKeeper
    from gatekeeper.policy.ruleset import RuleSet
    from gatekeeper.storage.rule_history import Activation, RuleHistory

MAX_FILES: Final = 100
MAX_CHARACTERS: Final = 1_000_000
"""Of all files together."""
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\.yaml", re.ASCII)
_MAX_COMMENT: Final = 500
_SEARCHED: Final = 100
"""How many activations back a roll-back looks for other rules."""


@dataclass(frozen=True, slots=True)
class ActiveRules:
    """The rules that this gate serves."""

    revision: str
    activation: Activation | None
    """``None`` while the records never told; then the gate's own files serve."""
    files_revision: str
    """Revision of this gate's own files when they were last good."""
    last_refused: Refusal | None


@dataclass(frozen=True, slots=True)
class RuleDiff:
    """What differs between two rule sets."""

    before: str
    after: str
    """Revisions."""
    changes: tuple[RuleChange, ...]
    weakened: tuple[str, ...]
    """What embargoes in force would lose."""
    text: str
    """A unified diff of the files."""


@dataclass(frozen=True, slots=True)
class UnknownRevision:
    """There are no files of this revision."""

    revision: str


class RuleLibrary:
    """Works on the records, so that every gate follows.

    All methods that read or write raise :class:`RecordsError`.
    """

    def __init__(self, history: RuleHistory, source: Source) -> None:
        """Sign what is activated as coming from ``source``."""
        self._history = history
        self._source = source
        self._parsing = asyncio.Semaphore(1)

    async def history(
        self, *, before: int | None = None, limit: int = 100
    ) -> tuple[Activation, ...]:
        """Return activations, newest first, older than number ``before``."""
        return await self._history.page(before=before, limit=limit)

    async def texts(self, revision: str) -> dict[str, str] | None:
        """Return the files of a revision by name."""
        return await self._history.texts(revision)

    async def validate(self, texts: Mapping[str, str]) -> RuleSet | list[Mistake]:
        """Compile files by name, or return every mistake in them; nothing takes effect."""
        found = await self._parsed(texts)
        return found if isinstance(found, list) else found.rules

    async def diff(
        self, before: str, after: str | Mapping[str, str]
    ) -> RuleDiff | UnknownRevision | list[Mistake]:
        """Compare a revision with another one, or with files."""
        old = await self._files_of(before)
        if not isinstance(old, RuleFiles):
            return old
        new = await self._files_of(after)
        if not isinstance(new, RuleFiles):
            return new
        return await asyncio.to_thread(compare, old, new)

    async def activate(
        self,
        target: str | Mapping[str, str],
        *,
        by: str,
        at: float,
        comment: str = "",
        expected_active: str | None = None,
    ) -> Activation | Conflict | UnknownRevision | list[Mistake]:
        """Put a revision or new files in force on all gates.

        With ``expected_active``, only while that revision is in force.
        """
        if len(comment) > _MAX_COMMENT or not comment.isprintable():
            what = f"A comment is one line of at most {_MAX_COMMENT} printable characters."
            return [Mistake("request", None, "comment", what)]
        files = await self._files_of(target)
        if not isinstance(files, RuleFiles):
            return files
        made = await self._history.activate(
            files.rules.revision,
            files.texts,
            at=at,
            by=by,
            source=self._source,
            comment=comment,
            expected=expected_active,
        )
        await self._followed()
        return made

    async def roll_back(
        self, *, by: str, at: float, expected_active: str | None = None
    ) -> Activation | Conflict | UnknownRevision | list[Mistake]:
        """Put the rules in force again that were before those that are."""
        past = await self._history.page(limit=_SEARCHED)
        now = past[0].revision if past else ""
        earlier = next((each.revision for each in past if each.revision != now), None)
        if earlier is None:
            return UnknownRevision("")
        comment = f"roll back from {now}"
        return await self.activate(
            earlier, by=by, at=at, comment=comment, expected_active=expected_active or now
        )

    async def _followed(self) -> None:
        """Wait until what was activated serves here: nothing does, where no gate runs."""

    async def _files_of(
        self, target: str | Mapping[str, str]
    ) -> RuleFiles | UnknownRevision | list[Mistake]:
        if not isinstance(target, str):
            return await self._parsed(target)
        texts = await self._history.texts(target)
        return UnknownRevision(target) if texts is None else await self._parsed(texts)

    async def _parsed(self, texts: Mapping[str, str]) -> RuleFiles | list[Mistake]:
        wrong = wrong_with_texts(texts)
        if wrong:
            return wrong
        async with self._parsing:  # it takes the interpreter from the calls under way
            return await asyncio.to_thread(RuleFiles.parse, texts)


class RuleDesk(RuleLibrary):
    """The library of a running gate, which serves what was activated when a method returns."""

    def __init__(self, keeper: RuleKeeper, history: RuleHistory) -> None:
        super().__init__(history, Source.API)
        self._keeper = keeper

    def active(self) -> ActiveRules:
        """Return what this gate serves."""
        keeper = self._keeper
        return ActiveRules(
            keeper.rules.revision, keeper.active, keeper.files_revision, keeper.last_refused
        )

    async def _followed(self) -> None:
        await self._keeper.follow()


def wrong_with_texts(texts: Mapping[str, str]) -> list[Mistake]:
    """Tell what is wrong with files before they are read: names and sizes."""
    if not texts or len(texts) > MAX_FILES:
        return [Mistake("request", None, "files", f"Give 1 to {MAX_FILES} files.")]
    if sum(map(len, texts.values())) > MAX_CHARACTERS:
        what = f"All files together may have {MAX_CHARACTERS} characters."
        return [Mistake("request", None, "files", what)]
    return [
        Mistake("request", None, "files", f"The name of file {number} must be like `limits.yaml`.")
        for number, name in enumerate(texts, 1)
        if _FILE_NAME.fullmatch(name) is None
    ]


def compare(old: RuleFiles, new: RuleFiles) -> RuleDiff:
    """Return what differs, rule by rule and line by line."""
    lines: list[str] = []
    for name in sorted({*old.texts, *new.texts}):
        lines += difflib.unified_diff(
            old.texts.get(name, "").splitlines(),
            new.texts.get(name, "").splitlines(),
            f"{old.rules.revision}/{name}",
            f"{new.rules.revision}/{name}",
            lineterm="",
        )
    return RuleDiff(
        before=old.rules.revision,
        after=new.rules.revision,
        changes=rule_changes(old.rules, new.rules),
        weakened=weakened_embargoes(old.rules, new.rules),
        text="".join(f"{line}\n" for line in lines),
    )
