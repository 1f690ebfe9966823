"""Runs `gatekeeper serve` in a process of its own, as operators do."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from support.gates import SOON_S, rules_text

import gatekeeper
from gatekeeper.settings import Admin, DecisionLog, Listener, Ops, Settings

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator

    from gatekeeper.settings import Geoip

START_S = 60.0
"""How long a process may take to start; a busy machine needs seconds for its imports alone."""


@dataclass
class Served:
    """A gate in a process of its own."""

    process: Process
    port: int
    ops: str
    folder: Path

    async def ready(self) -> int:
        """Return the status of the readiness probe."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.ops}/readyz") as answer:
            return answer.status

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        """Wait for the exit code."""
        async with asyncio.timeout(SOON_S):
            return await self.process.wait()

    def kill(self) -> None:
        """Send SIGKILL."""
        self.process.kill()

    def records(self) -> list[dict[str, Any]]:
        """Return every whole record that the node wrote."""
        paths = (self.folder / "decisions").glob("*.jsonl")
        lines = [line for path in paths for line in path.read_bytes().splitlines(keepends=True)]
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def outcomes(self) -> list[dict[str, Any]]:
        """Return how the calls ended."""
        return [each for each in self.records() if each["kind"] == "outcome"]


@asynccontextmanager
async def served(
    folder: Path, geoip: Geoip, upstream_url: str, *, rules: str = "", **overrides: Any
) -> AsyncIterator[Served]:
    """Run `gatekeeper serve` with a settings file; ``overrides`` are fields of the settings."""
    (folder / "rules").mkdir(parents=True)
    (folder / "rules" / "rules.yaml").write_text(rules or rules_text())
    fields: dict[str, Any] = {
        "data_dir": folder,
        "rules_dir": folder / "rules",
        "listeners": (Listener(port=0, credentials=("opaque",)),),
        "ops": Ops(port=0),
        "admin": Admin(port=0),
        "upstreams": ({"name": "raw", "urls": (upstream_url,)},),
        "geoip": geoip,
        "decision_log": DecisionLog(directory=folder / "decisions"),
        "watch": {"run": False},
        **overrides,
    }
    settings = Settings(**fields)
    file = folder / "settings.json"
    file.write_text(settings.model_dump_json(exclude_none=True))
    package = Path(gatekeeper.__file__).parents[1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gatekeeper", "serve", "--settings", str(file)),
        env={**os.environ, "PYTHONPATH": str(package)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        said = ""
        async with asyncio.timeout(START_S):
            while "Upstream raw" not in said:
                line = await process.stdout.readline()
                assert line, said
                said += line.decode()
        callers = re.search(r"Callers: http://127\.0\.0\.1:(\d+)", said)
        ops = re.search(r"(http://127\.0\.0\.1:\d+)/metrics", said)
        assert callers is not None
        assert ops is not None
        yield Served(process, int(callers[1]), ops[1], folder)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]
