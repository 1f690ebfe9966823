"""The risk score: the sum of what the signals that hold contribute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekeeper.policy.model import Contribution, RiskScore
from gatekeeper.policy.words import Mode

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from gatekeeper.policy.model import View
    from gatekeeper.policy.ruleset import RuleSet


def score(
    view: View,
    rules: RuleSet,
    exempt: AbstractSet[str] = frozenset(),
    shadow_exempt: AbstractSet[str] = frozenset(),
) -> RiskScore:
    """Add up the points of every signal whose condition is true; unknown counts nothing.

    ``shadow_exempt`` are the signals that exemptions in shadow would switch off.
    """
    contributions: list[Contribution] = []
    total = shadow_total = 0
    for evaluate, signal in rules.observed:
        if evaluate(view) is not True or signal.id in exempt:
            continue
        contributions.append(Contribution(signal.id, signal.points, signal.mode))
        if signal.id not in shadow_exempt:
            shadow_total += signal.points
        if signal.mode is Mode.ENFORCE:
            total += signal.points
    return RiskScore(total, shadow_total, tuple(contributions))
