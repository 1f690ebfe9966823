"""The commands for rules and mode, and `gatekeeper serve` as a process that follows them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., Any]

ROOT = Path(__file__).parents[2]


def active(run: Run) -> dict[str, Any]:
    """Return what is in force."""
    found: dict[str, Any] = json.loads(run("rules", "active", "--json").stdout)
    return found


def stricter(folder: Path) -> Path:
    """Return a copy of the default rules with one embargo narrowed."""
    shutil.copytree(ROOT / "rules", folder)
    file = folder / "embargo.yaml"
    text = file.read_text()
    assert "countries: [CU]" in text
    file.write_text(text.replace("countries: [CU]", "countries: [IR]"))
    return folder


def test_rules_are_activated_compared_and_rolled_back(run: Run, tmp_path: Path) -> None:
    """The whole round, with its history and its refusals."""
    assert "No gate has activated" in run("rules", "active", code=1).stderr
    run("rules", "activate", "rules", "--comment", "first")
    first = active(run)
    assert (first["source"], first["comment"]) == ("command", "first")
    changed = stricter(tmp_path / "mine")
    shown = run("rules", "diff", first["revision"], str(changed))
    assert "-    countries: [CU]" in shown.stdout
    assert "us-cuba: no longer countries CU" in shown.stderr
    told = json.loads(run("rules", "diff", first["revision"], str(changed), "--json").stdout)
    assert told["changes"] == [{"section": "embargo", "rule": "us-cuba", "kind": "changed"}]
    run("rules", "activate", str(changed), "--expect", first["revision"])
    second = active(run)["revision"]
    stopped = run("rules", "activate", "rules", "--expect", first["revision"], code=1)
    assert f"{second} is in force" in stopped.stderr
    run("rules", "rollback")
    assert active(run)["revision"] == first["revision"]
    history = run("rules", "history", "--json", "--limit", "2").stdout.splitlines()
    assert [json.loads(line)["revision"] for line in history] == [first["revision"], second]
    assert second in run("rules", "history").stdout


def test_mistakes_change_nothing(run: Run, tmp_path: Path) -> None:
    """Files with mistakes are 2, with their place; what does not exist is 1."""
    run("rules", "activate", "rules")
    before = active(run)
    bad = stricter(tmp_path / "bad")
    (bad / "embargo.yaml").write_text("version: 1\nembargo: [{id: x}]\n...\n")
    told = run("rules", "activate", str(bad), code=2).stderr
    assert "embargo.yaml:2: embargo[0]" in told
    assert "no revision or directory" in run("rules", "activate", "0" * 12, code=1).stderr
    assert "no earlier rules" in run("rules", "rollback", code=1).stderr
    assert "one line" in run("rules", "activate", "rules", "--comment", "a\nb", code=2).stderr
    assert active(run) == before


def test_the_mode_is_set_shown_and_cleared(run: Run) -> None:
    """A reason is needed, and an end may be given."""
    assert "No mode is set" in run("mode", "show").stdout
    assert run("mode", "set", "closed", code=2).exit_code == 2
    assert "Say why" in run("mode", "set", "closed", "--reason", " ", code=2).stderr
    run("mode", "set", "bypass", "--reason", "store is down", "--minutes", "5")
    assert re.match(
        r"bypass until .* UTC, set by cli:.*: store is down", run("mode", "show").stdout
    )
    assert json.loads(run("mode", "show", "--json").stdout)["mode"] == "bypass"
    run("mode", "clear")
    assert run("mode", "show", "--json").stdout == "null\n"


def wait_until(holds: Callable[[], bool]) -> None:
    """Ask for up to ten seconds."""
    for _ in range(200):
        if holds():
            return
        time.sleep(0.05)
    pytest.fail("it did not happen in time")


def test_a_served_gate_follows_commands_and_sighup(run: Run, tmp_path: Path) -> None:
    """Activated by command, taken back by SIGHUP: the files of the gate hold again; no restart."""
    rules = tmp_path / "rules"
    shutil.copytree(ROOT / "rules", rules)
    arguments = (
        "--upstream",
        "http://127.0.0.1:9",
        "--port",
        "0",
        "--ops-port",
        "0",
        "--admin-port",
        "0",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "gatekeeper", "serve", *arguments, "--rules-dir", str(rules)],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "GATEKEEPER_DEADLINES__READINESS_S": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(2)]
            metrics = lines[1].partition(": ")[2].strip()

            def reloads(outcome: str) -> str:
                with urllib.request.urlopen(metrics, timeout=10) as answer:  # noqa: S310
                    text: str = answer.read().decode()
                sample = f'gatekeeper_reloads_total{{outcome="{outcome}",what="rules"}} '
                return text.partition(sample)[2].partition("\n")[0]

            files = active(run)["revision"]
            run("rules", "activate", str(stricter(tmp_path / "mine")))
            wait_until(lambda: reloads("applied") == "1.0")
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: reloads("applied") == "2.0")
            assert active(run)["revision"] == files
            (rules / "embargo.yaml").write_text("version: 1\nembargo: [{id: x}]\n...\n")
            wait_until(lambda: reloads("refused") == "1.0")
            assert active(run)["revision"] == files
        finally:
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert "embargo.yaml:2: embargo[0]" in errors
    assert "Traceback" not in errors
    warned = [json.loads(line) for line in errors.splitlines() if '"embargo_weakened"' in line]
    assert [line["embargo"] for line in warned] == [
        "us-cuba: no longer countries CU",
        "us-cuba: no longer countries IR",
    ]
