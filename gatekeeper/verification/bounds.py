"""How many requests one address may make of the gate's own pages."""

from __future__ import annotations

from typing import Final

_MOST_KEYS: Final = 10_000


class Bound:
    """At most ``most`` in each span of ``span_s``, for each key; memory is bounded.

    When too many keys are counted at once, all are forgotten: that is cheaper than what it bounds.
    """

    def __init__(self, most: int, span_s: float) -> None:
        self._most = most
        self._span_s = span_s
        self._span = 0
        self._counts: dict[str, int] = {}

    def reached(self, key: str, at: float) -> bool:
        """Tell whether ``key`` has used up its span."""
        self._turn(at)
        return self._counts.get(key, 0) >= self._most

    def count(self, key: str, at: float) -> None:
        """Count one for ``key``."""
        self._turn(at)
        self._counts[key] = self._counts.get(key, 0) + 1

    def _turn(self, at: float) -> None:
        span = int(at // self._span_s)
        if span != self._span or len(self._counts) >= _MOST_KEYS:
            self._span = span
            self._counts.clear()
