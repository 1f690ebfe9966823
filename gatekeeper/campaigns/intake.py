"""Takes what is new in decision logs and in a stream of gates; makes sightings of it, day by day.

What a run takes is committed by one rename, that of the positions. Its files carry the number of
the run, and those of a run that never came to its commit are removed by the next one, which takes
the same lines again: a kill loses nothing and doubles nothing. A call that came both ways is one.

The files of a day are merged once they are many, for a run each few minutes makes hundreds. A
merged file names the last run that is in it. The files that it stands for are removed after it is
in place, or by the next run.
"""

from __future__ import annotations

import os
import re
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import msgspec
from msgspec import Struct

from gatekeeper.campaigns.intake_sql import (
    DAYS,
    DROP_SEEN,
    LATE_FILES,
    LOAD,
    MERGED,
    SIGHTINGS,
    UPDATED,
    WRITE_DAY,
)
from gatekeeper.campaigns.stream import Place
from gatekeeper.storage.decision_files import decision_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import duckdb

    from gatekeeper.campaigns.stream import StreamReader

_PIECE_BYTES: Final = 64_000_000
"""Most that is read of one file at a time; a line that is longer is none of ours."""
_MOST_FILES: Final = 24
"""Files of one day from which they are merged into one."""
_DAY_S: Final = 86_400.0
_LONE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
"""Halves of surrogate pairs. DuckDB refuses a line with one, and so a caller could hide by it."""


class Positions(Struct, frozen=True):
    """How far the logs have been taken."""

    run: int = 0
    """Number of the last run that was committed."""
    files: dict[str, int] = {}
    """Bytes taken of each file, by its path."""
    streams: dict[str, Place] = {}
    """How far each stream has been taken, by its key."""


class Taken(Struct, frozen=True):
    """What a run took in."""

    sightings: int = 0
    skipped: int = 0
    """Lines that are no record of a gate."""


class Intake:
    """Makes sightings of the decision logs in some directories; one process at a time."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        directory: Path,
        sources: Iterable[Path],
        *,
        retention_days: int,
        stream: StreamReader | None = None,
    ) -> None:
        """Keep sightings and positions in ``directory``; ``sources`` are directories of logs."""
        self._stream = stream
        self._connection = connection
        self._sightings = directory / "sightings"
        self._aside = directory / "aside"
        self._positions = directory / "positions.json"
        self._sources = [source.resolve() for source in sources]
        self._retention_s = retention_days * _DAY_S

    def run(self, at: float) -> Taken:
        """Take all that is new, and drop the days that no window reaches at ``at`` any more.

        Raises ``OSError`` or ``duckdb.Error``; the next run then takes the same lines.
        """
        before = self._committed()
        self._clear(before.run)
        self._aside.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = self._aside / "lines.jsonl"
        after, overlong = self._gather(before, lines)
        oldest = at - self._retention_s
        taken = self._make(lines, before.run + 1, oldest) if lines.stat().st_size else Taken()
        self._commit(after)
        self._drop_before(oldest)
        self._merge()
        shutil.rmtree(self._aside)
        return Taken(taken.sightings, taken.skipped + overlong)

    def _committed(self) -> Positions:
        try:
            return msgspec.json.decode(self._positions.read_bytes(), type=Positions)
        except FileNotFoundError:
            return Positions()

    def _clear(self, run: int) -> None:
        """Remove what a run left that never came to its commit, or to the end of a merge."""
        shutil.rmtree(self._aside, ignore_errors=True)
        for path in self._sightings.glob("day=*/run-*.parquet"):
            if _run_of(path) > run:
                path.unlink()
        for merged in self._sightings.glob("day=*/all-*.parquet"):
            self._remove_merged(merged)

    def _merge(self) -> None:
        """Make one file of the many of a day."""
        for folder in self._sightings.glob("day=*"):
            files = sorted(_ours(folder), key=_run_of)
            if len(files) > _MOST_FILES:
                merged = folder / f"all-{_run_of(files[-1]):010}.parquet"
                self._write(MERGED, [[str(each) for each in files]], merged)
                self._remove_merged(merged)

    @staticmethod
    def _remove_merged(merged: Path) -> None:
        """Remove the files whose sightings are in a merged one."""
        for path in _ours(merged.parent):
            if path != merged and _run_of(path) <= _run_of(merged):
                path.unlink(missing_ok=True)

    def _gather(self, before: Positions, lines: Path) -> tuple[Positions, int]:
        """Copy new whole lines into one file; return the positions after, and overlong pieces."""
        files: dict[str, int] = {}
        streams = dict(before.streams)
        overlong = 0
        with lines.open("wb") as out:
            for source in self._sources:
                # Listed before any is read: of a rotated file, all is there.
                for path in decision_files(source):
                    start = before.files.get(str(path), 0)
                    end = start
                    for piece, whole in _pieces(path, start):
                        end += len(piece)
                        overlong += not whole
                        if whole:
                            out.write(_readable(piece))
                    files[str(path)] = end
            if (stream := self._stream) is not None:
                place = streams.get(stream.name, Place())
                streams[stream.name] = stream.read(place, lambda line: _keep(out, line))
        return Positions(before.run + 1, files, streams), overlong

    def _make(self, lines: Path, run: int, oldest: float) -> Taken:
        ask = self._connection.execute
        ask(LOAD, [str(lines)])
        skipped = _number(ask("SELECT count(*) FROM loaded WHERE kind IS NULL OR id IS NULL"))
        ask(SIGHTINGS, [oldest])
        days = [str(day) for (day,) in ask(DAYS).fetchall()]
        if there := self._files(days):
            ask(DROP_SEEN, [there])
            days = [str(day) for (day,) in ask(DAYS).fetchall()]
        for day in days:
            self._write(WRITE_DAY, [day], self._sightings / f"day={day}" / f"run-{run:010}.parquet")
        self._settle_late()
        return Taken(_number(ask("SELECT count(*) FROM sightings_new")), skipped)

    def _settle_late(self) -> None:
        """Put outcomes of calls that earlier runs took into their files; twice is as once."""
        ask = self._connection.execute
        days = ask("SELECT DISTINCT day FROM outcomes_new ORDER BY day").fetchall()
        if not (paths := self._files(str(day) for (day,) in days)):
            return
        for (name,) in ask(LATE_FILES, [paths]).fetchall():
            self._write(UPDATED, [name], type(self._sightings)(name))

    def _files(self, days: Iterable[str]) -> list[str]:
        """Return the files of some days."""
        folders = [self._sightings / f"day={day}" for day in days]
        return [str(path) for each in folders for path in sorted(_ours(each))]

    def _write(self, query: str, values: list[Any], path: Path) -> None:
        aside = self._aside / "written.parquet"
        self._connection.execute(query, [*values, str(aside)])
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _synced(aside)
        aside.replace(path)
        _synced(path.parent)

    def _commit(self, positions: Positions) -> None:
        aside = self._aside / "positions.json"
        aside.write_bytes(msgspec.json.encode(positions))
        _synced(aside)
        aside.replace(self._positions)
        _synced(self._positions.parent)

    def _drop_before(self, oldest: float) -> None:
        first = f"day={datetime.fromtimestamp(max(oldest, 0), UTC):%Y-%m-%d}"
        for folder in self._sightings.glob("day=*"):
            if folder.name < first:
                shutil.rmtree(folder)


def _ours(folder: Path) -> list[Path]:
    """Return the files of a day that runs have written."""
    return [*folder.glob("run-*.parquet"), *folder.glob("all-*.parquet")]


def _run_of(path: Path) -> int:
    """Return the number of the last run whose sightings are in a file."""
    return int(path.stem.partition("-")[2])


def _pieces(path: Path, start: int) -> Iterator[tuple[bytes, bool]]:
    """Yield whole lines, many at once, from ``start`` on; what is not such a piece is false."""
    try:
        file = path.open("rb")
    except FileNotFoundError:  # rotation has removed it since it was listed
        return
    with file:
        file.seek(start)
        while piece := file.read(_PIECE_BYTES):
            end = piece.rfind(b"\n") + 1
            if end:
                yield piece[:end], True
                file.seek(end - len(piece), os.SEEK_CUR)
            elif len(piece) == _PIECE_BYTES:
                yield piece, False
            else:  # torn, or still being written
                return


def _readable(piece: bytes) -> bytes:
    """Return lines that the SQL engine takes, whatever they are; ours are ASCII, without halves."""
    if b"\\ud" in piece or b"\\uD" in piece:
        piece = _LONE.sub(rb"\\ufffd", piece)
    return piece if piece.isascii() else piece.decode("utf-8", "replace").encode()


def _keep(out: BinaryIO, line: bytes) -> None:
    out.write(_readable(line))


def _number(result: duckdb.DuckDBPyConnection) -> int:
    row = result.fetchone()
    return 0 if row is None else int(row[0])


def _synced(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
