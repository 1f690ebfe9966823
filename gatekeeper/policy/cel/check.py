"""Syntax tree to typed tree: every name resolved, every operand of the right type."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

import re2

from gatekeeper.policy.cel import syntax
from gatekeeper.policy.cel.functions import BINARY, FUNCTIONS, MACROS, METHODS, ORDERINGS, UNARY
from gatekeeper.policy.cel.tokens import ConditionError
from gatekeeper.policy.cel.typed import (
    Apply,
    Choose,
    Constant,
    Field,
    Has,
    Logic,
    Matches,
    Not,
    OneOf,
    Quantify,
    Variable,
)
from gatekeeper.policy.view import FieldType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gatekeeper.policy.cel.functions import Overload
    from gatekeeper.policy.cel.typed import Typed

MAX_LOOPS: Final = 2
"""How deep ``exists`` and ``all`` may nest."""

_LEFT_OUT: Final = frozenset(
    {
        *("bool", "bytes", "dyn", "duration", "exists_one", "filter", "map", "string"),
        *("timestamp", "type", "uint"),
    }
)
"""Functions of CEL that the subset does without."""


_TYPES: Final = {
    bool: FieldType.BOOL,
    int: FieldType.INT,
    float: FieldType.DOUBLE,
    str: FieldType.STRING,
}


def _meant(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the closest of ``known``, or all of them if none is close."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(names)}"


def _dotted(node: syntax.Node) -> str | None:
    """Return ``a.b.c`` if ``node`` is nothing but names and dots."""
    names: list[str] = []
    while isinstance(node, syntax.Select):
        names.append(node.name)
        node = node.target
    if not isinstance(node, syntax.Name):
        return None
    return ".".join((node.name, *reversed(names)))


def _all_of(overloads: tuple[Overload, ...]) -> str:
    """Spell out what ``overloads`` take, as in ``(int, int) or (string, string)``."""
    return " or ".join(f"({', '.join(overload.takes)})" for overload in overloads)


def _search(pattern: str, position: int) -> Callable[[bytes], object | None]:
    options = re2.Options()
    options.log_errors = False
    try:
        # bytes, because google-re2 then searches bytes and skips counting characters
        search: Callable[[bytes], object | None] = re2.compile(pattern.encode(), options).search
    except re2.error as error:
        detail = error.args[0].decode(errors="replace")
        raise ConditionError(f"not a pattern of RE2: {detail}", position) from None
    return search


class Checker:
    """Types conditions over ``fields``, of which some are ``closed`` to a set of values."""

    def __init__(
        self, fields: Mapping[str, FieldType], closed: Mapping[str, frozenset[str]]
    ) -> None:
        self._fields = fields
        self._closed = closed
        self._roots = {name.partition(".")[0] for name in fields}
        self._variables: list[str] = []
        self.reads: set[str] = set()
        """Fields seen so far."""

    def check(self, node: syntax.Node) -> Typed:
        """Return ``node`` with its types; raise :class:`ConditionError` where they are wrong."""
        match node:
            case syntax.Literal():
                return Constant(node.value, _TYPES[type(node.value)])
            case syntax.Name() | syntax.Select():
                return self._name(node)
            case syntax.Call():
                return self._call(node)
            case syntax.Unary():
                return self._unary(node)
            case syntax.Binary():
                return self._binary(node)
            case syntax.Logic():
                operands = tuple(self.check_bool(operand) for operand in node.operands)
                return Logic(node.operator == "&&", operands)
            case syntax.Ternary():
                return self._ternary(node)
        raise ConditionError("a list in brackets may only stand to the right of in", node.position)

    def check_bool(self, node: syntax.Node) -> Typed:
        """Check ``node`` where only a bool will do."""
        typed = self.check(node)
        if typed.type is FieldType.BOOL:
            return typed
        hint = "ask size(...) > 0" if typed.type is FieldType.STRINGS else "compare it"
        raise ConditionError(f"a bool belongs here, this is {typed.type}; {hint}", node.position)

    def _name(self, node: syntax.Name | syntax.Select) -> Variable | Field:
        dotted = _dotted(node)
        if dotted is None:
            raise ConditionError("only groups such as network have fields", node.position)
        if dotted in self._variables:
            return Variable(dotted)
        if dotted.partition(".")[0] in self._variables:
            raise ConditionError("a variable is a string and has no fields", node.position)
        kind = self._fields.get(dotted)
        if kind is not None:
            self.reads.add(dotted)
            return Field(dotted, kind)
        if dotted in ("True", "False"):
            raise ConditionError(f"unknown field {dotted}; write {dotted.lower()}", node.position)
        inside = [name for name in self._fields if name.startswith(f"{dotted}.")]
        if inside:
            raise ConditionError(
                f"{dotted} is a group; choose one of {', '.join(inside)}", node.position
            )
        group, leaf = dotted.partition(".")[0], dotted.rpartition(".")[2]
        namesakes = [name for name in self._fields if name.rpartition(".")[2] == leaf]
        neighbours = [name for name in self._fields if name.startswith(f"{group}.")]
        hint = _meant(dotted, namesakes or neighbours or self._fields)
        raise ConditionError(f"unknown field {dotted}; {hint}", node.position)

    def _unary(self, node: syntax.Unary) -> Typed:
        if node.operator == "!":
            operand = self.check_bool(node.operand)
            return Not(operand) if node.odd else operand
        operand = self.check(node.operand)
        applied = self._apply("-", UNARY["-"], (operand,), node.position)
        return applied if node.odd else operand

    def _binary(self, node: syntax.Binary) -> Typed:
        left = self.check(node.left)
        if node.operator == "in" and isinstance(node.right, syntax.ListOf):
            return self._one_of(left, node.right, node.position)
        right = self.check(node.right)
        if node.operator in ("==", "!="):
            self._refuse_impossible(left, right, node.right.position)
            self._refuse_impossible(right, left, node.left.position)
        return self._apply(node.operator, BINARY[node.operator], (left, right), node.position)

    def _one_of(self, item: Typed, choices: syntax.ListOf, position: int) -> OneOf:
        if item.type is FieldType.STRINGS:
            raise ConditionError(
                "a list is never in a list; write field.exists(x, x in [...])", position
            )
        typed = tuple(self.check(choice) for choice in choices.items)
        for choice, node in zip(typed, choices.items, strict=True):
            if choice.type is not item.type:
                raise ConditionError(
                    f"this is {choice.type}, but {item.type} is looked for", node.position
                )
            self._refuse_impossible(item, choice, node.position)
        return OneOf(item, typed)

    def _refuse_impossible(self, field: Typed, value: Typed, position: int) -> None:
        """Refuse a ``value`` that ``field`` never has."""
        if not isinstance(field, Field) or not isinstance(value, Constant):
            return
        allowed = self._closed.get(field.name)
        if allowed is None or not isinstance(value.value, str) or value.value in allowed:
            return
        raise ConditionError(
            f"{field.name} is never {value.value!r}; {_meant(value.value, allowed)}", position
        )

    def _ternary(self, node: syntax.Ternary) -> Choose:
        test, yes, no = self.check_bool(node.test), self.check(node.yes), self.check(node.no)
        if yes.type is not no.type:
            raise ConditionError(
                f"both branches of ?: need the same type, not {yes.type} and {no.type}",
                node.no.position,
            )
        return Choose(test, yes, no)

    def _apply(
        self,
        name: str,
        overloads: tuple[Overload, ...],
        operands: tuple[Typed, ...],
        position: int,
    ) -> Apply:
        types = tuple(operand.type for operand in operands)
        if name in ORDERINGS and set(types) == {FieldType.INT, FieldType.DOUBLE}:
            # convert a constant now rather than at every evaluation
            operands = tuple(map(_widened, operands))
            types = tuple(operand.type for operand in operands)
        for overload in overloads:
            if overload.takes == types:
                return Apply(overload, operands)
        hint = ""
        if set(types) == {FieldType.INT, FieldType.DOUBLE}:
            hint = "; write 30.0 rather than 30, or double(...)"
        elif FieldType.STRINGS in types and name in ("==", "!=", "contains"):
            hint = "; write value in list"
        raise ConditionError(
            f"{name} takes {_all_of(overloads)}, not ({', '.join(types)}){hint}", position
        )

    def _call(self, node: syntax.Call) -> Typed:
        if node.target is None:
            return self._function(node)
        if node.name in MACROS:
            return self._quantify(node, node.target)
        if node.name == "matches":
            return self._matches(node, node.target)
        overloads = METHODS.get(node.name)
        if overloads is None:
            if node.name in FUNCTIONS or node.name == "has":
                raise ConditionError(f"write {node.name}(...)", node.position)
            raise self._no_function(node, (*METHODS, *MACROS, "matches"))
        operands = (self.check(node.target), *map(self.check, node.arguments))
        return self._apply(node.name, overloads, operands, node.position)

    def _function(self, node: syntax.Call) -> Typed:
        if node.name == "has":
            return self._has(node)
        overloads = FUNCTIONS.get(node.name)
        if overloads is None:
            if node.name in METHODS or node.name in (*MACROS, "matches"):
                raise ConditionError(f"write field.{node.name}(...)", node.position)
            raise self._no_function(node, (*FUNCTIONS, "has"))
        operands = tuple(map(self.check, node.arguments))
        return self._apply(node.name, overloads, operands, node.position)

    @staticmethod
    def _no_function(node: syntax.Call, known: Iterable[str]) -> ConditionError:
        if node.name in _LEFT_OUT:
            return ConditionError(
                f"{node.name} is not part of the subset; {_meant('', known)}", node.position
            )
        return ConditionError(
            f"unknown function {node.name}; {_meant(node.name, known)}", node.position
        )

    def _has(self, node: syntax.Call) -> Has:
        if len(node.arguments) != 1 or not isinstance(node.arguments[0], syntax.Select):
            raise ConditionError("has takes one field, such as has(network.asn)", node.position)
        return Has(self._name(node.arguments[0]).name)

    def _matches(self, node: syntax.Call, target: syntax.Node) -> Matches:
        text = self.check(target)
        pattern = node.arguments[0] if len(node.arguments) == 1 else None
        literal = pattern.value if isinstance(pattern, syntax.Literal) else None
        if text.type is not FieldType.STRING or not isinstance(literal, str):
            raise ConditionError(
                "matches is called on a string and takes one literal pattern,"
                " such as call.path.matches('^/v[0-9]+/')",
                node.position,
            )
        return Matches(text, _search(literal, node.arguments[0].position))

    def _quantify(self, node: syntax.Call, target: syntax.Node) -> Quantify:
        items = self.check(target)
        if items.type is not FieldType.STRINGS:
            raise ConditionError(
                f"{node.name} is called on a list(string), not on {items.type}", node.position
            )
        if len(node.arguments) != 2:  # noqa: PLR2004 - a variable and a test
            raise ConditionError(
                f"{node.name} takes a variable and a test, such as {node.name}(x, x == 'a')",
                node.position,
            )
        variable, test = node.arguments
        if not isinstance(variable, syntax.Name) or variable.name.startswith("__"):
            raise ConditionError(
                "a plain name such as x belongs here, the variable", variable.position
            )
        if variable.name in self._roots or variable.name in self._variables:
            raise ConditionError(
                f"{variable.name} already means something; choose another name, such as x",
                variable.position,
            )
        if len(self._variables) == MAX_LOOPS:
            raise ConditionError(f"exists and all nest at most {MAX_LOOPS} deep", node.position)
        self._variables.append(variable.name)
        body = self.check_bool(test)
        self._variables.pop()
        return Quantify(node.name == "all", items, variable.name, body)


def _widened(node: Typed) -> Typed:
    """Return ``node``, as a double if it is a literal int."""
    if isinstance(node, Constant) and node.type is FieldType.INT:
        return Constant(float(node.value), FieldType.DOUBLE)
    return node
