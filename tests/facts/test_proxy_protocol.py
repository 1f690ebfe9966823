"""PROXY protocol headers: what is read, what is refused, and that splitting changes nothing."""

from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.facts.proxy_protocol import (
    V1_MAX_BYTES,
    V2_MAX_BYTES,
    Incomplete,
    Malformed,
    Parsed,
    ProxyHeader,
    ProxyOutcome,
)

V2 = b"\r\n\r\n\x00\r\nQUIT\n"
V1_LINE = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"
V4_BODY = bytes([192, 0, 2, 1, 198, 51, 100, 1]) + b"\xdc\x04\x01\xbb"
V6_BODY = IPv6Address("2001:db8::1").packed * 2 + b"\xdc\x04\x01\xbb"


def v2(command: int, family: int, body: bytes) -> bytes:
    """Build a version 2 header."""
    return V2 + bytes([command, family]) + len(body).to_bytes(2, "big") + body


def fed(*parts: bytes) -> ProxyOutcome:
    """Feed the parts in order and return the last answer."""
    header = ProxyHeader()
    outcome: ProxyOutcome = Incomplete()
    for part in parts:
        outcome = header.feed(part)
    return outcome


GOOD = [
    (V1_LINE, IPv4Address("192.0.2.1"), 56324),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", IPv6Address("2001:db8::1"), 1),
    (b"PROXY TCP6 ::ffff:1.2.3.4 ::1 1 2\r\n", IPv4Address("1.2.3.4"), 1),
    (b"PROXY UNKNOWN\r\n", None, None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None, None),
    (v2(0x21, 0x11, V4_BODY), IPv4Address("192.0.2.1"), 56324),
    (v2(0x21, 0x11, V4_BODY + b"\x04\x00\x03abc"), IPv4Address("192.0.2.1"), 56324),
    (v2(0x21, 0x21, V6_BODY), IPv6Address("2001:db8::1"), 56324),
    (v2(0x20, 0x11, V4_BODY), None, None),
    (v2(0x20, 0x00, b""), None, None),
    (v2(0x21, 0x00, b"xx"), None, None),
    (v2(0x21, 0x31, bytes(216)), None, None),
]


@pytest.mark.parametrize(("header", "source", "port"), GOOD)
def test_reads_both_versions(
    header: bytes, source: IPv4Address | IPv6Address | None, port: int | None
) -> None:
    """Both versions name the client, or say that the proxy speaks for itself; TLVs are skipped."""
    assert fed(header) == Parsed(source, port, len(header))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
        b"PROXY TCP4  192.0.2.1 198.51.100.1 56324 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 65536\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 065 443\r\n",
        b"PROXY TCP4 192.0.2.01 198.51.100.1 1 443\r\n",
        b"PROXY TCP4 ::1 ::1 1 443\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.1 1 443\r\n",
        b"PROXY TCP6 fe80::1%1 ::1 1 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 1 443\nGET\r\n",
        b"PROXY TCP4 192.0.2.1\x00198.51.100.1 1 443\r\n",
        b"PROXY TCP5 192.0.2.1 198.51.100.1 1 443\r\n",
        b"PROXY " + b"x" * V1_MAX_BYTES,
        b"PROXY UNKNOWN " + b"x" * V1_MAX_BYTES + b"\r\n",
        v2(0x11, 0x11, V4_BODY),
        v2(0x22, 0x11, V4_BODY),
        v2(0x21, 0x12, V4_BODY),
        v2(0x21, 0x11, V4_BODY[:-1]),
        v2(0x21, 0x21, V4_BODY),
        v2(0x21, 0x11, bytes(V2_MAX_BYTES)),
    ],
)
def test_refuses_what_is_no_header(data: bytes) -> None:
    """Other grammar, families, lengths, versions and commands are malformed."""
    assert isinstance(fed(data), Malformed)


@pytest.mark.parametrize("header", [header for header, _, _ in GOOD])
def test_every_prefix_is_incomplete(header: bytes) -> None:
    """A header cut anywhere waits for the rest."""
    assert all(isinstance(fed(header[:at]), Incomplete) for at in range(len(header)))


def test_keeps_what_follows_the_header() -> None:
    """Bytes after the header belong to the connection, and later ones are not the header's."""
    header = ProxyHeader()
    first = header.feed(V1_LINE + b"GET /")
    assert header.rest == b"GET /"
    assert header.feed(b"more") == first
    assert header.rest == b"GET /"


@given(
    st.sampled_from([header for header, _, _ in GOOD]).flatmap(
        lambda header: st.tuples(
            st.just(header), st.integers(0, len(header) - 1), st.integers(0, 255)
        )
    )
    | st.tuples(st.binary(max_size=200), st.just(-1), st.just(0)),
    st.lists(st.integers(0, 250), max_size=6),
)
def test_no_bytes_raise_and_no_split_matters(
    mutated: tuple[bytes, int, int], cuts: list[int]
) -> None:
    """Any bytes, split anyhow, give the one answer they give at once."""
    data, at, value = mutated
    if at >= 0:
        data = data[:at] + bytes([value]) + data[at + 1 :] + b"tail"
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(bounds)]
    assert fed(*pieces) == fed(data)


def test_memory_is_bounded() -> None:
    """A connection that never finishes its header is cut off at the longest one."""
    header = ProxyHeader()
    answers = [header.feed(b"PROXY "), *(header.feed(b"a") for _ in range(V1_MAX_BYTES))]
    assert isinstance(answers[-1], Malformed)
