"""What changes while calls are served: rules, lists, modes; on every gate, and no call notices."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from aiohttp import web
from support.gates import Clock, eventually
from support.live import limited, revision_of, write_rules
from support.mmdb_files import write_mmdb

from gatekeeper.policy.words import GateMode

if TYPE_CHECKING:
    from pathlib import Path

    from support.gates import Gates, RunningGate

FAST_S = 5.0
"""How soon a change must be in force on all gates."""
CUBA = "152.206.0.1"
FLEET = {"GATE_SECRET": "s" * 64}


async def fleet(gates: Gates, tmp_path: Path, size: int = 2, **more: Any) -> list[RunningGate]:
    """Start gates that share records and the secret, each with rule files of its own."""
    shared = {
        "records_url": f"sqlite:///{tmp_path / 'shared.db'}",
        "secret": {"env": "GATE_SECRET"},
        "environ": FLEET,
    }
    running: list[RunningGate] = []
    for number in range(size):
        options = {"rules": limited(1000), "name": f"gate-{number}", **shared, **more}
        running.append(await gates(**options))
    return running


async def status(gate: RunningGate, address: str = "8.8.8.8", **headers: str) -> int:
    """Return the status of a small call."""
    sent = gate.headers(x_forwarded_for=address) | headers
    body = {"model": "demo-small", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}
    async with gate.http.post("/v1/chat/completions", headers=sent, json=body) as answer:
        await answer.read()
        return answer.status


async def serves(gate: RunningGate, revision: str) -> None:
    """Wait until a gate serves a revision."""

    async def there() -> bool:
        return gate.app.gate.snapshot.rules.revision == revision

    await eventually(there)


async def has_mode(gate: RunningGate, mode: GateMode) -> None:
    """Wait until a gate has a mode."""

    async def there() -> bool:
        return gate.app.gate.snapshot.mode is mode

    await eventually(there)


async def test_a_changed_file_is_live_on_all_gates(gates: Gates, tmp_path: Path) -> None:
    """One gate sees the file, all of them serve it in time, and each names it in its decisions."""
    running = await fleet(gates, tmp_path, size=3)
    for per_hour in (5, 6, 7):
        new = limited(per_hour)
        write_rules(running[per_hour % 3].settings.rules_dir, new)
        async with asyncio.timeout(FAST_S):
            await asyncio.gather(*(serves(gate, revision_of(new)) for gate in running))
    nodes = await running[0].app.live.nodes()
    assert {node.name for node in nodes} == {"gate-0", "gate-1", "gate-2"}

    async def all_told() -> bool:
        told = await running[0].app.live.nodes()
        return {node.rules_revision for node in told} == {revision_of(limited(7))}

    await eventually(all_told)
    headers = running[2].headers(x_forwarded_for="8.8.8.8")
    async with running[2].http.get("/v1/models", headers=headers) as answer:
        record = await running[2].decision(answer.headers["gatekeeper-decision"])
    assert record["rules_revision"] == revision_of(limited(7))


async def test_h35_a_bad_file_is_refused_while_calls_go_on(gates: Gates, tmp_path: Path) -> None:
    """Every mistake is logged; the last good rules serve on, with their embargo."""
    first, second = await fleet(gates, tmp_path)
    folder = first.settings.rules_dir
    good = first.app.gate.snapshot.rules.revision
    with structlog.testing.capture_logs() as logs:
        bad = limited(3).replace("rate: 3/hour", "rate: often").replace("source: law", "sorce: law")
        write_rules(folder, bad)

        async def refused() -> bool:
            return first.app.live.rules.last_refused is not None

        await eventually(refused)
        for gate in (first, second):
            assert await status(gate) == 200
            assert await status(gate, CUBA) == 451
            assert gate.app.gate.snapshot.rules.revision == good
    told = [line["problem"] for line in logs if line["event"] == "rules_refused"]
    assert len(told) == 3, told  # the rate, the word, and what the word should have been
    metrics = await first.metrics()
    assert 'gatekeeper_reloads_total{outcome="refused",what="rules"} 1.0' in metrics
    assert 'gatekeeper_refused_state{what="rules"} 1.0' in metrics
    write_rules(folder, limited(3))
    await serves(second, revision_of(limited(3)))
    assert first.app.live.rules.last_refused is None


async def test_no_stream_is_dropped_by_twenty_reloads(gates: Gates, tmp_path: Path) -> None:
    """An answer under way has every chunk, whatever is swapped between two of them."""
    gate, _ = await fleet(gates, tmp_path)
    steps: asyncio.Queue[bytes] = asyncio.Queue()

    async def stream(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        while chunk := await steps.get():
            await answer.write(chunk)
        return answer

    gate.upstream.answer = stream
    headers = gate.headers(x_forwarded_for="8.8.8.8")
    body = {"model": "demo-small", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    steps.put_nowait(chunk_of(0))
    async with gate.http.post("/v1/chat/completions", headers=headers, json=body) as answer:
        assert answer.status == 200
        decision = answer.headers["gatekeeper-decision"]
        received = [await answer.content.readuntil(b"\n\n")]
        for number in range(1, 21):
            new = limited(1000 + number)
            write_rules(gate.settings.rules_dir, new)
            gate.app.live.reload()
            await serves(gate, revision_of(new))
            steps.put_nowait(chunk_of(number))
            received.append(await answer.content.readuntil(b"\n\n"))
        steps.put_nowait(b"data: [DONE]\n\n")
        steps.put_nowait(b"")
        assert await answer.content.read() == b"data: [DONE]\n\n"
    assert received == [chunk_of(number) for number in range(21)]
    record = await gate.decision(decision)
    assert record["rules_revision"] == revision_of(limited(1000))
    assert (await gate.outcome(decision))["ending"] == "complete"


def chunk_of(number: int) -> bytes:
    """Return one event of a stream."""
    delta = {"choices": [{"index": 0, "delta": {"content": f"{number} "}}]}
    return b"data: " + json.dumps(delta).encode() + b"\n\n"


async def test_no_bucket_is_reset_by_a_reload(gates: Gates) -> None:
    """What was used stays used: with the same limit, and with another rate and burst."""
    clock = Clock()
    gate = await gates(rules=limited(5), clock=clock)
    assert [await status(gate) for _ in range(3)] == [200] * 3
    same_limit = limited(5, country="IR")
    write_rules(gate.settings.rules_dir, same_limit)
    await serves(gate, revision_of(same_limit))
    assert [await status(gate) for _ in range(3)] == [200, 200, 429]
    more = limited(7)
    write_rules(gate.settings.rules_dir, more)
    await serves(gate, revision_of(more))
    assert [await status(gate) for _ in range(3)] == [200, 200, 429]
    fewer = limited(4)
    write_rules(gate.settings.rules_dir, fewer)
    await serves(gate, revision_of(fewer))
    assert await status(gate) == 429


async def test_a_changed_list_is_live_and_a_collapsed_one_is_not(
    gates: Gates, tmp_path: Path
) -> None:
    """Network data follows its files as rules do, and H37 holds."""
    exits = tmp_path / "exits.txt"
    exits.write_text("".join(f"8.8.{n}.0/24\n" for n in range(120)))
    country = write_mmdb(tmp_path / "c.mmdb", "x-country", {"8.0.0.0/8": {"country_code": "US"}})
    signals = """
signals:
  - {id: listed, description: L., when: '"exits" in network.listed_by', points: 90}
thresholds:
  - {id: deny, description: D., at_least: 90, verdict: deny}
"""
    rules = limited(1000).replace("...\n", signals.lstrip("\n") + "...\n")
    gate = await gates(rules=rules, geoip={"databases": (country,), "networks": (exits,)})
    assert (await status(gate, "8.8.1.1"), await status(gate, "8.8.200.1")) == (403, 200)
    exits.write_text("".join(f"8.8.{n}.0/24\n" for n in range(210)))

    async def listed() -> bool:
        return await status(gate, "8.8.200.1") == 403

    await eventually(listed)
    exits.write_text("8.8.1.0/24\n")

    async def refused() -> bool:
        return gate.app.live.networks.last_refused is not None

    await eventually(refused)
    assert await status(gate, "8.8.200.1") == 403
    assert "gatekeeper_network_problems 1.0" in await gate.metrics()


STRICT = """
signals:
  - {id: dark, description: D., when: call.model == "demo-small", points: 90}
thresholds:
  - {id: deny, description: D., at_least: 90, verdict: deny}
"""


async def test_the_mode_of_all_gates(gates: Gates, tmp_path: Path) -> None:
    """Set by command, followed by both: what each mode opens, and that embargo and keys hold."""
    rules = limited(1).replace("...\n", STRICT.lstrip("\n") + "...\n")
    running = await fleet(gates, tmp_path, rules=rules)
    wanted = {"observe": 200, "bypass": 200, "closed": 503}
    for word, code in wanted.items():
        await running[0].cli("mode", "set", word, "--reason", "a test")
        for gate in running:
            await has_mode(gate, GateMode(word))
            assert [await status(gate) for _ in range(3)] == [code] * 3, word
            assert await status(gate, CUBA) == 451
            stranger = await status(gate, **{"x-api-key": "gk_wrong"})
            assert stranger == (503 if word == "closed" else 401)
            assert f'gatekeeper_mode{{mode="{word}"}} 1.0' in await gate.metrics()
    await running[1].cli("mode", "clear")
    for gate in running:
        await has_mode(gate, GateMode.ENFORCE)
        assert await status(gate) == 403


async def test_what_a_bypass_spends_and_records(gates: Gates) -> None:
    """No limit is asked or charged, no score is made, and the record says by which mode."""
    gate = await gates(rules=limited(1), accounts={"acme": {}, "out": {"banned_until": "forever"}})
    await gate.app.live.mode_desk.set(
        GateMode.BYPASS, by="ops", reason="store is down", at=time.time()
    )
    assert [await status(gate) for _ in range(3)] == [200] * 3
    assert await status(gate, **gate.headers("out")) == 403
    assert len(gate.upstream.book) == 3
    found: list[dict[str, Any]] = []

    async def written() -> bool:
        found[:] = [each for each in gate.book() if each["kind"] == "decision"]
        return len(found) == 4

    await eventually(written)
    record = found[0]
    assert (record["mode"], record["verdict"]) == ("bypass", "allow")
    assert (record["limits"], record["score"]) == ([], None)
    shown = await gate.cli("explain", record["id"])
    assert "Mode: bypass" in shown.stdout
    assert "Same verdict offline: yes" in shown.stdout
    await gate.app.live.mode_desk.clear(by="ops", at=time.time())
    assert [await status(gate) for _ in range(2)] == [200, 429]


async def test_a_closed_gate_tells_callers_to_try_again(gates: Gates) -> None:
    """The SDK's own exception, retryable, and nothing reaches the upstream."""
    gate = await gates(rules=limited(9))
    await gate.app.live.mode_desk.set(GateMode.CLOSED, by="ops", reason="broken", at=time.time())
    headers = gate.headers(x_forwarded_for="8.8.8.8")
    async with gate.http.get("/v1/models", headers=headers) as answer:
        said = await answer.json()
        assert (answer.status, said["error"]["code"]) == (503, "service_unavailable")
        assert answer.headers["x-should-retry"] == "true"
        decision = answer.headers["gatekeeper-decision"]
    assert gate.upstream.book == []
    assert (await gate.decision(decision))["mode"] == "closed"
    shown = await gate.cli("explain", decision)
    assert "Same verdict offline: yes" in shown.stdout


async def test_a_mode_runs_out_by_itself(gates: Gates) -> None:
    """Nobody has to remember to take a kill switch back."""
    clock = Clock()
    gate = await gates(rules=limited(9), clock=clock)
    await gate.app.live.mode_desk.set(
        GateMode.CLOSED, by="ops", reason="x", at=clock.unix_s, expires_at=clock.unix_s + 60
    )
    assert await status(gate) == 503
    clock.advance(61)
    await has_mode(gate, GateMode.ENFORCE)
    assert await status(gate) == 200


async def test_a_restart_keeps_mode_and_rules(gates: Gates, tmp_path: Path) -> None:
    """A gate that comes back with its old files serves what was activated, in the mode set."""
    first, second = await fleet(gates, tmp_path)
    new = limited(77)
    await first.app.live.rule_desk.activate({"rules.yaml": new}, by="ops", at=time.time())
    await first.app.live.mode_desk.set(
        GateMode.OBSERVE, by="ops", reason="new rules", at=time.time()
    )
    await serves(second, revision_of(new))
    await first.stop()
    (again,) = await fleet(gates, tmp_path, size=1)
    snapshot = again.app.gate.snapshot
    assert (snapshot.rules.revision, snapshot.mode) == (revision_of(new), GateMode.OBSERVE)
    await second.cli("rules", "rollback")
    for gate in (second, again):
        await serves(gate, revision_of(limited(1000)))


async def test_h36_the_files_of_a_gate_in_kubernetes(gates: Gates, tmp_path: Path) -> None:
    """A ConfigMap's swapped link is a change like any other."""
    folder = tmp_path / "mounted"
    for number in (1, 2):
        write_rules_in(folder / f"..v{number}", limited(number * 100))
    (folder / "..data").symlink_to("..v1")
    (folder / "rules.yaml").symlink_to("..data/rules.yaml")
    gate = await gates(rules=folder)
    (folder / "..tmp").symlink_to("..v2")
    (folder / "..tmp").rename(folder / "..data")
    await serves(gate, revision_of(limited(200)))


def write_rules_in(folder: Path, text: str) -> None:
    """Write rules into a folder that may have to be made, with those above."""
    folder.mkdir(parents=True)
    (folder / "rules.yaml").write_text(text)


@pytest.mark.parametrize("word", ["observe", "bypass", "closed"])
async def test_an_embargo_holds_through_mode_and_reload(gates: Gates, word: str) -> None:
    """Whatever is set and reloaded, calls from an embargoed country stay refused."""
    gate = await gates(rules=limited(50))
    await gate.app.live.mode_desk.set(GateMode(word), by="ops", reason="x", at=time.time())
    for per_hour in (51, 52):
        write_rules(gate.settings.rules_dir, limited(per_hour))
        gate.app.live.reload()
        while gate.app.gate.snapshot.rules.revision != revision_of(limited(per_hour)):
            assert await status(gate, CUBA) == 451
        assert gate.app.gate.snapshot.mode is GateMode(word)
    assert gate.upstream.book == []
