"""The operators and functions of the subset, as literal tables."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gatekeeper.policy.cel.syntax import INT_MAX, INT_MIN
from gatekeeper.policy.view import FieldType

if TYPE_CHECKING:
    from collections.abc import Callable

_BOOL = FieldType.BOOL
_INT = FieldType.INT
_DOUBLE = FieldType.DOUBLE
_STRING = FieldType.STRING
_STRINGS = FieldType.STRINGS


@dataclass(frozen=True, slots=True)
class Overload:
    """One way to apply an operator or function."""

    takes: tuple[FieldType, ...]
    gives: FieldType
    code: str
    """Python expression; ``{0}`` and ``{1}`` stand for names or literals, never for more."""
    partial: bool = False
    """Whether the code may give None (a run-time error of CEL) for operands that are known."""


def _equality(code: str) -> tuple[Overload, ...]:
    return tuple(Overload((kind, kind), _BOOL, code) for kind in (_BOOL, _INT, _DOUBLE, _STRING))


def _ordering(symbol: str) -> tuple[Overload, ...]:
    same, code = (_INT, _DOUBLE, _STRING, _BOOL), f"{{0}} {symbol} {{1}}"
    return (
        *(Overload((kind, kind), _BOOL, code) for kind in same),
        Overload((_INT, _DOUBLE), _BOOL, f"float({{0}}) {symbol} {{1}}"),
        Overload((_DOUBLE, _INT), _BOOL, f"{{0}} {symbol} float({{1}})"),
    )


def _arithmetic(symbol: str) -> tuple[Overload, ...]:
    return (
        Overload((_INT, _INT), _INT, f"int64({{0}} {symbol} {{1}})", partial=True),
        Overload((_DOUBLE, _DOUBLE), _DOUBLE, f"{{0}} {symbol} {{1}}"),
    )


_SIZE: Final = (
    Overload((_STRING,), _INT, "len({0})"),
    Overload((_STRINGS,), _INT, "len({0})"),
)

ORDERINGS: Final = ("<", "<=", ">", ">=")
"""The only operators that mix int and double; the int is converted."""

UNARY: Final[dict[str, tuple[Overload, ...]]] = {
    "-": (
        Overload((_INT,), _INT, "int64(-{0})", partial=True),
        Overload((_DOUBLE,), _DOUBLE, "-{0}"),
    ),
}
BINARY: Final[dict[str, tuple[Overload, ...]]] = {
    "==": _equality("{0} == {1}"),
    "!=": _equality("{0} != {1}"),
    **{symbol: _ordering(symbol) for symbol in ORDERINGS},
    "in": (Overload((_STRING, _STRINGS), _BOOL, "{0} in {1}"),),
    "+": (*_arithmetic("+"), Overload((_STRING, _STRING), _STRING, "{0} + {1}")),
    "-": _arithmetic("-"),
    "*": _arithmetic("*"),
    "/": (
        Overload((_INT, _INT), _INT, "divide({0}, {1})", partial=True),
        Overload((_DOUBLE, _DOUBLE), _DOUBLE, "divide_double({0}, {1})"),
    ),
    "%": (Overload((_INT, _INT), _INT, "remainder({0}, {1})", partial=True),),
}
METHODS: Final[dict[str, tuple[Overload, ...]]] = {
    "startsWith": (Overload((_STRING, _STRING), _BOOL, "{0}.startswith({1})"),),
    "endsWith": (Overload((_STRING, _STRING), _BOOL, "{0}.endswith({1})"),),
    "contains": (Overload((_STRING, _STRING), _BOOL, "{1} in {0}"),),
    "size": _SIZE,
}
"""Called as ``first.name(second)``."""
FUNCTIONS: Final[dict[str, tuple[Overload, ...]]] = {
    "size": _SIZE,
    "int": (
        Overload((_INT,), _INT, "{0}"),
        Overload((_DOUBLE,), _INT, "truncate({0})", partial=True),
    ),
    "double": (
        Overload((_DOUBLE,), _DOUBLE, "{0}"),
        Overload((_INT,), _DOUBLE, "float({0})"),
    ),
}
"""Called as ``name(first)``."""
MACROS: Final = ("exists", "all")
"""Called as ``list.name(variable, test)``."""


def int64(value: int) -> int | None:
    """Return ``value``, or None if it overflows CEL's int."""
    return value if INT_MIN <= value <= INT_MAX else None


def divide(left: int, right: int) -> int | None:
    """Divide, truncating toward zero; None for a division by zero or an overflow."""
    if right == 0:
        return None
    quotient = abs(left) // abs(right)
    return int64(quotient if (left < 0) == (right < 0) else -quotient)


def remainder(left: int, right: int) -> int | None:
    """Return what :func:`divide` leaves, with the sign of ``left``; None where it gives None."""
    quotient = divide(left, right)
    return None if quotient is None else left - quotient * right


def divide_double(left: float, right: float) -> float:
    """Divide as IEEE 754 does: by zero it gives an infinity or not-a-number."""
    # a zero has a sign; multiplying by the infinity of that sign carries it over
    return left / right if right else left * math.copysign(math.inf, right)


def truncate(value: float) -> int | None:
    """Cut a double to an int; None when it is not finite or not strictly within int64."""
    return int(value) if INT_MIN < value < INT_MAX else None


RUNTIME: Final[dict[str, Callable[..., Any]]] = {
    "divide": divide,
    "divide_double": divide_double,
    "float": float,
    "int64": int64,
    "len": len,
    "remainder": remainder,
    "truncate": truncate,
}
"""All that the ``code`` of an :class:`Overload` may name."""
