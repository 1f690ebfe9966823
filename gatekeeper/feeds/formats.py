"""Reads lists as publishers write them, strictly and within bounds.

One thing wrong refuses the whole: a list of which half was understood would let the other half
through. What names no public network (private, reserved, documentation; reserved AS numbers) is
left out and counted, because some publishers list it and nobody calls from there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import BytesIO
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET, AF_INET6, inet_ntop
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from msgspec import Struct

from gatekeeper.facts.address import Reach, reach_of
from gatekeeper.facts.prefixes import BITS, merged, prefix_numbers
from gatekeeper.feeds.errors import FeedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gatekeeper.settings import FeedFormat

MAX_ROWS: Final = 1_000_000
"""Rows of one list; Apple's relay, the longest that is known, has 300,000."""
_MAX_LINE_BYTES: Final = 2_000
_MOST_LEFT_OUT: Final = 5
"""One in so many entries may name no public network; with more it is not a list of networks."""

# Nobody holds more than a /8 of IPv4; the largest block of IPv6 ever given out is a /16.
_BROADEST: Final = {4: 8, 6: 16}
_FAMILY: Final = {4: AF_INET, 6: AF_INET6}
_ADDRESS: Final[dict[int, type[IPv4Address | IPv6Address]]] = {4: IPv4Address, 6: IPv6Address}
# A quarter of IPv4, a sixteenth of what is routed of IPv6: no list of real networks comes near.
_MOST_ADDRESSES: Final = {4: 1 << 30, 6: 1 << 121}

_ASN: Final = re.compile(r"(?:AS)?([0-9]{1,10})", re.ASCII | re.IGNORECASE)
_LAST_ASN: Final = 2**32 - 1
# Private use, documentation and reserved: RFC 5398, 6996, 7300, 7607, 4893.
_RESERVED_ASNS: Final = (
    range(1),
    range(23_456, 23_457),
    range(64_496, 131_072),
    range(4_200_000_000, 2**32),
)
_TOR_WORDS: Final = {b"ExitNode", b"Published", b"LastStatus", b"ExitAddress"}


@dataclass(frozen=True, slots=True)
class Entries:
    """A list, aggregated and in order."""

    asns: tuple[int, ...]
    prefixes: tuple[tuple[int, int, int], ...]
    """Version, address, length."""
    left_out: int
    """Entries that name no public network."""

    def __len__(self) -> int:
        return len(self.asns) + len(self.prefixes)

    def to_text(self, title: str) -> bytes:
        """Return the list in the form that a gate reads."""
        lines = [f"# {title}", *(f"AS{asn}" for asn in self.asns)]
        for version, number, length in self.prefixes:
            packed = number.to_bytes(BITS[version] // 8)
            lines.append(f"{inet_ntop(_FAMILY[version], packed)}/{length}")
        return ("\n".join(lines) + "\n").encode("ascii")


def parse_list(content: bytes, form: FeedFormat) -> Entries:
    """Read a published list; raises :class:`FeedError`."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    if content[:64].lstrip()[:1] == b"<":
        raise FeedError("a page came instead of a list: look at the address in a browser")
    rows = _READERS[form](content)
    entries = _asns(rows) if form == "asns" else _prefixes(rows)
    if not len(entries):
        raise FeedError("it is empty")
    return entries


def _prefixes(rows: Iterable[tuple[str, bytes | str]]) -> Entries:
    networks: dict[int, set[tuple[int, int]]] = {4: set(), 6: set()}
    left_out = total = 0
    for total, (place, text) in enumerate(rows, 1):
        if total > MAX_ROWS:
            raise FeedError(f"it has more than {MAX_ROWS} entries")
        version, number, length = _prefix(place, text)
        if _is_public(version, number, length):
            networks[version].add((number, length))
        else:
            left_out += 1
    _check_left_out(left_out, total)
    prefixes: list[tuple[int, int, int]] = []
    for version, found in networks.items():
        fewest = merged(version, found)
        if sum(1 << (BITS[version] - length) for _, length in fewest) > _MOST_ADDRESSES[version]:
            raise FeedError("it covers more of the internet than any list of networks can")
        prefixes += [(version, *each) for each in fewest]
    return Entries((), tuple(prefixes), left_out)


def _is_public(version: int, number: int, length: int) -> bool:
    """Tell whether either end of a network can call us."""
    address = _ADDRESS[version]
    last = number | ((1 << (BITS[version] - length)) - 1)
    return reach_of(address(number)) is Reach.PUBLIC or reach_of(address(last)) is Reach.PUBLIC


def _prefix(place: str, text: bytes | str) -> tuple[int, int, int]:
    if isinstance(text, bytes):
        text = text.decode("ascii", "replace")
    try:
        found = prefix_numbers(text)
    except ValueError as error:
        raise FeedError(f"{place} {error}") from error
    version, _, length = found
    if length < _BROADEST[version]:
        raise FeedError(f"{place} is broader than /{_BROADEST[version]}, as no network is")
    return found


def _asns(rows: Iterable[tuple[str, bytes | str]]) -> Entries:
    numbers: set[int] = set()
    left_out = total = 0
    for total, (place, text) in enumerate(rows, 1):
        if total > MAX_ROWS:
            raise FeedError(f"it has more than {MAX_ROWS} entries")
        word = text.decode("ascii", "replace") if isinstance(text, bytes) else text
        found = _ASN.fullmatch(word)
        if found is None or int(found[1]) > _LAST_ASN:
            raise FeedError(f"{place} is not an AS number such as AS64500")
        number = int(found[1])
        if any(number in reserved for reserved in _RESERVED_ASNS):
            left_out += 1
        else:
            numbers.add(number)
    _check_left_out(left_out, total)
    return Entries(tuple(sorted(numbers)), (), left_out)


def _check_left_out(left_out: int, total: int) -> None:
    if left_out * _MOST_LEFT_OUT > total:
        raise FeedError(f"{left_out} of its {total} entries are private or reserved")


# --- text ---


def _lines(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield lines that say something, without their comment, one at a time."""
    stream = BytesIO(content)
    number = 0
    while line := stream.readline(_MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > _MAX_LINE_BYTES:
            raise FeedError(f"line {number} is longer than {_MAX_LINE_BYTES} bytes")
        text = line.partition(b"#")[0].partition(b";")[0].strip()
        if text:
            yield f"line {number}", text


def _csv(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the first column of a geofeed (RFC 8805)."""
    for place, line in _lines(content):
        yield place, line.partition(b",")[0].strip().strip(b'"')


def _tor_exits(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the addresses of Tor's exit list, each of which follows ``ExitAddress``."""
    for place, line in _lines(content):
        word, *rest = line.split()
        if word not in _TOR_WORDS or not rest:
            raise FeedError(f"{place} is not of Tor's exit list")
        if word == b"ExitAddress":
            yield place, rest[0]


# --- JSON; what is not named here is skipped ---


class _AwsV4(Struct):
    ip_prefix: str


class _AwsV6(Struct):
    ipv6_prefix: str


class _Aws(Struct):
    prefixes: list[_AwsV4]
    ipv6_prefixes: list[_AwsV6]


class _GooglePrefix(Struct, rename="camel"):
    ipv4_prefix: str = ""
    ipv6_prefix: str = ""


class _Google(Struct):
    prefixes: list[_GooglePrefix]


class _AzureProperties(Struct, rename="camel"):
    address_prefixes: list[str]


class _AzureTag(Struct):
    properties: _AzureProperties


class _Azure(Struct):
    values: list[_AzureTag]


class _OracleCidr(Struct):
    cidr: str


class _OracleRegion(Struct):
    cidrs: list[_OracleCidr]


class _Oracle(Struct):
    regions: list[_OracleRegion]


class _CloudflareResult(Struct):
    ipv4_cidrs: list[str]
    ipv6_cidrs: list[str]


class _Cloudflare(Struct):
    result: _CloudflareResult


class _GitHub(Struct):
    """Where GitHub runs what others wrote; its own services call nobody's models."""

    actions: list[str]
    actions_macos: list[str] = []
    codespaces: list[str] = []


def _aws(found: _Aws) -> Iterator[str]:
    yield from (each.ip_prefix for each in found.prefixes)
    yield from (each.ipv6_prefix for each in found.ipv6_prefixes)


def _google(found: _Google) -> Iterator[str]:
    return (each.ipv4_prefix or each.ipv6_prefix for each in found.prefixes)


def _azure(found: _Azure) -> Iterator[str]:
    return (prefix for tag in found.values for prefix in tag.properties.address_prefixes)


def _oracle(found: _Oracle) -> Iterator[str]:
    return (each.cidr for region in found.regions for each in region.cidrs)


def _cloudflare(found: _Cloudflare) -> Iterator[str]:
    yield from found.result.ipv4_cidrs
    yield from found.result.ipv6_cidrs


def _github(found: _GitHub) -> Iterator[str]:
    yield from found.actions
    yield from found.actions_macos
    yield from found.codespaces


_Found = TypeVar("_Found")


def _json(
    schema: type[_Found], prefixes: Callable[[_Found], Iterator[str]]
) -> Callable[[bytes], Iterator[tuple[str, str]]]:
    def read(content: bytes) -> Iterator[tuple[str, str]]:
        try:
            found = msgspec.json.decode(content, type=schema)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FeedError("it is not JSON of this publisher's form, or was cut off") from error
        for number, prefix in enumerate(prefixes(found), 1):
            yield f"entry {number}", prefix

    return read


_READERS: Final[dict[str, Callable[[bytes], Iterable[tuple[str, bytes | str]]]]] = {
    "prefixes": _lines,
    "asns": _lines,
    "csv": _csv,
    "tor_exits": _tor_exits,
    "aws": _json(_Aws, _aws),
    "azure": _json(_Azure, _azure),
    "cloudflare": _json(_Cloudflare, _cloudflare),
    "github": _json(_GitHub, _github),
    "google": _json(_Google, _google),
    "oracle": _json(_Oracle, _oracle),
}
