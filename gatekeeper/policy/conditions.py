"""Conditions of rules: a documented subset of CEL, compiled once to Python.

``docs/conditions.md`` describes the subset. Compiling is strict and tells what is wrong and where;
evaluating never fails: what CEL calls a run-time error is ``None``, unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gatekeeper.policy.campaigns import NO_STAGE, Stage
from gatekeeper.policy.cel.check import Checker
from gatekeeper.policy.cel.emit import compiled
from gatekeeper.policy.cel.syntax import parse
from gatekeeper.policy.cel.tokens import ConditionError
from gatekeeper.policy.view import FIELDS
from gatekeeper.policy.words import Assurance, CredentialKind, NetworkKind, Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from enum import StrEnum

    from gatekeeper.policy.model import View
    from gatekeeper.policy.view import FieldType

__all__ = ["CLOSED", "Condition", "ConditionError", "compile_condition"]


def _values(enum: type[StrEnum]) -> frozenset[str]:
    return frozenset(member.value for member in enum)


CLOSED: Final[Mapping[str, frozenset[str]]] = {
    "network.kind": _values(NetworkKind),
    "account.tier": _values(Tier),
    "account.assurance": _values(Assurance),
    "credential.kind": _values(CredentialKind),
    "campaign.stage": _values(Stage) | {NO_STAGE},
}
"""Fields whose values are known in full; comparing one with anything else is a mistake."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A compiled condition. Two are equal if their sources are."""

    source: str
    reads: frozenset[str]
    """Names of the fields it reads."""
    evaluate: Callable[[View], bool | None] = field(repr=False, compare=False)
    """The compiled function itself: saves the hot path the call of a method."""

    def __call__(self, view: View) -> bool | None:
        """Tell whether the condition holds; None means unknown, for want of a field or number."""
        return self.evaluate(view)


def compile_condition(
    source: str,
    fields: Mapping[str, FieldType] = FIELDS,
    closed: Mapping[str, frozenset[str]] = CLOSED,
) -> Condition:
    """Compile a condition over ``fields``; raise :class:`ConditionError` if it is none."""
    checker = Checker(fields, closed)
    root = checker.check_bool(parse(source))
    return Condition(source, frozenset(checker.reads), compiled(root))
