"""IP prefixes: parse them strictly, and find those that hold an address."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from socket import AF_INET, AF_INET6, inet_pton
from typing import TYPE_CHECKING, Final, Generic, Self, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network
PrefixGroups: TypeAlias = dict[tuple[int, int], list[int]]
"""Prefixes by version and number of free bits: of each the address without those bits."""
T = TypeVar("T")
_Tables: TypeAlias = dict[tuple[int, int], dict[int, tuple[T, ...]]]

BITS: Final = {4: 32, 6: 128}
"""Length of an address by IP version."""
_V4 = 4
_MAPPED_BITS = 96
_MAPPED_HIGH = 0xFFFF


def parse_prefix(text: str) -> IPNetwork | str:
    """Read ``address/length`` or a single address; a string answer says what is wrong with it.

    Bits set beyond the length are refused: they are a typing error more often than an intention.
    IPv4-mapped prefixes come back as the IPv4 prefix they stand for.
    """
    try:
        version, number, length = prefix_numbers(text)
    except ValueError:
        return _wrong_with(text)
    return IPv4Network((number, length)) if version == _V4 else IPv6Network((number, length))


def _wrong_with(text: str) -> str:
    if "%" in text:
        return f"{text!r} carries a zone id; a prefix has none"
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        meant = None
    _, slash, length = text.partition("/")
    if meant is None or (slash and not (length.isascii() and length.isdecimal())):
        return f"{text!r} is not an IP prefix such as 192.0.2.0/24 or 2001:db8::/32"
    return f"{text!r} has bits set beyond its length; did you mean {meant}?"


def prefix_numbers(text: str) -> tuple[int, int, int]:
    """Read what :func:`parse_prefix` reads, as version, address and length.

    Raises :class:`ValueError`, which says what is wrong without repeating it.
    """
    address, slash, length_text = text.partition("/")
    version, family = (6, AF_INET6) if ":" in address else (_V4, AF_INET)
    most = BITS[version]
    try:
        number = int.from_bytes(inet_pton(family, address))
        length = int(length_text) if slash else most
    except (OSError, ValueError) as error:
        raise ValueError("is not an IP prefix") from error
    if slash and not (length_text.isascii() and length_text.isdecimal() and length <= most):
        raise ValueError("is not an IP prefix")
    if number & ((1 << (most - length)) - 1):
        raise ValueError("has bits set beyond its length")
    if version != _V4 and length >= _MAPPED_BITS and number >> 32 == _MAPPED_HIGH:
        return _V4, number & 0xFFFF_FFFF, length - _MAPPED_BITS
    return version, number, length


def merged(version: int, prefixes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the fewest prefixes (address, length) of one family that cover the same, in order."""
    most = BITS[version]
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
        tables: _Tables[T] = {}
        for network, value in entries:
            shift = network.max_prefixlen - network.prefixlen
            table = tables.setdefault((network.version, shift), {})
            key = int(network.network_address) >> shift
            table[key] = (*table.get(key, ()), value)
        self._set(tables)

    @classmethod
    def of_groups(cls, lists: Iterable[tuple[PrefixGroups, T]]) -> Self:
        """Return a map in which all prefixes of a list have its value, and share its memory."""
        tables: _Tables[T] = {}
        for groups, value in lists:
            alone = (value,)
            for group, keys in groups.items():
                table = tables.setdefault(group, {})
                for key in keys:
                    before = table.get(key)
                    table[key] = alone if before is None else before + alone
        made = cls(())
        made._set(tables)
        return made

    def _set(self, tables: _Tables[T]) -> None:
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
