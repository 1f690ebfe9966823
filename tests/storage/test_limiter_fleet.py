"""Limits of many processes and servers: exactly the burst, on one server and on a cluster."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis.crc import key_slot
from support.gates import eventually
from support.limits import IDS, PREFIXES, claim, quota
from support.valkey import Server, serving, serving_cluster, serving_sentinel

from gatekeeper.limits import keeping_limits
from gatekeeper.policy.model import Moment
from gatekeeper.settings import Store
from gatekeeper.storage.limiter_redis import RedisLimiter
from gatekeeper.storage.store_access import StoreAccess, read_access
from gatekeeper.storage.store_line import dial
from gatekeeper.telemetry import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gatekeeper.limits import Limits

TESTS = Path(__file__).parents[1]
BURST, CALLS, PROCESSES = 137, 2_000, 4
AT = Moment(0.0, 0)
SOON_S = 1.0
"""Within which a gate is back once its store can be reached."""


async def admitted_by_processes(store: dict[str, Any]) -> int:
    """Let four processes ask at once; return how many calls they admitted in all."""
    starts_at = time.time() + 2.0
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"}
    running = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, str(TESTS / "support" / "burst.py")),
            json.dumps(
                {
                    "store": store,
                    "burst": BURST,
                    "calls": CALLS // PROCESSES,
                    "starts_at": starts_at,
                    "name": f"process{number}",
                }
            ),
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
        for number in range(PROCESSES)
    ]
    outputs = await asyncio.gather(*(each.communicate() for each in running))
    return sum(int(output) for output, _ in outputs)


async def test_h21_four_processes_admit_exactly_the_burst(valkey: Server) -> None:
    """2,000 calls at once, of which no process sees more than a quarter."""
    store = {"kind": "standalone", "addresses": [valkey.address], "prefix": next(PREFIXES)}
    assert await admitted_by_processes(store) == BURST


@pytest.mark.fleet
async def test_h21_a_cluster_of_six_admits_exactly_the_burst(tmp_path: Path) -> None:
    """The keys of the limits lie on one of its nodes, wherever a process begins to ask."""
    async with serving_cluster(tmp_path) as servers:
        addresses = [server.address for server in servers]
        assert await admitted_by_processes({"kind": "cluster", "addresses": addresses}) == BURST


async def test_a_cluster_of_one(tmp_path: Path) -> None:
    """Cluster mode itself, with a hierarchy over several keys, in the quick suite."""
    async with serving_cluster(tmp_path, masters=1, replicas=0) as (server,):
        access = access_of(kind="cluster", addresses=(server.address,))
        line = await dial(access, 5.0)
        limiter = RedisLimiter(line, "p")
        claims = [claim(quota(name), partition=name * 9) for name in "abcdef"]
        answer = await limiter.reserve(claims, AT, 60.0, "one")
        assert answer.held is not None
        await limiter.cancel(answer.held, AT)
        line.fail("closed")


async def test_who_was_asked_for_the_way_is_let_go(tmp_path: Path) -> None:
    """Each look for the owner of a slot would leave a connection behind otherwise."""
    async with (
        serving_cluster(tmp_path, masters=1, replicas=0) as (server,),
        server.client(decode_responses=True) as client,
    ):
        access = access_of(kind="cluster", addresses=(server.address,))
        lines = [await dial(access, 5.0) for _ in range(5)]

        async def no_more() -> bool:
            ours = [each for each in await client.client_list() if "limits" in each["name"]]
            return len(ours) == len(lines)

        await eventually(no_more)
        for line in lines:
            line.fail("closed")


def access_of(**fields: Any) -> StoreAccess:
    """Return the access that settings give."""
    found = read_access(Store.model_validate(fields), {})
    assert isinstance(found, StoreAccess)
    return found


@asynccontextmanager
async def limits_in(**fields: Any) -> AsyncIterator[tuple[Limits, Metrics]]:
    """Yield guarded limits as the gate has them."""
    access, metrics = access_of(**fields), Metrics()
    async with keeping_limits(
        access.settings, access, gate_id="gate", chance=random.random, metrics=metrics
    ) as limits:
        yield limits, metrics


async def charge(limits: Limits) -> float:
    """Take one of forty; return what remains in all."""
    one = claim(quota(amount=40, period_s=86_400))
    answer = await limits.limiter.reserve([one], AT, 60.0, next(IDS))
    assert answer.held is not None
    return answer.statuses[0].remaining


async def back(limits: Limits) -> float:
    """Return how long it takes until the store answers."""
    began = time.monotonic()

    async def answers() -> bool:
        return not limits.failing()

    await eventually(answers)
    return time.monotonic() - began


async def test_h30_back_within_a_second_of_a_store_that_can_be_reached(tmp_path: Path) -> None:
    """After a long outage too: the longest wait between two attempts is under half a second."""
    async with (
        serving(tmp_path) as server,
        limits_in(kind="standalone", addresses=(server.address,)) as (limits, metrics),
    ):
        for fail, repair in ((server.freeze, server.thaw), (server.kill, server.start)):
            fail()

            async def noticed() -> bool:
                return limits.failing()

            await eventually(noticed)
            failures = metrics.value("gatekeeper_store_failures", "connection")
            if repair == server.start:

                async def tired(seen: float = failures) -> bool:
                    return metrics.value("gatekeeper_store_failures", "connection") > seen + 6

                await eventually(tired)
            repair()
            if repair == server.start:
                await server.answering()
            assert await back(limits) < SOON_S
            assert await charge(limits) > 30


@pytest.mark.fleet
async def test_h30_sentinel_failover(tmp_path: Path) -> None:
    """The limits go on where the new master has them, once the Sentinels have agreed on one."""
    async with serving_sentinel(tmp_path) as watched:
        fields = {
            "kind": "sentinel",
            "addresses": tuple(each.address for each in watched.sentinels),
            "master": watched.name,
        }
        async with limits_in(**fields) as (limits, _):
            assert await charge(limits) == 39
            async with watched.servers[0].client() as client:
                await client.wait(1, 5_000)
            watched.servers[0].kill()
            assert await charge(limits) == 39  # this node's share
            await back(limits)
            assert await charge(limits) == pytest.approx(38, abs=0.1)


@pytest.mark.fleet
async def test_h30_cluster_failover(tmp_path: Path) -> None:
    """The replica of the node that had the limits goes on with them."""
    async with serving_cluster(tmp_path) as servers:
        addresses = tuple(server.address for server in servers)
        async with limits_in(kind="cluster", addresses=addresses) as (limits, _):
            assert await charge(limits) == 39
            owner = await owning(servers)
            async with owner.client() as client:
                await client.wait(1, 5_000)
            owner.kill()
            await charge(limits)
            await back(limits)
            assert await charge(limits) == pytest.approx(38, abs=0.1)


@pytest.mark.fleet
async def test_h30_a_slot_that_moves(tmp_path: Path) -> None:
    """While the keys lie on two nodes (TRYAGAIN, ASK) each rule does as it declared; then on."""
    async with serving_cluster(tmp_path, replicas=0) as servers, AsyncExitStack() as stack:
        addresses = tuple(server.address for server in servers)
        limits, metrics = await stack.enter_async_context(
            limits_in(kind="cluster", addresses=addresses)
        )
        assert await charge(limits) == 39
        source = await owning(servers)
        target = next(server for server in servers if server is not source)
        clients = {
            server.port: await stack.enter_async_context(server.client()) for server in servers
        }
        old, new = clients[source.port], clients[target.port]
        ids = [await each.execute_command("CLUSTER", "MYID") for each in (old, new)]
        slot = key_slot(b"{gatekeeper}")
        await new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        await old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        assert await charge(limits) == 39  # this node's share: the hold's key would be new
        keys = await old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1_000)
        await old.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys)

        async def asked() -> bool:
            return metrics.value("gatekeeper_store_failures", "ask") > 0

        await eventually(asked)
        assert metrics.value("gatekeeper_store_failures", "tryagain") > 0
        for each in (new, old, *clients.values()):
            await each.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
        await back(limits)
        assert await charge(limits) == pytest.approx(38, abs=0.1)


async def owning(servers: list[Server]) -> Server:
    """Return the node that has the limits' keys."""
    for server in servers:
        async with server.client() as client:
            role = (await client.execute_command("ROLE"))[0]
            if role in {b"master", "master"} and await client.dbsize():
                return server
    raise AssertionError("nobody has them")
