"""Time a replay: decisions a second on one core, JSON in and out included.

Run with ``python bench/replay.py [CALLS]`` from the root of the project. The same lines are only
read and written by ``json`` of the standard library as a bare baseline in the same run.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.recordings import START, Recording

from gatekeeper.rehearsal.formats import accounts_in, lines_of, opened
from gatekeeper.rehearsal.making import engine_of
from gatekeeper.rehearsal.people import People
from gatekeeper.rehearsal.replay import replayed
from gatekeeper.rehearsal.watching import Watching
from gatekeeper.settings import Settings
from gatekeeper.storage.rule_store import read_rules


def main() -> None:
    """Print decisions a second without and with the watcher's log, and the baseline."""
    calls = int(sys.argv[1]) if sys.argv[1:] else 40_000
    made = Recording(days=2)
    made.honest(calls // 8)
    made.campaign(60)
    print(f"{len(made.calls)} calls of {len(made.accounts)} accounts")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        traffic, accounts = made.write(folder)
        bare = _bare(traffic, folder / "bare.jsonl")
        rows = [("json alone", bare)]
        rows += [(title, _replay(folder, traffic, accounts, log=log)) for title, log in
                 (("replay", False), ("replay with the watcher's log", True))]  # fmt: skip
    print(f"{'':32}  calls/s  of the baseline")
    for title, seconds in rows:
        print(f"{title:32} {len(made.calls) / seconds:8.0f} {bare / seconds:14.2f}")


def _bare(traffic: Path, out: Path) -> float:
    began = time.process_time()
    with traffic.open("rb") as lines, out.open("w") as file:
        for line in lines:
            file.write(json.dumps({"at": json.loads(line)["at"], "verdict": "allow"}) + "\n")
    return time.process_time() - began


def _replay(folder: Path, traffic: Path, accounts: Path, *, log: bool) -> float:
    rules = read_rules(Path("rules"))
    if isinstance(rules, list):
        raise SystemExit(rules)
    engine = engine_of(Settings(), rules, at=START)
    people = People(engine.replica, accounts_in(accounts), {})
    if log:
        work = folder / "watching"
        work.mkdir()
        watching = Watching(work, engine, people, every_s=1e9, probe_key=b"k" * 32)
    began = time.process_time()
    with opened(traffic) as (lines, _), (folder / "out.jsonl").open("wb") as out:
        asyncio.run(replayed(lines_of(traffic, lines), engine, people, None, out.write))
    took = time.process_time() - began
    if log:
        watching.close()
    return took


if __name__ == "__main__":
    main()
