"""How digests are combined, as gates do it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.campaigns.described import mixed

DIGESTS = st.integers(1, 2**63 - 1)


@given(DIGESTS, DIGESTS)
def test_mixed_is_the_agreed_formula(a: int, b: int) -> None:
    """31 times the first, exclusive or the second, in 63 bits: any other could never be found."""
    assert mixed(a, b) == ((a * 31) ^ b) & (2**63 - 1)
    assert 0 <= mixed(a, b) < 2**63


def test_mixed_is_not_the_same_both_ways() -> None:
    """A network and a client that trade places are another trait."""
    assert mixed(5, 9) != mixed(9, 5)
