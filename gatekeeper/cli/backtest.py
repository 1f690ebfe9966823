"""``gatekeeper backtest``: who would newly be refused or admitted by other rules."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gatekeeper.cli.common import MISTAKES, day, give_up, json_option, progress_bar, table
from gatekeeper.rehearsal.backtest import Backtester
from gatekeeper.storage.decision_files import decision_files, records_in
from gatekeeper.storage.rule_store import read_rules

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.progress import Progress

    from gatekeeper.rehearsal.backtest import Backtest, Changed

_SHOWN = 20


@click.command()
@click.option(
    "--rules",
    "rules_dir",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    required=True,
    help="Directory of the new rules.",
)
@click.option(
    "--decisions",
    "log",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    help="Decision log: a directory of a gate's, or one file of it.",
)
@json_option
def backtest(*, rules_dir: Path, log: Path, as_json: bool) -> None:
    """Tell whom new rules would newly refuse or admit, by what a gate has decided.

    The log's facts are judged again; limits are held anew in the order of the log, and are whole at
    its beginning. Campaigns stay as they were recorded: `replay` finds them anew.

    \b
    Example:
      gatekeeper backtest --rules new-rules --decisions var/decisions
    """
    rules = read_rules(rules_dir)
    if isinstance(rules, list):
        give_up(rules)
    files = decision_files(log) if log.is_dir() else [log]
    if not files:
        click.echo(f"{log} has no files of a decision log (decisions-*.jsonl).", err=True)
        raise SystemExit(MISTAKES)
    with progress_bar("file {task.completed} of {task.total}") as progress:
        found = asyncio.run(Backtester(rules).take(_read(files, progress)))
    if not found.decisions:
        wrong = f": {found.unreadable[0]}" if found.unreadable else "."
        click.echo(f"{log} has no decision that can be judged again{wrong}", err=True)
        raise SystemExit(MISTAKES)
    _tell(found, as_json=as_json)


def _read(files: list[Path], progress: Progress) -> Iterator[Mapping[str, Any]]:
    task = progress.add_task("Judging", total=len(files))
    for path in files:
        yield from records_in(path)
        progress.advance(task)


def _tell(found: Backtest, *, as_json: bool) -> None:
    if as_json:
        told = {
            "decisions": found.decisions,
            "before": dict(found.before),
            "after": dict(found.after),
            "newly_refused": _listed(found.refused),
            "newly_admitted": _listed(found.admitted),
            "unreadable": found.unreadable,
        }
        click.echo(json.dumps(told))
        return
    verdicts = sorted(found.before.keys() | found.after.keys())
    rows = [(each, found.before[each], found.after[each]) for each in verdicts]
    table("Verdicts", ("verdict", "before", "after"), rows)
    _show("Newly refused", found.refused)
    _show("Newly admitted", found.admitted)
    click.echo(
        f"{found.decisions} decisions: {len(found.refused)} accounts with calls newly refused, "
        f"{len(found.admitted)} with calls newly admitted"
    )
    for wrong in found.unreadable:
        click.echo(wrong, err=True)


def _listed(changed: Mapping[str, Changed]) -> list[dict[str, Any]]:
    return [
        {
            "account": account or None,
            "calls": each.calls,
            "reasons": dict(each.reasons),
            "first_at": each.first_at,
            "last_at": each.last_at,
        }
        for account, each in _most(changed)
    ]


def _most(changed: Mapping[str, Changed]) -> list[tuple[str, Changed]]:
    return sorted(changed.items(), key=lambda item: (-item[1].calls, item[0]))


def _show(title: str, changed: Mapping[str, Changed]) -> None:
    rows = [
        (
            account,
            each.calls,
            ", ".join(f"{reason} {count}" for reason, count in each.reasons.most_common()),
            day(each.first_at),
        )
        for account, each in _most(changed)[:_SHOWN]
    ]
    more = len(changed) - len(rows)
    suffix = f" (and {more} more: --json)" if more else ""
    table(title + suffix, ("account", "calls", "reasons", "first"), rows)
