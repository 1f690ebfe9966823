"""Holds the books of a conservation test against each other: callers', upstream's, gates', store's.

What is wrong comes back as sentences, each with the id of its request, so that one can be looked
at: ``SEED`` and the id lead to its plan.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from support.conservation.case import Case
from support.conservation.laws import conversation, ending, presence, price_and_bytes, tokens
from support.conservation.plan import Family

if TYPE_CHECKING:
    from support.conservation.fleet import Fleet

_SWITCHING: Final = 101


@dataclass
class Books:
    """All books of a run, opened."""

    fleet: Fleet
    cases: list[Case] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)
    """What happened, for people to read."""
    _turns: defaultdict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def __post_init__(self) -> None:
        """Bring together what the books say of each request."""
        decisions, outcomes = self._records()
        upstream: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for entry in self.fleet.upstream_book():
            if not entry["side"]:  # a question of the gate's own, before it decides
                upstream[entry["id"]].append(entry)
        lives = {life.name: life for life in self.fleet.lives}
        for seen in self.fleet.seen:
            name = seen.planned.id
            found, sent = decisions.pop(name, []), upstream.pop(name, [])
            pieces = [each for each in found[1:] if each["verdict"] == "allow"]
            if pieces or (len(found) > 1 and seen.planned.family is not Family.REALTIME):
                self.wrong.append(f"{name} has {len(found)} decisions")
            if len(sent) > 1 and sent[0]["method"] != "GET":  # those may be sent again
                self.wrong.append(f"{name} reached the upstream {len(sent)} times")
            decision = found[0] if found else None
            outcome = None if decision is None else outcomes.get(decision["id"])
            last = sent[-1] if sent else None
            turns = () if decision is None else tuple(self._turns[decision["id"]])
            self.cases.append(Case(seen, lives[seen.worker], decision, outcome, last, turns))
        self.wrong += [f"nobody sent what was decided as {name!r}" for name in decisions]
        self.wrong += [f"nobody sent what reached the upstream as {name!r}" for name in upstream]

    def _records(self) -> tuple[dict[str, list[dict[str, Any]]], dict[str, dict[str, Any]]]:
        """Return decisions by the id of the request, and outcomes by that of the decision."""
        decisions: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        outcomes: dict[str, dict[str, Any]] = {}
        for record in (each for life in self.fleet.lives for each in life.node.records()):
            if record["kind"] == "decision":
                decisions[record["facts"]["call"].get("client", "")].append(record)
            elif record["kind"] == "turn":
                self._turns[record["id"]].append(record["usage"])
            elif record["kind"] == "outcome":
                if record["id"] in outcomes:
                    self.wrong.append(f"{record['id']} was settled twice")
                outcomes[record["id"]] = record
        return decisions, outcomes

    def check(self) -> None:
        """Look for everything that is wrong."""
        self.wrong += self.fleet.defects
        for case in self.cases:
            self._count(case)
            for sentence in (*presence(case), *ending(case)):
                self._blame(case, sentence)
            if case.allowed and case.outcome is not None:
                charged = (tokens, price_and_bytes)
                if case.outcome["status"] == _SWITCHING:
                    charged = (conversation,)
                for law in charged:
                    for sentence in law(case, case.outcome):
                        self._blame(case, sentence)
        for life in self.fleet.lives:
            if life.killed_s is None and life.exit_code != 0:
                self.wrong.append(f"{life.name} ended with {life.exit_code}")
        self.wrong += [
            f"{n} slots of {pool} are taken" for pool, n in self.fleet.store_book.pools.items() if n
        ]

    def _blame(self, case: Case, sentence: str) -> None:
        plan = case.seen.planned
        self.wrong.append(
            f"{case.id} ({plan.family}{' stream' if plan.stream else ''}, fault {plan.fault}, "
            f"cut {plan.cut}, {case.seen.worker}): {sentence}"
        )

    def _count(self, case: Case) -> None:
        told, decision, outcome = self.told, case.decision, case.outcome
        told["requests"] += 1
        told[f"family {case.seen.planned.family}"] += 1
        told[f"verdict {decision['verdict'] if decision else 'no record'}"] += 1
        if decision is not None and decision["verdict"] == "rate_limited":
            for status in decision["limits"]:
                if status.get("retry_after_s", 0.0) != 0.0 and status["mode"] == "enforce":
                    told[f"refused by {status['rule']}"] += 1
        if decision is not None and any(each.get("failed") for each in decision["limits"]):
            told["judged without the store"] += 1
        if outcome is not None:
            told[f"ended {outcome['failure'] or outcome['ending']}"] += 1
            told["estimated" if outcome["usage"]["estimated"] else "exact"] += 1
        elif case.allowed:
            told["without an outcome"] += 1
        if case.seen.cut:
            told[f"cut {case.seen.planned.cut}"] += 1
