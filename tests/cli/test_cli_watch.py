"""`gatekeeper watch` as a process, by itself and beside a gate."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs
from support.builders import facts, rules
from support.changes import replace

from gatekeeper.campaigns.watch import alone
from gatekeeper.cli import watch as command
from gatekeeper.cli.watch import rules_in_force
from gatekeeper.cli.watching import is_embedded, watch_beside
from gatekeeper.policy.decide import conclude
from gatekeeper.policy.model import Standing
from gatekeeper.policy.record import to_record
from gatekeeper.policy.rules import parse_rules
from gatekeeper.policy.ruleset import RuleSet
from gatekeeper.policy.traits import Traits
from gatekeeper.policy.words import GateMode
from gatekeeper.settings import Settings, Store, WatchSettings
from gatekeeper.storage.decision_log import encode_record
from gatekeeper.storage.records import Records
from gatekeeper.storage.rule_history import RuleHistory, Source

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., Any]

ROOT = Path(__file__).parents[2]
SOON_S = 60.0


@pytest.fixture
def data(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a data directory whose decision log has one call that was read."""
    monkeypatch.setenv("GATEKEEPER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("GATEKEEPER_RULES_DIR", str(ROOT / "rules"))

    known = replace(facts(), at=time.time(), traits=(Traits("0000000a", client=5),))
    made = conclude(
        Standing(), (), rules(), decision_id="dec_1", at=known.at, mode=GateMode.ENFORCE
    )
    log = tmp_path / "decisions"
    log.mkdir()
    line = encode_record(to_record(made, known, mode=GateMode.ENFORCE))
    (log / "decisions-20260101T000000-0.jsonl").write_bytes(line)
    return tmp_path


def test_one_run_tells_what_it_did(data: Path, run: Run) -> None:
    """Scripts read it from one line; a second run finds nothing new."""
    result = run("watch", "--once")
    assert result.output == (
        "1 sightings, 0 groups, 0 campaigns contained, 0 changed; "
        "an ordinary account makes 1.0 calls a day\n"
    )
    assert run("watch", "--once").output.startswith("0 sightings")
    assert list((data / "campaigns" / "sightings").glob("day=*/*.parquet"))


def test_a_second_watcher_is_refused(data: Path, run: Run) -> None:
    """Two would write the same campaigns twice."""
    with alone(data / "campaigns"):
        result = run("watch", "--once", code=1)
    assert "Another watcher" in result.output


def test_without_its_libraries_it_says_what_to_install(
    data: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image of a sidecar has none of them."""
    monkeypatch.setattr(command, "LIBRARIES", ("duckdb", "no_such_library"))
    result = run("watch", "--once", code=2)
    assert "pip install 'gatekeeper[watcher]'" in result.output


def test_rules_that_are_wrong_are_told(
    data: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watcher without rules would contain nobody."""
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "a.yaml").write_text("version: 2\n...\n")
    monkeypatch.setenv("GATEKEEPER_RULES_DIR", str(folder))
    assert "version" in run("watch", "--once", code=2).output


async def test_it_judges_by_the_rules_that_gates_follow(tmp_path: Path) -> None:
    """Those activated in the records, whoever did it; bad ones leave the last good ones."""
    settings = Settings(data_dir=tmp_path, rules_dir=ROOT / "rules")
    records = await Records.open(f"sqlite:///{tmp_path / 'records.db'}")
    try:
        history = RuleHistory(records.database)
        read = rules_in_force(settings, history)
        files = await read()

        async def activate(change: str, *, revision: str | None = None) -> str:
            texts = {each.name: each.read_text() for each in (ROOT / "rules").glob("*.yaml")}
            texts["containment.yaml"] = texts["containment.yaml"].replace("raise_at: 75", change)
            parsed = parse_rules(texts)
            named = revision or (parsed.revision if isinstance(parsed, RuleSet) else "")
            await history.activate(named, texts, at=time.time(), by="me", source=Source.API)
            return named

        changed = await activate("raise_at: 80")
        assert (await read()).revision == changed != files.revision
        with capture_logs() as logs:
            await activate("raise_at: much", revision="0" * 12)
            assert (await read()).revision == changed
        assert [each["event"] for each in logs] == ["rules_refused"]
        await activate("raise_at: 75")
        assert (await read()).revision == files.revision
    finally:
        await records.close()


def test_a_run_that_could_not_be_done_says_so(data: Path, run: Run) -> None:
    """Its exit code is for scripts, its words for people; the records are not blamed."""
    assert run("watch", "--once").output.startswith("1 sightings")
    [taken] = (data / "campaigns" / "sightings").glob("day=*/*.parquet")
    taken.write_bytes(b"no Parquet")
    result = run("watch", "--once", code=1)
    assert result.output.startswith("The run was not done:")


def test_a_directory_that_cannot_be_written_is_named(data: Path, run: Run) -> None:
    """Such as one whose name a file has."""
    (data / "campaigns").write_text("")
    assert "campaigns cannot be written" in run("watch", "--once", code=1).output


def until(there: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + SOON_S
    while not there():
        assert time.monotonic() < end
        time.sleep(0.1)


def running(pid: int) -> bool:
    """Tell whether a process is there, and not merely unburied."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children(pid: int) -> list[int]:
    """Return the processes that one has started."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_a_gate_runs_one_beside_it_and_neither_outlives_the_other(data: Path, end: str) -> None:
    """It works on the gate's own log; killed with its gate or told to end, it is gone."""
    for name in ("rules", "geoip"):
        (data / name).symlink_to(ROOT / name)
    relative = {"GATEKEEPER_DATA_DIR": ".", "GATEKEEPER_RULES_DIR": "rules"}
    environ = {**os.environ, **relative, "GATEKEEPER_WATCH__EVERY_S": "1"}
    ports = ("--port", "0", "--ops-port", "0", "--admin-port", "0")
    with subprocess.Popen(
        [sys.executable, "-m", "gatekeeper", "serve", "--upstream", "http://127.0.0.1:9", *ports],
        cwd=data,
        env={**environ, "GATEKEEPER_DEADLINES__READINESS_S": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as gate:
        until(lambda: list((data / "campaigns").glob("sightings/day=*/*.parquet")) != [])
        [watcher] = children(gate.pid)
        getattr(gate, end)()
        code = gate.wait(SOON_S)
        until(lambda: not running(watcher))
    assert code == (0 if end == "terminate" else -9)


@pytest.mark.parametrize(
    ("changes", "embedded"),
    [
        ({}, True),
        ({"records_url": "sqlite:///x.db"}, True),
        ({"records_url": "postgresql://db/x"}, False),
        ({"store": Store(kind="standalone", addresses=("127.0.0.1:1",))}, False),
    ],
)
def test_a_fleet_runs_its_own(changes: dict[str, Any], embedded: bool) -> None:
    """Gates that share a store or records would each start one."""
    assert is_embedded(Settings(**changes)) is embedded


@pytest.mark.parametrize("wanted", [True, False])
def test_a_gate_goes_on_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    """Where it is not wanted, or its libraries are not there, nothing is started."""
    monkeypatch.setattr(command, "LIBRARIES", ("no_such_library",) if wanted else ("duckdb",))
    asyncio.run(watch_beside(Settings(data_dir=tmp_path, watch=WatchSettings(run=wanted))))
    assert list(tmp_path.iterdir()) == []


def test_a_gate_goes_on_when_none_can_be_started(tmp_path: Path) -> None:
    """A data directory that is full or gone is told, and the gate serves on."""
    with capture_logs() as told:
        asyncio.run(watch_beside(Settings(data_dir=tmp_path / "gone")))
    assert [each["event"] for each in told] == ["watcher_not_started"]
