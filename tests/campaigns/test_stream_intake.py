"""Intake of the stream: whole, once, beside the files, whatever ends it and whatever is gone."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from redis.crc import key_slot
from structlog.testing import capture_logs
from support import builders
from support.changes import replace
from support.limits import access_to
from support.valkey import Server, serving, serving_cluster, serving_sentinel

from gatekeeper.campaigns.intake import Intake, Taken
from gatekeeper.campaigns.stream import StreamReader
from gatekeeper.policy.decide import conclude
from gatekeeper.policy.model import Standing, Usage
from gatekeeper.policy.record import to_record
from gatekeeper.policy.traits import Traits
from gatekeeper.policy.words import GateMode
from gatekeeper.settings import SecretSource, Store
from gatekeeper.storage.decision_log import encode_record
from gatekeeper.storage.decision_stream import DecisionStream, stream_key
from gatekeeper.storage.store_access import StoreAccess, read_access
from gatekeeper.telemetry import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

AT = builders.AT
RULES = builders.rules()
KEY = stream_key("test", "decisions")
TRAITS = (Traits("0000000a", client=7), Traits("0000000b", client=8))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Server]:
    """Return a Valkey that a test may break."""
    async with serving(tmp_path / "valkey") as server:
        yield server


def decision(name: str, *, at: float = AT) -> bytes:
    """Return the line of a real decision."""
    facts = replace(builders.facts(), at=at, traits=TRAITS)
    made = conclude(Standing(), (), RULES, decision_id=name, at=at, mode=GateMode.ENFORCE)
    return encode_record(to_record(made, facts, mode=GateMode.ENFORCE))


def outcome(name: str, tokens: int) -> bytes:
    """Return the line of the outcome of a call."""
    usage = Usage(1, tokens)
    return encode_record(
        {"kind": "outcome", "id": name, "at": AT + 5, "usage": usage, "took_s": 5.0}
    )


async def send(server: Server, *lines: bytes, records: int = 100_000) -> None:
    """Send lines as a gate does."""
    metrics = Metrics()
    access = access_to(server.address)
    stream = DecisionStream(access, KEY, records, chance=lambda: 0.0, metrics=metrics)
    for line in lines:
        stream.append(line)
    await stream.close(10.0)
    assert metrics.value("gatekeeper_stream_records", "sent") == len(lines)


def log(folder: Path, *lines: bytes) -> Path:
    """Append lines to a decision log."""
    folder.mkdir(exist_ok=True)
    with (folder / "decisions-20260101T000000-0.jsonl").open("ab") as file:
        file.write(b"".join(lines))
    return folder


async def take(folder: Path, server: Server, *sources: Path, piece: int = 7) -> Taken:
    """Run a new intake once, as a new process would."""

    def run() -> Taken:
        reader = StreamReader(access_to(server.address, connect_ms=500), KEY, piece=piece)
        with duckdb.connect() as connection:
            intake = Intake(connection, folder / "c", sources, retention_days=15, stream=reader)
            return intake.run(AT + 60)

    return await asyncio.to_thread(run)


def seen(folder: Path, columns: str = "id") -> list[Any]:
    """Return a column or several of all sightings, in order."""
    files = str(folder / "c" / "sightings" / "*" / "*.parquet")
    query = f"SELECT {columns} FROM '{files}' ORDER BY id, epoch"  # noqa: S608 - our own words
    rows = duckdb.sql(query).fetchall()
    return [row[0] for row in rows] if "," not in columns else rows


def names(*numbers: int) -> list[str]:
    """Return the ids of sightings, one for each epoch."""
    return [f"d{number:03}" for number in numbers for _ in TRAITS]


def some(*numbers: int) -> list[bytes]:
    """Return decisions by their numbers."""
    return [decision(f"d{number:03}") for number in numbers]


def told(logged: Any, event: str) -> list[Any]:
    """Return what was logged of an event."""
    return [each for each in logged if each["event"] == event]


async def test_each_run_takes_what_is_new(store: Server, tmp_path: Path) -> None:
    """In pieces of any size; a piece that is exactly full, and a stream that is not there yet."""
    with capture_logs() as logged:
        assert await take(tmp_path, store) == Taken()
        await send(store, *some(*range(21)))
        assert await take(tmp_path, store) == Taken(42)
        assert await take(tmp_path, store) == Taken()
        await send(store, *some(21, 22))
        assert await take(tmp_path, store) == Taken(4)
    assert seen(tmp_path) == names(*range(23))
    assert logged == []


async def test_an_outcome_by_stream_settles_a_call_by_file(store: Server, tmp_path: Path) -> None:
    """A run later, and once."""
    source = log(tmp_path / "a", decision("d000"))
    await take(tmp_path, store, source)
    await send(store, outcome("d000", 7))
    await take(tmp_path, store, source)
    log(source, outcome("d000", 7))
    await take(tmp_path, store, source)
    assert seen(tmp_path, "id, output_tokens") == [("d000", 7), ("d000", 7)]


async def test_what_came_twice_counts_once(store: Server, tmp_path: Path) -> None:
    """In one piece, both ways in one run, and by file or stream in a later one."""
    await send(store, *some(0, 1, 1, 2))
    source = log(tmp_path / "a", *some(2, 3))
    assert await take(tmp_path, store, source) == Taken(8)
    await send(store, *some(3, 4, 0))
    log(source, *some(1, 4, 5))
    assert await take(tmp_path, store, source) == Taken(4)
    assert seen(tmp_path) == names(0, 1, 2, 3, 4, 5)


async def test_what_was_trimmed_is_told(store: Server, tmp_path: Path) -> None:
    """How many records at most are missing; the files may have them. Only what comes is told."""
    await send(store, *some(*range(20)))
    await take(tmp_path, store)
    async with store.client() as client:
        await send(store, *some(*range(20, 60)))
        await client.xtrim(KEY, maxlen=10, approximate=False)
        with capture_logs() as logged:
            assert await take(tmp_path, store) == Taken(20)
        [gap] = told(logged, "stream_trimmed")
        assert (gap["log_level"], gap["missing"]) == ("warning", 30)
        assert seen(tmp_path) == names(*range(20), *range(50, 60))
        await send(store, *some(60))
        await client.xtrim(KEY, maxlen=0, approximate=False)
        with capture_logs() as logged:
            await take(tmp_path, store)
            await take(tmp_path, store)
        assert [each["missing"] for each in told(logged, "stream_trimmed")] == [1]


async def test_what_gates_trim_themselves_is_counted_exactly(store: Server, tmp_path: Path) -> None:
    """By the bound of the stream, which the store keeps to more or less."""
    await send(store, *some(*range(10)))
    await take(tmp_path, store)
    await send(store, *some(*range(10, 900)), records=100)
    with capture_logs() as logged:
        await take(tmp_path, store, piece=50)
    there = seen(tmp_path)
    assert told(logged, "stream_trimmed")[0]["missing"] == 900 - len(there) // 2
    assert there[20:] == names(*range(900 - (len(there) // 2 - 10), 900))


async def test_a_first_run_misses_nothing(store: Server, tmp_path: Path) -> None:
    """A watcher that begins late is not warned of what was before it."""
    await send(store, *some(*range(300)), records=100)
    with capture_logs() as logged:
        await take(tmp_path, store)
    assert logged == []
    assert seen(tmp_path)[-2:] == names(299)


@pytest.mark.parametrize(
    ("ids", "numbers"),
    [
        (lambda number: f"5-{number + 1}", (20, 3)),
        (lambda number: f"5-{number + 1}", (*range(20, 50), 3)),
        (lambda _: "*", (20, 3)),
    ],
)
async def test_a_stream_that_began_anew_is_taken_from_its_start(
    store: Server, tmp_path: Path, ids: Callable[[int], str], numbers: tuple[int, ...]
) -> None:
    """A store that lost everything, whose clock may be another, and what has come since."""
    await send(store, *some(*range(20)))
    await take(tmp_path, store)
    store.kill()
    await store.started()
    async with store.client() as client:
        for place, line in enumerate(some(*numbers)):
            await client.xadd(KEY, {"line": line}, id=ids(place))
    new = len(numbers) - 1
    with capture_logs() as logged:
        assert await take(tmp_path, store) == Taken(2 * new)
    assert [(each["event"], each["log_level"]) for each in logged] == [
        ("stream_began_anew", "warning")
    ]
    await send(store, *some(60))
    with capture_logs() as logged:
        assert await take(tmp_path, store) == Taken(2)
    assert logged == []
    assert seen(tmp_path) == names(*range(20 + new), 60)


async def test_files_are_taken_while_the_store_is_away(store: Server, tmp_path: Path) -> None:
    """What the stream has follows with a later run."""
    source = log(tmp_path / "a", *some(0))
    await send(store, *some(1))
    assert store.process is not None
    store.freeze()
    with capture_logs() as logged:
        assert await take(tmp_path, store, source) == Taken(2)
    assert [each["log_level"] for each in told(logged, "stream_not_read")] == ["warning"]
    store.thaw()
    assert await take(tmp_path, store, source) == Taken(2)
    assert seen(tmp_path) == names(0, 1)


@pytest.mark.parametrize("kind", ["string", "fields"])
async def test_what_is_no_stream_of_gates_is_told(store: Server, tmp_path: Path, kind: str) -> None:
    """Somebody else's key ends no run; lines of nobody are skipped."""
    source = log(tmp_path / "a", *some(0))
    async with store.client() as client:
        if kind == "string":
            await client.set(KEY, "mine")
        else:
            await client.xadd(KEY, {"a": "1", "b": "2"})
            await client.xadd(KEY, {"line": decision("d001")[:-1]})
            await client.xadd(KEY, {"line": decision("d002")})
    with capture_logs() as logged:
        taken = await take(tmp_path, store, source)
    if kind == "string":
        assert taken == Taken(2)
        assert [each["kind"] for each in told(logged, "stream_not_read")] == ["wrongtype"]
    else:
        assert taken == Taken(6, 1)
        assert seen(tmp_path) == names(0, 1, 2)


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
async def test_gates_and_watcher_find_the_store_of_each_kind(tmp_path: Path, kind: str) -> None:
    """By Sentinels or nodes of a Cluster; in that the stream lies where the limits do."""
    fields: dict[str, Any] = {"kind": kind}
    async with AsyncExitStack() as stack:
        if kind == "sentinel":
            watched = await stack.enter_async_context(serving_sentinel(tmp_path / "servers"))
            fields["master"] = watched.name
            asked = watched.sentinels
        else:
            asked = await stack.enter_async_context(
                serving_cluster(tmp_path / "servers", masters=1, replicas=0)
            )
        fields["addresses"] = tuple(each.address for each in asked)
        access = read_access(Store.model_validate(fields), {})
        assert isinstance(access, StoreAccess)
        key = stream_key(access.settings.prefix, "decisions")
        assert key_slot(key) == key_slot(b"{gatekeeper}")
        stream = DecisionStream(access, key, 1_000, chance=lambda: 0.0, metrics=Metrics())
        for line in some(*range(20)):
            stream.append(line)
        await stream.close(10.0)
        with duckdb.connect() as connection:
            reader = StreamReader(access, key)
            intake = Intake(connection, tmp_path / "c", (), retention_days=15, stream=reader)
            assert await asyncio.to_thread(intake.run, AT + 60) == Taken(40)


async def test_the_user_that_the_docs_name_may_do_all_that_is_done(
    store: Server, tmp_path: Path
) -> None:
    """Gates send and the watcher reads under the ACL of the limits, over several pieces."""
    text = (builders.RULES_FOLDER.parent / "docs" / "operations.md").read_text()
    [rights] = [line.split()[3:] for line in text.splitlines() if line.startswith("user gate")]
    assert rights[0] == ">PASSWORD"
    async with store.client() as client:
        await client.execute_command("ACL", "SETUSER", "gatekeeper", "on", *rights)
        await client.execute_command("CONFIG", "SET", "requirepass", "another")
    access = access_to(
        store.address,
        {"P": "PASSWORD"},
        username="gatekeeper",
        password=SecretSource(env="P"),
    )
    key, metrics = stream_key("gatekeeper", "decisions"), Metrics()
    stream = DecisionStream(access, key, 1_000, chance=lambda: 0.0, metrics=metrics)
    for line in some(*range(20)):
        stream.append(line)
    await stream.close(10.0)
    with duckdb.connect() as connection:
        reader = StreamReader(access, key, piece=7)
        intake = Intake(connection, tmp_path / "c", (), retention_days=15, stream=reader)
        assert await asyncio.to_thread(intake.run, AT + 60) == Taken(40)


RUN = """
import os, signal, sys, duckdb
from pathlib import Path
from gatekeeper.campaigns.intake import Intake
from gatekeeper.campaigns.stream import StreamReader
from gatekeeper.settings import Store
from gatekeeper.storage.store_access import read_access
base, at, left, address, key = sys.argv[1:]
base, at, left = Path(base), float(at), int(left)
def heard(event, _):
    global left
    if event == "os.rename":
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(heard)
access = read_access(Store(kind="standalone", addresses=(address,)), {})
reader = StreamReader(access, key.encode(), piece=7)
sources = [base / "a"]
Intake(duckdb.connect(), base / "c", sources, retention_days=15, stream=reader).run(at)
"""
"""Takes log and stream, and is killed where it is about to put a file into place."""


@pytest.mark.parametrize("renames", [0, 1, 2, 3])
async def test_a_kill_before_any_rename_loses_nothing_and_doubles_nothing(
    store: Server, tmp_path: Path, renames: int
) -> None:
    """Two days are two files; the third rename commits the place in the stream."""
    await send(store, *some(*range(5)))
    await take(tmp_path, store)
    early = [decision(f"d{number:03}", at=AT - builders.DAY_S) for number in range(5, 20)]
    await send(store, *early, *some(*range(20, 30)))
    source = log(tmp_path / "a", *some(*range(25, 35)))
    run = asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", RUN, tmp_path, str(AT + 60), str(renames), store.address, KEY],
        check=False,
    )
    ended = (await run).returncode
    again = await take(tmp_path, store, source)
    if renames < 3:
        assert (ended, again) == (-signal.SIGKILL, Taken(60))
    else:
        assert (ended, again) == (0, Taken())
    assert seen(tmp_path) == names(*range(35))
