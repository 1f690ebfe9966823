"""A recorded decision judged again: by the very rules that made it, and by those in force."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gatekeeper.policy.record import Recorded, from_record
from gatekeeper.storage.rule_store import archived

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gatekeeper.policy.model import Decision
    from gatekeeper.policy.ruleset import RuleSet


@dataclass(frozen=True, slots=True)
class Replay:
    """What became of judging again."""

    recorded: Recorded
    decision: Decision
    """By the rules that made it."""
    now: Decision | None
    """By the rules in force, when those are others."""

    @property
    def same(self) -> bool:
        """Whether the verdict follows from the record."""
        return self.decision.verdict is self.recorded.verdict


def replayed(record: Mapping[str, Any], rules: RuleSet, archive: Path) -> Replay | str:
    """Judge ``record`` again; a sentence when it cannot be.

    Blocks: it may read and compile a revision of ``archive``.
    """
    recorded = from_record(record)
    if isinstance(recorded, str):
        return recorded
    if recorded.rules_revision == rules.revision:
        return Replay(recorded, recorded.replay(rules), None)
    used = archived(archive, recorded.rules_revision)
    if used is None:
        return f"The rules {recorded.rules_revision} that decided it are not in the archive."
    return Replay(recorded, recorded.replay(used), recorded.replay(rules))
