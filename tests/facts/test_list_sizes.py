"""Sizes that no machine-made list takes over night (H37)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.facts.list_sizes import collapsed, out_of_proportion

COUNT = st.integers(min_value=1, max_value=10**7)


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        (900, 600, None),
        (900, 599, "shrink"),
        (900, 0, "shrink"),
        (900, 1800, None),
        (900, 1801, "grow"),
        (3, 2, None),
        (0, 0, None),
        (0, 1, "grow"),
    ],
)
def test_h37_where_belief_ends(before: int, after: int, word: str | None) -> None:
    """Two thirds and the double are believed, one entry beyond is not."""
    told = collapsed(before, after)
    assert (told is None) if word is None else (told is not None and word in told)


@settings(deadline=None)
@given(COUNT, COUNT)
def test_h37_agrees_with_fractions(before: int, after: int) -> None:
    """Whole numbers decide as exact fractions do, at any size."""
    believed = 2 * before <= 3 * after and after <= 2 * before
    assert (collapsed(before, after) is None) is believed


def test_h37_lists_kept_by_hand_may_do_as_they_like() -> None:
    """A handful may double; a long list may not vanish; a new one is nobody's collapse."""
    assert out_of_proportion({"mine": 3}, {"mine": 40}) == []
    assert out_of_proportion({}, {"new": 5_000}) == []
    (mistake,) = out_of_proportion({"feed": 5_000, "mine": 3}, {"mine": 2})
    assert mistake.file == "feed"
