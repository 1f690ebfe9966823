"""Searches the files of the decision log from the newest record back, a bounded piece at a time."""

from __future__ import annotations

import contextlib
import os
import re
import time
from calendar import timegm
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gatekeeper.storage.decision_files import decision_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BLOCK_BYTES: Final = 65_536
_LONGEST_LINE: Final = 1_000_000
_DISORDER_S: Final = 60.0
"""Records stand in the order in which they were made, but for about so much."""
_LONGEST_CALL_S: Final = 7_200.0
_ID: Final = re.compile(r"dec_([0-9a-f]{12})[0-9a-f]{16}")
_STAMP_CHARS: Final = slice(len("decisions-"), len("decisions-YYYYMMDDTHHMMSS"))


@dataclass(frozen=True, slots=True)
class DecisionQuery:
    """Which decisions are wanted; what is ``None`` does not matter."""

    account: str | None = None
    verdict: str | None = None
    reason: str | None = None
    rule: str | None = None
    """Id of a rule that matched, in whatever mode."""
    since: float | None = None
    """Unix seconds, inclusive."""
    until: float | None = None
    """Unix seconds, exclusive."""

    def fits(self, record: dict[str, Any]) -> bool:
        """Tell whether a record is wanted; a damaged one never is."""
        try:
            at = float(record["at"])
            return (
                record["kind"] == "decision"
                and (self.since is None or at >= self.since)
                and (self.until is None or at < self.until)
                and self.account in {None, record["facts"]["account"]["id"]}
                and self.verdict in {None, record["verdict"]}
                and self.reason in {None, record["reason"]}
                and (
                    self.rule is None
                    or any(found["rule"] == self.rule for found in record["findings"])
                )
            )
        except (KeyError, TypeError, ValueError):
            return False


@dataclass(frozen=True, slots=True)
class Place:
    """Where to go on: before this byte of this file."""

    file: str
    offset: int


@dataclass(frozen=True, slots=True)
class Found:
    """What one piece of a search found, newest first, and where the next piece begins."""

    records: tuple[dict[str, Any], ...]
    rest: Place | None
    """``None`` when everything was looked at."""


def search_back(
    directory: Path, query: DecisionQuery, *, start: Place | None, limit: int, most_bytes: int
) -> Found:
    """Search from ``start`` (or the newest record) back, until ``limit`` or ``most_bytes``.

    Blocks: call it in a thread. A file that was rotated away is passed over.
    """
    needles = [
        msgspec.json.encode(text)
        for text in (query.account, query.verdict, query.reason, query.rule)
        if text is not None
    ]
    found: list[dict[str, Any]] = []
    looked = 0
    for path in reversed(decision_files(directory)):
        if start is not None and _later(path.name, start.file):
            continue
        end = start.offset if start is not None and path.name == start.file else None
        for offset, line in _lines_back(path, end):
            looked += len(line)
            record = None
            if query.since is not None or all(needle in line for needle in needles):
                record = _decoded(line)
            if record is not None and query.fits(record):
                found.append(record)
            elif record is not None and _before(record, query.since):
                return Found(tuple(found), None)
            if len(found) >= limit or looked >= most_bytes:
                return Found(tuple(found), Place(path.name, offset))
    return Found(tuple(found), None)


@dataclass(frozen=True, slots=True)
class Kept:
    """What the log has of one decision."""

    decision: dict[str, Any]
    outcome: dict[str, Any] | None
    """How the call ended; ``None`` for a refusal, and while it goes on."""


def find_decision(directory: Path, decision_id: str) -> Kept | None:
    """Return the records of a decision; the time in its id tells which files can hold them.

    Blocks: call it in a thread.
    """
    match = _ID.fullmatch(decision_id)
    if match is None:
        return None
    made_at = int(match[1], 16) / 1_000
    needle = decision_id.encode()
    outcome = None
    for path in reversed(decision_files(directory)):
        if _started_at(path.name) > made_at + _LONGEST_CALL_S:
            continue
        decision = None
        for record in _records_with(path, needle, made_at - _DISORDER_S):
            if record.get("id") == decision_id:
                if record.get("kind") == "decision":
                    decision = record
                elif record.get("kind") == "outcome":
                    outcome = record
        if decision is not None:
            return Kept(decision, outcome)
    return None


def _records_with(path: Path, needle: bytes, since: float) -> Iterator[dict[str, Any]]:
    """Yield the records that hold ``needle``, of a file that was written after ``since``."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_mtime < since:
            return
        with path.open("rb") as file:
            for line in file:
                if needle in line and (record := _decoded(line)) is not None:
                    yield record


def _started_at(name: str) -> float:
    return float(timegm(time.strptime(name[_STAMP_CHARS], "%Y%m%dT%H%M%S")))


def _before(record: dict[str, Any], since: float | None) -> bool:
    """Tell whether a record, and so all that stand before it, are too old."""
    at = record.get("at")
    return since is not None and isinstance(at, float | int) and at < since - _DISORDER_S


def _later(name: str, other: str) -> bool:
    """Tell whether a file comes after another in the order of the log."""
    return _order(name) > _order(other)


def _order(name: str) -> tuple[str, int]:
    stamp, number = name.removesuffix(".jsonl").removeprefix("decisions-").split("-")
    return stamp, int(number)


def _lines_back(path: Path, end: int | None) -> Iterator[tuple[int, bytes]]:
    """Yield whole lines from the last to the first, each with the offset at which it begins."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        at = size if end is None else min(end, size)
        rest = b""
        torn = end is None  # what follows the last newline is still being written
        while at > 0:
            step = min(_BLOCK_BYTES, at)
            at -= step
            file.seek(at)
            rest = file.read(step) + rest
            lines = rest.split(b"\n")
            rest = lines.pop(0)
            offset = at + len(rest) + 1
            starts: list[tuple[int, bytes]] = []
            for line in lines:
                starts.append((offset, line))
                offset += len(line) + 1
            for begin, line in reversed(starts):
                if torn:
                    torn = False
                    continue
                if line:
                    yield begin, line
            if len(rest) > _LONGEST_LINE:  # no record of ours: do not gather more of it
                rest = b""
        if rest and not torn:
            yield 0, rest


def _decoded(line: bytes) -> dict[str, Any] | None:
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        record = msgspec.json.decode(line)
        if isinstance(record, dict):
            return record
    return None
