"""``gatekeeper watch``: find campaigns in what gates have decided."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import click
import structlog

from gatekeeper.cli.common import (
    FAILED,
    MISTAKES,
    give_up,
    settings_from,
    settings_option,
    with_records,
)
from gatekeeper.policy.rules import parse_rules
from gatekeeper.sources import StartError, load_rules, store_access
from gatekeeper.storage.campaigns import CampaignBook
from gatekeeper.storage.decision_stream import stream_key
from gatekeeper.storage.rule_history import RuleHistory, missing_files
from gatekeeper.telemetry import configure_logging

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from gatekeeper.campaigns.watch import Watcher
    from gatekeeper.policy.mistake import Mistake
    from gatekeeper.policy.ruleset import RuleSet
    from gatekeeper.settings import Settings
    from gatekeeper.storage.records import Records

LIBRARIES: Final = ("duckdb", "numpy")
NEEDED: Final = "The watcher needs more packages: pip install 'gatekeeper[watcher]'."
_NICE: Final = 10
_PARENT_S: Final = 1.0
"""How often a watcher that a gate has started looks whether that is still there."""


def installed() -> bool:
    """Tell whether the libraries of the watcher are there, without loading them."""
    return all(find_spec(name) is not None for name in LIBRARIES)


@click.command()
@click.option("--once", is_flag=True, help="Do one run, then end.")
@click.option("--parent", type=int, hidden=True, help="End when this process is no longer ours.")
@settings_option
def watch(*, once: bool, parent: int | None, settings_file: Path | None) -> None:
    """Find campaigns in the decision logs of gates, and tell these by the records.

    Runs every few minutes until SIGTERM. One watcher is enough for all gates that share records.

    \b
    Example:
      gatekeeper watch --settings gatekeeper.yaml
      gatekeeper watch --once
    """
    settings = settings_from(settings_file)
    configure_logging(settings.log)
    if not installed():
        click.echo(NEEDED, err=True)
        raise SystemExit(MISTAKES)
    if parent is not None:
        os.nice(_NICE)  # calls go first
    from gatekeeper.campaigns.watch import WatchError  # noqa: PLC0415 - loads the extra

    try:
        with_records(settings, partial(_watch, settings, once=once, parent=parent))
    except StartError as error:
        give_up(error.mistakes)
    except WatchError as error:
        click.echo(str(error), err=True)
        raise SystemExit(FAILED) from error


async def _watch(settings: Settings, records: Records, *, once: bool, parent: int | None) -> None:
    from gatekeeper.campaigns.watch import (  # noqa: PLC0415 - loads the extra
        FAILURES,
        WatchError,
        alone,
        keep_watching,
    )

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    directory = settings.watch.directory or settings.data_dir / "campaigns"
    with alone(directory), _engine(settings, directory) as engine:
        watcher = _watcher(settings, directory, records, engine)
        if once:
            try:
                ran = await watcher.run(time.time())
            except FAILURES as error:
                raise WatchError(f"The run was not done: {error}") from error
            click.echo(
                f"{ran.sightings} sightings, {ran.groups} groups, "
                f"{ran.campaigns} campaigns contained, {ran.changed} changed; "
                f"an ordinary account makes {ran.typical_calls_per_day:.1f} calls a day"
            )
            return
        following = None if parent is None else asyncio.create_task(_follow(parent, stop))
        await keep_watching(watcher, settings.watch.every_s, stop, time.time)
        if following is not None:
            await following


def _engine(settings: Settings, directory: Path) -> DuckDBPyConnection:
    import duckdb  # noqa: PLC0415 - of the extra

    return duckdb.connect(
        config={
            "threads": 1,
            "memory_limit": f"{settings.watch.memory_mib}MiB",
            "temp_directory": str(directory / "spill"),
        }
    )


def _watcher(
    settings: Settings, directory: Path, records: Records, engine: DuckDBPyConnection
) -> Watcher:
    from gatekeeper.campaigns.detector import Detector  # noqa: PLC0415 - loads the extra
    from gatekeeper.campaigns.intake import Intake  # noqa: PLC0415 - loads the extra
    from gatekeeper.campaigns.options import DetectionOptions  # noqa: PLC0415 - loads the extra
    from gatekeeper.campaigns.stream import StreamReader  # noqa: PLC0415 - loads the extra
    from gatekeeper.campaigns.watch import Watcher  # noqa: PLC0415 - loads the extra

    options = settings.watch
    access = store_access(settings, os.environ) if options.stream else None
    return Watcher(
        directory,
        engine,
        Intake(
            engine,
            directory,
            options.sources or (settings.decision_log.directory,),
            retention_days=options.retention_days,
            stream=None
            if access is None
            else StreamReader(access, stream_key(settings.store.prefix, options.stream)),
        ),
        Detector(directory, DetectionOptions(memory_mib=options.memory_mib)),
        CampaignBook(records.database),
        rules_in_force(settings, RuleHistory(records.database)),
        lambda: f"cmp_{secrets.token_hex(6)}",
    )


def rules_in_force(settings: Settings, history: RuleHistory) -> Callable[[], Awaitable[RuleSet]]:
    """Return what reads the rules that gates follow: those last activated, or else our files.

    While these are wrong, the last good ones hold. It raises :class:`RecordsError` when the records
    cannot be read.
    """
    good = load_rules(settings)[1]
    log = structlog.get_logger("gatekeeper")

    async def found() -> RuleSet | list[Mistake]:
        latest = await history.latest()
        if latest is None:
            try:
                return (await asyncio.to_thread(load_rules, settings))[1]
            except StartError as error:
                return list(error.mistakes)
        if latest.revision == good.revision:
            return good
        texts = await history.texts(latest.revision)
        if texts is None:
            return [missing_files(latest.revision)]
        return await asyncio.to_thread(parse_rules, texts)

    async def read() -> RuleSet:
        nonlocal good
        rules = await found()
        if isinstance(rules, list):
            log.warning("rules_refused", mistakes=[str(each) for each in rules])
        else:
            good = rules
        return good

    return read


async def _follow(parent: int, stop: asyncio.Event) -> None:
    """End with the gate that started us, however that ends."""
    from gatekeeper.campaigns.watch import stopped_within  # noqa: PLC0415 - loads the extra

    while os.getppid() == parent:
        if await stopped_within(stop, _PARENT_S):
            return
    stop.set()
