"""The fleet of a conservation test: four gates, their store, an upstream, and what befalls them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import RedisError
from support.conservation.client import Call, Connection, Seen
from support.conservation.plan import Chaos, Cut
from support.conservation.rules import rules
from support.conservation.store_book import PREFIX, StoreBook
from support.gates import eventually
from support.served import served

from gatekeeper.settings import Deadlines, SecretSource, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.conservation.plan import Disaster, Plan, Planned
    from support.served import Served
    from support.valkey import Server

    from gatekeeper.settings import Geoip

WORKERS: Final = 4
_AHEAD: Final = 300
"""Requests that begin while a disaster is under way."""
_LOOK_S: Final = 1.0
"""How often open holds are looked at."""
_DEADLINES: Final = {"readiness_s": 0.3, "drain_s": 20.0, "write_s": 1.5, "idle_s": 4.0}


@dataclass
class Process:
    """One life of a worker."""

    name: str
    node: Served
    began_s: float
    killed_s: float | None = None
    terminated_s: float | None = None
    exit_code: int | None = None


@dataclass
class Fleet:
    """All processes of a run, and the books that are kept of it."""

    folder: Path
    geoip: Geoip
    store: Server
    plan: Plan
    hold_s: float
    callers: int
    upstream_port: int = 0
    workers: list[Process | None] = field(default_factory=lambda: [None] * WORKERS)
    lives: list[Process] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)
    """When the store was away, by the monotonic clock."""
    began: int = 0
    """Requests begun."""
    defects: list[str] = field(default_factory=list)
    resources: list[tuple[int, int, int]] = field(default_factory=list)
    """Requests begun, resident KiB and open files of worker 0."""
    took_s: float = 0.0
    store_book: StoreBook = field(init=False)
    _stacks: dict[int, AsyncExitStack] = field(default_factory=dict)
    _pace: int = 0
    """So many requests may begin before the next disaster is over."""
    _going: bool = True

    def __post_init__(self) -> None:
        """Open the book of the store."""
        self.store_book = StoreBook(self.store)

    async def run(self, progress: Callable[[str], None]) -> None:
        """Play the whole plan, and wait until nothing is held any more."""
        upstream = await self._start_upstream()
        began_s = time.monotonic()
        watch: asyncio.Task[None] | None = None
        try:
            await asyncio.gather(*(self._start(number) for number in range(WORKERS)))
            watch = asyncio.create_task(self._watch(progress))
            disasters = asyncio.create_task(self._disasters())
            turns = iter(self.plan.requests)
            await asyncio.gather(*(self._caller(turns) for _ in range(self.callers)))
            await disasters
            await self._quiet()
            self.took_s = time.monotonic() - began_s
            self._going = False
            await watch
            await self.store_book.close()
            for life in self._running():
                for name in (
                    "gatekeeper_internal_errors_total",
                    "gatekeeper_store_settlements_lost",
                ):
                    if count := await self._metric(life, name):
                        self.defects.append(f"{life.name}: {name} {count}")
                await self._retire(life)
            if errors := (self.folder / "upstream.err").read_text():
                self.defects.append(f"the upstream itself failed: {errors[-2_000:]}")
        finally:
            self._going = False
            if watch is not None:
                await asyncio.gather(watch, return_exceptions=True)
            for stack in self._stacks.values():
                await stack.aclose()
            upstream.kill()
            await upstream.wait()
            upstream._transport.close()  # type: ignore[attr-defined]

    def upstream_book(self) -> list[dict[str, Any]]:
        """Return what the upstream wrote."""
        lines = (self.folder / "upstream.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    # --- processes

    async def _start_upstream(self) -> asyncio.subprocess.Process:
        tests = Path(__file__).parents[2]
        script = Path(__file__).with_name("upstream.py")
        paths = os.pathsep.join((str(tests), os.environ.get("PYTHONPATH", "")))
        with (self.folder / "upstream.err").open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, str(script), str(self.folder / "upstream.jsonl")),
                env={**os.environ, "PYTHONPATH": paths},
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
            )
        assert process.stdout is not None
        self.upstream_port = int(await process.stdout.readline())
        return process

    async def _start(self, number: int) -> None:
        name = f"w{number}.{sum(life.name.startswith(f'w{number}.') for life in self.lives)}"
        stack = AsyncExitStack()
        self._stacks[number] = stack
        secret = self.folder / "secret"
        if not secret.exists():
            secret.write_text("a secret that all gates of the fleet share")
        node = await stack.enter_async_context(
            served(
                self.folder / name,
                self.geoip,
                f"http://127.0.0.1:{self.upstream_port}",
                rules=rules(self.hold_s),
                upstreams=(self._upstream(number),),
                secret=SecretSource(file=secret),
                token_count="exact" if number == WORKERS - 1 else "estimate",
                deadlines=Deadlines(hold_s=self.hold_s, **_DEADLINES),
                store=Store(
                    kind="standalone",
                    addresses=(self.store.address,),
                    prefix=PREFIX,
                    deadline_ms=500,
                ),
            )
        )
        life = Process(name, node, time.monotonic())
        self.lives.append(life)
        self.workers[number] = life

    def _upstream(self, number: int) -> dict[str, Any]:
        """Return the upstream of a worker: half of them read answers on when callers leave."""
        url = f"http://127.0.0.1:{self.upstream_port}"
        leaves = "drain" if number % 2 else "cancel"
        return {"name": "raw", "urls": (url,), "on_disconnect": leaves, "drain_s": 5.0}

    async def _retire(self, life: Process) -> None:
        life.terminated_s = time.monotonic()
        life.node.terminate()
        life.exit_code = await asyncio.wait_for(life.node.process.wait(), 60.0)

    async def _disasters(self) -> None:
        for disaster in self.plan.disasters:
            self._pace = disaster.at + _AHEAD
            while self.began < disaster.at:  # noqa: ASYNC110 - a counter is no event
                await asyncio.sleep(0.01)
            await self._befall(disaster)
        self._pace = len(self.plan.requests)

    async def _befall(self, disaster: Disaster) -> None:
        match disaster.kind:
            case Chaos.KILL | Chaos.TERMINATE:
                await self._replace(disaster)
            case Chaos.STORE_KILL:
                began_s = time.monotonic()
                self.store.kill()
                await asyncio.sleep(disaster.lasts_s)
                await self.store.started()
                await self._store_back()
                self.outages.append((began_s, time.monotonic()))
            case Chaos.STORE_FREEZE:
                began_s = time.monotonic()
                self.store.freeze()
                await asyncio.sleep(disaster.lasts_s)
                self.store.thaw()
                await self._store_back()
                self.outages.append((began_s, time.monotonic()))

    async def _replace(self, disaster: Disaster) -> None:
        life = self.workers[disaster.worker]
        assert life is not None
        if disaster.kind is Chaos.KILL:
            life.killed_s = time.monotonic()
            life.node.kill()
            await life.node.process.wait()
            self.workers[disaster.worker] = None
        else:
            await self._retire(life)  # callers come on until it refuses them, as behind a balancer
            self.workers[disaster.worker] = None
        await self._stacks[disaster.worker].aclose()
        await self._start(disaster.worker)

    async def _store_back(self) -> None:
        """Return once every gate has found the store again."""

        async def found() -> bool:
            up = [await self._metric(each, "gatekeeper_store_up") for each in self._running()]
            return all(up)

        await eventually(found)

    def _running(self) -> list[Process]:
        return [life for life in self.workers if life is not None]

    async def _metric(self, life: Process, name: str) -> float:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", int(life.node.ops.rpartition(":")[2])
        )
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
        found = [line for line in text.splitlines() if line.startswith(f"{name} ")]
        return float(found[0].rpartition(" ")[2]) if found else 0.0

    # --- callers

    async def _caller(self, turns: Iterator[Planned]) -> None:
        kept: dict[str, Connection] = {}
        for planned in turns:
            while self.began > self._pace:  # noqa: ASYNC110 - a counter is no event
                await asyncio.sleep(0.01)
            self.began += 1
            await self._call(planned, kept)
        for connection in kept.values():
            await connection.close(with_reset=False)

    async def _call(self, planned: Planned, kept: dict[str, Connection]) -> None:
        small = planned.cut is Cut.STALL
        for turn in itertools.count(planned.worker):
            life = self.workers[turn % WORKERS]
            connection = None
            if life is not None:
                connection = None if small else kept.pop(life.name, None)
                if connection is None:
                    with contextlib.suppress(OSError):
                        connection = await Connection.open(life.node.port, small=small)
            if life is not None and connection is not None:
                break
            await asyncio.sleep(0.01)
        seen = Seen(planned, life.name, time.monotonic())
        seen.after, connection.last = connection.last, planned.id
        self.seen.append(seen)
        if await Call(seen, connection).run() and not small:
            kept[life.name] = connection
        else:
            await connection.close(with_reset=False)
        seen.ended_s = time.monotonic()

    # --- watching

    async def _watch(self, progress: Callable[[str], None]) -> None:
        began_s, told = time.monotonic(), 0.0
        while self._going:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                await self.store_book.look()
            first = self.workers[0]
            if first is not None:
                self._weigh(first)
            if time.monotonic() - told > 10.0:
                told = time.monotonic()
                progress(
                    f"{told - began_s:5.0f} s  {self.began} of {len(self.plan.requests)} requests,"
                    f" {len(self.lives)} processes, {len(self.outages)} outages of the store"
                )
            await asyncio.sleep(_LOOK_S)

    def _weigh(self, life: Process) -> None:
        process = Path(f"/proc/{life.node.process.pid}")
        status = (process / "status").read_text()
        resident = int(status.partition("VmRSS:")[2].split()[0])
        self.resources.append((self.began, resident, len(list((process / "fd").iterdir()))))

    async def _quiet(self) -> None:
        """Wait until no call is under way and nothing is held: what was lost has expired."""
        async with asyncio.timeout(self.hold_s + 60.0):
            while True:
                active = [
                    await self._metric(each, "gatekeeper_active_calls") for each in self._running()
                ]
                with contextlib.suppress(RedisError, OSError):
                    if not any(active) and not await self.store_book.look():
                        return
                await asyncio.sleep(0.25)
