"""Prefixes: strict reading, and membership that agrees with the standard library."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, collapse_addresses, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.facts.prefixes import PrefixMap, merged, parse_prefix, prefix_numbers


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("192.0.2.7", "192.0.2.7/32"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("2001:DB8:0::1", "2001:db8::1/128"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_reads_prefixes(text: str, network: str) -> None:
    """Prefixes and single addresses are read; IPv4-mapped ones as the IPv4 they stand for."""
    assert parse_prefix(text) == ip_network(network)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "10.0.0.0/255.0.0.0",
        "fe80::%eth0/64",
        "10.0.0.0/",
        "1",
    ],
)
def test_refuses_what_is_no_prefix(text: str) -> None:
    """Host bits, netmasks, zone ids and nonsense are refused with a sentence."""
    assert isinstance(parse_prefix(text), str)


def test_says_which_prefix_was_meant() -> None:
    """A prefix with host bits is answered with the network it lies in."""
    assert "10.0.0.0/8" in str(parse_prefix("10.1.2.3/8"))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)), max_size=20),
    st.integers(0, 2**32 - 1),
)
def test_agrees_with_the_standard_library(prefixes: list[tuple[int, int]], number: int) -> None:
    """Membership and matches are those of ipaddress, longest prefix first."""
    networks = [ip_network((number, length), strict=False) for number, length in prefixes]
    address = IPv4Address(number)
    found = PrefixMap((network, network) for network in networks)
    expected = [network for network in networks if address in network]
    assert (address in found) == bool(expected)
    assert [each.prefixlen for each in found.matches(address)] == sorted(
        (each.prefixlen for each in expected), reverse=True
    )


def test_families_do_not_mix() -> None:
    """An IPv4 prefix never holds the IPv6 address of the same number."""
    found = PrefixMap([(ip_network("0.0.0.0/8"), 1), (ip_network("2001:db8::/32"), 2)])
    assert IPv6Address(1) not in found
    assert found.matches(IPv6Address("2001:db8::1")) == [2]


SPELLINGS = st.one_of(
    st.text("0123456789abcdef:./% ", max_size=20),
    st.tuples(st.ip_addresses(), st.integers(0, 130)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
    st.tuples(st.ip_addresses(), st.integers(0, 128)).map(
        lambda pair: str(ip_network(f"{pair[0]}/{min(pair[1], 32)}", strict=False))
    ),
    st.ip_addresses(v=4).map(lambda address: f"::ffff:{address}/128"),
)


@settings(deadline=None)
@given(SPELLINGS)
def test_spellings_mean_what_the_standard_library_says(text: str) -> None:
    """Its strict reading, without netmasks and zone ids; IPv4 inside IPv6 is IPv4."""
    _, slash, length = text.partition("/")
    try:
        expected = ip_network(text)
    except ValueError:
        expected = None
    if expected is None or "%" in text or (slash and not length.isdecimal()):
        assert isinstance(parse_prefix(text), str)
        with pytest.raises(ValueError, match=r"bits set|is not an IP prefix"):
            prefix_numbers(text)
        return
    mapped = getattr(expected.network_address, "ipv4_mapped", None)
    if mapped is not None and expected.prefixlen >= 96:
        expected = IPv4Network((int(mapped), expected.prefixlen - 96))
    assert parse_prefix(text) == expected
    number = int(expected.network_address)
    assert prefix_numbers(text) == (expected.version, number, expected.prefixlen)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 255), st.integers(24, 32)), max_size=30))
def test_merging_agrees_with_the_standard_library(pairs: list[tuple[int, int]]) -> None:
    """The fewest prefixes that cover the same, whole or split, nested or twice."""
    networks = [ip_network((number, length), strict=False) for number, length in pairs]
    found = merged(4, [(int(n.network_address), n.prefixlen) for n in networks])
    assert [IPv4Network(each) for each in found] == list(collapse_addresses(networks))  # type: ignore[type-var]
    assert merged(6, [(0, 0), (1 << 127, 1)]) == [(0, 0)]
    assert merged(6, [(0, 1), (1 << 127, 1)]) == [(0, 0)]
