"""Measure detection on the shipped scenarios, and write ``docs/detection.md``.

Run with ``python bench/detection.py`` from the root of the project: hours of CPU. Results are kept
in ``build/detection``, so that it goes on where it stopped; ``--only`` and ``--seeds`` do a part.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import msgspec

from gatekeeper.settings import Settings
from gatekeeper.simulator.scenario import Adversary, Scenario, read_scenario
from gatekeeper.storage.rule_store import read_rules
from gatekeeper.trials.columns import column_trial
from gatekeeper.trials.loop import loop_trial
from gatekeeper.trials.measured import ColumnTrial, LoopTrial, Share
from gatekeeper.trials.words import percent

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
SCENARIOS = ROOT / "gatekeeper" / "simulator" / "scenarios"
COLUMNS = {"honest": 100_000, "accounts": 2_500}
LOOP_DAYS, LOOP_FIRST = 10, 2
FULL_DAYS = 44
AIMS = {
    "a": "99 % in 24 h", "d": "99 % in 24 h", "e": "99 % in 24 h", "b": "95 % in 72 h",
    "c": "80 % in 7 d", "f": "80 % in 7 d", "g": "80 % in 7 d",
}  # fmt: skip


def main() -> None:
    """Do what is not done yet, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "detection")
    parser.add_argument("--only", default="".join(each.value[0] for each in Adversary))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--view",
        choices=["columns", "loop", "page"],
        nargs="+",
        default=["columns", "loop", "page"],
    )
    parser.add_argument("--days", type=int, default=LOOP_DAYS, help="days of the closed loop")
    arguments = parser.parse_args()
    rules = read_rules(ROOT / "rules")
    if isinstance(rules, list):
        raise SystemExit(rules)
    os.chdir(ROOT)
    arguments.work.mkdir(parents=True, exist_ok=True)
    names = [each for each in Adversary if each.value[0] in arguments.only]
    for seed in arguments.seeds:
        for adversary in names:
            scenario = msgspec.structs.replace(
                read_scenario(SCENARIOS / f"{adversary}.yaml"), seed=seed
            )
            if "columns" in arguments.view:
                _columns(arguments.work, scenario, rules)
            if "loop" in arguments.view:
                _loop(arguments.work, scenario, rules, arguments.days)
    if "page" in arguments.view:
        page = page_of(arguments.work)
        (ROOT / "docs" / "detection.md").write_text(page, "utf-8")
        print(page)


def _columns(work: Path, scenario: Scenario, rules: Any) -> None:
    fake = 0 if scenario.adversary is Adversary.NONE else COLUMNS["accounts"]
    scenario = msgspec.structs.replace(scenario, honest=COLUMNS["honest"], accounts=fake)
    folder = work / f"sightings-{scenario.seed}"
    _once(
        work / f"columns-{scenario.name}-{scenario.seed}.json",
        lambda: column_trial(scenario, rules, folder),
    )


def _loop(work: Path, scenario: Scenario, rules: Any, days: int) -> None:
    scenario = msgspec.structs.replace(scenario, days=days, first_day=LOOP_FIRST)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        _once(
            work / f"loop-{scenario.name}-{days}-{scenario.seed}.json",
            lambda: asyncio.run(loop_trial(scenario, Settings(), rules, Path(folder))),
        )


def _once(path: Path, trial: Callable[[], Any]) -> None:
    if path.exists():
        return
    found = trial()
    aside = path.with_suffix(".part")
    aside.write_bytes(msgspec.json.encode(found))
    aside.replace(path)
    print(f"{path.stem}: {found.seconds:.0f} s", file=sys.stderr, flush=True)


def _read(work: Path, view: str, kind: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {each.value: [] for each in Adversary}
    for path in sorted(work.glob(f"{view}-*.json")):
        trial = msgspec.json.decode(path.read_bytes(), type=kind)
        found[trial.scenario].append(trial)
    return found


def page_of(work: Path) -> str:
    """Return the page, of all results that are there."""
    columns, loops = _read(work, "columns", ColumnTrial), _read(work, "loop", LoopTrial)
    lines = [
        "# Detection, measured",
        "",
        "Written by `python bench/detection.py`. Scenarios are those that ship, drawn from the",
        "ranges for reporting ([simulator](simulator.md)); rules are those that ship. Intervals are",
        "of 95 % (Wilson) over accounts; seeds are added up. Flagged means in a group that the",
        "rules bring to step-up. Not measured: a long run of A at 1:10, more than one seed, and K",
        "through two gates (one engine decides for both).",
        "",
        *_columns_told(columns),
    ]
    every = [each for some in loops.values() for each in some]
    for days in sorted({each.days for each in every}):
        of_days = {
            name: [each for each in some if each.days == days] for name, some in loops.items()
        }
        lines += _loops_told(of_days, days)
    return "\n".join(lines) + "\n"


def _columns_told(trials: dict[str, list[ColumnTrial]]) -> list[str]:
    every = [each for some in trials.values() for each in some]
    if not every:
        return []
    seconds = sum(each.seconds for each in every)
    look = max(look.seconds for each in every for look in each.looks)
    lines = [
        "## The detector alone",
        "",
        f"{COLUMNS['accounts']:,} accounts among {COLUMNS['honest']:,} honest ones (1:10), on traits",
        f"made in columns; nobody is contained. {len(every)} runs took {seconds / 60:.0f} minutes of",
        f"one core, a look at four windows {look:.0f} s at most. Aims are those of the issue.",
        "",
        "| | aim | recall after 24 h | after 72 h | after 7 days | honest flagged at the most |",
        "|---|---|---|---|---|---|",
    ]
    for name, some in trials.items():
        if some:
            recalls = [
                percent(Share.sum(each.looks[place].recall for each in some)) for place in range(3)
            ]
            worst = max(
                (Share.sum(Share.sum(each.looks[place].harm.values()) for each in some)
                 for place in range(3)),
                key=lambda share: share.value,
            )  # fmt: skip
            shown = name.upper() if len(name) == 1 else name
            lines.append(
                f"| {shown} | {AIMS.get(name, '')} | {' | '.join(recalls)} "
                f"| {worst.part} of {worst.whole:,} |"
            )
    lines += [
        "",
        *_flagged(every),
        "",
        "Simpler ways, after 7 days, as low as one honest account in",
        "1,000 allows where they have a bound (recall; honest flagged):",
        "",
    ]
    names = list(every[0].looks[-1].baselines)
    lines += ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for name, some in trials.items():
        if some and name != "none":
            cells = []
            for way in names:
                found = Share.sum(each.looks[-1].baselines[way][0] for each in some)
                honest = Share.sum(each.looks[-1].baselines[way][1] for each in some)
                cells.append(f"{100 * found.value:.1f} %; {100 * honest.value:.2f} %")
            lines.append(f"| {name.upper()} | {' | '.join(cells)} |")
    return [*lines, ""]


def _flagged(every: list[ColumnTrial]) -> list[str]:
    """Tell which kinds of honest accounts were flagged, over all looks of all runs."""
    kinds: dict[str, list[Share]] = {}
    for trial in every:
        for look in trial.looks:
            for kind, share in look.harm.items():
                kinds.setdefault(kind, []).append(share)
    told = []
    for kind, shares in kinds.items():
        total = Share.sum(shares)
        told.append(f"{kind} {total.part} of {total.whole:,}")
    return [
        "Honest accounts flagged, by kind, over all looks (an account counts in each): "
        + "; ".join(told)
        + "."
    ]


def _loops_told(trials: dict[str, list[LoopTrial]], days: int) -> list[str]:
    every = [each for some in trials.values() for each in some]
    seconds = sum(each.seconds for each in every)
    calls = sum(each.calls for each in every)
    lines = [
        f"## The closed loop, {days} days",
        "",
        f"250 accounts among {every[0].honest:,} honest ones (1:100), {days} days, the campaign",
        f"from day {LOOP_FIRST} on, the watcher every six hours, through the gate's own code:",
        f"{calls:,} calls in {seconds / 60:.0f} minutes on one core. Hours are from its first admitted call",
        "to the last hour in which more than 1 % of what it asked for came through, if the day after",
        "that stayed below; `never`, if the run ended before.",
    ]
    columns = ["accounts used", "found", "hours", "leaked"]
    if days < FULL_DAYS:
        columns.append(f"of {FULL_DAYS} days")
        lines += [
            f"The share leaked over {FULL_DAYS} days is what came through in all, of what the campaign would",
            "have asked for in as many days: it holds if the campaign stays contained as it was at the end.",
        ]
    columns += ["stepped up", "throttled", "shaped", "refused"]
    lines += ["", f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, some in trials.items():
        if not some:
            continue
        harm = {
            what: sum(getattr(each, what) for trial in some for each in trial.harm.values())
            for what in ("stepped_up", "throttled", "shaped", "refused")
        }
        asked = sum(each.leaked.whole for each in some)
        full = asked / (days - LOOP_FIRST) * FULL_DAYS
        leaked = Share.sum(each.leaked for each in some)
        hours = ["never" if each.hours is None else f"{each.hours:.0f}" for each in some]
        if name == "none":
            cells = [""] * (len(columns) - len(harm))
        else:
            cells = [
                f"{sum(each.accounts for each in some):,}",
                percent(Share.sum(each.recall for each in some)),
                ", ".join(hours),
                f"{100 * leaked.value:.1f} %",
            ]
            if days < FULL_DAYS:
                cells.append(f"{100 * leaked.part / full:.2f} %")
        shown = name.upper() if len(name) == 1 else name
        honest = sum(each.accounts for trial in some for each in trial.harm.values())
        told = [f"{count} of {honest:,}" for count in harm.values()]
        lines.append(f"| {shown} | {' | '.join(cells)} | {' | '.join(told)} |")
    kinds: dict[str, list[int]] = {}
    for trial in every:
        for kind, each in trial.harm.items():
            counted = kinds.setdefault(kind, [0] * 5)
            for place, count in enumerate(
                (each.accounts, each.stepped_up, each.throttled, each.shaped, each.refused)
            ):
                counted[place] += count
    lines += [
        "",
        "Honest accounts by kind, over all runs:",
        "",
        "| | accounts | stepped up | throttled | shaped | refused |",
        "|---|---|---|---|---|---|",
    ]
    lines += [f"| {kind} | {' | '.join(map(str, counts))} |" for kind, counts in kinds.items()]
    return [*lines, ""]


if __name__ == "__main__":
    main()
