"""``gatekeeper watch``: find campaigns in what gates have decided."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import click

from gatekeeper.cli.common import FAILED, MISTAKES, settings_from, settings_option
from gatekeeper.sources import StartError, load_rules, records_url
from gatekeeper.storage.campaigns import CampaignBook
from gatekeeper.storage.database import RecordsError
from gatekeeper.storage.records import Records
from gatekeeper.telemetry import configure_logging

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from gatekeeper.campaigns.watch import Watcher
    from gatekeeper.policy.ruleset import RuleSet
    from gatekeeper.settings import Settings

LIBRARIES: Final = ("duckdb", "numpy")
_NEEDED: Final = "The watcher needs more packages: pip install 'gatekeeper[watcher]'."
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
        click.echo(_NEEDED, err=True)
        raise SystemExit(MISTAKES)
    if parent is not None:
        os.nice(_NICE)  # calls go first
    from gatekeeper.campaigns.watch import WatchError  # noqa: PLC0415 - loads the extra

    try:
        asyncio.run(_watch(settings, once=once, parent=parent))
    except WatchError as error:
        click.echo(str(error), err=True)
        raise SystemExit(FAILED) from error
    except StartError as error:
        for mistake in error.mistakes:
            click.echo(str(mistake), err=True)
        raise SystemExit(MISTAKES) from error
    except RecordsError as error:
        click.echo(f"The records cannot be used: {error}", err=True)
        raise SystemExit(MISTAKES) from error


async def _watch(settings: Settings, *, once: bool, parent: int | None) -> None:
    from gatekeeper.campaigns.watch import alone, keep_watching  # noqa: PLC0415 - loads the extra

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    directory = settings.watch.directory or settings.data_dir / "campaigns"
    async with _records(settings) as records:
        with alone(directory), _engine(settings, directory) as engine:
            watcher = _watcher(settings, directory, records, engine)
            if once:
                ran = await watcher.run(time.time())
                click.echo(
                    f"{ran.sightings} sightings, {ran.groups} groups, "
                    f"{ran.campaigns} campaigns contained, {ran.changed} changed"
                )
                return
            following = asyncio.create_task(_follow(parent, stop))
            await keep_watching(watcher, settings.watch.every_s, stop, time.time)
            following.cancel()


@contextlib.asynccontextmanager
async def _records(settings: Settings) -> AsyncIterator[Records]:
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    records = await Records.open(records_url(settings))
    try:
        yield records
    finally:
        await records.close()


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
    from gatekeeper.campaigns.watch import Watcher  # noqa: PLC0415 - loads the extra

    options = settings.watch
    return Watcher(
        directory,
        Intake(
            engine,
            directory,
            options.sources or (settings.decision_log.directory,),
            retention_days=options.retention_days,
        ),
        Detector(directory, DetectionOptions(memory_mib=options.memory_mib)),
        CampaignBook(records.database),
        _last_good_rules(settings),
        lambda: f"cmp_{secrets.token_hex(6)}",
    )


def _last_good_rules(settings: Settings) -> Callable[[], RuleSet]:
    """Return what reads the rule files; while they are wrong, the last good ones hold."""
    good = load_rules(settings)[1]

    def read() -> RuleSet:
        nonlocal good
        with contextlib.suppress(StartError):
            good = load_rules(settings)[1]
        return good

    return read


async def _follow(parent: int | None, stop: asyncio.Event) -> None:
    """End with the gate that started us, however that ends."""
    from gatekeeper.campaigns.watch import stopped_within  # noqa: PLC0415 - loads the extra

    while parent is None or os.getppid() == parent:
        if await stopped_within(stop, _PARENT_S):
            return
    stop.set()
