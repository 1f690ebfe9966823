"""A decision log judged by other rules: who would newly be refused, and who admitted.

Facts are as they were recorded, the campaign that a caller was in included. Limits are held and
settled anew, in the order of the log; at its beginning all of them are whole.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import replace

from gatekeeper.policy.decide import conclude, judge, stops
from gatekeeper.policy.limit_plan import LimitPlanner
from gatekeeper.policy.model import Moment, Usage
from gatekeeper.policy.record import from_record
from gatekeeper.policy.view import view_of
from gatekeeper.policy.words import GateMode, Unit, Verdict
from gatekeeper.storage.limiter_memory import MemoryLimiter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gatekeeper.policy.model import Decision, Facts, LimitStatus
    from gatekeeper.policy.record import Recorded
    from gatekeeper.policy.ruleset import RuleSet
    from gatekeeper.storage.limiter import Reservation

_MOST_CELLS: Final = 5_000_000
_MICRO: Final = 1_000_000
_HOLD_S: Final = 7_200.0
_MOST_UNREADABLE: Final = 20


@dataclass(slots=True)
class Changed:
    """What changes for one account."""

    calls: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """By reason why its calls would be refused, or had been."""
    first_at: float = 0.0
    last_at: float = 0.0

    def note(self, reason: str, at: float) -> None:
        """Count one call."""
        self.first_at = self.first_at or at
        self.last_at = at
        self.calls += 1
        self.reasons[reason] += 1


@dataclass(slots=True)
class Backtest:
    """What other rules would have done."""

    decisions: int = 0
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    refused: defaultdict[str, Changed] = field(default_factory=lambda: defaultdict(Changed))
    """By account: calls that had been admitted and would be refused."""
    admitted: defaultdict[str, Changed] = field(default_factory=lambda: defaultdict(Changed))
    """By account: calls that had been refused and would be admitted."""
    unreadable: list[str] = field(default_factory=list)
    """Why the first records that could not be judged were not."""


class Backtester:
    """Judges one record after the other."""

    def __init__(self, rules: RuleSet) -> None:
        """Start with all limits whole."""
        self.found = Backtest()
        self._rules = rules
        self._planner = LimitPlanner(rules)
        self._limiter = MemoryLimiter(_MOST_CELLS)
        self._held: dict[str, Reservation] = {}
        self._began: float | None = None
        self._now = 0.0

    async def take(self, records: Iterable[Mapping[str, Any]]) -> Backtest:
        """Judge all records of a log, which are in the order in which they were written."""
        for record in records:
            match record.get("kind"):
                case "decision":
                    await self._judge(record)
                case "outcome":
                    await self._settle(record)
        return self.found

    async def _judge(self, record: Mapping[str, Any]) -> None:
        found, recorded = self.found, from_record(record)
        if isinstance(recorded, str):
            self._unreadable(recorded)
            return
        found.decisions += 1
        had = recorded.verdict is Verdict.ALLOW or record.get("enforced") is False
        again = await self._again(recorded)
        found.before[recorded.verdict.word] += 1
        found.after[again.verdict.word] += 1
        facts = recorded.facts
        if had and not again.admits:
            found.refused[facts.account.id].note(str(again.reason), facts.at)
        elif again.admits and not had:
            found.admitted[facts.account.id].note(str(record.get("reason")), facts.at)

    async def _again(self, recorded: Recorded) -> Decision:
        if recorded.outright is not None:
            return recorded.replay(self._rules)
        rules, facts, at = self._rules, _as_held(recorded), self._moment(recorded.facts.at)
        standing = judge(facts, rules, mode=recorded.mode)
        statuses: tuple[LimitStatus, ...] = ()
        held: Reservation | None = None
        if not stops(standing, mode=recorded.mode) and recorded.mode is not GateMode.BYPASS:
            claims = self._planner.claims(facts, standing, view_of(facts))
            reserved = await self._limiter.reserve(claims, at, _HOLD_S, recorded.id)
            statuses, held = reserved.statuses, reserved.held
        decision = conclude(
            standing, statuses, rules, decision_id=recorded.id, at=facts.at, mode=recorded.mode
        )
        if held is not None and decision.admits:
            self._held[recorded.id] = held
        elif held is not None:
            await self._limiter.cancel(held, at)
        return decision

    async def _settle(self, record: Mapping[str, Any]) -> None:
        held = self._held.pop(str(record.get("id")), None)
        if held is None:
            return
        try:
            used = msgspec.convert(record.get("usage") or {}, Usage)
            at = self._moment(msgspec.convert(record.get("at"), float))
        except msgspec.ValidationError:
            self._unreadable("An outcome is damaged.")
            return
        await self._limiter.settle(held, used, at)

    def _unreadable(self, why: str) -> None:
        if len(self.found.unreadable) < _MOST_UNREADABLE:
            self.found.unreadable.append(why)

    def _moment(self, at: float) -> Moment:
        """Return both clocks; lines of several processes need not be in order to the second."""
        if self._began is None:
            self._began = at
        self._now = max(self._now, at)
        return Moment(at, int((self._now - self._began) * _MICRO))


def _as_held(recorded: Recorded) -> Facts:
    """Return the facts with what was held of the call, which may be less than it asked for."""
    facts, call = recorded.facts, recorded.facts.call
    held = {status.unit: status.requested for status in recorded.limits}
    output = min(call.max_output_tokens, int(held.get(Unit.OUTPUT_TOKENS, call.max_output_tokens)))
    cents = min(call.cost_cents, held.get(Unit.COST, call.cost_cents))
    if output == call.max_output_tokens and cents == call.cost_cents:
        return facts
    return replace(facts, call=replace(call, max_output_tokens=output, cost_cents=cents))
