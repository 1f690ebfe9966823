"""The decision log: never blocks, never injects a line, never loses what it took (H38)."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper import settings
from gatekeeper.policy.words import Reason, Tier
from gatekeeper.storage.decision_files import RotatingFile, decision_files, find, read_all
from gatekeeper.storage.decision_log import DecisionLog, encode_record

if TYPE_CHECKING:
    from collections.abc import Callable

NOON = 1_795_348_800.0
"""22 November 2026, 12:00 UTC."""


def options(directory: Path, **changes: Any) -> settings.DecisionLog:
    """Return settings of a log in ``directory``."""
    return settings.DecisionLog(directory=directory, **changes)


def line(number: int, padding: int = 0) -> bytes:
    """Return one record."""
    return encode_record({"id": f"d{number}", "padding": "x" * padding})


def ids(directory: Path) -> list[str]:
    """Return the ids of all records, oldest first."""
    return [record["id"] for record in read_all(directory)]


def until(condition: Callable[[], bool]) -> None:
    """Wait for the writing thread to get there; fail after ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("it never came to that")
        time.sleep(0.002)


# --- records


def test_a_record_is_one_line_of_json() -> None:
    """Values of the model are written by their words."""
    record = {"id": "d1", "tier": Tier.TRUSTED, "reason": Reason.INVALID_PATH, "at": (1, 2.5)}
    assert encode_record(record) == (
        b'{"id":"d1","tier":"trusted","reason":"invalid_path","at":[1,2.5]}\n'
    )


@pytest.mark.parametrize(
    "text",
    [
        "a\r\nb",
        '","verdict":"allow',
        "\x1b[2J\x1b]0;title\x07",
        "\u009b31m",
        "\x7f\x00\u0085",
        "\u2028\u2029",
        "\u202eevil\u2066",
        "naïve 模型 😀",
        "lone \ud800 and \udcff",
    ],
)
def test_h38_nothing_breaks_a_line_or_steers_a_terminal(text: str) -> None:
    """CR, LF, ANSI, quotes and their Unicode kin stay inside their field, as ASCII."""
    encoded = encode_record({"id": text, text: [text]})
    assert encoded.endswith(b"\n")
    assert all(0x20 <= byte <= 0x7E for byte in encoded[:-1])
    assert json.loads(encoded) == {"id": text, text: [text]}


@given(st.dictionaries(st.text(), st.text(alphabet=st.characters())))
def test_h38_any_text_comes_back_as_it_was(record: dict[str, str]) -> None:
    """Whatever the characters, surrogates included: one printable line, nothing changed."""
    encoded = encode_record(record)
    assert all(0x20 <= byte <= 0x7E for byte in encoded[:-1])
    assert json.loads(encoded) == record


@pytest.mark.parametrize("text", ["plain", "\ud800"])
def test_what_is_not_a_number_becomes_null(text: str) -> None:
    """JSON knows no infinity, whichever way the record is encoded."""
    encoded = encode_record({"wait": math.inf, "low": [-math.inf], "odd": math.nan, "t": text})
    assert json.loads(encoded) == {"wait": None, "low": [None], "odd": None, "t": text}
    assert b"nfinity" not in encoded


@pytest.mark.parametrize("bad", [b"", b"no newline", b"one\ntwo\n", b"one\n\n"])
async def test_h38_only_whole_lines_are_taken(tmp_path: Path, bad: bytes) -> None:
    """What would join or split records is a mistake of the caller."""
    log = DecisionLog(options(tmp_path))
    with pytest.raises(ValueError, match="one line"):
        log.append(bad)
    await log.close(5)


# --- the ordinary course


async def test_records_reach_the_file_in_order(tmp_path: Path) -> None:
    """What was taken is there after closing, and counted."""
    log = DecisionLog(options(tmp_path / "new" / "directory"), lambda: NOON)
    assert all(log.append(line(number)) for number in range(100))
    assert await log.close(5)
    (path,) = decision_files(tmp_path / "new" / "directory")
    assert path.name == "decisions-20261122T120000-0.jsonl"
    assert ids(path.parent) == [f"d{number}" for number in range(100)]
    assert (log.written, log.dropped, log.failed, log.waiting) == (100, 0, 0, 0)
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_closed_log_takes_nothing(tmp_path: Path) -> None:
    """After closing it accepts no calls, and counts what comes all the same."""
    log = DecisionLog(options(tmp_path))
    await log.close(5)
    assert not log.accepting
    assert not log.append(line(1))
    assert log.dropped == 1


async def test_h38_rotation_under_many_tasks_loses_nothing(tmp_path: Path) -> None:
    """Fifty tasks, dozens of files: every record once, no file above its size."""
    log = DecisionLog(options(tmp_path, max_file_bytes=4096, keep_files=10_000), lambda: NOON)

    async def work(task: int) -> None:
        for number in range(40):
            assert log.append(line(task * 40 + number, padding=number))
            await asyncio.sleep(0)

    await asyncio.gather(*(work(task) for task in range(50)))
    assert await log.close(10)
    assert sorted(ids(tmp_path)) == sorted(f"d{number}" for number in range(2000))
    paths = decision_files(tmp_path)
    assert len(paths) > 20
    assert all(path.stat().st_size <= 4096 for path in paths)


async def test_a_quiet_log_writes_without_being_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single record does not wait for a second one, neither to be written nor to be synced."""
    monkeypatch.setattr("gatekeeper.storage.decision_log._SYNC_EVERY_S", 0.02)
    log = DecisionLog(options(tmp_path))
    until(lambda: log._asleep)
    log.append(line(1))
    until(lambda: log.written == 1)
    assert ids(tmp_path) == ["d1"]
    until(lambda: not log._file.unsynced)
    assert await log.close(5)


# --- when the disk refuses


class Stuck:
    """A directory that cannot be made, because a file is in its place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(b"")

    def mend(self) -> None:
        """Let the disk do its work again."""
        self.path.unlink()


async def test_h38_refuse_stops_accepting_until_the_disk_is_back(tmp_path: Path) -> None:
    """Calls already under way keep their records; new ones are not accepted meanwhile."""
    stuck = Stuck(tmp_path / "log")
    log = DecisionLog(options(stuck.path, spool_records=2))
    until(lambda: log.failed > 1)
    assert not log.accepting
    assert [log.append(line(number)) for number in range(3)] == [True, True, False]
    stuck.mend()
    until(lambda: log.written == 2)
    until(lambda: log.accepting)
    assert await log.close(5)
    assert ids(stuck.path) == ["d0", "d1"]
    assert log.dropped == 1


async def test_h38_spool_goes_on_and_drops_the_oldest(tmp_path: Path) -> None:
    """Memory is bounded, the newest records are kept, and the loss is counted."""
    stuck = Stuck(tmp_path / "log")
    log = DecisionLog(options(stuck.path, on_failure="spool", spool_records=3))
    until(lambda: log.failed > 0)
    assert all(log.append(line(number)) for number in range(10))
    assert log.accepting
    assert (log.waiting, log.dropped) == (3, 7)
    stuck.mend()
    assert await log.close(5)
    assert ids(stuck.path) == ["d7", "d8", "d9"]


async def test_a_full_backlog_is_a_refusal_too(tmp_path: Path) -> None:
    """A disk that is merely too slow stops accepting before records are lost."""
    stuck = Stuck(tmp_path / "log")
    log = DecisionLog(options(stuck.path, spool_records=1))
    until(lambda: log._failing)
    log.append(line(1))
    log._failing = False
    assert not log.accepting
    stuck.mend()
    assert await log.close(5)


async def test_closing_gives_up_in_time(tmp_path: Path) -> None:
    """A disk that stays away does not hold up the end; what is lost is counted."""
    stuck = Stuck(tmp_path / "log")
    log = DecisionLog(options(stuck.path))
    until(lambda: log.failed > 0)
    log.append(line(1))
    assert not await log.close(0.01)
    log._thread.join(5)
    assert log.dropped == 1


async def test_a_thread_that_died_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends the thread, calls are refused rather than left unrecorded."""
    monkeypatch.setattr(threading, "excepthook", lambda hook: None)

    def broken(self: RotatingFile) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(RotatingFile, "open", broken)
    log = DecisionLog(options(tmp_path))
    log._thread.join(5)
    assert not log.accepting


async def test_h38_a_removed_directory_is_made_again(tmp_path: Path) -> None:
    """What is taken after the removal is written, to a new file in a new directory."""
    directory = tmp_path / "log"
    log = DecisionLog(options(directory), lambda: NOON)
    log.append(line(1))
    until(lambda: log.written == 1)
    shutil.rmtree(directory)
    log.append(line(2))
    until(lambda: log.written == 2)
    assert ids(directory) == ["d2"]
    assert log.accepting
    assert await log.close(5)


DISK_FULL = """
import asyncio, resource, sys, time
from pathlib import Path
from gatekeeper import settings
from gatekeeper.storage.decision_log import DecisionLog, encode_record

async def main():
    # The kernel writes what fits below the limit and refuses the rest, as a full disk does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    log = DecisionLog(settings.DecisionLog(directory=Path(sys.argv[1])))
    for number in range(100):
        assert log.append(encode_record({"id": f"d{number}"}))
    deadline = time.monotonic() + 10
    while log.accepting or log.failed < 2:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert 0 < log.written < 100, log.written
    size = sum(path.stat().st_size for path in Path(sys.argv[1]).iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    while not log.accepting:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert await log.close(5)
    print(size, log.written, log.dropped)

asyncio.run(main())
"""


def test_h38_a_full_disk_loses_and_tears_nothing(tmp_path: Path) -> None:
    """The kernel cuts a write short: no torn line, every record once when there is room again."""
    done = subprocess.run(
        [sys.executable, "-c", DISK_FULL, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    size, written, dropped = map(int, done.stdout.split())
    assert (written, dropped) == (100, 0)
    assert size <= 1000
    assert ids(tmp_path) == [f"d{number}" for number in range(100)]
    (path,) = decision_files(tmp_path)
    assert path.read_bytes().count(b"\n") == 100


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_h38_a_device_that_is_full(tmp_path: Path) -> None:
    """ENOSPC itself: the lines stay with the caller, and the next attempt writes them."""
    file = RotatingFile(tmp_path, 4096, 5, lambda: NOON)
    file.open()
    good, full = os.dup(file._fd), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, file._fd)
    lines = [line(1), line(2)]
    with pytest.raises(OSError, match="No space"):
        file.write(lines)
    assert len(lines) == 2
    os.dup2(good, file._fd)
    file.write(lines)
    file.close()
    os.close(good)
    os.close(full)
    assert lines == []
    assert ids(tmp_path) == ["d1", "d2"]


# --- files


def write(directory: Path, *lines: bytes, **changes: Any) -> RotatingFile:
    """Write lines as a new process does, and keep the file open."""
    options_: dict[str, Any] = {"max_bytes": 4096, "keep_files": 3, "clock": lambda: NOON}
    file = RotatingFile(directory, **{**options_, **changes})
    file.write(list(lines))
    return file


def test_a_new_process_goes_on_with_the_newest_file(tmp_path: Path) -> None:
    """A process that starts over and over does not push the history out."""
    for number in range(10):
        write(tmp_path, line(number)).close()
    assert len(decision_files(tmp_path)) == 1
    assert len(ids(tmp_path)) == 10


def test_a_torn_file_is_left_alone(tmp_path: Path) -> None:
    """Nothing is appended to a torn line; it is skipped by readers and nothing else is lost."""
    write(tmp_path, line(1)).close()
    (torn,) = decision_files(tmp_path)
    torn.write_bytes(torn.read_bytes() + line(2)[:-5])
    write(tmp_path, line(3)).close()
    assert len(decision_files(tmp_path)) == 2
    assert ids(tmp_path) == ["d1", "d3"]


def test_two_processes_write_two_files(tmp_path: Path) -> None:
    """A file is locked while it is written, and not removed by another process either."""
    first = write(tmp_path, line(1), keep_files=1)
    second = write(tmp_path, line(2), keep_files=1)
    assert len(decision_files(tmp_path)) == 2
    first.close()
    second.close()
    third = write(tmp_path, line(3), keep_files=1)
    assert ids(tmp_path) == ["d1", "d2", "d3"]
    third.close()


def test_the_oldest_files_are_removed(tmp_path: Path) -> None:
    """``keep_files`` counts the one being written."""
    write(tmp_path, *(line(number, padding=3000) for number in range(6))).close()
    assert ids(tmp_path) == ["d3", "d4", "d5"]


def test_names_sort_even_when_the_clock_was_set_back(tmp_path: Path) -> None:
    """A new file comes after the newest, and the tenth of a second after the ninth."""
    for number in range(12):
        clock_s = NOON - 3600 * (number > 0)
        write(tmp_path, line(number, 4000), clock=lambda at=clock_s: at, keep_files=99).close()
    assert ids(tmp_path) == [f"d{number}" for number in range(12)]
    assert decision_files(tmp_path)[-1].name == "decisions-20261122T120000-11.jsonl"


def test_another_process_may_take_a_name_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the making of a file its name may go: the next number is taken."""
    write(tmp_path, line(1)).close()
    monkeypatch.setattr("gatekeeper.storage.decision_files.decision_files", lambda path: [])
    write(tmp_path, line(2)).close()
    monkeypatch.undo()
    assert [path.name[-7:] for path in decision_files(tmp_path)] == ["0.jsonl", "1.jsonl"]


def test_a_link_in_the_directory_is_not_followed(tmp_path: Path) -> None:
    """Whoever can plant a link cannot have another file written or cut."""
    target = tmp_path / "target"
    target.write_bytes(b"precious\n")
    directory = tmp_path / "log"
    directory.mkdir()
    (directory / "decisions-20261122T120000-0.jsonl").symlink_to(target)
    write(directory, line(1)).close()
    assert target.read_bytes() == b"precious\n"


def test_a_line_longer_than_a_file_is_written_whole(tmp_path: Path) -> None:
    """It gets a file of its own."""
    write(tmp_path, line(1), line(2, padding=9000), line(3)).close()
    assert ids(tmp_path) == ["d1", "d2", "d3"]
    assert len(decision_files(tmp_path)) == 3


def test_h38_after_an_fsync_error_a_new_file_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may have thrown the pages away: the old file is not trusted again."""

    def refuse(fd: int) -> None:
        raise OSError(5, "Input/output error")

    file = write(tmp_path, line(1))
    monkeypatch.setattr(os, "fdatasync", refuse)
    with pytest.raises(OSError, match="Input/output"):
        file.sync()
    monkeypatch.undo()
    file.write([line(2)])
    file.sync()
    file.sync()
    file.close()
    assert len(decision_files(tmp_path)) == 2


def test_a_torn_write_that_cannot_be_cut_off_ends_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that takes half a line and refuses to cut it: the line is written whole elsewhere."""
    real = os.write
    state = {"calls": 0}

    def short(fd: int, data: memoryview) -> int:
        state["calls"] += 1
        if state["calls"] == 1:
            return real(fd, data[: len(line(1)) + 4])
        raise OSError(28, "No space left on device")

    def refuse(fd: int, size: int) -> None:
        raise OSError(5, "Input/output error")

    file = RotatingFile(tmp_path, 4096, 3, lambda: NOON)
    lines = [line(1), line(2)]
    monkeypatch.setattr(os, "write", short)
    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(OSError, match="No space"):
        file.write(lines)
    monkeypatch.undo()
    assert lines == [line(2)]
    file.write(lines)
    file.close()
    assert ids(tmp_path) == ["d1", "d2"]
    assert len(decision_files(tmp_path)) == 2


# --- reading


def test_find_looks_through_all_files(tmp_path: Path) -> None:
    """By its id, in the newest file or the oldest; an id inside another field does not count."""
    write(tmp_path, *(line(number, padding=3000) for number in range(3))).close()
    write(tmp_path, encode_record({"id": "other", "of": "d1"})).close()
    for number in range(3):
        record = find(tmp_path, f"d{number}")
        assert record is not None
        assert record["id"] == f"d{number}"
    assert find(tmp_path, "d9") is None


def test_an_odd_id_is_looked_for_as_it_was_written(tmp_path: Path) -> None:
    """Escapes do not hide a record."""
    write(tmp_path, encode_record({"id": 'a"é\u2028'})).close()
    assert find(tmp_path, 'a"é\u2028') is not None


def test_readers_skip_what_is_not_a_record(tmp_path: Path) -> None:
    """Torn, foreign, deeply nested or not even text: the rest is read all the same."""
    junk = [b'{"id":"d', b"\xff\xfe", b"[1]", b"7", b"[" * 100_000, b"", b'{"id":"\xed\xa0\x80"}']
    (tmp_path / "decisions-20261122T120000-0.jsonl").write_bytes(
        b"\n".join([*junk, line(1).strip(), b'{"id":"d2"'])
    )
    (tmp_path / "decisions-20261122T120000-x.jsonl").write_bytes(line(3))
    assert ids(tmp_path) == ["d1"]


def test_reading_where_nothing_was_written(tmp_path: Path) -> None:
    """No directory means no records, and is no error."""
    assert ids(tmp_path / "nowhere") == []
    assert find(tmp_path / "nowhere", "d1") is None
