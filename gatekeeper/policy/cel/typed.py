"""The typed tree: what :mod:`gatekeeper.policy.cel.check` makes of syntax and ``emit`` reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from gatekeeper.policy.view import FieldType

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.policy.cel.functions import Overload


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal."""

    value: bool | int | float | str
    type: FieldType


@dataclass(frozen=True, slots=True)
class Field:
    """The value of a field, unknown when it is absent."""

    name: str
    type: FieldType


@dataclass(frozen=True, slots=True)
class Has:
    """Whether a field is known."""

    name: str
    type: FieldType = FieldType.BOOL


@dataclass(frozen=True, slots=True)
class Variable:
    """The element that ``exists`` or ``all`` looks at."""

    name: str
    type: FieldType = FieldType.STRING


@dataclass(frozen=True, slots=True)
class Apply:
    """An operator or function and its operands."""

    overload: Overload
    operands: tuple[Typed, ...]

    @property
    def type(self) -> FieldType:
        """What the overload gives."""
        return self.overload.gives


@dataclass(frozen=True, slots=True)
class Matches:
    """Whether ``search``, which is RE2's, finds its pattern in ``text``."""

    text: Typed
    search: Callable[[bytes], object | None]
    type: FieldType = FieldType.BOOL


@dataclass(frozen=True, slots=True)
class OneOf:
    """``item in [choices]``."""

    item: Typed
    choices: tuple[Typed, ...]
    type: FieldType = FieldType.BOOL


@dataclass(frozen=True, slots=True)
class Not:
    """``!operand``."""

    operand: Typed
    type: FieldType = FieldType.BOOL


@dataclass(frozen=True, slots=True)
class Logic:
    """``&&`` (``conjunction``) or ``||`` over all operands."""

    conjunction: bool
    operands: tuple[Typed, ...]
    type: FieldType = FieldType.BOOL


@dataclass(frozen=True, slots=True)
class Choose:
    """``test ? yes : no``."""

    test: Typed
    yes: Typed
    no: Typed

    @property
    def type(self) -> FieldType:
        """The type both branches have."""
        return self.yes.type


@dataclass(frozen=True, slots=True)
class Quantify:
    """``items.exists(variable, test)`` or, if ``universal``, ``items.all(variable, test)``."""

    universal: bool
    items: Typed
    variable: str
    test: Typed
    type: FieldType = FieldType.BOOL


Typed: TypeAlias = (
    "Constant | Field | Has | Variable | Apply | Matches | OneOf | Not | Logic | Choose | Quantify"
)
