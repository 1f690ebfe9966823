"""Bounds per address: counted in spans, forgotten in time, and never without end."""

from __future__ import annotations

from gatekeeper.verification.bounds import _MOST_KEYS, Bound


def test_a_bound_is_reached_and_ends() -> None:
    """Each key has its own count, and a new span begins at none."""
    bound = Bound(2, 60.0)
    for _ in range(2):
        assert not bound.reached("a", 1_000.0)
        bound.count("a", 1_000.0)
    assert bound.reached("a", 1_000.0)
    assert not bound.reached("b", 1_000.0)
    assert not bound.reached("a", 1_060.0)


def test_memory_is_bounded() -> None:
    """More keys than fit are all forgotten at once."""
    bound = Bound(1, 60.0)
    for number in range(_MOST_KEYS + 1):
        bound.count(str(number), 1_000.0)
    assert len(bound._counts) == 1
