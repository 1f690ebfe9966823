"""Where a call comes from: databases and lists, asked together, answered as facts.

Each look-up stands alone: what one source cannot answer is ``unknown`` for its own views, and the
next source is asked all the same (H15). For each view the first source in the settings' order
that has an answer is believed; for the kind of network, the riskiest claim.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache, partial
from ipaddress import IPv4Address, ip_network
from typing import TYPE_CHECKING, Any, Final
from weakref import proxy

from gatekeeper.facts.address import AddressSource, ClientAddress, Reach, reach_of
from gatekeeper.facts.feed_files import LoadedFeeds
from gatekeeper.facts.network_database import VIEWS
from gatekeeper.facts.network_layouts import RISK
from gatekeeper.facts.network_sources import NetworkParts, load_parts
from gatekeeper.policy.model import Lookup, NetworkFacts
from gatekeeper.policy.words import LookupStatus, NetworkKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gatekeeper.facts.network_database import Database
    from gatekeeper.facts.network_lists import NetworkList, NetworkLists
    from gatekeeper.facts.prefixes import IPAddress
    from gatekeeper.policy.mistake import Mistake
    from gatekeeper.settings import Geoip

_CACHED_ADDRESSES: Final = 65_536
_DIGEST_BYTES: Final = 16
_DAY_S: Final = 86_400.0

# Bytes of the address that make its keys: limits count an IPv6 subscriber by /64 (H14).
_V4_BYTES, _V4_PREFIX_BYTES = 4, 3
_V6_BYTES, _V6_PREFIX_BYTES = 8, 6
# Whoever sends through 6to4 or Teredo chooses the rest of the address: all are one key.
_TUNNELS: Final = ((ip_network("2002::/16"), 2), (ip_network("2001::/32"), 4))


@dataclass(frozen=True, slots=True)
class NetworkSource:
    """What is known of one database or list, for people."""

    name: str
    layout: str
    """``database_type`` of a database, ``lists`` for lists."""
    revision: str
    built_unix_s: float | None = None
    views: tuple[str, ...] = ("lists",)
    stale: bool = False
    entries: int = 0
    """Nodes of a database's search tree; AS numbers and prefixes of lists."""
    confirmed_unix_s: float | None = None
    """When the source of a fetched list last said that this is its content."""

    @property
    def as_of_unix_s(self) -> float | None:
        """Return how old the data is: when a database was built, a fetched list confirmed."""
        return self.built_unix_s if self.confirmed_unix_s is None else self.confirmed_unix_s


class NetworkData:
    """All network data of one snapshot. Immutable, but for a bounded cache of its own answers."""

    __slots__ = (
        "__weakref__",
        "_databases",
        "_key",
        "_lists",
        "_lost",
        "parts",
        "problems",
        "remembered",
        "revision",
        "sources",
        "stale_at",
    )

    def __init__(
        self,
        databases: Sequence[Database],
        lists: Sequence[NetworkLists],
        *,
        secret: bytes,
        problems: Sequence[Mistake] = (),
        lost: Sequence[Lookup] = (),
        stale_at: float | None = None,
        feeds: LoadedFeeds | None = None,
    ) -> None:
        """Put sources together; ``secret`` keys the digests and must not be empty.

        ``lost`` are the look-ups of sources that could not be loaded. Databases of feeds come
        before the others, lists of feeds after them.
        """
        if not secret:
            raise ValueError("an empty secret would make the digests of addresses reversible")
        self._key = hashlib.blake2b(secret, digest_size=32, person=b"gk-network-data").digest()
        feeds = feeds or LoadedFeeds()
        self._databases = (*feeds.databases, *databases)
        self._lists = (*lists, *feeds.as_one_source())
        self._lost = (*lost, *feeds.lost)
        self.problems = (*problems, *feeds.problems)
        """What could not be loaded or is out of date, for ``check`` and the log."""
        ends = feeds.stale_at if stale_at is None else [stale_at, *feeds.stale_at]
        self.stale_at = min(ends, default=None)
        """When the next source becomes too old (Unix seconds): load again by then."""
        self.sources: tuple[NetworkSource, ...] = (
            *(
                NetworkSource(
                    d.source,
                    d.database_type,
                    d.revision,
                    d.built_unix_s,
                    d.views,
                    d.stale,
                    d.entries,
                )
                for d in self._databases
            ),
            *(
                NetworkSource(n.source, "lists", n.revision, entries=sum(n.sizes.values()))
                for n in lists
            ),
            *(
                NetworkSource(
                    each.named.id,
                    "lists",
                    each.file.revision,
                    entries=each.file.entries,
                    confirmed_unix_s=each.file.confirmed_unix_s,
                )
                for each in feeds.lists
            ),
        )
        self.parts = NetworkParts()
        """The sources one by one, as far as they were loaded from files."""
        seen = "\n".join(f"{source.name} {source.revision}" for source in self.sources)
        self.revision = hashlib.sha256(seen.encode()).hexdigest()[:12]
        # No cycle: data that was replaced is tens of megabytes, and must not wait for a collection.
        look_up = partial(NetworkData._look_up, proxy(self))
        self.remembered = lru_cache(maxsize=_CACHED_ADDRESSES)(look_up)
        """Answers given so far: :meth:`observe` asks it. Dead once the data itself is gone."""

    @classmethod
    def load(
        cls,
        geoip: Geoip,
        *,
        secret: bytes,
        now_unix_s: float,
        previous: NetworkData | None = None,
    ) -> NetworkData:
        """Load everything that the settings name; what cannot be loaded is in ``problems``.

        A missing source does not stop the others: its views are answered ``unknown``, or as
        ``previous`` data answered them.
        """
        last = None if previous is None else previous.parts
        accept = previous is None or geoip.accept_size_changes
        parts = load_parts(geoip, now_unix_s=now_unix_s, previous=last, accept_sizes=accept)
        databases = list(parts.databases.values())
        stale_at = None
        if geoip.max_age_days is not None:
            life_s = geoip.max_age_days * _DAY_S
            stale_at = min(
                (d.built_unix_s + life_s for d in databases if not d.stale), default=None
            )
        data = cls(
            databases,
            list(parts.lists.values()),
            secret=secret,
            problems=parts.problems,
            lost=parts.lost,
            stale_at=stale_at,
            feeds=parts.feeds,
        )
        data.parts = parts
        return data

    @property
    def owners(self) -> frozenset[str] | None:
        """Owners that the lists name; ``None`` when a list could not be loaded."""
        if any(lookup.view == "lists" for lookup in self._lost):
            return None
        return frozenset().union(*(lists.owners for lists in self._lists))

    def observe(self, address: IPAddress) -> NetworkFacts:
        """Return the facts of a canonical address; at most 65,536 answers are remembered."""
        return self.remembered(address)

    def observe_client(self, client: ClientAddress) -> NetworkFacts:
        """Return the facts of a client; one that no proxy named has keys but no location."""
        if client.source is AddressSource.UNKNOWN:
            return self._unlocated(client.address, "client")
        return self.remembered(client.address)

    def _look_up(self, address: IPAddress) -> NetworkFacts:
        reach = reach_of(address)
        if reach is Reach.UNLOCATABLE:
            return self._unlocated(address, "address")
        prefix, address_key, prefix_key = self._keys(address)
        if reach is Reach.PRIVATE:
            return NetworkFacts(
                prefix, address_key, prefix_key, NetworkKind.PRIVATE, revision=self.revision
            )
        lookups: list[Lookup] = list(self._lost)
        found, kinds = self._ask_databases(address, lookups)
        asn, organization = found.get("asn", (None, None))
        named = self._ask_lists(address, asn, lookups)
        kinds += [entry.kind for entry in named if entry.kind is not None]
        owner = next((entry for entry in named if entry.owner is not None), None)
        return NetworkFacts(
            prefix,
            address_key,
            prefix_key,
            kind=min(kinds, key=RISK.__getitem__, default=NetworkKind.UNKNOWN),
            country=found.get("country"),
            registered_country=found.get("registration"),
            subdivision=found.get("subdivision"),
            asn=asn,
            as_organization=organization,
            owner=None if owner is None else owner.owner,
            owner_country=None if owner is None else owner.owner_country,
            listed_by=tuple(sorted({entry.id for entry in named})),
            lookups=tuple(lookups),
            revision=self.revision,
        )

    def _ask_databases(
        self, address: IPAddress, lookups: list[Lookup]
    ) -> tuple[dict[str, Any], list[NetworkKind]]:
        """Return the first answer of each view and every kind claimed; notes the look-ups."""
        found: dict[str, Any] = {}
        kinds: list[NetworkKind] = []
        for database in self._databases:
            for lookup, answer in database.look_up(address):
                lookups.append(lookup)
                if isinstance(answer, NetworkKind):
                    kinds.append(answer)
                elif answer is not None:
                    found.setdefault(lookup.view, answer)
        return found, kinds

    def _ask_lists(
        self, address: IPAddress, asn: int | None, lookups: list[Lookup]
    ) -> list[NetworkList]:
        """Return every list that names the address or its AS; notes the look-ups.

        Without an answer about the AS, a list that does not name the address is ``unknown``: it
        might name the AS.
        """
        asked = any(
            each.view == "asn" and each.status is not LookupStatus.UNKNOWN for each in lookups
        )
        miss = LookupStatus.MISS if asked else LookupStatus.UNKNOWN
        every: list[NetworkList] = []
        for lists in self._lists:
            named = lists.naming(address, asn)
            claimed = any(entry.kind is not None for entry in named)
            lookups.append(lists.lookups["lists", LookupStatus.HIT if named else miss])
            lookups.append(lists.lookups["kind", LookupStatus.HIT if claimed else miss])
            every += named
        return every

    def _unlocated(self, address: IPAddress, source: str) -> NetworkFacts:
        lookups = tuple(
            Lookup(view, LookupStatus.UNKNOWN, source, "") for view in (*VIEWS, "lists")
        )
        return NetworkFacts(*self._keys(address), lookups=lookups, revision=self.revision)

    def _keys(self, address: IPAddress) -> tuple[str, str, str]:
        """Return prefix, address key and prefix key."""
        packed = address.packed
        if isinstance(address, IPv4Address):
            length, prefix_length = _V4_BYTES, _V4_PREFIX_BYTES
        else:
            length, prefix_length = _V6_BYTES, _V6_PREFIX_BYTES
            for tunnel, tunnel_bytes in _TUNNELS:
                if address in tunnel:
                    length = prefix_length = tunnel_bytes
        cut = packed[:prefix_length]
        network = type(address)(cut.ljust(len(packed), b"\0"))
        return (
            f"{network}/{prefix_length * 8}",
            self._digest(b"gk-address", address.version, packed[:length]),
            self._digest(b"gk-prefix", address.version, cut),
        )

    def _digest(self, purpose: bytes, version: int, material: bytes) -> str:
        return hashlib.blake2b(
            bytes((version,)) + material, digest_size=_DIGEST_BYTES, key=self._key, person=purpose
        ).hexdigest()
