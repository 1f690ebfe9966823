"""A decision as one record, and back: any verdict replays from what was written down.

The record holds the facts, the limits' answers and the rule set's revision; never a secret, a
prompt or a full address.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import replace

from gatekeeper.policy.decide import REQUEST_RULE, conclude, judge, outright
from gatekeeper.policy.model import FOREVER, Decision, Facts, LimitStatus
from gatekeeper.policy.words import GateMode, Reason, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.policy.ruleset import RuleSet


def to_record(decision: Decision, facts: Facts, *, mode: GateMode) -> dict[str, Any]:
    """Return the record of ``decision``; values may be structs that msgspec encodes."""
    return {
        "kind": "decision",
        "id": decision.id,
        "at": decision.at,
        "verdict": decision.verdict.word,
        "reason": decision.reason,
        "enforced": decision.enforced,
        "observe": mode is GateMode.OBSERVE,
        "mode": mode,
        "shadow_verdict": decision.shadow_verdict.word,
        "findings": [
            {
                "rule": finding.rule,
                "mode": finding.mode,
                "verdict": finding.verdict.word,
                "reason": finding.reason,
                "detail": finding.detail,
            }
            for finding in decision.findings
        ],
        "score": decision.score,
        "obligation": decision.obligation,
        "tighten": decision.tighten,
        "shaping": decision.shaping,
        "limits": decision.limits,
        "rules_revision": decision.rules_revision,
        "detail": decision.detail,
        "facts": _datable(facts),
    }


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a record says: enough to judge the call again."""

    id: str
    facts: Facts
    limits: tuple[LimitStatus, ...]
    verdict: Verdict
    rules_revision: str
    mode: GateMode
    """What the gate was set to; records of releases without ``mode`` tell ``observe`` alone."""
    outright: Reason | None
    """Why the call could not be judged at all; no rule was asked then."""
    detail: str | None

    def replay(self, rules: RuleSet) -> Decision:
        """Judge the recorded facts by ``rules``, with the recorded answers of the limits."""
        standing = (
            judge(self.facts, rules, mode=self.mode)
            if self.outright is None
            else outright(self.outright, self.detail)
        )
        return conclude(
            standing,
            self.limits,
            rules,
            decision_id=self.id,
            at=self.facts.at,
            mode=self.mode,
        )


def from_record(record: Mapping[str, Any]) -> Recorded | str:
    """Read a record back; a sentence when it does not hold a decision that can be replayed."""
    try:
        if record.get("kind") != "decision":
            return "The record is not a decision."
        limits = [
            {**status, "retry_after_s": _unbounded(status.get("retry_after_s", 0.0))}
            for status in record["limits"]
        ]
        return Recorded(
            id=msgspec.convert(record["id"], str),
            facts=msgspec.convert(record["facts"], Facts),
            limits=msgspec.convert(limits, tuple[LimitStatus, ...]),
            verdict=Verdict[record["verdict"].upper()],
            rules_revision=msgspec.convert(record["rules_revision"], str),
            mode=_mode(record),
            outright=next(
                (
                    Reason(finding["reason"])
                    for finding in record["findings"]
                    if finding["rule"] == REQUEST_RULE
                ),
                None,
            ),
            detail=msgspec.convert(record["detail"], str | None),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return f"The record is damaged: {str(error)[:_SHOWN]}"


_SHOWN: Final = 200


def _mode(record: Mapping[str, Any]) -> GateMode:
    observe = msgspec.convert(record["observe"], bool)
    return GateMode(record.get("mode", GateMode.OBSERVE if observe else GateMode.ENFORCE))


def _datable(facts: Facts) -> Facts:
    """JSON has no infinity, and ``null`` would lift the ban: one without end gets a date."""
    if facts.account.banned_until != math.inf:
        return facts
    return replace(facts, account=replace(facts.account, banned_until=FOREVER))


def _unbounded(seconds: float | None) -> float:
    """JSON has no infinity: ``null`` stands for a claim that can never fit."""
    return math.inf if seconds is None else seconds
