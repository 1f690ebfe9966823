"""The gate and its store: shared limits, and every way in which a store fails (H30)."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from support.gates import eventually, rules_text
from support.pipe import piped
from support.valkey import Server, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from support.gates import Gates, RunningGate

SHARED = """
limits:
  - {id: requests, description: R., unit: requests, per: [account], rate: 40/day}
"""
CLOSED = """
limits:
  - {id: requests, description: R., unit: requests, per: [account], rate: 4000/day}
  - {id: spend, description: S., unit: cost, per: [account], rate: 100000/day,
     on_store_failure: closed}
"""
DEADLINE_MS = 150
SLOW_S = 0.1
"""What waited for the store for a deadline took longer; nothing else in these tests does."""
CHAT = {"model": "demo-small", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Server]:
    """Return a Valkey that a test may break."""
    async with serving(tmp_path / "valkey") as server:
        yield server
        if server.process is not None:
            server.thaw()


def at(address: str, **fields: object) -> dict[str, object]:
    """Return the settings of a store."""
    return {"kind": "standalone", "addresses": (address,), "deadline_ms": DEADLINE_MS, **fields}


async def ask(gate: RunningGate, account: str = "acme") -> tuple[int, float]:
    """Send a chat; return its status and how long it took."""
    began = time.monotonic()
    async with gate.http.post(
        "/v1/chat/completions", json=CHAT, headers=gate.headers(account)
    ) as answer:
        await answer.read()
        return answer.status, time.monotonic() - began


async def ready(gate: RunningGate) -> tuple[int, str]:
    """Return what readiness says."""
    async with gate.http.get(f"http://127.0.0.1:{gate.app.ops_port}/readyz") as answer:
        return answer.status, await answer.text()


async def answering(gate: RunningGate, wanted: bool = True) -> None:
    """Return once the gate has noticed."""

    async def noticed() -> bool:
        return ("gatekeeper_store_up 1.0" in await gate.metrics()) is wanted

    await eventually(noticed)


async def test_two_gates_share_their_limits(gates: Gates, store: Server) -> None:
    """What one admits, the other no longer has; and both are counted."""
    one = await gates(rules=rules_text(SHARED), store=at(store.address))
    two = await gates(rules=rules_text(SHARED), store=at(store.address))
    statuses = [(await ask(gate))[0] for _ in range(21) for gate in (one, two)]
    assert statuses == [200] * 40 + [429] * 2

    async def counted() -> bool:
        return "gatekeeper_store_gates 2.0" in await one.metrics()

    await eventually(counted)


# --- a store that breaks, in each of its ways


async def killed(store: Server) -> Callable[[], Awaitable[None]]:
    """Kill it; start it again."""
    store.kill()
    return store.started


async def frozen(store: Server) -> Callable[[], Awaitable[None]]:
    """Stop it; let it go on."""
    store.freeze()

    async def thaw() -> None:
        store.thaw()

    return thaw


async def full(store: Server) -> Callable[[], Awaitable[None]]:
    """Let it have no memory; give it some."""
    return await _configured(store, "maxmemory", "1", "0")


async def read_only(store: Server) -> Callable[[], Awaitable[None]]:
    """Make it a replica, as after a failover; make it a master."""
    async with store.client() as client:
        await client.execute_command("REPLICAOF", "127.0.0.1", "1")

    async def master() -> None:
        async with store.client() as client:
            await client.execute_command("REPLICAOF", "NO", "ONE")

    return master


async def hung_up(store: Server) -> Callable[[], Awaitable[None]]:
    """Let it close every connection and know nobody."""
    async with store.client() as client:
        await client.execute_command("ACL", "SETUSER", "default", ">secret", "resetpass", ">other")
        await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    async def known() -> None:
        async with store.client(password="other") as client:
            await client.execute_command("ACL", "SETUSER", "default", "nopass")

    return known


async def _configured(
    store: Server, name: str, broken: str, sound: str
) -> Callable[[], Awaitable[None]]:
    async with store.client() as client:
        await client.config_set(name, broken)

    async def repair() -> None:
        async with store.client() as client:
            await client.config_set(name, sound)

    return repair


BROKEN = [killed, frozen, full, read_only, hung_up]


@pytest.mark.parametrize("broken", BROKEN)
async def test_h30_a_store_that_breaks_costs_one_slow_call_at_most(
    gates: Gates, store: Server, broken: Any
) -> None:
    """No 5xx, the share counts, metric and readiness tell, and it is back within a second."""
    gate = await gates(rules=rules_text(SHARED), store=at(store.address, nodes=4))
    for _ in range(3):
        assert (await ask(gate))[0] == 200
    repair = await broken(store)
    took: list[float] = []
    statuses: list[int] = []
    for _ in range(14):
        status, seconds = await ask(gate)
        statuses.append(status)
        took.append(seconds)
    # forty among four: ten here, whatever the store has counted
    assert statuses == [200] * 10 + [429] * 4
    assert sum(seconds > SLOW_S for seconds in took) <= 1, took
    await answering(gate, wanted=False)
    assert await ready(gate) == (200, "ready\ndegraded: limits_store\n")
    metrics = await gate.metrics()
    assert 'gatekeeper_limits_without_store_total{behaviour="local_share"} 14.0' in metrics
    assert "gatekeeper_store_failures_total{kind=" in metrics
    await repair()
    began = time.monotonic()
    await answering(gate)
    assert time.monotonic() - began < 5.0  # of a busy machine; tests/storage/ says a second
    assert (await ask(gate))[0] == 200
    assert await ready(gate) == (200, "ready\n")


async def test_h30_a_slow_store_is_left_alone(gates: Gates, store: Server) -> None:
    """Answers that take longer than the deadline are not waited for, call after call."""
    async with piped(store.port) as pipe:
        gate = await gates(rules=rules_text(SHARED), store=at(pipe.address))
        assert (await ask(gate))[0] == 200
        pipe.delay_s = 1.0
        took = [await ask(gate) for _ in range(10)]
        assert [status for status, _ in took] == [200] * 10
        assert sum(seconds > SLOW_S for _, seconds in took) <= 1, took
        pipe.delay_s = 0.0
        await answering(gate)


async def test_h30_scripts_and_data_flushed(gates: Gates, store: Server) -> None:
    """Scripts are sent again within the call; without the data, limits start afresh."""
    gate = await gates(rules=rules_text(SHARED), store=at(store.address))
    async with store.client() as client:
        for flush, args in (("SCRIPT", ("FLUSH",)), ("FLUSHALL", ())):
            assert (await ask(gate))[0] == 200
            await client.execute_command(flush, *args)
    assert (await ask(gate))[0] == 200
    assert "gatekeeper_limits_without_store_total{" not in await gate.metrics()


async def test_h30_a_gate_starts_beside_a_store_that_is_down(gates: Gates, store: Server) -> None:
    """It serves as declared, and joins in when the store comes up."""
    store.kill()
    gate = await gates(rules=rules_text(SHARED), store=at(store.address))
    assert (await ask(gate))[0] == 200
    await store.started()
    await answering(gate)


@pytest.mark.parametrize("observe", [False, True])
async def test_h30_a_closed_rule_refuses_as_one_that_could_not_be_asked(
    gates: Gates, store: Server, observe: bool
) -> None:
    """503 that may be retried, with the rule in the record and nothing of it told (H34)."""
    gate = await gates(
        rules=rules_text(CLOSED),
        store=at(store.address),
        mode="observe" if observe else "enforce",
    )
    store.kill()
    await answering(gate, wanted=False)
    async with gate.http.post("/v1/chat/completions", json=CHAT, headers=gate.headers()) as answer:
        body = await answer.json()
        decision_id = answer.headers["gatekeeper-decision"]
        told = str(answer.headers) + str(body)
    record = await gate.decision(decision_id)
    assert (record["verdict"], record["reason"]) == ("unavailable", "service_unavailable")
    assert [(found["rule"], found["verdict"], found["detail"]) for found in record["findings"]] == [
        ("spend", "unavailable", "store failed: closed")
    ]
    assert [limit["failed"] for limit in record["limits"]] == ["local_share", "closed"]
    assert answer.status == (200 if observe else 503)
    if not observe:
        assert body["error"]["code"] == "service_unavailable"
        assert answer.headers.get("x-should-retry") != "false"
        assert "spend" not in told
        assert "store" not in told.replace("no-store", "")
        replayed = await gate.cli("explain", decision_id)
        assert "unavailable" in replayed.output


async def test_h30_closed_by_default_turns_readiness_red(gates: Gates, store: Server) -> None:
    """Who says that without the store nothing is served, has the balancer know it too."""
    gate = await gates(rules=rules_text(SHARED), store=at(store.address, on_failure="closed"))
    assert (await ready(gate))[0] == 200
    store.kill()
    await answering(gate, wanted=False)
    assert await ready(gate) == (503, "limits_store\ndegraded: limits_store\n")
    assert (await ask(gate))[0] == 503


async def test_embargo_bans_and_credentials_do_not_depend_on_the_store(
    gates: Gates, store: Server
) -> None:
    """With the store gone, and even with rules that are open, each is refused as ever."""
    gate = await gates(
        rules=rules_text(SHARED),
        store=at(store.address, on_failure="open"),
        accounts={"acme": {}, "banned": {"banned_until": "2999-01-01T00:00Z", "ban_reason": "x"}},
    )
    store.kill()
    await answering(gate, wanted=False)
    cuba = gate.headers(x_forwarded_for="152.206.1.1")
    for headers, status in (
        (gate.headers(), 200),
        (cuba, 451),
        ({"x-api-key": "gk_" + "0" * 40}, 401),
        (gate.headers("banned"), 403),
    ):
        async with gate.http.get("/v1/models", headers=headers) as answer:
            assert answer.status == status, await answer.text()


async def test_what_was_held_before_an_outage_is_settled_after_it(
    gates: Gates, store: Server
) -> None:
    """A slot held in the store when it froze is free again once it goes on."""
    slots = """
limits:
  - {id: slots, description: S., unit: concurrency, per: [account], slots: 1, lease: 1 hour}
"""
    gate = await gates(rules=rules_text(slots), store=at(store.address))
    release = asyncio.Event()

    @asynccontextmanager
    async def streaming() -> AsyncIterator[None]:
        stream = await gate.openai().chat.completions.create(**CHAT, stream=True)
        yield
        await stream.close()

    async with streaming():
        store.freeze()
        await answering(gate, wanted=False)
    release.set()
    store.thaw()
    await answering(gate)

    async def served() -> bool:
        return (await ask(gate))[0] == 200

    await eventually(served)
