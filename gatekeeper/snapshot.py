"""What one request is judged by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gatekeeper.policy.containment import NO_CONTAINMENT
from gatekeeper.policy.limit_plan import LimitPlanner
from gatekeeper.policy.pricing import PriceBook
from gatekeeper.policy.words import GateMode

if TYPE_CHECKING:
    from gatekeeper.facts.network import NetworkData
    from gatekeeper.policy.containment import Containment
    from gatekeeper.policy.ruleset import RuleSet


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one request is judged by, swapped as a whole."""

    rules: RuleSet
    network: NetworkData
    planner: LimitPlanner
    prices: PriceBook
    mode: GateMode
    containment: Containment

    @classmethod
    def of(
        cls,
        rules: RuleSet,
        network: NetworkData,
        mode: GateMode = GateMode.ENFORCE,
        containment: Containment = NO_CONTAINMENT,
    ) -> Snapshot:
        """Work out what can be worked out once."""
        return cls(rules, network, LimitPlanner(rules), PriceBook(rules), mode, containment)
