"""Takes lists and databases out of what they come packed in: .gz, and MaxMind's .tar.gz.

Everything is bounded before it is written: a bomb ends at the bound, and of an archive only the
one database is read. No name inside an archive is ever used as a path.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from typing import IO, TYPE_CHECKING, Final, cast

from gatekeeper.feeds.errors import FeedError

if TYPE_CHECKING:
    from pathlib import Path

_GZIP: Final = b"\x1f\x8b"
_TAR_AT, _TAR = 257, b"ustar"
_MAX_MEMBERS: Final = 100
_MAX_READ_BYTES: Final = 1 << 20
"""Extended headers of an archive are read in one piece, of a size that they name themselves."""


def inflate(source: Path, target: Path, *, max_bytes: int) -> Path:
    """Undo gzip if there is any: return ``target``, or ``source`` as it is.

    Raises :class:`FeedError`.
    """
    with source.open("rb") as file:
        if file.read(2) != _GZIP:
            return source
    try:
        with gzip.open(source) as packed, target.open("wb") as out:
            _copy(packed, out, max_bytes)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FeedError("its gzip is damaged or was cut off") from error
    return target


def database_in(source: Path, target: Path, *, max_bytes: int) -> Path:
    """Take the only ``.mmdb`` out of a tar: return ``target``, or ``source`` if it is no tar.

    Raises :class:`FeedError`.
    """
    with source.open("rb") as file:
        file.seek(_TAR_AT)
        if file.read(len(_TAR)) != _TAR:
            return source
        file.seek(0)
        try:
            cautious = cast("IO[bytes]", _Cautious(file))
            with tarfile.open(fileobj=cautious, mode="r:") as archive:
                _extract_only(archive, target, max_bytes)
        except tarfile.TarError as error:
            raise FeedError("its tar archive is damaged or was cut off") from error
    return target


def _extract_only(archive: tarfile.TarFile, target: Path, max_bytes: int) -> None:
    found = False
    for number, member in enumerate(archive):
        if number >= _MAX_MEMBERS:
            raise FeedError(f"its archive has more than {_MAX_MEMBERS} members")
        if not member.isreg() or not member.name.endswith(".mmdb"):
            continue
        if found:
            raise FeedError("its archive holds more than one database")
        content = archive.extractfile(member)
        if content is None or member.issparse():
            raise FeedError("its archive holds no plain database")
        with content, target.open("wb") as out:
            _copy(content, out, max_bytes)
        found = True
    if not found:
        raise FeedError("its archive holds no .mmdb file")


def _copy(source: IO[bytes] | gzip.GzipFile, out: IO[bytes], max_bytes: int) -> None:
    total = 0
    while chunk := source.read(_MAX_READ_BYTES):
        total += len(chunk)
        if total > max_bytes:
            raise FeedError(f"unpacked it is larger than {max_bytes} bytes")
        out.write(chunk)


class _Cautious:
    """A file that refuses to be read in pieces larger than any sound archive asks for."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        """Read as the file does; raises :class:`FeedError` for an absurd size."""
        if not 0 <= size <= _MAX_READ_BYTES:
            raise FeedError("its tar archive has an oversized header")
        return self._file.read(size)
