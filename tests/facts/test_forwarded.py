"""Hops of forwarded headers, nearest first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.facts.forwarded import MAX_HOPS, forwarded_hops, x_forwarded_for_hops


def test_reads_all_lines_from_the_right() -> None:
    """Several header lines are one list, and its last element comes first."""
    assert list(x_forwarded_for_hops(["a, b", "c"])) == ["c", "b", "a"]
    assert list(forwarded_hops(["for=1.1.1.1, for=2.2.2.2", "For=3.3.3.3"])) == [
        "3.3.3.3",
        "2.2.2.2",
        "1.1.1.1",
    ]


def test_no_header_is_no_hop() -> None:
    """Without a header there is nothing to walk; a blank one is a hop that names nobody."""
    assert list(x_forwarded_for_hops([])) == []
    assert list(forwarded_hops([])) == []
    assert list(x_forwarded_for_hops([""])) == [""]
    assert list(forwarded_hops([""])) == [None]


@pytest.mark.parametrize(
    ("element", "node"),
    [
        ("for=192.0.2.43", "192.0.2.43"),
        ('for="192.0.2.43:47011"', "192.0.2.43"),
        ('For="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::17"),
        ('for="[2001:db8::1]:_port"', "2001:db8::1"),
        ("proto=http;by=203.0.113.43;for=192.0.2.60", "192.0.2.60"),
        ('for=192.0.2.60;ext="a,b;c"', "192.0.2.60"),
        ("for=192.0.2.60;", "192.0.2.60"),
        (";for=192.0.2.60 ; proto=https", "192.0.2.60"),
    ],
)
def test_h13_reads_rfc_7239(element: str, node: str) -> None:
    """Tokens, quoted strings, ports, bracketed IPv6 and empty pairs are read as RFC 7239 has it."""
    assert next(forwarded_hops([element])) == node


@pytest.mark.parametrize(
    "element",
    [
        "for=unknown",
        "for=_hidden",
        'for="_SEVKISEK"',
        "proto=https",
        "for=1.1.1.1;for=2.2.2.2",
        'for="2001:db8::1"',
        'for="1.1.1.1',
        "for",
        "for=1.1.1.1 for=2.2.2.2",
        'for="1.1\\.1.1"',
        "1.1.1.1",
        "for=",
        'for="[::1"',
        "for==1.1.1.1",
    ],
)
def test_h13_a_hop_without_an_address_names_nobody(element: str) -> None:
    """Unknown, obfuscated and malformed elements never yield an address."""
    assert next(forwarded_hops([f"for=9.9.9.9, {element}"])) is None


@given(st.text(max_size=60))
def test_h13_what_stands_to_the_left_changes_nothing(junk: str) -> None:
    """Whatever a caller sends, the element that the proxy appended is read the same."""
    assert next(forwarded_hops([junk, "for=192.0.2.1"])) == "192.0.2.1"
    assert next(forwarded_hops([f'{junk}, for="[2001:db8::1]:80";proto=https'])) == "2001:db8::1"
    assert next(x_forwarded_for_hops([f"{junk}, 192.0.2.1"])) == "192.0.2.1"


@pytest.mark.parametrize("hops", [x_forwarded_for_hops, forwarded_hops])
def test_reads_a_bounded_number_of_hops(hops: object) -> None:
    """A header of ten thousand hops costs no more than the bound."""
    assert len(list(hops(["for=1.1.1.1," * 10_000]))) == MAX_HOPS  # type: ignore[operator]
