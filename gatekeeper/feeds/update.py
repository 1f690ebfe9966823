"""Brings feeds up to date: fetch, parse, compare with the last good, swap whole.

One feed that fails stops no other, and leaves its last good file in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from gatekeeper.facts.feed_files import (
    MAX_LIST_BYTES,
    FeedFile,
    FeedManifest,
    read_manifest,
)
from gatekeeper.facts.list_sizes import collapsed
from gatekeeper.facts.network_database import MANIFEST
from gatekeeper.feeds.databases import no_step_back, sound_database
from gatekeeper.feeds.errors import FeedError
from gatekeeper.feeds.fetch import Bounds, Fetched, Progress, fetch
from gatekeeper.feeds.formats import parse_list
from gatekeeper.feeds.packing import database_in, inflate
from gatekeeper.policy.mistake import Mistake
from gatekeeper.settings import DATABASE_FORMAT
from gatekeeper.storage.secrets import read_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from gatekeeper.settings import Feed, Geoip

LIST_BOUNDS: Final = Bounds(max_bytes=MAX_LIST_BYTES)
DATABASE_BOUNDS: Final = Bounds(max_bytes=2_000_000_000)
"""Packed and unpacked; databases are held in memory."""
_LOCK: Final = ".lock"
_HASH_BYTES: Final = 1 << 20


class State(StrEnum):
    """How an update ended."""

    UPDATED = "updated"
    UNCHANGED = "unchanged"
    """The source has what is here already."""
    REFUSED = "refused"
    """Something came that is not believed; the last good file stays."""
    FAILED = "failed"
    """Nothing came; the last good file stays."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one feed."""

    feed: str
    state: State
    detail: str = ""
    file: FeedFile | None = None
    """What is in force now, if anything is."""

    @property
    def good(self) -> bool:
        """Tell whether what is in force is what the source has."""
        return self.state in {State.UPDATED, State.UNCHANGED}


class BusyError(Exception):
    """Another update of the same directory is running."""


@dataclass(frozen=True, slots=True)
class Updater:
    """Updates the feeds of one directory."""

    geoip: Geoip
    environ: Mapping[str, str]
    clock: Callable[[], float]
    """Unix seconds."""
    progress: Progress
    accept_size: Collection[str] = ()
    """Ids of feeds whose size may be anything this time."""
    list_bounds: Bounds = LIST_BOUNDS
    database_bounds: Bounds = DATABASE_BOUNDS

    async def update(self, feeds: Collection[Feed]) -> list[Outcome]:
        """Update feeds one after the other.

        Raises :class:`BusyError`, and :class:`OSError` when the directory cannot be written.
        """
        directory = self.geoip.feeds_dir
        directory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # data_dir, mostly
        directory.mkdir(exist_ok=True)
        with _locked(directory):
            return [await self._update(feed) for feed in feeds]

    async def _update(self, feed: Feed) -> Outcome:
        manifest = read_manifest(self.geoip.feeds_dir)
        if isinstance(manifest, Mistake):
            (
                self.geoip.feeds_dir / MANIFEST
            ).read_bytes()  # raises if it is not damaged but out of reach
            manifest = FeedManifest()  # all is fetched anew, as the advice in the mistake says
        stored = manifest.of(feed)
        last = None if stored is None else stored[1]
        with tempfile.TemporaryDirectory(dir=self.geoip.feeds_dir, prefix=".work-") as work:
            try:
                new = await self._fetched(feed, stored, Path(work))
            except FeedError as error:
                return Outcome(feed.id, State.FAILED, str(error), last)
            if isinstance(new, FeedFile):
                self._put(manifest, feed, new, None)
                return Outcome(feed.id, State.UNCHANGED, "", new)
            try:
                made, path = await asyncio.to_thread(self._read, feed, new, stored, Path(work))
            except FeedError as error:
                return Outcome(feed.id, State.REFUSED, str(error), last)
            if last is not None and last.sha256 == made.sha256:
                made = msgspec.structs.replace(made, fetched_unix_s=last.fetched_unix_s)
            self._put(manifest, feed, made, path)
            same = last is not None and last.sha256 == made.sha256
            return Outcome(feed.id, State.UNCHANGED if same else State.UPDATED, "", made)

    async def _fetched(
        self, feed: Feed, stored: tuple[str, FeedFile] | None, work: Path
    ) -> Fetched | FeedFile:
        """Fetch into ``work``, or return the stored file confirmed when there is nothing newer."""
        known = None
        if stored is not None and stored[1].origin == _origin(feed) and self._sound(*stored):
            known = Fetched(
                changed=True, etag=stored[1].etag, last_modified=stored[1].last_modified
            )
        now = self.clock()
        fetched = await fetch(
            feed,
            work / "fetched",
            credential=self._credential(feed),
            known=known,
            at=datetime.fromtimestamp(now, UTC),
            bounds=self.database_bounds if feed.format == DATABASE_FORMAT else self.list_bounds,
            progress=self.progress,
        )
        if fetched.changed or stored is None:
            return fetched
        return msgspec.structs.replace(stored[1], confirmed_unix_s=now)

    def _credential(self, feed: Feed) -> str | None:
        if feed.credential is None:
            return None
        secret = read_secret(feed.credential, self.environ)
        if isinstance(secret, Mistake):
            raise FeedError(f"its credential cannot be read: {secret.message}")
        return secret.decode("utf-8", "surrogateescape")

    def _sound(self, name: str, file: FeedFile) -> bool:
        """Tell whether the stored file is still what was stored."""
        try:
            return _digest(self.geoip.feeds_dir / name) == file.sha256
        except OSError:
            return False

    def _read(
        self, feed: Feed, fetched: Fetched, stored: tuple[str, FeedFile] | None, work: Path
    ) -> tuple[FeedFile, Path]:
        """Parse and compare what was fetched; return its description and the file to keep."""
        now = self.clock()
        last = stored
        if stored is not None and stored[1].origin != _origin(feed):
            last = None  # another source, or read another way: nothing to compare with
        any_size = feed.id in self.accept_size
        left_out, built = 0, None
        if feed.format == DATABASE_FORMAT:
            most = self.database_bounds.max_bytes
            path = inflate(work / "fetched", work / "inflated", max_bytes=most)
            path = database_in(path, work / "database", max_bytes=most)
            database = sound_database(path, now_unix_s=now)
            entries, built = database.entries, database.built_unix_s
            _check_size(feed, last, entries, any_size=any_size)
            if last is not None:
                no_step_back(database, self.geoip.feeds_dir / last[0], any_size=any_size)
        else:
            most = self.list_bounds.max_bytes
            source = inflate(work / "fetched", work / "inflated", max_bytes=most)
            found = parse_list(source.read_bytes(), feed.format)
            path = work / "list"
            path.write_bytes(found.to_text(f"{feed.id}: written by gatekeeper lists update"))
            entries, left_out = len(found), found.left_out
            _check_size(feed, last, entries, any_size=any_size)
        made = FeedFile(
            feed=feed.id,
            sha256=_digest(path),
            bytes=path.stat().st_size,
            entries=entries,
            left_out=left_out,
            origin=_origin(feed),
            host="" if feed.url is None else urlsplit(feed.url).hostname or "",
            fetched_unix_s=now,
            confirmed_unix_s=now,
            built_unix_s=built,
            etag=fetched.etag,
            last_modified=fetched.last_modified,
        )
        return made, path

    def _put(self, manifest: FeedManifest, feed: Feed, made: FeedFile, path: Path | None) -> None:
        """Put a file in force; the manifest last, and it alone decides."""
        directory = self.geoip.feeds_dir
        ending = "mmdb" if feed.format == DATABASE_FORMAT else "txt"
        name = f"{feed.id}.{made.revision}.{ending}"
        if path is not None:
            path.chmod(0o644)
            _sync(path)
            path.replace(directory / name)
            _sync(directory)  # or a crash might keep the manifest and lose what it names
        configured = {each.id for each in self.geoip.feeds}
        files = {
            other: file
            for other, file in manifest.files.items()
            if file.feed != feed.id and file.feed in configured
        }
        files[name] = made
        aside = directory / f".{MANIFEST}.new"
        content = msgspec.json.encode(FeedManifest(dict(sorted(files.items()))))
        aside.write_bytes(msgspec.json.format(content, indent=2) + b"\n")
        _sync(aside)
        aside.replace(directory / MANIFEST)
        _sync(directory)
        self._clean(manifest.files.keys() | files.keys())

    def _clean(self, keep: Collection[str]) -> None:
        """Remove files of earlier revisions; the last one stays for who is just loading it."""
        for pattern in ("*.txt", "*.mmdb"):
            for path in self.geoip.feeds_dir.glob(pattern):
                if path.name not in keep:
                    path.unlink(missing_ok=True)


def _check_size(
    feed: Feed, last: tuple[str, FeedFile] | None, entries: int, *, any_size: bool
) -> None:
    wrong = None if last is None or any_size else collapsed(last[1].entries, entries)
    if wrong is not None:
        raise FeedError(f"{wrong} --accept-size {feed.id} takes it all the same")


def _origin(feed: Feed) -> str:
    text = f"{feed.url or feed.file}\n{feed.format}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the directory alone; what an update left behind that was killed is removed."""
    handle = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"another update of {directory} is running") from error
        for leftover in directory.glob(".work-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield
    finally:
        os.close(handle)
