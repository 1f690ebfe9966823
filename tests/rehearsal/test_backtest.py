"""`gatekeeper backtest`: whom other rules would newly refuse or admit."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from click.testing import CliRunner
from support.recordings import START, Recording

from gatekeeper.cli import main
from gatekeeper.rehearsal.formats import recorded
from gatekeeper.rehearsal.making import engine_of
from gatekeeper.settings import Settings
from gatekeeper.storage.rule_store import read_rules

if TYPE_CHECKING:
    from collections.abc import Iterable

    from click.testing import Result

RULES = Path(__file__).parents[2] / "rules"


def log_of(folder: Path, calls: Iterable[dict[str, Any]], rules: Path = RULES, **how: Any) -> Path:
    """Decide calls by the shipped rules; return the directory of the decision log."""
    read = read_rules(rules)
    assert not isinstance(read, list)
    engine = engine_of(Settings(**how), read, at=START)
    lines: list[bytes] = []
    engine.log = lines.append

    async def decide() -> None:
        for each in calls:
            call = recorded(json.dumps(each).encode())
            assert not isinstance(call, str)
            await engine.decide(call)

    asyncio.run(decide())
    log = folder / "log"
    log.mkdir()
    (log / "decisions-20260422T000000-0.jsonl").write_bytes(b"".join(lines))
    return log


def backtest(rules: Path, log: Path, *more: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(
        main, ["backtest", "--rules", str(rules), "--decisions", str(log), *more]
    )


def calls() -> list[dict[str, Any]]:
    """Return a day of some people, one of whom is in a hurry."""
    made = Recording(days=1)
    made.honest(20)
    made.calls.sort(key=lambda each: each["at"])
    hurried = made.calls[-1] | {"account": "hurried"}
    return [*made.calls, *({**hurried, "at": hurried["at"] + n / 100} for n in range(300))]


def changed_rules(folder: Path, name: str, old: str, new: str) -> Path:
    """Return the shipped rules with one change."""
    rules = folder / "rules"
    shutil.copytree(RULES, rules, dirs_exist_ok=True)
    text = (rules / name).read_text()
    assert old in text
    (rules / name).write_text(text.replace(old, new, 1))
    return rules


def test_the_same_rules_change_nothing(tmp_path: Path) -> None:
    """Every verdict of the log comes out again, those of the limits included."""
    result = backtest(RULES, log_of(tmp_path, calls()), "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["before"] == told["after"]
    assert told["before"]["rate_limited"] > 50
    assert (told["newly_refused"], told["newly_admitted"], told["unreadable"]) == ([], [], [])


def test_a_lower_limit_refuses_whom_it_would_have_refused(tmp_path: Path) -> None:
    """Limits are held anew, so that a change of them is seen; who was refused before is not new."""
    log = log_of(tmp_path, calls())
    old = "    rate: 120/minute\n    burst: 60\n"
    rules = changed_rules(tmp_path, "limits.yaml", old, old.replace("burst: 60", "burst: 40"))
    told = json.loads(backtest(rules, log, "--json").stdout)
    (refused,) = told["newly_refused"]
    assert refused["account"] == "hurried"
    assert refused["calls"] == 20
    assert list(refused["reasons"]) == ["rate_limit_exceeded"]
    assert told["newly_admitted"] == []
    higher = changed_rules(
        tmp_path / "more", "limits.yaml", old, old.replace("burst: 60", "burst: 80")
    )
    told = json.loads(backtest(higher, log, "--json").stdout)
    assert [(each["account"], each["calls"]) for each in told["newly_admitted"]] == [
        ("hurried", 20)
    ]
    assert told["newly_refused"] == []


def test_an_embargo_that_is_lifted_admits(tmp_path: Path) -> None:
    """Facts are judged as they were recorded, and people read a table."""
    made = [each | {"remote": "175.45.176.1"} for each in calls()[:2]]
    log = log_of(tmp_path, made)
    rules = changed_rules(tmp_path, "embargo.yaml", "countries: [KP]", "countries: [CU]")
    result = backtest(rules, log)
    assert result.exit_code == 0, result.output
    assert "Newly admitted" in result.stdout
    assert "region_not_supported" in result.stdout


def test_what_observe_mode_lets_through_is_admitted(tmp_path: Path) -> None:
    """Whoever is over a limit goes on there, and whom an embargo names does not."""
    log = log_of(tmp_path, calls(), mode="observe")
    told = json.loads(backtest(RULES, log, "--json").stdout)
    assert told["after"]["rate_limited"] > 50
    assert (told["newly_refused"], told["newly_admitted"]) == ([], [])
    every = changed_rules(tmp_path, "embargo.yaml", "countries: [KP]", "countries: [KP, US]")
    told = json.loads(backtest(every, log, "--json").stdout)
    assert sum(each["calls"] for each in told["newly_refused"]) == told["decisions"]
    assert told["newly_admitted"] == []


def test_what_cannot_be_judged_is_told(tmp_path: Path) -> None:
    """Damaged records are counted out; a log without decisions is a mistake."""
    log = log_of(tmp_path, calls()[:3])
    (path,) = log.iterdir()
    path.write_bytes(path.read_bytes() + msgspec.json.encode({"kind": "decision"}) + b"\ntorn {")
    told = json.loads(backtest(RULES, log, "--json").stdout)
    assert (told["decisions"], len(told["unreadable"])) == (3, 1)
    empty = tmp_path / "empty"
    empty.mkdir()
    result = backtest(RULES, empty)
    assert (result.exit_code, "no files of a decision log" in result.stderr) == (2, True)
    path.write_text("nothing\n")
    result = backtest(RULES, log)
    assert (result.exit_code, "no decision that can be judged" in result.stderr) == (2, True)


@pytest.mark.parametrize("name", ["backtest", "replay"])
def test_help_has_an_example(name: str) -> None:
    """People start from one."""
    assert "Example:" in CliRunner().invoke(main, [name, "--help"]).output
