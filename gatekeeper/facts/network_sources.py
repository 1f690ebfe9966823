"""Loads the databases and lists that the settings name, each source for itself.

When data is loaded again under way, a source that is damaged, gone or of an unbelievable size does
not take effect: its last good state is kept, and told.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from gatekeeper.facts.feed_files import LoadedFeeds, load_feeds
from gatekeeper.facts.list_sizes import out_of_proportion
from gatekeeper.facts.network_database import Database, open_database, unreadable_source
from gatekeeper.facts.network_lists import NetworkLists, load_lists
from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.model import Lookup
from gatekeeper.policy.words import LookupStatus
from gatekeeper.settings import DATABASE_FORMAT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gatekeeper.settings import Feed, Geoip

_DAY_S: Final = 86_400.0
_KEPT: Final = "Its last good state serves on."


@dataclass(slots=True)
class NetworkParts:
    """Every source as it was loaded."""

    databases: dict[Path, Database] = field(default_factory=dict)
    lists: dict[Path, NetworkLists] = field(default_factory=dict)
    feeds: LoadedFeeds = field(default_factory=LoadedFeeds)
    problems: list[Mistake] = field(default_factory=list)
    """What could not be loaded or is out of date; those of feeds stand there."""
    lost: list[Lookup] = field(default_factory=list)
    """Look-ups of the sources that have no state at all."""
    kept: list[str] = field(default_factory=list)
    """Sources whose new state was refused."""


def load_parts(
    geoip: Geoip,
    *,
    now_unix_s: float,
    previous: NetworkParts | None = None,
    accept_sizes: bool = True,
) -> NetworkParts:
    """Load all sources; what is wrong with one is kept from ``previous``, if it was good there.

    ``accept_sizes`` takes a source that shrank or grew beyond belief (H37) all the same.
    """
    return _Loading(geoip, now_unix_s, previous or NetworkParts(), accept_sizes).all()


@dataclass(frozen=True, slots=True)
class _Loading:
    geoip: Geoip
    now_unix_s: float
    previous: NetworkParts
    accept_sizes: bool
    parts: NetworkParts = field(default_factory=NetworkParts)

    def all(self) -> NetworkParts:
        for path in self.geoip.databases:
            self._database(path)
        for path in self.geoip.networks:
            self._lists(path)
        self.parts.feeds = load_feeds(self.geoip, now_unix_s=self.now_unix_s)
        self._feeds()
        return self.parts

    def _database(self, path: Path) -> None:
        geoip, parts, last = self.geoip, self.parts, self.previous.databases.get(path)
        found = open_database(path, now_unix_s=self.now_unix_s, max_age_days=geoip.max_age_days)
        wrong = [found] if isinstance(found, Mistake) else []
        if isinstance(found, Database) and last is not None:
            wrong = self._sizes({path.name: last.entries}, {path.name: found.entries})
        if wrong:
            self._refuse(path.name, wrong, kept=last is not None)
            if last is None:
                parts.lost += unreadable_source(path.name)
                return
            found = self._aged(last, geoip.max_age_days)
        if not isinstance(found, Database):
            return
        parts.databases[path] = found
        if found.stale:
            age = f"This database is older than {geoip.max_age_days:g} days; it is not used."
            parts.problems.append(Mistake(str(path), None, "", age))

    def _lists(self, path: Path) -> None:
        parts, last = self.parts, self.previous.lists.get(path)
        found = load_lists(path)
        wrong = found if isinstance(found, list) else []
        if isinstance(found, NetworkLists) and last is not None:
            before = {f"{path.name}: {name}": size for name, size in last.sizes.items()}
            after = {f"{path.name}: {name}": size for name, size in found.sizes.items()}
            wrong = self._sizes(before, after)
        if wrong:
            self._refuse(path.name, wrong, kept=last is not None)
            if last is None:
                parts.lost += [
                    Lookup(view, LookupStatus.UNKNOWN, path.name, "") for view in ("lists", "kind")
                ]
                return
            found = last
        if isinstance(found, NetworkLists):
            parts.lists[path] = found

    def _feeds(self) -> None:
        """Take back what a feed had; sizes were compared before it was put in place."""
        feeds = self.parts.feeds
        order = {feed.id: place for place, feed in enumerate(self.geoip.feeds)}
        lost = {lookup.source for lookup in feeds.lost}
        for feed in self.geoip.feeds:
            if feed.id in lost and self._taken_back(feed):
                feeds.lost = [lookup for lookup in feeds.lost if lookup.source != feed.id]
                self.parts.kept.append(feed.id)
        feeds.databases.sort(key=lambda database: order[database.source])
        feeds.lists.sort(key=lambda lists: order[lists.named.id])

    def _taken_back(self, feed: Feed) -> bool:
        """Add the last state of a feed, unless there is none, or it is a list that is too old."""
        feeds, last, days = self.parts.feeds, self.previous.feeds, feed.max_age_days
        if feed.format == DATABASE_FORMAT:
            database = next((each for each in last.databases if each.source == feed.id), None)
            if database is not None:
                database = self._aged(database, days or self.geoip.max_age_days)
                feeds.databases.append(database)
            return database is not None
        found = next((each for each in last.lists if each.named.id == feed.id), None)
        if found is None:
            return False
        if days is not None:
            ends_at = found.file.confirmed_unix_s + days * _DAY_S
            if self.now_unix_s > ends_at:
                return False
            feeds.stale_at.append(ends_at)
        feeds.lists.append(found)
        return True

    def _sizes(self, before: Mapping[str, int], after: Mapping[str, int]) -> list[Mistake]:
        return [] if self.accept_sizes else out_of_proportion(before, after)

    def _refuse(self, source: str, wrong: list[Mistake], *, kept: bool) -> None:
        if kept:
            self.parts.kept.append(source)
            wrong = [replace(each, message=f"{each.message} {_KEPT}") for each in wrong]
        self.parts.problems += wrong

    def _aged(self, database: Database, max_age_days: float | None) -> Database:
        """Return a database that was kept, as old as it is by now."""
        if max_age_days is None:
            return database
        stale = self.now_unix_s - database.built_unix_s > max_age_days * _DAY_S
        return replace(database, stale=stale)
