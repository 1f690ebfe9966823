"""Many gates and one watcher that share nothing but a store and a stream in it."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from support.gates import eventually, rules_text
from support.valkey import Server, serving

import gatekeeper
from gatekeeper.settings import DecisionLog, WatchSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.gates import Gates, RunningGate

KEY = "{gatekeeper}:stream:decisions"
CHAT = {"model": "demo-small", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
SLOW_S = 0.1
"""What waited for the store for a deadline took longer."""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Server]:
    """Return a Valkey that a test may break."""
    async with serving(tmp_path / "valkey") as server:
        yield server


async def streaming(gates: Gates, store: Server) -> RunningGate:
    """Start a gate that sends its decisions."""
    shared = {"kind": "standalone", "addresses": (store.address,), "deadline_ms": 150}
    watch = {"run": False, "stream": "decisions"}
    return await gates(rules=rules_text(), store=shared, watch=watch)


async def call(gate: RunningGate, times: int = 1) -> list[float]:
    """Send chats one after the other; return how long each took."""
    took = []
    for _ in range(times):
        began = time.monotonic()
        async with gate.http.post(
            "/v1/chat/completions", json=CHAT, headers=gate.headers()
        ) as answer:
            assert answer.status == 200
            await answer.read()
        took.append(time.monotonic() - began)
    return took


async def sent(gate: RunningGate, records: int) -> None:
    """Return once so many records are in the stream."""

    async def arrived() -> bool:
        wanted = f'gatekeeper_stream_records_total{{outcome="sent"}} {records}.0'
        return wanted in await gate.metrics()

    await eventually(arrived)


def logged(gate: RunningGate) -> list[bytes]:
    """Return the lines of a gate's log."""
    paths = sorted(gate.settings.decision_log.directory.glob("*.jsonl"))
    return [line for path in paths for line in path.read_bytes().splitlines(keepends=True)]


async def entries(store: Server) -> list[bytes]:
    """Return the lines in the stream."""
    async with store.client() as client:
        return [fields[b"line"] for _, fields in await client.xrange(KEY)]


async def watch_once(gate: RunningGate, folder: Path, *sources: Path) -> str:
    """Run the watcher elsewhere, with the store and rules of a gate; return what it says."""
    watch = WatchSettings(stream=gate.settings.watch.stream, sources=sources)
    settings = gate.settings.model_copy(
        update={
            "data_dir": folder,
            "decision_log": DecisionLog(directory=folder / "decisions"),
            "watch": watch,
        }
    )
    file = folder / "settings.json"
    file.write_text(settings.model_dump_json(exclude_none=True))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gatekeeper", "watch", "--once", "--settings", str(file)),
        env={**os.environ, "PYTHONPATH": str(Path(gatekeeper.__file__).parents[1])},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert err == b""
    return out.decode()


def seen(folder: Path) -> set[str]:
    """Return the ids of the calls that the watcher has seen."""
    files = str(folder / "campaigns" / "sightings" / "*" / "*.parquet")
    return {name for (name,) in duckdb.sql(f"SELECT id FROM '{files}'").fetchall()}  # noqa: S608


async def test_two_gates_send_to_one_watcher(
    gates: Gates, store: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What it knows is what both logs say; being given the logs as well changes nothing."""
    one, two = await streaming(gates, store), await streaming(gates, store)
    await asyncio.gather(call(one, 20), call(two, 15))
    await one.stop()
    await two.stop()
    sent = await entries(store)
    for gate, calls in ((one, 20), (two, 15)):
        lines = logged(gate)
        assert len(lines) == 2 * calls
        assert [line for line in sent if line in set(lines)] == lines
    assert len(sent) == 70
    folder = tmp_path_factory.mktemp("watcher")
    decided: list[dict[str, Any]] = [
        each for gate in (one, two) for each in gate.book() if each["kind"] == "decision"
    ]
    sightings = sum(len(each["facts"]["traits"]) for each in decided)
    assert sightings >= 35
    assert (await watch_once(one, folder)).startswith(f"{sightings} sightings")
    assert seen(folder) == {each["id"] for each in decided}
    logs = [gate.settings.decision_log.directory for gate in (one, two)]
    assert (await watch_once(one, folder, *logs)).startswith("0 sightings")


async def test_a_store_that_dies_takes_no_call_with_it(gates: Gates, store: Server) -> None:
    """Calls go on, metrics tell, and what was decided meanwhile is sent once it is back."""
    gate = await streaming(gates, store)
    await call(gate, 5)
    await sent(gate, 10)
    store.kill()
    await call(gate, 20)

    async def told() -> bool:
        metrics = await gate.metrics()
        return (
            'gatekeeper_stream_failures_total{kind="connection"}' in metrics
            and "gatekeeper_stream_waiting 40.0" in metrics
        )

    await eventually(told)
    await store.started()
    await call(gate, 5)
    await sent(gate, 60)
    await gate.stop()
    assert await entries(store) == logged(gate)[10:]


async def test_a_store_that_hangs_delays_no_call(gates: Gates, store: Server) -> None:
    """The stream has a line of its own, and nobody waits for it."""
    gate = await streaming(gates, store)
    await call(gate, 5)
    store.freeze()
    took = await call(gate, 40)
    assert statistics.median(took) < SLOW_S
    assert 'outcome="dropped"' not in await gate.metrics()
    store.thaw()
    await gate.stop()
    assert {*logged(gate)} == {*await entries(store)}
