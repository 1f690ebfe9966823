"""What differs between two rule sets, and which embargoes a change would weaken."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from gatekeeper.policy.rules import SECTIONS
from gatekeeper.policy.ruleset import OnUnknown
from gatekeeper.policy.words import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gatekeeper.policy.ruleset import EmbargoRule, RuleSet

_STRICTNESS: Final = {OnUnknown.ALLOW: 0, OnUnknown.STEP_UP: 1, OnUnknown.REFUSE: 2}


class ChangeKind(StrEnum):
    """What became of a rule."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class RuleChange:
    """One rule that is not the same in two rule sets."""

    section: str
    rule: str
    """Its id; a model's pattern; ``private`` for the rule on private addresses."""
    kind: ChangeKind


def rule_changes(before: RuleSet, after: RuleSet) -> tuple[RuleChange, ...]:
    """Return every rule that was added, removed or changed, by section."""
    changes: list[RuleChange] = []
    if before.private != after.private:
        changes.append(RuleChange("private", "private", ChangeKind.CHANGED))
    for section in SECTIONS:
        old, new = _by_name(before, section), _by_name(after, section)
        for name in sorted(old.keys() | new.keys()):
            if name not in old:
                changes.append(RuleChange(section, name, ChangeKind.ADDED))
            elif name not in new:
                changes.append(RuleChange(section, name, ChangeKind.REMOVED))
            elif old[name] != new[name]:
                changes.append(RuleChange(section, name, ChangeKind.CHANGED))
    return tuple(changes)


def weakened_embargoes(before: RuleSet, after: RuleSet) -> tuple[str, ...]:
    """Say of each embargo in force that ``after`` lifts or narrows what it loses."""
    said = list(_weakened(before, after))
    if after.private.allow and not before.private.allow:
        said.append("private: private addresses would be served")
    return tuple(said)


def _weakened(before: RuleSet, after: RuleSet) -> Iterator[str]:
    new = {rule.id: rule for rule in after.embargo}
    for old in before.embargo:
        if old.mode is not Mode.ENFORCE:
            continue
        rule = new.get(old.id)
        if rule is None:
            yield f"{old.id}: removed"
        elif rule.mode is not Mode.ENFORCE:
            yield f"{old.id}: only in shadow"
        else:
            yield from (f"{old.id}: {loss}" for loss in _losses(old, rule))


def _losses(old: EmbargoRule, new: EmbargoRule) -> Iterator[str]:
    for name in ("on", "countries", "subdivisions", "asns", "owners"):
        lost = getattr(old, name) - getattr(new, name)
        if lost:
            yield f"no longer {name} {', '.join(sorted(map(str, lost)))}"
    if _STRICTNESS[new.unknown] < _STRICTNESS[old.unknown]:
        yield f"unknown is {new.unknown} instead of {old.unknown}"
    if _or(new.effective_from, -math.inf) > _or(old.effective_from, -math.inf):
        yield "in force later"
    if _or(new.effective_until, math.inf) < _or(old.effective_until, math.inf):
        yield "in force for a shorter time"


def _or(instant: float | None, default: float) -> float:
    return default if instant is None else instant


def _by_name(rules: RuleSet, section: str) -> dict[str, Any]:
    """Return the rules of a section by name; a model's place counts too, as the first one wins."""
    if section == "tiers":
        return {rule.id: rule for rule in rules.tiers.values()}
    if section == "models":
        return {rule.model: (place, rule) for place, rule in enumerate(rules.models)}
    return {rule.id: rule for rule in getattr(rules, section)}
