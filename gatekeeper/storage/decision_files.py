"""The files of the decision log: named, locked, rotated, written whole lines at a time, read back.

Files are ``decisions-YYYYMMDDTHHMMSS-N.jsonl`` (UTC) and sort by time and number. A file is locked
while it is written, so that several processes may share a directory; a new process goes on with
the newest file that is free, whole and not yet full, and otherwise starts one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_NAME: Final = re.compile(r"decisions-(\d{8}T\d{6})-(\d{1,9})\.jsonl", re.ASCII)
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")
"""Ids that no escape can hide, so that lines without them need not be parsed."""


class RotatingFile:
    """Appends lines to the newest file of a directory; not safe for several threads."""

    def __init__(
        self, directory: Path, max_bytes: int, keep_files: int, clock: Callable[[], float]
    ) -> None:
        """Open nothing yet. ``clock`` (Unix seconds) names new files."""
        self._directory = directory
        self._max_bytes = max_bytes
        self._keep_files = keep_files
        self._clock = clock
        self._fd = -1
        self._size = 0
        self._start_new = False
        self.unsynced = False
        """Whether something was written that the disk may not have yet."""

    def open(self) -> None:
        """Make sure that a file is open; raise ``OSError`` when none can be."""
        if self._fd >= 0:
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        paths = decision_files(self._directory)
        if self._start_new or not paths or not self._resume(paths[-1]):
            self._create(paths[-1].name if paths else "")
        self._start_new = False

    def write(self, lines: list[bytes]) -> None:
        """Append ``lines`` and take each off the list once all of it is written.

        Raises ``OSError`` with the lines not written still in the list; of a line that was cut
        short nothing stays in a file that is written further.
        """
        while lines:
            self.open()
            if self._size and self._size + len(lines[0]) > self._max_bytes:
                self._rotate()
            count = self._fitting(lines)
            data = b"".join(lines[:count])
            done = 0
            try:
                while done < len(data):
                    done += os.write(self._fd, memoryview(data)[done:])
            except OSError:
                self._keep_whole_lines(lines, data[:done])
                raise
            if os.fstat(self._fd).st_nlink == 0:
                self.close()  # the file was removed under us: write the same lines to a new one
                continue
            self.unsynced = True
            self._size += done
            del lines[:count]

    def sync(self) -> None:
        """Bring what was written to the disk; after an error the file is not trusted again."""
        if not self.unsynced:
            return
        self.unsynced = False
        try:
            os.fdatasync(self._fd)
        except OSError:
            self._start_new = True
            self.close()
            raise

    def close(self) -> None:
        """Close and unlock the file, if one is open."""
        fd, self._fd = self._fd, -1
        self.unsynced = False
        if fd >= 0:
            with contextlib.suppress(OSError):  # the descriptor is gone either way
                os.close(fd)

    def _resume(self, path: Path) -> bool:
        try:
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        size = os.fstat(fd).st_size
        whole = size == 0 or os.pread(fd, 1, size - 1) == b"\n"
        if whole and size < self._max_bytes and _locked(fd):
            self._fd, self._size = fd, size
            return True
        os.close(fd)
        return False

    def _create(self, newest: str) -> None:
        """Start a file whose name sorts last, even if the clock was set back."""
        stamp, number = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self._clock())), 0
        if (match := _NAME.fullmatch(newest)) and match[1] >= stamp:
            stamp, number = match[1], int(match[2]) + 1
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        while True:
            path = self._directory / f"decisions-{stamp}-{number}.jsonl"
            try:
                self._fd = os.open(path, flags, 0o600)
                break
            except FileExistsError:  # another process was quicker
                number += 1
        _locked(self._fd)
        self._size = 0
        self._remove_oldest()

    def _rotate(self) -> None:
        self.sync()
        self.close()
        self._start_new = True
        self.open()

    def _remove_oldest(self) -> None:
        for path in decision_files(self._directory)[: -self._keep_files]:
            with contextlib.suppress(OSError):  # tried again at the next rotation
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    if _locked(fd):
                        path.unlink()
                finally:
                    os.close(fd)

    def _fitting(self, lines: list[bytes]) -> int:
        """Count the lines that still fit; at least one, however long it is."""
        room = self._max_bytes - self._size
        count = 0
        for line in lines:
            room -= len(line)
            if room < 0 and count:
                break
            count += 1
        return count

    def _keep_whole_lines(self, lines: list[bytes], written: bytes) -> None:
        whole = written.rfind(b"\n") + 1
        del lines[: written.count(b"\n")]
        self._size += whole
        if len(written) > whole:
            try:
                os.ftruncate(self._fd, self._size)
            except OSError:
                self._start_new = True
                self.close()


def decision_files(directory: Path) -> list[Path]:
    """Return the log's files, oldest first; none when there is no such directory."""
    try:
        paths = list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    matches = [(_NAME.fullmatch(path.name), path) for path in paths]
    return [path for _, _, path in sorted((m[1], int(m[2]), path) for m, path in matches if m)]


def read_all(directory: Path) -> Iterator[dict[str, Any]]:
    """Yield every whole record, oldest first; torn and foreign lines are skipped."""
    for path in decision_files(directory):
        yield from records_in(path)


def find(directory: Path, decision_id: str) -> dict[str, Any] | None:
    """Return the record whose ``id`` is ``decision_id``, looking at the newest file first."""
    needle = decision_id.encode() if _PLAIN.fullmatch(decision_id) else b""
    for path in reversed(decision_files(directory)):
        for record in records_in(path, needle):
            if record.get("id") == decision_id:
                return record
    return None


def records_in(path: Path, needle: bytes = b"") -> Iterator[dict[str, Any]]:
    """Yield the whole records of one file, or those whose line holds ``needle``."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            if needle not in line:
                continue
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                record = msgspec.json.decode(line)
                if isinstance(record, dict):
                    yield record


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
