"""Addresses: one spelling each, and which one is the client's behind trusted proxies.

**One address, one spelling** (:func:`canonical`). What is carried inside an IPv6 address is taken
out only where its owner could not have chosen it:

* IPv4-mapped (``::ffff:0:0/96``) is how a dual-stack socket writes an IPv4 peer: it becomes IPv4.
* NAT64 (``64:ff9b::/96``) is written by the operator's own translator and not routed between
  networks (RFC 6052): it becomes IPv4, unless the IPv4 address inside is not a public one.
* 6to4 (``2002::/16``) and Teredo (``2001::/32``) arrive through relays that anybody may run, so
  the address inside is whatever their sender wants it to be. It is never believed: such
  an address stays IPv6, has no location, and all of 6to4 is one key, all of Teredo another.

Zone ids mean something on one machine only. The peer's, written by our own kernel, is dropped; in
text that others wrote it makes the address junk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final

from gatekeeper.facts.forwarded import MAX_HOPS, forwarded_hops, x_forwarded_for_hops
from gatekeeper.facts.prefixes import IPAddress, IPNetwork, PrefixMap, parse_prefix
from gatekeeper.policy.mistake import Mistake
from gatekeeper.settings import ForwardedHeader

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "MAX_HOPS",
    "NOWHERE",
    "AddressSource",
    "ClientAddress",
    "IPAddress",
    "Reach",
    "TrustedProxies",
    "canonical",
    "client_address",
    "is_public",
    "parse_address",
    "parse_host_port",
    "reach_of",
]

NOWHERE: Final = IPv4Address(0)
"""Stands for the client when even the peer has no IP address (a Unix socket)."""

_LONGEST_SPELLING: Final = 47  # 45 characters of IPv6 with an IPv4 tail, and brackets
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
_MAX_PORT: Final = 65_535


class Reach(StrEnum):
    """What can be asked about an address."""

    PUBLIC = "public"
    """Routed on the internet: every look-up applies."""
    PRIVATE = "private"
    """Private, shared (RFC 6598), link-local, loopback, multicast or reserved: nobody's country."""
    UNLOCATABLE = "unlocatable"
    """A public client behind an address that does not tell which (6to4, Teredo, translators)."""


# The registries of RFC 6890, written out: the standard library's answer changes between patch
# releases. The last line is everything but global unicast IPv6 (2000::/3).
_PRIVATE: Final = """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24
    192.0.2.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3
    2001:2::/48 2001:10::/28 2001:20::/28 2001:db8::/32 3fff::/20
    ::/3 4000::/2 8000::/1
"""
# Teredo, 6to4, stateless translation (RFC 2765), NAT64 well-known and local-use (RFC 8215). Who
# comes through a translator is a client of the internet: as private it would be let in as ours.
_UNLOCATABLE: Final = "2001::/32 2002::/16 ::ffff:0:0:0/96 64:ff9b::/96 64:ff9b:1::/48"
_REACH: Final = PrefixMap(
    (ip_network(prefix), reach)
    for reach, prefixes in ((Reach.PRIVATE, _PRIVATE), (Reach.UNLOCATABLE, _UNLOCATABLE))
    for prefix in prefixes.split()
)
_NOT_PUBLIC: Final = tuple(
    ip_network(prefix) for prefix in (*_PRIVATE.split(), *_UNLOCATABLE.split())
)
_NAT64: Final = int(IPv6Address("64:ff9b::")) >> 32
_MAPPED: Final = 0xFFFF


def parse_address(text: str) -> IPAddress | None:
    """Read one address in any IPv6 spelling, brackets allowed, in its canonical form.

    ``None`` for anything else: a port, a zone id, blanks, leading zeros in IPv4 (RFC 6943).
    """
    if len(text) > _LONGEST_SPELLING or not text.isascii() or "%" in text:
        return None
    try:
        if ":" not in text:
            return IPv4Address(text)
        if text[0] == "[" and text[-1] == "]":
            text = text[1:-1]
        return canonical(IPv6Address(text))
    except ValueError:
        return None


def parse_host_port(text: str) -> tuple[IPAddress, int | None] | None:
    """Read ``1.2.3.4:80``, ``[::1]:80`` or a bare address; ``None`` when it is neither.

    Bare IPv6 never carries a port: ``2001:db8::1:443`` is an address.
    """
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        address = parse_address(text)
        return None if address is None else (address, None)
    if host.startswith("[") and ":" not in host:
        return None
    address = parse_address(host)
    if address is None or not _PORT.fullmatch(port) or int(port) > _MAX_PORT:
        return None
    return address, int(port)


def canonical(address: IPAddress) -> IPAddress:
    """Return the one form that stands for this address (see the module's text)."""
    if isinstance(address, IPv4Address):
        return address
    number = int(address)
    high, low = number >> 32, number & 0xFFFF_FFFF
    if high == _MAPPED:
        return IPv4Address(low)
    if high == _NAT64:
        inside = IPv4Address(low)
        if reach_of(inside) is Reach.PUBLIC:
            return inside
    return IPv6Address(number) if address.scope_id else address


def reach_of(address: IPAddress) -> Reach:
    """Tell what can be asked about a canonical address."""
    found = _REACH.matches(address)
    return found[0] if found else Reach.PUBLIC


def is_public(network: IPNetwork) -> bool:
    """Tell whether every address of ``network`` is a public one that names its client."""
    return not any(
        each.overlaps(network) for each in _NOT_PUBLIC if each.version == network.version
    )


class TrustedProxies:
    """Proxies whose forwarded header is believed; immutable, with fast membership."""

    __slots__ = ("_prefixes", "empty")

    def __init__(self, prefixes: Iterable[str] = ()) -> None:
        """Compile prefixes; ``ValueError`` for bad ones (:meth:`parse` tells where they are)."""
        parsed = [_trusted_prefix(text) for text in prefixes]
        problems = [problem for problem in parsed if isinstance(problem, str)]
        if problems:
            raise ValueError("; ".join(problems))
        self._prefixes = PrefixMap((each, True) for each in parsed if not isinstance(each, str))
        self.empty = not parsed

    @classmethod
    def parse(
        cls, prefixes: Sequence[str], *, file: str, path: str
    ) -> TrustedProxies | list[Mistake]:
        """Compile prefixes from settings, or tell all that are wrong with their place."""
        mistakes = [
            Mistake(file, None, f"{path}[{index}]", problem)
            for index, text in enumerate(prefixes)
            if isinstance(problem := _trusted_prefix(text), str)
        ]
        return mistakes or cls(prefixes)

    def __contains__(self, address: IPAddress) -> bool:
        return address in self._prefixes


def _trusted_prefix(text: str) -> IPNetwork | str:
    network = parse_prefix(text)
    if not isinstance(network, str) and network.prefixlen == 0:
        return f"{text!r} would believe every caller's own header; name the proxies"
    return network


class AddressSource(StrEnum):
    """Whose word the client address is."""

    PEER = "peer"
    """The connection itself: not a trusted proxy, or one that forwarded nobody."""
    FORWARDED = "forwarded"
    """Named by a trusted proxy."""
    UNKNOWN = "unknown"
    """A trusted proxy forwarded somebody it did not name."""


@dataclass(frozen=True, slots=True)
class ClientAddress:
    """The client's address, canonical, and how it is known.

    When ``source`` is ``unknown``, ``address`` is that of the last trusted proxy: something to
    count by, but not where the client is. It must not be located, nor pass for private.
    """

    address: IPAddress
    source: AddressSource


def client_address(
    peer: str, forwarded: Sequence[str], header: ForwardedHeader, trusted: TrustedProxies
) -> ClientAddress:
    """Walk from the peer towards the client, skipping trusted proxies only (H13).

    ``peer`` is the address of the connection (or of its PROXY header), ``forwarded`` every line
    of the configured header in order. A hop that names no address ends the walk: what stands to
    its left was written by somebody nobody vouches for.
    """
    near = parse_address(peer.partition("%")[0])
    if near is None:
        return ClientAddress(NOWHERE, AddressSource.UNKNOWN)
    if trusted.empty or header is ForwardedHeader.NONE or near not in trusted:
        return ClientAddress(near, AddressSource.PEER)
    hops = (
        forwarded_hops(forwarded)
        if header is ForwardedHeader.FORWARDED
        else x_forwarded_for_hops(forwarded)
    )
    source = AddressSource.PEER
    read = 0
    for hop in hops:
        named = None if hop is None else parse_host_port(hop)
        if named is None:
            return ClientAddress(near, AddressSource.UNKNOWN)
        near, source, read = named[0], AddressSource.FORWARDED, read + 1
        if near not in trusted:
            return ClientAddress(near, source)
    if read == MAX_HOPS:
        return ClientAddress(near, AddressSource.UNKNOWN)
    return ClientAddress(near, source)


def cut_peer(peer: str) -> str:
    """Return the network of an address, /24 or /48: enough to see a pattern."""
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return ""
    bits = 24 if isinstance(address, IPv4Address) else 48
    return str(ip_network((address, bits), strict=False))
