"""Recorded traffic through the gate's own code: one decision for each line, in order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gatekeeper.policy.campaigns import Stage
from gatekeeper.policy.words import Assurance, Mode, Verdict
from gatekeeper.rehearsal.formats import recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gatekeeper.policy.campaigns import Campaign
    from gatekeeper.policy.model import Finding
    from gatekeeper.rehearsal.engine import Engine, Rehearsed
    from gatekeeper.rehearsal.people import People
    from gatekeeper.rehearsal.watching import Watching

UNREADABLE: Final = "unreadable_line"
"""Stands for the reason of a line that tells no call."""
_MOST_UNREADABLE: Final = 20
_ENCODE: Final = msgspec.json.Encoder().encode
_CONTAINED: Final = frozenset(stage.value for stage in Stage if stage is not Stage.OBSERVE)


@dataclass(slots=True)
class Summary:
    """What became of all lines."""

    lines: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    unreadable_lines: int = 0
    unreadable: list[tuple[int, str]] = field(default_factory=list)
    """The first lines that told no call, and why."""
    campaigns: list[dict[str, Any]] = field(default_factory=list)
    watcher_runs: int = 0
    first_at: float | None = None
    last_at: float | None = None


async def replayed(
    lines: Iterable[bytes],
    engine: Engine,
    people: People,
    watching: Watching | None,
    write: Callable[[bytes], object],
) -> Summary:
    """Decide each line, hand each decision to ``write`` as a line, and sum up.

    A line that tells no call is decided as well: it is ``invalid``, and the next one follows.
    """
    summary = Summary()
    now = 0.0
    for number, line in enumerate(lines, start=1):
        summary.lines = number
        call = recorded(line)
        if isinstance(call, str):
            summary.unreadable_lines += 1
            if len(summary.unreadable) < _MOST_UNREADABLE:
                summary.unreadable.append((number, call))
            summary.verdicts[Verdict.INVALID.word] += 1
            told = {
                "line": number,
                "at": None,
                "account": None,
                "verdict": Verdict.INVALID.word,
                "reasons": [UNREADABLE],
                "campaign": None,
                "score": None,
            }
            write(_ENCODE(told) + b"\n")
            continue
        now = max(now, call.at)
        if summary.first_at is None:
            summary.first_at = call.at
        people.until(now)
        if watching is not None:
            await watching.until(now)
        found = await engine.decide(call)
        note(found, people)
        summary.verdicts[found.decision.verdict.word] += 1
        write(_ENCODE(_told(number, found)) + b"\n")
    summary.last_at = now if summary.first_at is not None else None
    if watching is not None:
        if summary.first_at is not None:
            people.until(now)
            await watching.run(now)
        summary.campaigns = [told_of(each) for each in watching.book.campaigns.values()]
        summary.watcher_runs = watching.runs
    return summary


def note(found: Rehearsed, people: People) -> None:
    """Let an account know that it is to prove who it is."""
    decision = found.decision
    if decision.verdict is Verdict.STEP_UP and decision.enforced:
        wanted = decision.obligation
        level = Assurance.IAL1 if wanted is None else wanted.assurance
        people.ask(found.facts.account.id, level, found.facts.at)


def _told(number: int, found: Rehearsed) -> dict[str, Any]:
    decision, facts = found.decision, found.facts
    said = [decision.reason, *(each.reason for each in decision.findings if _speaks(each))]
    return {
        "line": number,
        "at": facts.at,
        "account": facts.account.id or None,
        "verdict": decision.verdict.word,
        "reasons": list(dict.fromkeys(each.value for each in said if each is not None)),
        "campaign": None if facts.campaign is None else facts.campaign.id,
        "score": None if decision.score is None else decision.score.total,
    }


def _speaks(finding: Finding) -> bool:
    return finding.mode is Mode.ENFORCE and finding.verdict is not Verdict.ALLOW


def told_of(campaign: Campaign) -> dict[str, Any]:
    """Return what the summary says of a campaign; times are Unix seconds."""
    contained = [
        event.at
        for event in campaign.history
        if event.what == "stage" and event.detail in _CONTAINED
    ]
    return {
        "id": campaign.id,
        "state": campaign.state.value,
        "stage": campaign.stage.value,
        "score": campaign.group.score,
        "members": sorted(campaign.contained),
        "left": list(campaign.left),
        "layers": [str(layer) for layer in campaign.group.layers],
        "first_seen": campaign.group.first_seen,
        "found_at": campaign.since,
        "contained_at": min(contained, default=None),
    }
