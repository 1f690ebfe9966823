"""Bounds per key: refilled in time, and never remembered without end."""

from __future__ import annotations

from gatekeeper.policy.bound import MOST_KEYS, Bound

MINUTE_US = 60_000_000


def test_a_bound_is_reached_and_refills() -> None:
    """Each key has its own budget; half a minute gives back half of it, and no more than all."""
    bound = Bound(2)
    assert not bound.spent("a", 0)
    assert [bound.take("a", 0) for _ in range(3)] == [True, True, False]
    assert bound.spent("a", 0)
    assert bound.take("b", 0)
    assert not bound.spent("a", MINUTE_US // 2)
    assert [bound.take("a", MINUTE_US // 2) for _ in range(2)] == [True, False]
    assert [bound.take("a", 100 * MINUTE_US) for _ in range(3)] == [True, True, False]


def test_h28_a_clock_that_steps_back_gives_nothing() -> None:
    """Nor does it lock out: the budget goes on from the new time."""
    bound = Bound(1)
    assert bound.take("a", 10 * MINUTE_US)
    assert not bound.take("a", 0)
    assert bound.take("a", MINUTE_US)


def test_h41_memory_is_bounded() -> None:
    """Of more keys than fit, the one of the longest ago is forgotten; the others are not."""
    bound = Bound(1)
    for number in range(MOST_KEYS + 1):
        assert bound.take(str(number), 0)
    assert len(bound) == MOST_KEYS
    assert not bound.spent("0", 0)
    assert bound.spent("1", 0)
