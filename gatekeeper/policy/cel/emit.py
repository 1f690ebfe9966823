"""Typed tree to Python: one flat function per condition, without calls where Python has operators.

Unknown is ``None``. Whether a bool is true and whether it is false are two separate tests, each
written with Python's own ``and``, ``or`` and ``not``: neither holds for unknown, so CEL's
absorption of errors (``unknown || true``) falls out of the evaluation order. Everything that is
no bool is computed ahead into a local name; a CEL expression has no effects, so computing what a
short circuit would have skipped changes nothing.

Only names made here, ``repr`` of literals and the fixed code of
:mod:`gatekeeper.policy.cel.functions` reach the text, so no source can smuggle Python in.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from gatekeeper.policy.cel.functions import RUNTIME
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
    from collections.abc import Callable, Iterable

    from gatekeeper.policy.cel.typed import Typed
    from gatekeeper.policy.model import View


@dataclass(frozen=True, slots=True)
class _Atom:
    """A Python name or literal."""

    text: str
    optional: bool
    """Whether it may be None at run time."""


@dataclass(frozen=True, slots=True)
class _Test:
    """Two Python expressions: one holds if a bool is true, the other if it is false."""

    true: str
    false: str
    costly: bool = False
    """Whether to evaluate it after the others of a chain."""


_REMEMBERED: Final = 64
"""Answers kept per pattern: paths, models and clients repeat, and RE2 costs a microsecond."""


def _searcher(search: Callable[[bytes], object | None]) -> Callable[[str], bool | None]:
    @lru_cache(maxsize=_REMEMBERED)
    def found(text: str) -> bool | None:
        try:
            return search(text.encode()) is not None
        except UnicodeEncodeError:  # a lone surrogate, from bytes that were no UTF-8
            return None

    return found


def _known(atoms: Iterable[_Atom]) -> list[str]:
    return [f"{atom.text} is not None" for atom in atoms if atom.optional]


class _Emitter:
    """Writes the body of one function."""

    def __init__(self) -> None:
        self.namespace: dict[str, Any] = {**RUNTIME, "__builtins__": {}}
        self._fields: dict[str, str] = {}
        self._variables: dict[str, str] = {}
        self._lines: list[str] = []
        self._indent = 1
        self._made = 0

    def function(self, root: Typed) -> str:
        """Return the source of ``condition(view)``."""
        test = self._test(root)
        fields = [f"    {local} = view.get({name!r})" for name, local in self._fields.items()]
        return "\n".join(
            (
                "def condition(view):",
                *fields,
                *self._lines,
                f"    if {test.true}: return True",
                f"    if {test.false}: return False",
                "    return None",
            )
        )

    def _write(self, line: str) -> None:
        self._lines.append("    " * self._indent + line)

    def _local(self) -> str:
        self._made += 1
        return f"t{self._made}"

    def _field(self, name: str) -> str:
        return self._fields.setdefault(name, f"f{len(self._fields)}")

    def _keep(self, expression: str) -> _Atom:
        """Compute ``expression`` ahead, into a name of its own."""
        local = self._local()
        self._write(f"{local} = {expression}")
        return _Atom(local, optional=True)

    def _atom(self, node: Typed) -> _Atom:
        """Return the value of ``node``, computed ahead if need be."""
        match node:
            case Constant():
                return _Atom(repr(node.value), optional=False)
            case Field():
                return _Atom(self._field(node.name), optional=True)
            case Variable():
                return _Atom(self._variables[node.name], optional=False)
            case Apply() if node.type is not FieldType.BOOL:
                operands = [self._atom(operand) for operand in node.operands]
                code = node.overload.code.format(*(operand.text for operand in operands))
                known = " and ".join(_known(operands))
                return self._keep(f"{code} if {known} else None" if known else code)
            case Choose() if node.type is not FieldType.BOOL:
                test, yes, no = (self._atom(part) for part in (node.test, node.yes, node.no))
                return self._keep(
                    f"{yes.text} if {test.text} else {no.text} if {test.text} is False else None"
                )
            case _:
                test_of = self._test(node)
                return self._keep(f"True if {test_of.true} else False if {test_of.false} else None")

    def _test(self, node: Typed) -> _Test:
        """Return how to tell whether the bool ``node`` is true, and whether it is false."""
        match node:
            case Has():
                local = self._field(node.name)
                return _Test(f"{local} is not None", f"{local} is None")
            case Not():
                test = self._test(node.operand)
                return _Test(test.false, test.true, test.costly)
            case Logic():
                return self._logic(node)
            case Choose():
                chosen = self._atom(node.test).text
                yes, no = self._test(node.yes), self._test(node.no)
                return _Test(
                    f"({chosen} and {yes.true} or {chosen} is False and {no.true})",
                    f"({chosen} and {yes.false} or {chosen} is False and {no.false})",
                    yes.costly or no.costly,
                )
            case Apply():
                operands = [self._atom(operand) for operand in node.operands]
                code = node.overload.code.format(*(operand.text for operand in operands))
                return _guarded(operands, code)
            case OneOf():
                return self._one_of(node)
            case Matches():
                return self._matches(node)
            case Quantify():
                return _kept(self._quantify(node))
            case _:
                return _kept(self._atom(node).text)

    def _logic(self, node: Logic) -> _Test:
        tests = sorted(map(self._test, node.operands), key=lambda test: test.costly)
        all_true = f"({' and '.join(test.true for test in tests)})"
        any_true = f"({' or '.join(test.true for test in tests)})"
        all_false = f"({' and '.join(test.false for test in tests)})"
        any_false = f"({' or '.join(test.false for test in tests)})"
        costly = tests[-1].costly
        if node.conjunction:
            return _Test(all_true, any_false, costly)
        return _Test(any_true, all_false, costly)

    def _one_of(self, node: OneOf) -> _Test:
        item = self._atom(node.item)
        choices = [self._atom(choice) for choice in node.choices]
        if all(isinstance(choice, Constant) for choice in node.choices):
            values = ", ".join(choice.text for choice in choices)
            return _guarded([item], f"{item.text} in {{{values}}}" if values else "False")
        equal = " or ".join(f"{item.text} == {choice.text}" for choice in choices)
        return _guarded([item, *choices], f"({equal})")

    def _matches(self, node: Matches) -> _Test:
        text = self._atom(node.text)
        name = f"found{len(self.namespace)}"
        self.namespace[name] = _searcher(node.search)
        call = f"{name}({text.text})"
        if text.optional:
            call = f"({call} if {text.text} is not None else None)"
        # asked for again if it was not true; `found` then has the answer at hand
        return _Test(call, f"{call} is False", costly=True)

    def _quantify(self, node: Quantify) -> str:
        items = self._atom(node.items)
        result, element = self._local(), self._local()
        self._variables[node.variable] = element
        self._write(f"{result} = None if {items.text} is None else {node.universal}")
        self._write(f"for {element} in {items.text} or ():")
        self._indent += 1
        test = self._test(node.test)
        settles, passes = (test.false, test.true) if node.universal else (test.true, test.false)
        self._write(f"if {settles}:")
        self._write(f"    {result} = {not node.universal}")
        self._write("    break")
        self._write(f"if not {passes}: {result} = None")
        self._indent -= 1
        return result


def _kept(local: str) -> _Test:
    """Test a bool, or None, that has a name or is a literal."""
    return _Test(local, f"{local} is False")


def _guarded(operands: list[_Atom], code: str) -> _Test:
    """Test ``code``, which means something only if all operands are known."""
    known = _known(operands)
    return _Test(f"({' and '.join((*known, code))})", f"({' and '.join((*known, f'not {code}'))})")


def compiled(root: Typed) -> Callable[[View], bool | None]:
    """Return ``root``, which is a bool, as a Python function of the view."""
    emitter = _Emitter()
    text = emitter.function(root)
    exec(compile(text, "<condition>", "exec"), emitter.namespace)  # noqa: S102 - see the module
    # Taken out, so that a condition is gone with its rules and does not wait for the collector.
    condition: Callable[[View], bool | None] = emitter.namespace.pop("condition")
    return condition
