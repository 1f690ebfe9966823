"""One mmdb file, copied into memory, checked, and asked by view.

The C reader can only map files. It is given a sealed copy in anonymous memory, so that nothing
that happens to the file afterwards (truncated, overwritten in place) can reach us (H16).
"""

from __future__ import annotations

import datetime as dt
import fcntl
import hashlib
import io
import json
import os
import stat
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import maxminddb

from gatekeeper.facts.network_layouts import UNREADABLE, layout_of
from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.model import Lookup
from gatekeeper.policy.words import LookupStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gatekeeper.facts.network_layouts import Answer, NetworkView, Record
    from gatekeeper.facts.prefixes import IPAddress

VIEWS: Final[tuple[NetworkView, ...]] = ("country", "registration", "subdivision", "asn", "kind")
MANIFEST: Final = "manifest.json"
"""Beside databases: SHA-256 of each; one that differs from its entry is not used."""

# Without all three the pure Python reader works on bytes: as safe, about ten times slower.
_HAS_SEALED_MEMORY: Final = (
    hasattr(os, "memfd_create")
    and Path("/proc/self/fd").is_dir()
    and find_spec("maxminddb.extension") is not None
)
_CHUNK_BYTES: Final = 1 << 20
_WALKED_NETWORKS: Final = 1024
_PROBES: Final = 512
_DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class _Column:
    """One view of a database, with its three possible statuses made beforehand."""

    view: NetworkView
    read: Callable[[Record], Answer]
    hit: Lookup
    miss: Lookup
    unknown: Lookup


@dataclass(frozen=True, slots=True)
class Database:
    """A database in memory. ``stale`` ones are older than the settings allow and answer unknown."""

    source: str
    """Name of the file."""
    revision: str
    """Build date and the start of the content's SHA-256."""
    database_type: str
    built_unix_s: float
    stale: bool
    entries: int
    """Nodes of the search tree: what there is of size without reading it all."""
    _columns: tuple[_Column, ...]
    _get: Callable[[IPAddress], Any]

    @property
    def views(self) -> tuple[NetworkView, ...]:
        """What this database can answer."""
        return tuple(column.view for column in self._columns)

    def look_up(self, address: IPAddress) -> Iterator[tuple[Lookup, Answer]]:
        """Yield for each view how the look-up ended, and the answer of a hit."""
        record: Any = UNREADABLE
        if not self.stale:
            try:
                record = self._get(address)
            except Exception:  # noqa: BLE001 - whatever a reader raises ends this one look-up (H15)
                record = UNREADABLE
        if record is None:
            for column in self._columns:
                yield column.miss, None
            return
        readable = isinstance(record, dict)
        for column in self._columns:
            answer = column.read(record) if readable else UNREADABLE
            if answer is UNREADABLE:
                yield column.unknown, None
            elif answer is None:
                yield column.miss, None
            else:
                yield column.hit, answer


def unreadable_source(source: str) -> tuple[Lookup, ...]:
    """Return the look-ups of a database that could not be loaded: any view may be its."""
    return tuple(Lookup(view, LookupStatus.UNKNOWN, source, "") for view in VIEWS)


def open_database(
    path: Path,
    *,
    now_unix_s: float,
    max_age_days: float | None,
    known_as: tuple[str, str] | None = None,
) -> Database | Mistake:
    """Load one file, whole, and check that it can be read; a mistake says why it cannot.

    ``known_as`` are the name to call it by and its SHA-256, instead of the file's own name and
    what the manifest beside it says.
    """
    memory = _Memory()
    source, expected = known_as or (path.name, manifest_digest(path))
    try:
        digest = memory.fill(path)
        if expected is not None and expected != digest:
            advice = "Run `gatekeeper geoip build`, or take its entry out."
            if known_as is not None:
                advice = "Run `gatekeeper geoip update`."
            return _mistake(
                path,
                f"This file is not the one that {MANIFEST} describes: it is damaged, or was "
                f"replaced. {advice}",
            )
        reader = memory.reader()
        metadata = reader.metadata()
        database_type, built = metadata.database_type, metadata.build_epoch
        entries = int(metadata.node_count)
        sample = _sample(reader)
    except OSError as error:
        return _mistake(path, f"This database cannot be read: {error.strerror or error}.")
    except Exception as error:  # noqa: BLE001 - a damaged file may raise anything
        return _mistake(path, f"This is not a sound mmdb file ({type(error).__name__}).")
    finally:
        memory.close()
    if not isinstance(database_type, str) or not isinstance(built, int):
        return _mistake(path, "The metadata of this database is damaged.")
    layout = layout_of(database_type, sample)
    if not layout:
        return _mistake(
            path, f"{database_type[:60]!r} is not a layout that is understood; see docs/geoip.md."
        )
    revision = f"{_date(built)}.{digest[:8]}"
    return Database(
        source=source,
        revision=revision,
        database_type=database_type,
        built_unix_s=float(built),
        stale=max_age_days is not None and now_unix_s - built > max_age_days * _DAY_S,
        entries=entries,
        _columns=tuple(
            _Column(
                view,
                read,
                *(
                    Lookup(view, status, source, revision)
                    for status in (LookupStatus.HIT, LookupStatus.MISS, LookupStatus.UNKNOWN)
                ),
            )
            for view, read in layout.items()
        ),
        _get=reader.get,
    )


def manifest_digest(path: Path) -> str | None:
    """Return the SHA-256 that the manifest beside ``path`` states for it, if there is one."""
    try:
        manifest = json.loads((path.parent / MANIFEST).read_bytes())
        digest = manifest["files"][path.name]["sha256"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return digest if isinstance(digest, str) else None


def _mistake(path: Path, message: str) -> Mistake:
    return Mistake(str(path), None, "", message)


def _date(unix_s: int) -> str:
    try:
        return dt.datetime.fromtimestamp(unix_s, dt.UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):
        return "undated"


class _Memory:
    """A copy that nobody can change: sealed anonymous memory, or bytes where there is none."""

    __slots__ = ("_bytes", "_fd")

    def __init__(self) -> None:
        self._bytes = b""
        self._fd: int | None = None
        if _HAS_SEALED_MEMORY:
            self._fd = os.memfd_create("mmdb", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)

    def fill(self, path: Path) -> str:
        """Copy the file here and return the SHA-256 of what was copied."""
        digest = hashlib.sha256()
        # Not to wait for ever on what only looks like a file.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise OSError("it is not a regular file")
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                self._write(chunk)
            after = os.fstat(file.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise OSError("it was being written meanwhile; replace it by renaming")
        return digest.hexdigest()

    def _write(self, chunk: bytes) -> None:
        if self._fd is None:
            self._bytes += chunk
            return
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def reader(self) -> Any:
        """Open the copy; the reader keeps what it needs when the copy is closed."""
        if self._fd is None:
            return maxminddb.open_database(io.BytesIO(self._bytes), maxminddb.MODE_FD)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, seals)
        return maxminddb.open_database(f"/proc/self/fd/{self._fd}", maxminddb.MODE_MMAP_EXT)

    def close(self) -> None:
        """Let go of the copy."""
        self._bytes = b""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _sample(reader: Any) -> list[Record]:
    """Read records from the start and all over the database; raises when one is damaged.

    Only by look-up: the C reader's iterator aborts the whole process on a damaged search tree.
    """
    records = list(_walk(reader, IPv4Address, 0, 2**32))
    if reader.metadata().ip_version == 6:  # noqa: PLR2004 - IP version
        records += _walk(reader, IPv6Address, 0x2000 << 112, 0x4000 << 112)  # all that is routed
    return [record for record in records if isinstance(record, dict)]


def _walk(
    reader: Any, family: type[IPv4Address | IPv6Address], first: int, end: int
) -> Iterator[Any]:
    bits = 32 if family is IPv4Address else 128
    at = first
    for _ in range(_WALKED_NETWORKS):
        record, length = reader.get_with_prefix_len(family(at))
        yield record
        shift = bits - min(max(length, 1), bits)
        at = ((at >> shift) + 1) << shift
        if at >= end:
            break
    for probe in range(_PROBES):
        yield reader.get(family(first + (end - first) // _PROBES * probe))
