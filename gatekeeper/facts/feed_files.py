"""What the update commands left for the gate: a manifest, and one file for each feed.

A file's name carries the start of its SHA-256 and never changes; the manifest names the file in
force and is replaced last, by renaming. So whoever loads meanwhile gets the old file or the new
one, whole (H16, H36).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from gatekeeper.facts.network_database import MANIFEST, Database, open_database, unreadable_source
from gatekeeper.facts.network_lists import NetworkList, NetworkLists, source_of
from gatekeeper.facts.prefixes import BITS, PrefixGroups, PrefixMap, prefix_numbers
from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.model import Lookup
from gatekeeper.policy.words import LookupStatus, NetworkKind
from gatekeeper.settings import DATABASE_FORMAT

if TYPE_CHECKING:
    from pathlib import Path

    from gatekeeper.settings import Feed, Geoip

MAX_LIST_BYTES: Final = 64_000_000
"""Of a list, as it is fetched, as it is inflated and as it is kept."""

_MAX_MANIFEST_BYTES: Final = 4_000_000
_FILE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}\.[0-9a-f]{12}\.(txt|mmdb)", re.ASCII)
_DAY_S: Final = 86_400.0


class FeedFile(Struct, frozen=True, kw_only=True):
    """One file in force: where it came from and when."""

    feed: str
    """Id of the feed in the settings."""
    sha256: str
    bytes: int
    entries: int
    """AS numbers and prefixes after aggregation, or nodes of a database."""
    left_out: int = 0
    """Entries that name no public network: private, reserved, documentation."""
    origin: str
    """Digest of the feed's URL or path and its format: of another origin nothing is compared."""
    host: str = ""
    """Host that was asked; empty for a file."""
    fetched_unix_s: float
    """When this content was first fetched."""
    confirmed_unix_s: float
    """When the source last said that this is its content."""
    built_unix_s: float | None = None
    """When a database says it was built."""
    etag: str = ""
    last_modified: str = ""

    @property
    def revision(self) -> str:
        """Return the start of the content's SHA-256."""
        return self.sha256[:12]


class FeedManifest(Struct, frozen=True):
    """All files in force, by their name."""

    files: dict[str, FeedFile] = {}

    def of(self, feed: Feed) -> tuple[str, FeedFile] | None:
        """Return name and description of a feed's file, if it was ever fetched."""
        ending = ".mmdb" if feed.format == DATABASE_FORMAT else ".txt"
        for name, file in self.files.items():
            if file.feed == feed.id and name.endswith(ending):
                return name, file
        return None


def read_manifest(directory: Path) -> FeedManifest | Mistake:
    """Read the manifest of a directory; there is an empty one where nothing was fetched yet."""
    path = directory / MANIFEST
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_MANIFEST_BYTES)
        manifest = msgspec.json.decode(content, type=FeedManifest)
    except FileNotFoundError:
        return FeedManifest()
    except OSError as error:
        return Mistake(str(path), None, "", f"This manifest cannot be read: {error.strerror}.")
    except (msgspec.DecodeError, UnicodeDecodeError):
        manifest = None
    if manifest is None or not all(map(_FILE_NAME.fullmatch, manifest.files)):
        advice = "Delete it, then run `gatekeeper lists update` and `gatekeeper geoip update`."
        return Mistake(str(path), None, "", f"This manifest is damaged. {advice}")
    return manifest


@dataclass(frozen=True, slots=True)
class LoadedList:
    """One list of a feed."""

    named: NetworkList
    file: FeedFile
    asns: list[int]
    prefixes: PrefixGroups

    @property
    def source(self) -> str:
        """Return the name of the list as a source."""
        return self.named.id


@dataclass(slots=True)
class LoadedFeeds:
    """Everything that the feeds in the settings give."""

    databases: list[Database] = field(default_factory=list)
    lists: list[LoadedList] = field(default_factory=list)
    problems: list[Mistake] = field(default_factory=list)
    lost: list[Lookup] = field(default_factory=list)
    stale_at: list[float] = field(default_factory=list)
    """When each source with a limit becomes too old."""

    def as_one_source(self) -> tuple[NetworkLists, ...]:
        """Return all lists as one source, so that twenty cost a request no more than one."""
        if not self.lists:
            return ()
        seen = "\n".join(f"{each.named.id} {each.file.sha256}" for each in self.lists)
        by_asn: dict[int, tuple[NetworkList, ...]] = {}
        for each in self.lists:
            alone = (each.named,)
            for asn in each.asns:
                by_asn[asn] = by_asn.get(asn, ()) + alone
        by_prefix = PrefixMap.of_groups((each.prefixes, each.named) for each in self.lists)
        revision = hashlib.sha256(seen.encode()).hexdigest()[:12]
        named = [each.named for each in self.lists]
        return (source_of("feeds", revision, named, by_asn, by_prefix),)


def load_feeds(geoip: Geoip, *, now_unix_s: float) -> LoadedFeeds:
    """Load what was fetched for each feed; one that cannot be used is told and answers unknown."""
    loaded = LoadedFeeds()
    if not geoip.feeds:
        return loaded
    manifest = read_manifest(geoip.feeds_dir)
    if isinstance(manifest, Mistake):
        loaded.problems.append(manifest)
        manifest = FeedManifest()
    for feed in geoip.feeds:
        found = _load(feed, geoip, manifest, loaded, now_unix_s)
        if found is not None:
            loaded.problems.append(found)
            loaded.lost += _lost(feed)
    return loaded


def _lost(feed: Feed) -> tuple[Lookup, ...]:
    """Return the look-ups of a feed that cannot be used.

    A list without an owner leaves the view ``lists`` alone: embargoes ask there who owns a network,
    and a stale list of Tor exits must not make them refuse everybody.
    """
    if feed.format == DATABASE_FORMAT:
        return unreadable_source(feed.id)
    views = ("kind",) if feed.owner is None else ("lists", "kind")
    return tuple(Lookup(view, LookupStatus.UNKNOWN, feed.id, "") for view in views)


def _load(
    feed: Feed, geoip: Geoip, manifest: FeedManifest, loaded: LoadedFeeds, now_unix_s: float
) -> Mistake | None:
    """Add one feed to ``loaded``, or return why it cannot be used."""
    database = feed.format == DATABASE_FORMAT
    command = f"gatekeeper {'geoip' if database else 'lists'} update"
    stored = manifest.of(feed)
    if stored is None:
        return Mistake(feed.id, None, "", f"This feed was never fetched: run `{command}`.")
    name, file = stored
    max_age_days = feed.max_age_days or (geoip.max_age_days if database else None)
    if database:
        opened = open_database(
            geoip.feeds_dir / name,
            now_unix_s=now_unix_s,
            max_age_days=max_age_days,
            known_as=(feed.id, file.sha256),
        )
        if isinstance(opened, Mistake):
            return opened
        loaded.databases.append(opened)
        if max_age_days is not None and not opened.stale:
            loaded.stale_at.append(opened.built_unix_s + max_age_days * _DAY_S)
        if opened.stale:
            age = f"It was built more than {max_age_days:g} days ago; it is not used."
            loaded.problems.append(Mistake(feed.id, None, "", age))
        return None
    if max_age_days is not None:
        stale_at = file.confirmed_unix_s + max_age_days * _DAY_S
        if now_unix_s > stale_at:
            age = f"This list was last confirmed more than {max_age_days:g} days ago"
            return Mistake(feed.id, None, "", f"{age}; it is not used. Run `{command}`.")
        loaded.stale_at.append(stale_at)
    found = _open_list(geoip.feeds_dir / name, feed, file)
    if isinstance(found, Mistake):
        return found
    loaded.lists.append(found)
    return None


def _open_list(path: Path, feed: Feed, file: FeedFile) -> LoadedList | Mistake:
    try:
        with path.open("rb") as opened:
            content = opened.read(MAX_LIST_BYTES + 1)
    except OSError as error:
        return Mistake(str(path), None, "", f"This list cannot be read: {error.strerror}.")
    damaged = Mistake(
        str(path), None, "", "This is not the file that was fetched: run `gatekeeper lists update`."
    )
    if hashlib.sha256(content).hexdigest() != file.sha256:
        return damaged
    try:
        asns, prefixes = read_entries(content)
    except ValueError:
        return damaged
    named = NetworkList(
        feed.id,
        feed.description,
        None if feed.kind is None else NetworkKind(feed.kind),
        feed.owner,
        feed.owner_country,
    )
    return LoadedList(named, file, asns, prefixes)


def read_entries(content: bytes) -> tuple[list[int], PrefixGroups]:
    """Read a list as the update command writes it: AS numbers and prefixes.

    Without the objects of :mod:`ipaddress`, because a serving gate reads it: a third of the time.
    Raises :class:`ValueError`.
    """
    asns: list[int] = []
    prefixes: PrefixGroups = {}
    for line in content.decode("ascii").split("\n"):
        if not line or line[0] == "#":
            continue
        if line.startswith("AS"):
            asns.append(int(line[2:]))
            continue
        version, number, length = prefix_numbers(line)
        free_bits = BITS[version] - length
        prefixes.setdefault((version, free_bits), []).append(number >> free_bits)
    return asns, prefixes
