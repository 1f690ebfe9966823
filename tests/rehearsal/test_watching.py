"""The watcher in a rehearsal: bounded over weeks, and no prompt on its disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from support.recordings import DAY, START, Recording

from gatekeeper.policy.words import Assurance
from gatekeeper.rehearsal.formats import recorded
from gatekeeper.rehearsal.making import engine_of
from gatekeeper.rehearsal.people import People, Response
from gatekeeper.rehearsal.watching import Watching
from gatekeeper.settings import Settings
from gatekeeper.storage.records_schema import AccountRow
from gatekeeper.storage.rule_store import read_rules

if TYPE_CHECKING:
    from gatekeeper.rehearsal.engine import Engine

RULES = Path(__file__).parents[2] / "rules"
CANARY = "canary-7f3a9c-prompt"


def engine() -> Engine:
    """Return an engine with the shipped rules."""
    rules = read_rules(RULES)
    assert not isinstance(rules, list)
    return engine_of(Settings(), rules, at=START)


def held_open() -> int:
    """Return how many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def contents(folder: Path) -> list[bytes]:
    """Return what all files in a folder hold."""
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


async def test_h41_weeks_of_watching_are_bounded(tmp_path: Path) -> None:
    """Days that no window reaches any more are dropped, logs too, and no file stays open."""
    some = engine()
    watching = Watching(
        tmp_path, some, People(some.replica, [], {}), every_s=DAY / 2, probe_key=b"k" * 32
    )
    made = Recording(days=1)
    made.honest(12)
    opened: list[int] = []
    for day in range(40):
        for each in made.calls:
            call = recorded(json.dumps(each | {"at": each["at"] + day * DAY}).encode())
            assert not isinstance(call, str)
            await watching.until(call.at)
            await some.decide(call)
        if day >= 20:
            opened.append(held_open())
    assert watching.runs >= 70
    assert len(list((tmp_path / "sightings").iterdir())) <= 17
    assert len(list((tmp_path / "log").iterdir())) == 1
    assert max(opened) - min(opened) <= 1
    watching.close()


async def test_no_word_of_a_prompt_is_on_the_disk_of_a_rehearsal(tmp_path: Path) -> None:
    """Neither the log nor sightings, positions or spilled data hold what was asked."""
    some = engine()
    watching = Watching(
        tmp_path, some, People(some.replica, [], {}), every_s=DAY, probe_key=b"k" * 32
    )
    made = Recording(days=1)
    made.honest(5)
    for each in made.calls:
        each["body"]["messages"][-1]["content"] = f"{CANARY} {made.text(5)}"
        call = recorded(json.dumps(each).encode())
        assert not isinstance(call, str)
        await some.decide(call)
    before = contents(tmp_path)
    await watching.run(START + DAY)
    after = contents(tmp_path)
    watching.close()
    assert len(before) + len(after) >= 4
    assert not any(CANARY.encode() in each for each in before + after)


def test_people_come_and_prove_themselves_in_time() -> None:
    """An account is there from its creation; a proof counts from so long after the first asking."""
    some = engine()
    rows = [AccountRow("early", created_at=START), AccountRow("late", created_at=START + 50)]
    people = People(some.replica, rows, {"early": Response(passes=True, after_s=30.0)})
    people.until(START + 10)
    assert some.replica.account("early", START + 10).known
    assert not some.replica.account("late", START + 10).known
    people.ask("early", Assurance.IAL1, START + 10)
    people.ask("early", Assurance.IAL1, START + 20)
    people.ask("late", Assurance.IAL1, START + 20)
    people.until(START + 39)
    assert people.proven == frozenset()
    people.until(START + 60)
    assert people.proven == {"early"}
    assert some.replica.account("early", START + 60).assurance is Assurance.IAL1
    assert some.replica.account("late", START + 60).known
    people.ask("early", Assurance.IAL2, START + 70)  # more is asked of it: it proves that too
    people.until(START + 100)
    assert some.replica.account("early", START + 100).assurance is Assurance.IAL2
