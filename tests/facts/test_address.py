"""Addresses: one spelling each; and the client's, which only trusted proxies may name."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.facts.address import (
    MAX_HOPS,
    NOWHERE,
    AddressSource,
    ClientAddress,
    Reach,
    TrustedProxies,
    canonical,
    client_address,
    cut_peer,
    parse_address,
    parse_host_port,
    reach_of,
)
from gatekeeper.policy.mistake import Mistake
from gatekeeper.settings import ForwardedHeader

XFF, FORWARDED = ForwardedHeader.X_FORWARDED_FOR, ForwardedHeader.FORWARDED
PROXIES = TrustedProxies(["10.0.0.0/8", "2001:db8:ffff::/48"])


@pytest.mark.parametrize(
    "spelling",
    [
        "1.2.3.4",
        "::ffff:1.2.3.4",
        "::ffff:102:304",
        "::FFFF:0102:0304",
        "0:0:0:0:0:ffff:1.2.3.4",
        "[::ffff:1.2.3.4]",
        "64:ff9b::1.2.3.4",
        "64:ff9b::102:304",
    ],
)
def test_h14_one_address_has_one_form(spelling: str) -> None:
    """IPv4-mapped and NAT64 spellings of an IPv4 address are that address."""
    assert parse_address(spelling) == IPv4Address("1.2.3.4")


@pytest.mark.parametrize(
    "spelling", ["2001:db8::1", "2001:0DB8:0:0:0:0:0:1", "[2001:db8::0.0.0.1]", "2001:db8:0::1"]
)
def test_h14_ipv6_spellings_are_one(spelling: str) -> None:
    """Case, zeros, brackets and an IPv4 tail do not make another address."""
    assert parse_address(spelling) == IPv6Address("2001:db8::1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1.2.3.4",
        "1.2.3.4\n",
        "01.2.3.4",
        "1.2.3",
        "0x1.2.3.4",
        "16909060",
        "1.2.3.4:80",
        "[1.2.3.4]",
        "[::1]:80",
        "[::1",
        "::1]",
        "fe80::1%eth0",
        "1.2.3.4%eth0",
        "\u0661.2.3.4",
        "::ffff:1.2.3.256",
        "1" * 1000,
        ":::",
        "unknown",
    ],
)
def test_refuses_what_is_no_address(text: str) -> None:
    """Ports, zone ids, blanks, other digits and leading zeros are no address."""
    assert parse_address(text) is None


@given(st.integers(0, 2**128 - 1))
def test_h14_canonical_form_is_stable(number: int) -> None:
    """What is canonical stays as it is, and its own text reads back as itself."""
    address = canonical(IPv6Address(number))
    assert canonical(address) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("text", ["2002:0102:0304::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2"])
def test_h14_tunnels_are_never_believed(text: str) -> None:
    """What 6to4 and Teredo carry was chosen by the sender: it stays IPv6 and has no location."""
    address = parse_address(text)
    assert isinstance(address, IPv6Address)
    assert reach_of(address) is Reach.UNLOCATABLE


def test_h14_nat64_cannot_pass_for_private() -> None:
    """A private address inside NAT64 stays where it is, without a location."""
    address = parse_address("64:ff9b::10.0.0.1")
    assert isinstance(address, IPv6Address)
    assert reach_of(address) is Reach.UNLOCATABLE


def test_zone_of_an_address_is_dropped() -> None:
    """Two zones of one link-local address are one address once canonical."""
    assert canonical(IPv6Address("fe80::1%a")) == canonical(IPv6Address("fe80::1%b"))


@pytest.mark.parametrize(
    ("text", "reach"),
    [
        ("10.1.1.1", Reach.PRIVATE),
        ("100.64.0.1", Reach.PRIVATE),
        ("127.0.0.1", Reach.PRIVATE),
        ("169.254.169.254", Reach.PRIVATE),
        ("0.0.0.0", Reach.PRIVATE),
        ("224.0.0.1", Reach.PRIVATE),
        ("255.255.255.255", Reach.PRIVATE),
        ("192.0.2.1", Reach.PRIVATE),
        ("::", Reach.PRIVATE),
        ("::1", Reach.PRIVATE),
        ("fd00::1", Reach.PRIVATE),
        ("fe80::1", Reach.PRIVATE),
        ("ff02::1", Reach.PRIVATE),
        ("2001:db8::1", Reach.PRIVATE),
        ("64:ff9b:1::1", Reach.UNLOCATABLE),
        ("::ffff:0:1.2.3.4", Reach.UNLOCATABLE),
        ("100.128.0.1", Reach.PUBLIC),
        ("8.8.8.8", Reach.PUBLIC),
        ("2001:4860:4860::8888", Reach.PUBLIC),
        ("2a02:6b8::1", Reach.PUBLIC),
    ],
)
def test_tells_what_can_be_asked(text: str, reach: Reach) -> None:
    """Private and reserved ranges, translators, and the routed internet are told apart."""
    address = parse_address(text)
    assert address is not None
    assert reach_of(address) is reach


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("1.2.3.4:80", ("1.2.3.4", 80)),
        ("1.2.3.4", ("1.2.3.4", None)),
        ("[2001:db8::1]:443", ("2001:db8::1", 443)),
        ("[2001:db8::1]", ("2001:db8::1", None)),
        ("2001:db8::1:443", ("2001:db8::1:443", None)),
        ("::ffff:1.2.3.4", ("1.2.3.4", None)),
    ],
)
def test_reads_host_and_port(text: str, parsed: tuple[str, int | None]) -> None:
    """A port is split off where it can be told from the address."""
    assert parse_host_port(text) == (ip_address(parsed[0]), parsed[1])


@pytest.mark.parametrize(
    "text",
    ["", ":80", "1.2.3.4:", "1.2.3.4:x", "1.2.3.4:65536", "1.2.3.4:" + "0" * 5000, "[1.2.3.4]:80",
     "[::1]:", "[::1]80", "host:80", "1.2.3.4:\u0661"],
)  # fmt: skip
def test_refuses_what_is_no_host_and_port(text: str) -> None:
    """Names, empty and impossible ports are refused."""
    assert parse_host_port(text) is None


def walked(peer: str, *lines: str, header: ForwardedHeader = XFF) -> tuple[str, AddressSource]:
    """Walk with the proxies of this file."""
    client = client_address(peer, lines, header, PROXIES)
    return str(client.address), client.source


def test_h13_skips_only_trusted_proxies() -> None:
    """The first hop from the right that is not a trusted proxy is the client."""
    assert walked("10.0.0.1", "6.6.6.6, 8.8.8.8, 10.0.0.2") == ("8.8.8.8", AddressSource.FORWARDED)
    assert walked("10.0.0.1", "6.6.6.6", "8.8.8.8, 10.0.0.2")[0] == "8.8.8.8"
    assert walked("2001:db8:ffff::1", "[2a02::7]:4711")[0] == "2a02::7"
    assert walked("::ffff:10.0.0.1", "::ffff:8.8.8.8")[0] == "8.8.8.8"


def test_h13_reads_the_configured_header_only() -> None:
    """RFC 7239 is read when the settings say so, and nothing when they say none."""
    line = 'for=6.6.6.6, for="[2a02::7]:4711";proto=https'
    assert walked("10.0.0.1", line, header=FORWARDED)[0] == "2a02::7"
    assert walked("10.0.0.1", "8.8.8.8", header=ForwardedHeader.NONE) == (
        "10.0.0.1",
        AddressSource.PEER,
    )


@pytest.mark.parametrize("junk", ["unknown", "_obf", "", "unix:", "8.8.8.8%eth0", "evil.example"])
def test_h13_a_junk_hop_ends_the_walk(junk: str) -> None:
    """A hop that is no address is never stepped over: the client is unknown, not the next pick."""
    for line in (f"6.6.6.6, {junk}", f"6.6.6.6, {junk}, 10.0.0.2"):
        address, source = walked("10.0.0.1", line)
        assert source is AddressSource.UNKNOWN
        assert address in {"10.0.0.1", "10.0.0.2"}


def test_h13_a_chain_of_trusted_proxies_ends_with_the_farthest() -> None:
    """When every hop is trusted, the farthest of them is the client."""
    assert walked("10.0.0.1", "10.0.0.3, 10.0.0.2") == ("10.0.0.3", AddressSource.FORWARDED)
    assert walked("10.0.0.1") == ("10.0.0.1", AddressSource.PEER)


def test_h13_the_walk_is_bounded() -> None:
    """A chain longer than any real one is given up, not believed."""
    line = "6.6.6.6," + ",".join(["10.0.0.2"] * MAX_HOPS)
    assert walked("10.0.0.1", line)[1] is AddressSource.UNKNOWN


def test_a_peer_without_an_address_is_nowhere() -> None:
    """A Unix socket's peer is unknown, and the zone of a link-local peer is dropped."""
    assert walked("", "8.8.8.8") == (str(NOWHERE), AddressSource.UNKNOWN)
    assert walked("fe80::1%eth0") == ("fe80::1", AddressSource.PEER)


addresses = st.ip_addresses().map(canonical)
lines = st.lists(
    st.text(max_size=40) | addresses.map(str) | addresses.map("for={}".format), max_size=4
)


@given(addresses.filter(lambda a: a not in PROXIES), lines, st.sampled_from(ForwardedHeader))
def test_h13_an_untrusted_peers_headers_never_change_the_client(
    peer: IPv4Address | IPv6Address, forwarded: list[str], header: ForwardedHeader
) -> None:
    """Whatever somebody who is not a trusted proxy sends, the client is who sent it."""
    alone = ClientAddress(peer, AddressSource.PEER)
    assert client_address(str(peer), forwarded, header, PROXIES) == alone
    assert client_address(str(peer), forwarded, header, TrustedProxies()) == alone


@given(addresses.filter(lambda a: a not in PROXIES), lines)
def test_h13_what_a_client_forges_never_survives_its_proxy(
    client: IPv4Address | IPv6Address, forged: list[str]
) -> None:
    """A proxy that appends whom it saw is believed, whatever was already in the header."""
    assert client_address("10.0.0.1", [*forged, str(client)], XFF, PROXIES).address == client
    node = f'for="[{client}]"' if client.version == 6 else f"for={client}"
    assert client_address("10.0.0.1", [*forged, node], FORWARDED, PROXIES).address == client


def test_trusted_proxies_tell_all_mistakes() -> None:
    """Bad prefixes are told together with their place, and trusting everybody is one."""
    found = TrustedProxies.parse(["10.0.0.1/8", "127.0.0.1", "::/0"], file="f", path="trusted")
    assert isinstance(found, list)
    assert [(each.path, type(each)) for each in found] == [
        ("trusted[0]", Mistake),
        ("trusted[2]", Mistake),
    ]
    assert isinstance(TrustedProxies.parse(["127.0.0.1"], file="f", path="p"), TrustedProxies)
    with pytest.raises(ValueError, match="believe every caller"):
        TrustedProxies(["0.0.0.0/0"])


@pytest.mark.parametrize(
    ("peer", "cut"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("", ""),
        ("unix:", ""),
    ],
)
def test_a_peer_is_cut_before_it_is_logged(peer: str, cut: str) -> None:
    """Enough to see a pattern, and never the whole address."""
    assert cut_peer(peer) == cut
