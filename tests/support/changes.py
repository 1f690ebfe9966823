"""One ``replace`` for both kinds of immutable values that the project has."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct, structs

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="Struct | DataclassInstance")


def replace(value: T, **changes: Any) -> T:
    """Return ``value`` with some fields changed."""
    if isinstance(value, Struct):
        return structs.replace(value, **changes)
    return dataclasses.replace(value, **changes)
