"""The watcher beside a gate: a process of its own, started again when it dies."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from gatekeeper.cli.watch import installed

if TYPE_CHECKING:
    from asyncio.subprocess import Process

    from gatekeeper.settings import Settings

_FIRST_AGAIN_S: Final = 5.0
_LAST_AGAIN_S: Final = 300.0
_END_S: Final = 10.0
"""How long a watcher may take to end in the middle of a run."""
_OURS: Final = "GATEKEEPER_"


def is_embedded(settings: Settings) -> bool:
    """Tell whether one process is the whole installation, so that it needs a watcher of its own."""
    records = settings.records_url
    return settings.store.kind == "memory" and (not records or records.startswith("sqlite"))


async def watch_beside(settings: Settings) -> None:
    """Run the watcher until cancelled, where it is wanted and can be."""
    log = structlog.get_logger("gatekeeper")
    if not settings.watch.run or not is_embedded(settings):
        return
    if not installed():
        log.info("watcher_not_installed", install="pip install 'gatekeeper[watcher]'")
        return
    try:
        await _keep_one(settings)
    except OSError as error:
        log.warning("watcher_not_started", error=str(error))


async def _keep_one(settings: Settings) -> None:
    """Start it again whenever it ends; raises ``OSError`` when none can be started."""
    log = structlog.get_logger("gatekeeper")
    path = (settings.data_dir / "watch-settings.json").absolute()
    await asyncio.to_thread(_write, path, settings)
    again_s = _FIRST_AGAIN_S
    while True:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gatekeeper", "watch", "--settings", str(path)),
            *("--parent", str(os.getpid())),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if not name.startswith(_OURS)},
        )
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            await _ended(process)
            raise
        log.warning("watcher_ended", code=code, again_s=again_s)
        await asyncio.sleep(again_s)
        again_s = min(2 * again_s, _LAST_AGAIN_S)


def _write(path: Path, settings: Settings) -> None:
    """Hand on the settings as they are: files, environment and flags have been joined already.

    Paths are from here, and not from where the file lies.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump(_absolute(settings.model_dump(exclude_none=True)), file)


def _absolute(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, dict):
        return {key: _absolute(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_absolute(each) for each in value]
    return value


async def _ended(process: Process) -> None:
    process.terminate()
    try:
        async with asyncio.timeout(_END_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
