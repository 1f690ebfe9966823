"""Holds the store's balances against what the gates have settled, to the unit."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from support.conservation.plan import Family
from support.conservation.rules import DRAIN_PER_S

from gatekeeper.policy.limits import MICRO, to_micro

if TYPE_CHECKING:
    from support.conservation.books import Books, Case
    from support.conservation.fleet import Fleet

_EXPIRED_S: Final = 5.0
"""A hold that was last seen with less than this left has expired: no call takes so long."""
_OUTAGE_S: Final = 1.0
"""How long before and after an outage a gate may not yet, or still, do without the store."""
_MOST_HOLDS: Final = 6
"""Holds of one conversation, at most."""
_MOST_TOKENS: Final = 4_000
_MOST: Final = {
    "requests": 1.0,
    "input_tokens": float(_MOST_TOKENS),
    "output_tokens": float(_MOST_TOKENS),
    "cost": 1_600.0,
    "bytes": 20_000_000.0,
}
"""More than any request of the plan may take, for those of which no record tells."""
_UNSURE: Final = frozenset({"watched", "yielding"})
"""Rules whose claims stay charged when nobody knows how much of them the store has granted."""


@dataclass
class _Balance:
    low: int = 0
    high: int = 0

    def add(self, low: int, high: int | None = None) -> None:
        self.low += low
        self.high += low if high is None else high


@dataclass
class Balances:
    """What every bucket must hold."""

    books: Books
    expected: defaultdict[str, _Balance] = field(default_factory=lambda: defaultdict(_Balance))
    wrong: list[str] = field(default_factory=list)
    lost: int = 0
    """Settlements that never came: their holds expired, and stay charged."""

    def check(self) -> None:
        """Add up what was settled, and compare."""
        fleet = self.books.fleet
        partitions = {
            case.seen.planned.account: case.decision["facts"]["account"]["id"]
            for case in self.books.cases
            if case.decision is not None
        }
        known = set()
        unrecorded = 0
        for case in self.books.cases:
            if case.decision is not None:
                known.add(case.decision["id"])
                if case.seen.planned.family is Family.REALTIME:
                    unrecorded += _MOST_HOLDS * case.at_risk
                    self._conversed(case, case.decision)
                else:
                    self._settled(case, case.decision)
            elif case.seen.planned.account in partitions:
                unrecorded += case.at_risk
                self._unrecorded(case, partitions[case.seen.planned.account])
        for name, hold in fleet.store_book.holds.items():
            if name.partition(".")[0] not in known and hold.left_s < _EXPIRED_S:
                unrecorded -= 1
        if unrecorded < 0:
            self.wrong.append(f"{-unrecorded} holds have expired of which no record tells")
        self._compare(fleet)

    @property
    def exact(self) -> str:
        """How many buckets are known to the unit."""
        sure = [
            balance.low == balance.high
            for key, balance in self.expected.items()
            if key.partition(":")[0] not in _UNSURE
        ]
        return f"{sum(sure)} of {len(sure)}"

    def _settled(self, case: Case, decision: dict[str, Any]) -> None:
        """Add what one decision has charged in the store."""
        hold = self.books.fleet.store_book.holds.get(decision["id"])
        expired = hold is not None and hold.left_s < _EXPIRED_S
        local = any(status.get("failed") for status in decision["limits"])
        outcome = case.outcome
        self.lost += expired
        if expired and outcome is not None and not self._explained(case, outcome):
            self.wrong.append(f"{case.id}: was settled, and its hold expired all the same")
        if not case.allowed and not expired and not local:
            return
        cancelled = outcome is not None and outcome["failure"] == "upstream_unreachable"
        for status in decision["limits"]:
            if status["unit"] == "concurrency":
                continue
            balance = self.expected[f"{status['rule']}:{status['unit']}:{status['partition']}"]
            held = round(status["requested"] * MICRO)
            fits = status.get("retry_after_s", 0.0) == 0.0
            if local and status["rule"] in _UNSURE:  # the store may have granted more than the gate
                balance.add(0, to_micro(_MOST[status["unit"]]))
            elif expired and (fits or local):
                balance.add(held)
            elif local or not fits or cancelled:
                continue
            elif outcome is None:  # settled, and killed before that was written
                most = to_micro(_MOST[status["unit"]])
                balance.add(0, max(held, most))
            else:
                balance.add(_charged(status["unit"], outcome["usage"]))

    def _conversed(self, case: Case, decision: dict[str, Any]) -> None:
        """Add what a conversation has charged: each turn is held anew, under an id of its own.

        No record tells which of its holds were the store's while that could not answer.
        """
        if not case.allowed:
            return
        outcome = case.outcome
        for status in decision["limits"]:
            rule, unit = status["rule"], status["unit"]
            if unit == "concurrency":
                continue
            balance = self.expected[f"{rule}:{unit}:{status['partition']}"]
            if outcome is None or case.at_risk or rule in _UNSURE or self._met_outage(case):
                balance.add(0, _MOST_HOLDS * to_micro(_MOST[unit]))
            elif outcome["failure"] == "upstream_unreachable":
                continue
            elif unit == "requests":
                balance.add(max(1, len(case.turns)) * MICRO)
            else:
                balance.add(_charged(unit, outcome["usage"]))

    def _met_outage(self, case: Case) -> bool:
        """Tell whether the store was away during a call."""
        began_s, ended_s = case.seen.began_s - _OUTAGE_S, case.seen.ended_s + _OUTAGE_S
        return any(began_s < to and at < ended_s for at, to in self.books.fleet.outages)

    def _explained(self, case: Case, outcome: dict[str, Any]) -> bool:
        """Tell why a settlement may not have arrived: its gate ended, or it came too late."""
        fleet = self.books.fleet
        late = outcome["took_s"] > fleet.hold_s - _EXPIRED_S
        return case.life.killed_s is not None or late

    def _unrecorded(self, case: Case, partition: str) -> None:
        """Allow for a call of which no decision is known: what it may have taken stays.

        Reading the file of a batch is a call already when its caller leaves meanwhile.
        """
        begun = "calls" if case.seen.planned.family is Family.FILE_BATCHES else None
        for rule, unit in _RULES:
            if case.seen.sent == "whole" and (case.at_risk or rule in _UNSURE or rule == begun):
                key = f"{rule}:{unit}:{'' if rule == 'all-written' else partition}"
                self.expected[key].add(0, to_micro(_MOST[unit]))

    def _compare(self, fleet: Fleet) -> None:
        drained = int(fleet.took_s * DRAIN_PER_S * MICRO) + 2
        for key in sorted({*self.expected, *fleet.store_book.buckets}):
            level, balance = fleet.store_book.buckets.get(key, 0.0), self.expected[key]
            if not balance.low - drained <= level <= balance.high:
                between = f"{balance.low / MICRO} and {balance.high / MICRO}"
                self.wrong.append(f"{key} stands at {level / MICRO}, settled was {between}")


_RULES: Final = (
    ("calls", "requests"),
    ("given", "input_tokens"),
    ("written", "output_tokens"),
    ("spent", "cost"),
    ("moved", "bytes"),
    ("all-written", "output_tokens"),
    ("watched", "output_tokens"),
    ("yielding", "output_tokens"),
)


def _charged(unit: str, usage: dict[str, Any]) -> int:
    match unit:
        case "requests":
            return MICRO
        case "input_tokens":
            return to_micro(usage["input_tokens"])
        case "output_tokens":
            return to_micro(usage["output_tokens"])
        case "cost":
            return to_micro(usage["cost_cents"])
        case _:
            return to_micro(usage["bytes"])
