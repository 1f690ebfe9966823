"""Published lists are read strictly: each publisher's form, bounds, and nothing half understood."""

from __future__ import annotations

import json
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.facts.address import Reach, reach_of
from gatekeeper.facts.feed_files import read_entries
from gatekeeper.facts.prefixes import BITS
from gatekeeper.feeds import formats
from gatekeeper.feeds.errors import FeedError
from gatekeeper.feeds.formats import Entries, parse_list
from gatekeeper.settings import DATABASE_FORMAT, FeedFormat

AWS = {
    "syncToken": "1790000000",
    "prefixes": [{"ip_prefix": "3.4.12.4/32", "region": "eu-west-1", "service": "AMAZON"}],
    "ipv6_prefixes": [{"ipv6_prefix": "2600:1f60::/40", "region": "x", "service": "EC2"}],
}
GOOGLE = {
    "creationTime": "2026-11-01T00:00:00",
    "prefixes": [
        {"ipv4Prefix": "34.1.208.0/20", "scope": "africa-south1"},
        {"ipv6Prefix": "2600:1900:8000::/44", "scope": "africa-south1"},
    ],
}
AZURE = {
    "changeNumber": 1,
    "cloud": "Public",
    "values": [
        {
            "name": "AzureCloud.x",
            "properties": {"region": "x", "addressPrefixes": ["4.145.74.52/30", "2603:1000::/40"]},
        }
    ],
}
ORACLE = {"regions": [{"region": "x", "cidrs": [{"cidr": "129.146.0.0/21", "tags": ["OCI"]}]}]}
CLOUDFLARE = {"result": {"ipv4_cidrs": ["173.245.48.0/20"], "ipv6_cidrs": ["2400:cb00::/32"]}}
GITHUB = {"hooks": ["192.30.252.0/22"], "actions": ["4.148.0.0/16"], "codespaces": ["20.1.2.3/32"]}
TOR = b"""\
ExitNode 0011BD2485AD45D984EC4159C88FC066E5E3300E
Published 2026-11-24 21:30:02
LastStatus 2026-11-24 22:00:00
ExitAddress 162.247.74.201 2026-11-24 22:09:26
ExitAddress 162.247.74.202 2026-11-24 22:09:26
"""
GEOFEED = b"""\
# prefix,country,region,city,postal
5.101.96.0/21,NL,NL-NH,Amsterdam,1098
"45.33.0.0/17",US,US-TX,Richardson,75081

2a03:b0c0::/48,NL,,,
"""


def networks_of(found: Entries) -> list[IPv4Network | IPv6Network]:
    """Return the prefixes as the standard library has them."""
    family = {4: IPv4Network, 6: IPv6Network}
    return [family[version]((number, length)) for version, number, length in found.prefixes]


@pytest.mark.parametrize(
    ("form", "content", "expected"),
    [
        ("prefixes", b"# X4BNet\n1.2.3.0/24\r\n1.2.3.4\n2a00::/32 # x\n", "1.2.3.0/24 2a00::/32"),
        ("prefixes", b"1.10.16.0/20 ; SBL256894\n", "1.10.16.0/20"),
        ("prefixes", b"\xef\xbb\xbf1.1.1.1", "1.1.1.1/32"),
        ("prefixes", b"1.2.2.0/24\n1.2.3.0/24\n1.2.3.0/25\n1.2.3.0/24", "1.2.2.0/23"),
        ("csv", GEOFEED, "5.101.96.0/21 45.33.0.0/17 2a03:b0c0::/48"),
        ("tor_exits", TOR, "162.247.74.201/32 162.247.74.202/32"),
        ("aws", AWS, "3.4.12.4/32 2600:1f60::/40"),
        ("google", GOOGLE, "34.1.208.0/20 2600:1900:8000::/44"),
        ("azure", AZURE, "4.145.74.52/30 2603:1000::/40"),
        ("oracle", ORACLE, "129.146.0.0/21"),
        ("cloudflare", CLOUDFLARE, "173.245.48.0/20 2400:cb00::/32"),
        ("github", GITHUB, "4.148.0.0/16 20.1.2.3/32"),
    ],
)
def test_each_publisher_is_understood(form: FeedFormat, content: object, expected: str) -> None:
    """Prefixes come out aggregated, IPv4 first, whatever stands beside them."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    assert " ".join(map(str, networks_of(parse_list(data, form)))) == expected


def test_as_numbers_are_understood() -> None:
    """X4BNet's form, with names as comments that need not be ASCII; each number once."""
    found = parse_list(b"AS9009 # M247, GB\nas174 # caf\xe9\n45102\nAS9009\n", "asns")
    assert found.asns == (174, 9009, 45102)


def test_every_format_of_the_settings_has_a_reader() -> None:
    """A format that can be set can be read: it tells an empty list, not a defect."""
    for form in set(get_args(FeedFormat)) - {DATABASE_FORMAT}:
        with pytest.raises(FeedError):
            parse_list(b"", form)


BAD: list[tuple[FeedFormat, bytes, str]] = [
    ("prefixes", b"", "empty"),
    ("prefixes", b"# nothing\n", "empty"),
    ("prefixes", b"<!DOCTYPE html><html>1.2.3.4", "a page came"),
    ("aws", b"\n  <html>", "a page came"),
    ("prefixes", b"1.2.3.4\nhello\n", "line 2 is not an IP prefix"),
    ("prefixes", b"1.2.3.4/24", "line 1 has bits set"),
    ("prefixes", b"1.2.3.0/255.255.255.0", "is not an IP prefix"),
    ("prefixes", b"fe80::1%eth0", "is not an IP prefix"),
    ("prefixes", "\uff11.2.3.4".encode(), "is not an IP prefix"),
    ("prefixes", b"1.2.3.4\x00", "is not an IP prefix"),
    ("prefixes", b"0.0.0.0/0", "broader than /8"),
    ("prefixes", b"8.0.0.0/7", "broader than /8"),
    ("prefixes", b"::/0", "broader than /16"),
    ("prefixes", b"2600::/15", "broader than /16"),
    ("prefixes", b"1.2.3.4 " * 1000, "longer than"),
    ("prefixes", b"x" * 5000, "longer than"),
    ("prefixes", b"10.0.0.0/8\n192.168.0.0/16\n1.2.3.4", "2 of its 3 entries are private"),
    ("prefixes", b"2001:db8::/32", "private or reserved"),
    ("prefixes", b"\n".join(b"%d.0.0.0/8" % n for n in range(11, 90)), "more of the internet"),
    ("csv", b"prefix,country\n1.2.3.0/24,US\n", "line 1 is not an IP prefix"),
    ("asns", b"AS9009\nM247\n", "line 2 is not an AS number"),
    ("asns", b"AS4294967296", "not an AS number"),
    ("asns", b"AS64512\nAS9009\n", "1 of its 2 entries"),
    ("asns", b"1.2.3.0/24", "not an AS number"),
    ("tor_exits", b"162.247.74.201\n", "not of Tor's exit list"),
    ("tor_exits", b"ExitAddress\n", "not of Tor's exit list"),
    ("aws", b"1.2.3.0/24", "not JSON"),
    ("aws", b'{"prefixes": [], "ipv6_prefixes": []}', "empty"),
    ("aws", json.dumps(GOOGLE).encode(), "not JSON of this publisher's form"),
    ("google", b'{"prefixes": [{}]}', "entry 1 is not an IP prefix"),
    ("azure", json.dumps(AZURE).encode()[:-5], "cut off"),
    ("oracle", b"[" * 100_000, "not JSON"),
    ("cloudflare", b'{"result": null}', "not JSON"),
    ("github", b'{"hooks": ["192.30.252.0/22"]}', "not JSON"),
]


@pytest.mark.parametrize(("form", "content", "words"), BAD)
def test_h37_what_is_no_list_is_refused_whole(form: FeedFormat, content: bytes, words: str) -> None:
    """Each message says what is wrong and where, and repeats nothing of what came."""
    with pytest.raises(FeedError, match=words) as told:
        parse_list(content, form)
    assert len(str(told.value)) < 200
    assert "hello" not in str(told.value)


def test_a_few_entries_that_are_nobodys_are_left_out() -> None:
    """Documentation and private blocks occur in real lists; nobody calls from there."""
    rows = [f"5.6.{n}.0/25" for n in range(20)] + ["192.0.2.0/24", "10.1.0.0/16", "2002::/16"]
    found = parse_list("\n".join(rows).encode(), "prefixes")
    assert (len(found), found.left_out) == (20, 3)


def test_too_many_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list longer than any is given up on the way, before it fills the memory."""
    assert formats.MAX_ROWS == 1_000_000
    monkeypatch.setattr(formats, "MAX_ROWS", 1_000)
    assert len(parse_list(b"1.1.1.1\n" * 1_000, "prefixes")) == 1
    with pytest.raises(FeedError, match="more than"):
        parse_list(b"1.1.1.1\n" * 1_001, "prefixes")
    with pytest.raises(FeedError, match="more than"):
        parse_list(b"AS174\n" * 1_001, "asns")


V4 = st.tuples(st.integers(0, 2**32 - 1), st.integers(9, 32)).map(
    lambda pair: IPv4Network((pair[0] >> (32 - pair[1]) << (32 - pair[1]), pair[1]))
)
V6 = st.tuples(st.integers(0x2000 << 112, (0x4000 << 112) - 1), st.integers(20, 128)).map(
    lambda pair: IPv6Network((pair[0] >> (128 - pair[1]) << (128 - pair[1]), pair[1]))
)


@settings(deadline=None)
@given(st.lists(V4 | V6, min_size=1, max_size=30))
def test_a_list_keeps_exactly_its_public_networks(
    networks: list[IPv4Network | IPv6Network],
) -> None:
    """What is kept covers each public network, nothing else, and is read back as it was written."""
    public = [n for n in networks if Reach.PUBLIC in {reach_of(n[0]), reach_of(n[-1])}]
    try:
        found = parse_list("\n".join(map(str, networks)).encode(), "prefixes")
    except FeedError as error:
        assert "entries are private" in str(error) or "more of the internet" in str(error)  # noqa: PT017 - either
        return
    kept = networks_of(found)
    for version, family in ((4, IPv4Network), (6, IPv6Network)):
        mine = [n for n in public if isinstance(n, family)]
        fewest = [n for n in kept if n.version == version]
        assert fewest == list(collapse_addresses(mine))  # type: ignore[type-var]
    asns, groups = read_entries(found.to_text("mine"))
    read = [
        (version, key << free, BITS[version] - free)
        for (version, free), keys in groups.items()
        for key in keys
    ]
    assert (asns, sorted(read)) == ([], sorted(found.prefixes))


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from(sorted(set(get_args(FeedFormat)) - {"mmdb"})))
def test_any_bytes_are_a_list_or_an_error(content: bytes, form: FeedFormat) -> None:
    """Nothing that a publisher sends raises anything but the one error."""
    try:
        found = parse_list(content, form)
    except FeedError:
        return
    assert len(found) > 0
