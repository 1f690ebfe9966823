"""IP prefixes: parse them strictly, and find those that hold an address."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from socket import AF_INET, AF_INET6, inet_pton
from typing import TYPE_CHECKING, Generic, Self, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network
T = TypeVar("T")

_V4 = 4
_V4_BITS, _V6_BITS = 32, 128
_MAPPED_BITS = 96
_MAPPED_HIGH = 0xFFFF


def parse_prefix(text: str) -> IPNetwork | str:
    """Read ``address/length`` or a single address; a string answer says what is wrong with it.

    Bits set beyond the length are refused: they are a typing error more often than an intention.
    IPv4-mapped prefixes come back as the IPv4 prefix they stand for.
    """
    if "%" in text:
        return f"{text!r} carries a zone id; a prefix has none"
    address, slash, length = text.partition("/")
    if slash and not (length.isascii() and length.isdecimal()):
        return f"{text!r} is not an IP prefix such as 192.0.2.0/24 or 2001:db8::/32"
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return f"{text!r} is not an IP prefix such as 192.0.2.0/24 or 2001:db8::/32"
    if slash and ip_network(address).network_address != network.network_address:
        return f"{text!r} has bits set beyond its length; did you mean {network}?"
    if (
        isinstance(network, IPv6Network)
        and network.prefixlen >= _MAPPED_BITS
        and int(network.network_address) >> 32 == _MAPPED_HIGH
    ):
        low = int(network.network_address) & 0xFFFF_FFFF
        return IPv4Network((low, network.prefixlen - _MAPPED_BITS))
    return network


def prefix_numbers(text: str) -> tuple[int, int, int]:
    """Read what :func:`parse_prefix` reads, as version, address and length, in a tenth of the time.

    Raises :class:`ValueError`, which says what is wrong without repeating it.
    """
    address, slash, length_text = text.partition("/")
    version, family, most = (6, AF_INET6, _V6_BITS) if ":" in address else (_V4, AF_INET, _V4_BITS)
    try:
        number = int.from_bytes(inet_pton(family, address))
        length = int(length_text) if slash else most
    except (OSError, ValueError) as error:
        raise ValueError("is not an IP prefix") from error
    if slash and not (length_text.isascii() and length_text.isdecimal() and length <= most):
        raise ValueError("is not an IP prefix")
    if number & ((1 << (most - length)) - 1):
        raise ValueError("has bits set beyond its length")
    if most == _V6_BITS and length >= _MAPPED_BITS and number >> 32 == _MAPPED_HIGH:
        return _V4, number & 0xFFFF_FFFF, length - _MAPPED_BITS
    return version, number, length


def merged(version: int, prefixes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the fewest prefixes (address, length) of one family that cover the same, in order."""
    most = _V4_BITS if version == _V4 else _V6_BITS
    kept: list[tuple[int, int]] = []
    for number, length in sorted(prefixes):
        if kept and number >> (most - kept[-1][1]) == kept[-1][0] >> (most - kept[-1][1]):
            continue  # inside the one before
        kept.append((number, length))
        while len(kept) > 1 and kept[-1][1] == kept[-2][1] > 0:
            (low, size), (high, _) = kept[-2:]
            if low ^ high != 1 << (most - size):
                break
            kept[-2:] = [(low, size - 1)]
    return kept


class PrefixMap(Generic[T]):
    """Values by prefix, immutable; a look-up is one dict probe per distinct prefix length."""

    __slots__ = ("_v4", "_v6")

    def __init__(self, entries: Iterable[tuple[IPNetwork, T]]) -> None:
        self._fill(
            (network.version, int(network.network_address), network.prefixlen, value)
            for network, value in entries
        )

    @classmethod
    def of_numbers(cls, entries: Iterable[tuple[int, int, int, T]]) -> Self:
        """Return a map of version, address, length and value."""
        made = cls(())
        made._fill(entries)
        return made

    def _fill(self, entries: Iterable[tuple[int, int, int, T]]) -> None:
        tables: dict[tuple[int, int], dict[int, tuple[T, ...]]] = {}
        alone: dict[
            int, tuple[T, ...]
        ] = {}  # one tuple for all prefixes of a list: half the memory
        for version, number, length, value in entries:
            shift = (_V4_BITS if version == _V4 else _V6_BITS) - length
            table = tables.setdefault((version, shift), {})
            key = number >> shift
            before = table.get(key)
            single = alone.setdefault(id(value), (value,))
            table[key] = single if before is None else (*before, value)
        self._v4 = tuple((s, t) for (v, s), t in sorted(tables.items()) if v == _V4)
        self._v6 = tuple((s, t) for (v, s), t in sorted(tables.items()) if v != _V4)

    def __contains__(self, address: IPAddress) -> bool:
        number = int(address)
        for shift, table in self._v4 if isinstance(address, IPv4Address) else self._v6:
            if number >> shift in table:
                return True
        return False

    def matches(self, address: IPAddress) -> list[T]:
        """Return the values of every prefix that holds ``address``, longest prefix first."""
        number = int(address)
        found: list[T] = []
        for shift, table in self._v4 if isinstance(address, IPv4Address) else self._v6:
            found += table.get(number >> shift, ())
        return found
