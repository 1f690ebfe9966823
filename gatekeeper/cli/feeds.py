"""``gatekeeper lists``, and what it shares with ``gatekeeper geoip update``."""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from gatekeeper.cli.common import (
    FAILED,
    day,
    give_up,
    json_option,
    settings_from,
    settings_option,
    table,
)
from gatekeeper.facts.network import NetworkData
from gatekeeper.feeds.update import BusyError, Outcome, State, Updater
from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.validation import did_you_mean
from gatekeeper.settings import DATABASE_FORMAT

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import TaskID

    from gatekeeper.facts.network import NetworkSource
    from gatekeeper.settings import Feed, Settings

_DAY_S = 86_400.0

accept_option = click.option(
    "--accept-size",
    "accept_size",
    multiple=True,
    metavar="ID",
    help="Take this feed whatever its size, this once; may be given several times.",
)


@click.group()
def lists() -> None:
    """Keep lists of networks fresh, and show what is in force.

    \b
    Example:
      gatekeeper lists update
    """


@lists.command(name="update")
@click.argument("ids", nargs=-1)
@accept_option
@json_option
@settings_option
def update_lists(
    *, ids: tuple[str, ...], accept_size: tuple[str, ...], as_json: bool, settings_file: Path | None
) -> None:
    """Fetch the lists of `geoip.feeds`, or only those with these IDS.

    A list that cannot be read whole, or that more than doubled or lost more than a third, is
    refused, and the last good one stays. Exits with 1 when any was not fetched or was refused.

    \b
    Example:
      gatekeeper lists update tor-exits
    """
    settings = settings_from(settings_file)
    feeds = [each for each in settings.geoip.feeds if each.format != DATABASE_FORMAT]
    run_update(settings, feeds, ids, accept_size, as_json=as_json)


@lists.command()
@json_option
@settings_option
def show(*, as_json: bool, settings_file: Path | None) -> None:
    """Show the databases and lists that a gate would load now, with revision, size and age.

    Exits with 1 when any cannot be used.

    \b
    Example:
      gatekeeper lists show
    """
    settings = settings_from(settings_file)
    now = time.time()
    data = NetworkData.load(settings.geoip, secret=os.urandom(32), now_unix_s=now)
    if as_json:
        found = [_plain_source(each, now) for each in data.sources]
        problems = [str(each) for each in data.problems]
        click.echo(json.dumps({"sources": found, "problems": problems}))
    else:
        rows = [_plain_source(each, now) for each in data.sources]
        table(
            f"Network data {data.revision}",
            ("source", "layout", "revision", "entries", "as of", "age", "state"),
            (_row(row) for row in rows),
        )
        for problem in data.problems:
            click.echo(str(problem), err=True)
    if data.problems:
        raise SystemExit(FAILED)


def run_update(
    settings: Settings,
    feeds: list[Feed],
    ids: tuple[str, ...],
    accept_size: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    """Update those feeds that were asked for and print what became of each."""
    known = [feed.id for feed in feeds]
    mistakes = [
        Mistake("command line", None, "", f"No such feed is set up here{did_you_mean(each, known)}")
        for each in dict.fromkeys((*ids, *accept_size))
        if each not in known
    ]
    if mistakes:
        give_up(mistakes)
    asked = [feed for feed in feeds if not ids or feed.id in ids]
    if not asked:
        click.echo("No feed of this sort is set up: see geoip.feeds in docs/geoip.md.", err=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        console=Console(stderr=True),
    ) as progress:
        tasks: dict[str, TaskID] = {}

        def report(feed_id: str, done: int, total: int | None) -> None:
            if feed_id not in tasks:
                tasks[feed_id] = progress.add_task(feed_id, total=total)
            progress.update(tasks[feed_id], completed=done)

        updater = Updater(settings.geoip, os.environ, time.time, report, accept_size)
        try:
            outcomes = asyncio.run(updater.update(asked))
        except BusyError as error:
            click.echo(str(error), err=True)
            raise SystemExit(FAILED) from error
        except OSError as error:
            click.echo(f"{settings.geoip.feeds_dir} cannot be used: {error.strerror}", err=True)
            raise SystemExit(FAILED) from error
    if as_json:
        click.echo(json.dumps([_plain(each) for each in outcomes]))
    else:
        table("Feeds", ("feed", "state", "revision", "entries", "detail"), map(_told, outcomes))
    if not all(each.good for each in outcomes):
        raise SystemExit(FAILED)


def _told(outcome: Outcome) -> tuple[object, ...]:
    file, detail = outcome.file, outcome.detail
    if file is None:
        return outcome.feed, outcome.state, None, None, f"{detail} (nothing is in force)"
    if outcome.state in {State.REFUSED, State.FAILED}:
        detail += f" (that of {day(file.confirmed_unix_s)} stays)"
    elif file.left_out:
        detail = f"{file.left_out} private or reserved left out"
    return outcome.feed, outcome.state, file.revision, file.entries, detail


def _plain(outcome: Outcome) -> dict[str, object]:
    file = outcome.file
    return {
        "feed": outcome.feed,
        "state": outcome.state.value,
        "detail": outcome.detail,
        "revision": None if file is None else file.revision,
        "entries": None if file is None else file.entries,
        "left_out": None if file is None else file.left_out,
        "confirmed_unix_s": None if file is None else file.confirmed_unix_s,
    }


def _plain_source(source: NetworkSource, now_unix_s: float) -> dict[str, object]:
    as_of = source.as_of_unix_s
    return {
        "source": source.name,
        "layout": source.layout,
        "revision": source.revision,
        "entries": source.entries,
        "as_of_unix_s": as_of,
        "age_s": None if as_of is None else max(0.0, now_unix_s - as_of),
        "state": "stale" if source.stale else "ok",
    }


def _row(row: dict[str, Any]) -> tuple[object, ...]:
    age_s = row["age_s"]
    return (
        row["source"],
        row["layout"],
        row["revision"],
        row["entries"],
        day(row["as_of_unix_s"]),
        None if age_s is None else f"{age_s / _DAY_S:.1f} days",
        row["state"],
    )
