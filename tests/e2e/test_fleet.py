"""Several nodes over the same records: restarted one by one, or killed, without a failed call."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import aiohttp
from support.gates import SOON_S, eventually
from support.served import served
from support.upstream import Upstream

from gatekeeper.settings import Deadlines

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from support.served import Served

    from gatekeeper.settings import Geoip

_ASK: Final = {"model": "demo-small", "messages": [{"role": "user", "content": "Hello"}]}
_DEADLINES: Final = Deadlines(readiness_s=0.5, drain_s=SOON_S)
_LOST_WITH_A_NODE: Final = {
    "ClientConnectorError",
    "ClientConnectionResetError",
    "ClientOSError",
    "ClientPayloadError",
    "ServerDisconnectedError",
}


@dataclass
class Balancer:
    """Sends calls to the nodes that are ready, as a Kubernetes Service does, and counts."""

    http: aiohttp.ClientSession
    nodes: dict[str, Served] = field(default_factory=dict)
    ready: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    going: bool = True

    async def probe(self) -> None:
        """Ask for readiness again and again."""
        while self.going:
            found = []
            for name, node in list(self.nodes.items()):
                with suppress(aiohttp.ClientError):
                    async with self.http.get(f"{node.ops}/readyz") as answer:
                        if answer.status == 200:
                            found.append(name)
            self.ready = found
            await asyncio.sleep(0.02)

    async def call(self, turns: itertools.count[int]) -> None:
        """Call whichever node is next, until told to stop."""
        while self.going:
            if not self.ready:
                await asyncio.sleep(0.02)
                continue
            node = self.nodes[self.ready[next(turns) % len(self.ready)]]
            url = f"http://127.0.0.1:{node.port}/v1/chat/completions"
            headers = {"authorization": "Bearer sk-fleet"}
            try:
                async with self.http.post(url, json=_ASK, headers=headers) as answer:
                    whole = '"choices"' in await answer.text()
                    self.answers[f"{answer.status}{'' if whole else ' cut'}"] += 1
            except aiohttp.ClientError as error:
                self.answers[type(error).__name__] += 1


async def test_h40_a_rolling_restart_at_load_fails_no_call(
    tmp_path: Path, small_geoip: Geoip
) -> None:
    """Nodes are replaced one by one; behind readiness no caller notices, and none exits ill."""
    upstream = Upstream()
    await upstream.start()
    shared = f"sqlite:///{tmp_path / 'records.db'}"
    async with AsyncExitStack() as stack, aiohttp.ClientSession() as http:

        async def node(name: str) -> Served:
            return await stack.enter_async_context(
                served(
                    tmp_path / name,
                    small_geoip,
                    upstream.url,
                    records_url=shared,
                    deadlines=_DEADLINES,
                )
            )

        balancer = Balancer(http)
        balancer.nodes["one"], balancer.nodes["two"] = await node("one"), await node("two")
        turns = itertools.count()
        work = [asyncio.create_task(balancer.probe())]
        work += [asyncio.create_task(balancer.call(turns)) for _ in range(4)]
        retired: list[Served] = []
        for old, new in (("one", "three"), ("two", "four")):
            seen = balancer.answers["200"]
            balancer.nodes[new] = await node(new)
            await eventually(_holds(lambda new=new: new in balancer.ready))
            balancer.nodes[old].terminate()
            retired.append(balancer.nodes[old])
            assert await balancer.nodes[old].ended() == 0
            del balancer.nodes[old]
            await eventually(_holds(lambda seen=seen: balancer.answers["200"] > seen + 20))
        balancer.going = False
        await asyncio.gather(*work)
        nodes = [*retired, *balancer.nodes.values()]
        for each in balancer.nodes.values():
            each.terminate()
            assert await each.ended() == 0
        assert balancer.answers.keys() == {"200"}
        outcomes = [outcome for each in nodes for outcome in each.outcomes()]
        assert [outcome["ending"] for outcome in outcomes] == ["complete"] * len(outcomes)
        assert len(outcomes) == balancer.answers["200"] == len(upstream.book)
    await upstream.stop()


async def test_h40_a_killed_node_takes_nothing_with_it(tmp_path: Path, small_geoip: Geoip) -> None:
    """After kill -9 the other nodes serve on, and what the dead one wrote can be read."""
    upstream = Upstream()
    await upstream.start()
    shared = f"sqlite:///{tmp_path / 'records.db'}"
    options = {"records_url": shared, "deadlines": _DEADLINES}
    async with (
        served(tmp_path / "one", small_geoip, upstream.url, **options) as one,
        served(tmp_path / "two", small_geoip, upstream.url, **options) as two,
        aiohttp.ClientSession() as http,
    ):
        balancer = Balancer(http, {"one": one, "two": two})
        work = [asyncio.create_task(balancer.probe())]
        work += [asyncio.create_task(balancer.call(itertools.count())) for _ in range(4)]
        await eventually(_holds(lambda: balancer.answers["200"] > 20))
        one.kill()
        await one.ended()
        await eventually(_holds(lambda: balancer.ready == ["two"]))
        seen = balancer.answers["200"]
        await eventually(_holds(lambda: balancer.answers["200"] > seen + 20))
        balancer.going = False
        await asyncio.gather(*work)
        assert balancer.answers.keys() - {"200"} <= _LOST_WITH_A_NODE
        assert one.outcomes()
        assert await two.ready() == 200
    await upstream.stop()


def _holds(true: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return true()

    return ask
