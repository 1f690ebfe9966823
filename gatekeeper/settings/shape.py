"""Places in the settings: which there are, of what type, and how each is written."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Literal,
    TypeAlias,
    Union,
    get_args,
    get_origin,
)

from pydantic import BaseModel

from gatekeeper.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

Place: TypeAlias = tuple[str | int, ...]
"""Keys and indices from the root of the settings, such as ``("listeners", 0, "port")``."""

PREFIX: Final = "GATEKEEPER_"
"""Begins the name of each variable; ``__`` stands between the steps of a place."""

_MAX_INDEX_DIGITS: Final = 4


def leaves(kind: Any = Settings, above: Place = ()) -> Iterator[Place]:
    """Yield every place that can be set, item 0 standing for all of a list's."""
    for name, info in kind.model_fields.items():
        place, inner = (*above, name), core(info.annotation)
        yield place
        if get_origin(inner) is tuple:
            place, inner = (*place, 0), core(get_args(inner)[0])
        if is_model(inner):
            yield from leaves(inner, place)


def type_at(place: Place) -> Any:
    """Return the type of the setting at ``place``, or None when there is no such setting."""
    return reduce(_step, place, Settings)


def _step(kind: Any, step: str | int) -> Any:
    if isinstance(step, int):
        return core(get_args(kind)[0]) if get_origin(kind) is tuple else None
    if not is_model(kind) or step not in kind.model_fields:
        return None
    return core(kind.model_fields[step].annotation)


def core(kind: Any) -> Any:
    """Strip ``Annotated`` and ``| None`` from a type."""
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif get_origin(kind) in {Union, UnionType}:
            kind = next(each for each in get_args(kind) if each is not NoneType)
        else:
            return kind


def is_model(kind: Any) -> bool:
    """Tell whether values of this type are mappings with fields of their own."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def is_text(kind: Any) -> bool:
    """Tell whether values of this type are written as they are: strings, paths, choices."""
    return get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, (str, Path)))


def variable_of(place: Place) -> str:
    """Return the name of the environment variable that sets ``place``."""
    return PREFIX + "__".join(str(step) for step in place).upper()


def place_of(variable: str) -> Place:
    """Return the place that the name of a variable spells, whether there is one or not."""
    return tuple(
        int(step)
        if step.isascii() and step.isdecimal() and len(step) <= _MAX_INDEX_DIGITS
        else step.lower()
        for step in variable.removeprefix(PREFIX).split("__")
    )
