"""``gatekeeper replay``: recorded traffic through the code that decides calls."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from gatekeeper.cli.common import (
    FAILED,
    MISTAKES,
    day,
    give_up,
    json_option,
    progress_bar,
    settings_from,
    settings_option,
    table,
)
from gatekeeper.cli.watch import NEEDED, installed
from gatekeeper.rehearsal.formats import (
    FormatError,
    accounts_in,
    lines_of,
    opened,
    verifications_in,
)
from gatekeeper.rehearsal.making import SECRET, engine_of
from gatekeeper.rehearsal.people import People, Response
from gatekeeper.rehearsal.replay import Summary, replayed
from gatekeeper.sources import StartError
from gatekeeper.storage.rule_store import read_rules
from gatekeeper.storage.secrets import derive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress

    from gatekeeper.policy.ruleset import RuleSet
    from gatekeeper.rehearsal.watching import Watching
    from gatekeeper.settings import Settings

_FILE: Final = click.Path(path_type=Path, dir_okay=False, exists=True)
_OUT_BUFFER: Final = 1 << 20
_EVERY_S: Final = 10_800.0


@click.command()
@click.argument("traffic", type=_FILE)
@click.option("--accounts", "accounts_file", type=_FILE, required=True, help="Accounts (JSONL).")
@click.option(
    "--verification", "verification_file", type=_FILE, help="How accounts respond (JSONL)."
)
@click.option("--rules", "rules_dir", type=click.Path(path_type=Path), help="Rule directory.")
@click.option(
    "--out",
    "out_file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Where the decisions go (JSONL); written whole, or not at all.",
)
@click.option(
    "--watch-every",
    "every_s",
    type=click.FloatRange(min=60),
    default=_EVERY_S,
    show_default=True,
    metavar="SECONDS",
    help="How often the watcher runs, in the time of the recording.",
)
@click.option("--no-watch", is_flag=True, help="Look for no campaigns.")
@json_option
@settings_option
def replay(
    *,
    traffic: Path,
    accounts_file: Path,
    verification_file: Path | None,
    rules_dir: Path | None,
    out_file: Path,
    every_s: float,
    no_watch: bool,
    as_json: bool,
    settings_file: Path | None,
) -> None:
    """Decide recorded TRAFFIC as the gate would have, campaigns and identity checks included.

    Files have one JSON object in each line and may be packed by gzip; docs/replay.md says which
    fields. Nothing is sent anywhere, and no record or limit of a gate is touched. Exits with 1 when
    lines could not be read: they are decided as invalid.

    \b
    Example:
      gatekeeper replay traffic.jsonl.gz --accounts accounts.jsonl --rules rules \\
        --verification outcomes.jsonl --out decisions.jsonl
    """
    settings = settings_from(settings_file, {"--rules-dir": rules_dir})
    if not no_watch and not installed():
        click.echo(f"{NEEDED} Or look for no campaigns: --no-watch.", err=True)
        raise SystemExit(MISTAKES)
    rules = read_rules(settings.rules_dir)
    if isinstance(rules, list):
        give_up(rules)
    began = time.perf_counter()
    try:
        summary = asyncio.run(
            _replay(
                settings,
                rules,
                (traffic, accounts_file, verification_file, out_file),
                None if no_watch else every_s,
            )
        )
    except (FormatError, StartError) as error:
        give_up(error.mistakes)
    except OSError as error:
        click.echo(f"{out_file}: {error.strerror or error}", err=True)
        raise SystemExit(MISTAKES) from error
    _tell(summary, time.perf_counter() - began, as_json=as_json)
    if summary.unreadable:
        for number, wrong in summary.unreadable:
            click.echo(f"{traffic}:{number}: {wrong}", err=True)
        raise SystemExit(FAILED)


async def _replay(
    settings: Settings,
    rules: RuleSet,
    files: tuple[Path, Path, Path | None, Path],
    every_s: float | None,
) -> Summary:
    traffic, accounts_file, verification_file, out_file = files
    engine = engine_of(settings, rules, at=time.time())
    outcomes = {} if verification_file is None else verifications_in(verification_file)
    people = People(
        engine.replica,
        accounts_in(accounts_file),
        {name: Response(line.passes, line.after_s) for name, line in outcomes.items()},
    )
    aside = out_file.with_name(f".{out_file.name}.{os.getpid()}.part")
    with ExitStack() as stack:
        lines, plain = stack.enter_context(opened(traffic))
        watching: Watching | None = None
        if every_s is not None:
            from gatekeeper.rehearsal.watching import Watching  # noqa: PLC0415 - loads the extra

            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gatekeeper-replay-"))
            watching = Watching(
                Path(folder), engine, people, every_s=every_s, probe_key=derive(SECRET, "probe")
            )
            stack.callback(watching.close)
        stack.callback(aside.unlink, missing_ok=True)
        out = stack.enter_context(aside.open("wb", buffering=_OUT_BUFFER))
        size = traffic.stat().st_size
        with progress_bar("{task.percentage:>3.0f} %") as progress:
            told = _followed(lines_of(traffic, lines), plain, size, progress)
            summary = await replayed(told, engine, people, watching, out.write)
        out.close()
        aside.replace(out_file)
    return summary


def _followed(
    lines: Iterator[bytes], plain: BinaryIO, size: int, progress: Progress
) -> Iterator[bytes]:
    """Yield lines, and move the bar by how far the file, packed or not, was read."""
    task = progress.add_task("Deciding", total=size)
    for number, line in enumerate(lines):
        if number % 1_000 == 0:
            progress.update(task, completed=plain.tell())
        yield line
    progress.update(task, completed=size)


def _tell(summary: Summary, seconds: float, *, as_json: bool) -> None:
    if as_json:
        told = {
            "lines": summary.lines,
            "unreadable": summary.unreadable_lines,
            "first_at": summary.first_at,
            "last_at": summary.last_at,
            "verdicts": dict(summary.verdicts),
            "campaigns": summary.campaigns,
            "watcher_runs": summary.watcher_runs,
            "seconds": round(seconds, 3),
        }
        click.echo(json.dumps(told))
        return
    table("Verdicts", ("verdict", "calls"), sorted(summary.verdicts.items()))
    table(
        "Campaigns",
        ("id", "state", "stage", "score", "members", "layers", "first seen", "contained at"),
        [
            (
                each["id"],
                each["state"],
                each["stage"],
                f"{each['score']:.0f}",
                len(each["members"]),
                ", ".join(each["layers"]),
                day(each["first_seen"]),
                day(each["contained_at"]),
            )
            for each in summary.campaigns
        ],
    )
    rate = summary.lines / seconds if seconds else 0.0
    click.echo(f"{summary.lines} lines in {seconds:.1f} s, {rate:.0f} a second")
