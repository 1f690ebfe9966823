"""Intake of decision logs: whole, once, whatever ends it and whatever a line holds."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from support import builders
from support.changes import replace

from gatekeeper.campaigns.intake import Intake, Taken
from gatekeeper.policy.containment import number_of
from gatekeeper.policy.decide import conclude
from gatekeeper.policy.model import Standing, Usage
from gatekeeper.policy.record import to_record
from gatekeeper.policy.traits import Traits
from gatekeeper.policy.words import GateMode
from gatekeeper.storage.decision_log import encode_record

if TYPE_CHECKING:
    from pathlib import Path

AT = builders.AT
RULES = builders.rules()
TRAITS = (Traits("0000000a", client=2**63 - 1, blocks=(5, 6)), Traits("0000000b", client=8))


def decision(
    name: str, *, at: float = AT, traits: tuple[Traits, ...] = TRAITS, **account: Any
) -> bytes:
    """Return the line of a real decision on a call with ``traits``, by some account."""
    facts = replace(builders.facts(), at=at, traits=traits)
    facts = replace(facts, account=replace(facts.account, **account))
    made = conclude(Standing(), (), RULES, decision_id=name, at=at, mode=GateMode.ENFORCE)
    return encode_record(to_record(made, facts, mode=GateMode.ENFORCE))


def outcome(name: str, tokens: int, *, at: float = AT + 5) -> bytes:
    """Return the line of the outcome of a call that took five seconds."""
    usage = Usage(1, tokens)
    return encode_record({"kind": "outcome", "id": name, "at": at, "usage": usage, "took_s": 5.0})


def log(folder: Path, *lines: bytes, number: int = 0) -> Path:
    """Append lines to a file of a decision log."""
    folder.mkdir(exist_ok=True)
    path = folder / f"decisions-20260101T000000-{number}.jsonl"
    with path.open("ab") as file:
        file.write(b"".join(lines))
    return path


def take(folder: Path, *sources: Path, at: float = AT + 60) -> Taken:
    """Run a new intake once, as a new process would."""
    with duckdb.connect() as connection:
        return Intake(connection, folder / "c", sources, retention_days=15).run(at)


def seen(folder: Path, columns: str) -> list[tuple[Any, ...]]:
    """Return columns of all sightings, in order."""
    files = str(folder / "c" / "sightings" / "*" / "*.parquet")
    query = f"SELECT {columns} FROM '{files}' ORDER BY id, epoch"  # noqa: S608 - our own words
    return duckdb.sql(query).fetchall()


def test_each_epoch_of_a_read_call_is_a_sighting(tmp_path: Path) -> None:
    """A call whose body was not read has no traits, and makes none; large digests stay exact."""
    log(tmp_path / "a", decision("d1"), decision("d2", traits=()))
    assert take(tmp_path, tmp_path / "a") == Taken(2, 0)
    assert seen(tmp_path, "id, epoch, client, blocks") == [
        ("d1", "0000000a", 2**63 - 1, [5, 6]),
        ("d1", "0000000b", 8, []),
    ]


def test_only_verified_organizations_are_told(tmp_path: Path) -> None:
    """One that nobody has checked does not make one node of its accounts, out of reach."""
    log(
        tmp_path / "a",
        decision("d1", traits=TRAITS[:1], organization="acme"),
        decision("d2", traits=TRAITS[:1], organization="acme", organization_verified=True),
        decision("d3", traits=TRAITS[:1]),
    )
    take(tmp_path, tmp_path / "a")
    assert seen(tmp_path, "id, organization") == [("d1", None), ("d2", "acme"), ("d3", None)]


def test_the_next_run_takes_only_what_is_new(tmp_path: Path) -> None:
    """Of several directories; a torn last line waits until it is whole."""
    line = decision("d2")
    log(tmp_path / "a", decision("d1"), line[:40])
    log(tmp_path / "b", decision("d3"))
    assert take(tmp_path, tmp_path / "a", tmp_path / "b") == Taken(4, 0)
    log(tmp_path / "a", line[40:])
    log(tmp_path / "a", decision("d4"), number=1)
    assert take(tmp_path, tmp_path / "a", tmp_path / "b") == Taken(4, 0)
    assert take(tmp_path, tmp_path / "a", tmp_path / "b") == Taken(0, 0)
    names = [name for (name,) in seen(tmp_path, "id")]
    assert names == ["d1", "d1", "d2", "d2", "d3", "d3", "d4", "d4"]


def test_an_outcome_settles_output_tokens_even_a_run_later(tmp_path: Path) -> None:
    """Until then the worst case stands."""
    log(tmp_path / "a", decision("d1"), outcome("d1", 7), decision("d2"))
    take(tmp_path, tmp_path / "a")
    worst = builders.facts().call.max_output_tokens
    assert dict(seen(tmp_path, "id, output_tokens")) == {"d1": 7, "d2": worst}
    log(tmp_path / "a", outcome("d2", 9))
    take(tmp_path, tmp_path / "a")
    assert dict(seen(tmp_path, "id, output_tokens")) == {"d1": 7, "d2": 9}


@pytest.mark.parametrize(
    "hostile",
    [b"{\n", b"\n", b"[]\n", b"\xff\xfe\n", b'{"kind": 7, "facts": "x"}\n', b"[" * 5000 + b"\n"],
)
def test_hostile_lines_hide_none_of_their_neighbours(tmp_path: Path, hostile: bytes) -> None:
    """Whatever a line holds, those before and after it become sightings."""
    log(tmp_path / "a", decision("d1"), hostile, decision("d2"))
    assert take(tmp_path, tmp_path / "a").sightings == 4


def test_no_caller_hides_behind_half_a_surrogate_pair(tmp_path: Path) -> None:
    """What DuckDB would refuse is replaced before it reads the line."""
    line = decision("d1").replace(b'"kind":', rb'"x":"\udc80","kind":', 1)
    log(tmp_path / "a", line)
    assert take(tmp_path, tmp_path / "a").sightings == 2


def test_days_beyond_the_retention_are_dropped(tmp_path: Path) -> None:
    """Whole days only, once no window reaches them."""
    log(tmp_path / "a", decision("d1"))
    take(tmp_path, tmp_path / "a")
    take(tmp_path, tmp_path / "a", at=AT + 20 * builders.DAY_S)
    assert not list((tmp_path / "c" / "sightings").iterdir())


def test_the_files_of_a_day_are_merged_once_they_are_many(tmp_path: Path) -> None:
    """Thirty runs leave a merged file and a few; each call is there once, late outcomes as well."""
    for number in range(30):
        log(tmp_path / "a", decision(f"d{number:03}"))
        take(tmp_path, tmp_path / "a")
    names = sorted(path.name for path in (tmp_path / "c" / "sightings").glob("*/*.parquet"))
    assert names == ["all-0000000025.parquet", *(f"run-{n:010}.parquet" for n in range(26, 31))]
    log(tmp_path / "a", outcome("d003", 9), outcome("d029", 8))
    take(tmp_path, tmp_path / "a")
    told = seen(tmp_path, "id, output_tokens")
    assert [name for name, _ in told] == [f"d{n:03}" for n in range(30) for _ in range(2)]
    assert (dict(told)["d003"], dict(told)["d029"]) == (9, 8)


RUN = """
import os, signal, sys, duckdb
from pathlib import Path
from gatekeeper.campaigns.intake import Intake
base, at, left, watched = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
def heard(event, _):
    global left
    if event == watched:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(heard)
Intake(duckdb.connect(), base / "c", [base / "a"], retention_days=15).run(at)
"""
"""Takes the log, and is killed where it is about to put a file into place, or to remove one."""


def kill(folder: Path, at: float, left: int, event: str = "os.rename") -> None:
    """Take the log of a folder in a process that is killed at the event after so many."""
    command = [sys.executable, "-c", RUN, str(folder), str(at), str(left), event]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


@pytest.mark.parametrize("renames", [0, 1, 2, 3])
def test_a_kill_before_any_rename_loses_nothing_and_doubles_nothing(
    tmp_path: Path, renames: int
) -> None:
    """Three days are three files, and the positions are the fourth: a real kill -9 before each."""
    for number in range(30):
        day = number % 3 * builders.DAY_S
        log(tmp_path / "a", decision(f"d{number:03}", at=AT + day))
    end = AT + 3 * builders.DAY_S
    kill(tmp_path, end, renames)
    written = list((tmp_path / "c" / "sightings").glob("*/*.parquet"))
    assert len(written) == renames
    assert take(tmp_path, tmp_path / "a", at=end) == Taken(60, 0)
    names = [name for (name,) in seen(tmp_path, "id")]
    assert names == [f"d{number:03}" for number in range(30) for _ in range(2)]


@pytest.mark.parametrize(("event", "left", "files"), [("os.rename", 2, 25), ("os.remove", 9, 17)])
def test_a_kill_in_a_merge_loses_nothing_and_doubles_nothing(
    tmp_path: Path, event: str, left: int, files: int
) -> None:
    """Before the merged file is in place, and when some of those that are in it are gone."""
    for number in range(25):
        log(tmp_path / "a", decision(f"d{number:03}"))
        if number < 24:
            take(tmp_path, tmp_path / "a")
    kill(tmp_path, AT + 60, left, event)
    assert len(list((tmp_path / "c" / "sightings").glob("*/*.parquet"))) == files
    take(tmp_path, tmp_path / "a")
    assert len(list((tmp_path / "c" / "sightings").glob("*/*.parquet"))) == 1
    names = [name for (name,) in seen(tmp_path, "id")]
    assert names == [f"d{number:03}" for number in range(25) for _ in range(2)]


def test_addresses_are_the_numbers_that_gates_know_them_by(tmp_path: Path) -> None:
    """A new account that calls from a member's address is found by the digest of a sighting."""
    where = replace(builders.network(), address_key="f" * 32, prefix_key="0a" * 16)
    facts = replace(builders.facts(), network=where, traits=TRAITS[:1])
    made = conclude(Standing(), (), RULES, decision_id="dec_1", at=AT, mode=GateMode.ENFORCE)
    log(tmp_path / "log", encode_record(to_record(made, facts, mode=GateMode.ENFORCE)))
    assert take(tmp_path, tmp_path / "log") == Taken(1)
    known = (number_of(where.address_key), number_of(where.prefix_key))
    assert seen(tmp_path, "address, prefix") == [known]
