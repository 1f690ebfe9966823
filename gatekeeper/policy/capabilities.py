"""Capability classes: what calls are for, such as agentic work, as the rules tell them apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from gatekeeper.policy.view import view_of_call

if TYPE_CHECKING:
    from gatekeeper.policy.model import Facts
    from gatekeeper.policy.ruleset import RuleSet


def classified(facts: Facts, rules: RuleSet) -> Facts:
    """Return the facts with the classes that the call falls into; those that it has, it keeps.

    What is not known of a call puts it into no class.
    """
    call = facts.call
    if call.capabilities or not rules.capabilities:
        return facts
    view = view_of_call(call)
    found = tuple(rule.id for rule in rules.capabilities if rule.when.evaluate(view) is True)
    return replace(facts, call=replace(call, capabilities=found)) if found else facts
