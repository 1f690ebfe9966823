"""Shell-style patterns of model names, as tiers, the price table and upstreams use them."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def matches_any(name: str, patterns: Sequence[str]) -> bool:
    """Tell whether ``name`` matches one of the ``patterns`` (case counts)."""
    return any(pattern == "*" or fnmatchcase(name, pattern) for pattern in patterns)
