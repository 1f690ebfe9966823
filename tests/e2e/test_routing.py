"""Which upstream a call goes to, and what happens when one is ill, or a part of the gate is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.gates import SOON_S, Clock
from support.wire import ASK, RawUpstream, ask, request, until, wired

from gatekeeper.settings import Deadlines, DecisionLog, Health

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.gates import Gates
    from support.wire import Wired


@pytest.fixture
async def raws() -> AsyncIterator[list[RawUpstream]]:
    """Return three running upstreams."""
    started = [await RawUpstream().start() for _ in range(3)]
    yield started
    for raw in started:
        await raw.stop()


def model(name: str) -> bytes:
    """Return a chat request for a model."""
    return ask(body=ASK.replace(b"demo-small", name.encode()))


def upstream(name: str, *raws: RawUpstream, **fields: object) -> dict[str, object]:
    """Return the settings of an upstream."""
    return {"name": name, "urls": tuple(raw.url for raw in raws), **fields}


async def test_models_and_paths_choose_the_upstream(gates: Gates, raws: list[RawUpstream]) -> None:
    """The first upstream whose path and model match is used; others see nothing."""
    table = (
        upstream("small", raws[0], models=("demo-s*",), paths=("/v1",)),
        upstream("large", raws[1], models=("demo-large", "big/*"), paths=("/v1",)),
        upstream("files", raws[2], paths=("/v1/files", "/assets")),
    )
    async with wired(gates, raws[0], upstreams=table) as w:
        expected = {
            model("demo-small"): 0,
            model("demo-large"): 1,
            model("big/one"): 1,
            request("GET", "/assets/logo"): 2,
            request("GET", "/v1/other"): 0,  # no model: by path alone, in order
        }
        for data, index in expected.items():
            before = [len(raw.book) for raw in raws]
            assert (await w.ask(data)).status == 200
            after = [len(raw.book) for raw in raws]
            before[index] += 1
            assert after == before, data
        for data, code in (
            (model("DEMO-small"), b"model_not_served"),
            (model("unknown"), b"model_not_served"),
            (request("GET", "/v2/models"), b"route_not_served"),
            (request("GET", "/assetsandmore"), b"route_not_served"),
        ):
            answer = await w.ask(data)
            assert answer.status == 404
            assert code in answer.body


async def test_credentials_are_swapped_in(
    gates: Gates, raws: list[RawUpstream], tmp_path: Path
) -> None:
    """The upstream sees its own credential and nothing of the caller's."""
    (tmp_path / "key").write_text("upstream-secret\n")
    table = (
        upstream("a", raws[0], paths=("/a",), credential={"file": tmp_path / "key"}),
        upstream(
            "b", raws[1], paths=("/b",), credential={"env": "KEY"}, credential_header="x-api-key"
        ),
        upstream("c", raws[2]),
    )
    async with wired(gates, raws[0], upstreams=table, environ={"KEY": "from-env"}) as w:
        for path in ("/a/x", "/b/x", "/c/x"):
            assert (await w.ask(request("GET", path, "api-key: sk-one"))).status == 200
        sent = [
            [each for each in raw.book[0].head.fields if each[0].lower() in CREDENTIALS]
            for raw in raws
        ]
        assert sent == [
            [("authorization", "Bearer upstream-secret")],
            [("x-api-key", "from-env")],
            [("Authorization", "Bearer sk-one"), ("api-key", "sk-one")],
        ]


CREDENTIALS = {"authorization", "x-api-key", "api-key"}


async def test_a_dead_url_is_left_out(gates: Gates, raws: list[RawUpstream]) -> None:
    """After the first failures every call succeeds; the dead URL is tried again after its rest."""
    clock = Clock()
    health = Health(failures=2, retry_after_s=60)
    table = (upstream("pair", raws[0], raws[1]),)
    async with wired(gates, raws[0], upstreams=table, health=health, clock=clock) as w:
        await raws[1].stop()
        statuses = [(await w.ask(ask())).status for _ in range(20)]
        assert sorted(statuses) == [200] * 18 + [502] * 2
        assert statuses[4:] == [200] * 16
        assert w.count("gatekeeper_upstream_failures", "pair", "upstream_unreachable") == 2
        await raws[1].start()
        clock.advance(61)
        statuses = [(await w.ask(ask())).status for _ in range(6)]
        assert statuses == [200] * 6
        assert len(raws[1].book) == 3


async def test_the_last_url_is_tried_however_ill(gates: Gates, raws: list[RawUpstream]) -> None:
    """With every URL resting the least bad one is tried: calls succeed as soon as it is back."""
    health = Health(failures=1, retry_after_s=60)
    table = (upstream("pair", raws[0], raws[1]),)
    async with wired(gates, raws[0], upstreams=table, health=health, clock=Clock()) as w:
        await raws[0].stop()
        await raws[1].stop()
        for _ in range(4):
            assert (await w.ask(ask())).status == 502
        await raws[0].start()
        await raws[1].start()
        assert (await w.ask(ask())).status == 200


async def test_an_upstream_that_does_not_accept_counts_as_dead(
    gates: Gates, raws: list[RawUpstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that does not come about in time is 502 and counts against the URL."""
    deadlines = Deadlines(connect_s=0.1)
    async with wired(gates, raws[0], deadlines=deadlines) as w:
        caller = await w.caller()

        async def never(*_: Any, **__: Any) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", never)
        answer = await caller.ask(ask())
        assert answer.status == 502
        assert w.gate.app.gate._parts.delivery.routes.routes[0].endpoints[0].failures == 1


async def test_a_refused_connection_costs_nothing(gates: Gates) -> None:
    """A call that never reached its upstream is 502, charged nothing, and its slot is free."""
    rules = """
limits:
  - {id: slot, description: S., unit: concurrency, per: [account], slots: 1, lease: 1 hour}
  - {id: two, description: T., unit: requests, per: [account], rate: 2/hour, burst: 2}
"""
    async with wired(gates, rules=rules) as w:
        await w.upstream.stop()
        for _ in range(4):
            answer = await w.ask(ask())
            assert answer.status == 502
            outcome = await w.outcome(answer.head)
            assert outcome["failure"] == "upstream_unreachable"
            assert outcome["usage"]["input_tokens"] == 0
        await w.upstream.start()
        assert [(await w.ask(ask())).status for _ in range(3)] == [200, 200, 429]


async def probe(w: Wired, path: str) -> tuple[int, str]:
    """Ask the listener of probes."""
    url = f"http://127.0.0.1:{w.gate.app.ops_port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def test_probes_and_metrics(gates: Gates) -> None:
    """Health, readiness and metrics that a Prometheus parser reads, and nothing of callers."""
    async with wired(gates) as w:
        assert await probe(w, "/healthz") == (200, "ok\n")
        assert await probe(w, "/readyz") == (200, "ready\n")
        assert (await probe(w, "/other"))[0] == 404
        await w.ask(ask("User-Agent: evil/1", "X-Forwarded-For: 8.8.8.8"))
        await w.ask(ask(key=None))
        await w.ask(b"evil\r\n\r\n")
        status, text = await probe(w, "/metrics")
        assert status == 200
        families = {family.name: family for family in text_string_to_metric_families(text)}
        verdicts = {
            sample.labels["verdict"]: sample.value
            for sample in families["gatekeeper_decisions"].samples
        }
        assert verdicts == {"allow": 1, "unauthenticated": 1}
        (answers,) = families["gatekeeper_answers"].samples
        assert answers.labels == {"upstream": "demo", "status": "2xx", "ending": "complete"}
        count = next(
            sample.value
            for sample in families["gatekeeper_decision_seconds"].samples
            if sample.name.endswith("_count")
        )
        assert count == 2
        assert "evil" not in text
        assert "8.8.8.8" not in text
        assert "sk-one" not in text


async def test_callers_cannot_reach_the_probes(gates: Gates) -> None:
    """Probes and metrics have a listener of their own; here their paths are calls like any."""
    async with wired(gates) as w:
        for path in ("/metrics", "/healthz", "/readyz"):
            assert (await w.ask(request("GET", path, key=None))).status == 401


def full_disk(tmp_path: Path, on_failure: str) -> DecisionLog:
    """Return a decision log that cannot be written: a file stands where its folder should be."""
    (tmp_path / "blocked").write_text("")
    return DecisionLog.model_validate(
        {"directory": tmp_path / "blocked" / "decisions", "on_failure": on_failure}
    )


async def test_h38_no_record_no_call(gates: Gates, tmp_path: Path) -> None:
    """With `refuse`, a log that cannot be written stops calls with 503 and readiness is red."""
    rules = """
limits:
  - {id: slot, description: S., unit: concurrency, per: [account], slots: 1, lease: 1 hour}
"""
    log = full_disk(tmp_path, "refuse")
    async with wired(gates, rules=rules, decision_log=log) as w:
        await until(lambda: not w.gate.app.gate._parts.log.accepting)
        for _ in range(2):
            answer = await w.ask(ask())
            assert answer.status == 503
            assert answer.head.one("x-should-retry") == "true"
        assert (await w.ask(ask(key=None))).status == 401
        assert w.upstream.connections == 0
        assert await probe(w, "/readyz") == (503, "decision_log\n")
        assert (await probe(w, "/healthz"))[0] == 200
        (tmp_path / "blocked").unlink()
        await until(lambda: w.gate.app.gate._parts.log.accepting)
        assert (await w.ask(ask())).status == 200
        assert await probe(w, "/readyz") == (200, "ready\n")


async def test_h38_spooling_goes_on(gates: Gates, tmp_path: Path) -> None:
    """With `spool` calls go on, and what was kept in memory is written when the disk is back."""
    log = full_disk(tmp_path, "spool")
    async with wired(gates, decision_log=log) as w:
        answers = [await w.ask(ask()) for _ in range(5)]
        assert [answer.status for answer in answers] == [200] * 5
        assert (await probe(w, "/readyz"))[0] == 200
        await until(lambda: w.gate.app.gate._parts.log.failed > 0)
        (tmp_path / "blocked").unlink()
        for answer in answers:
            assert (await w.outcome(answer.head))["ending"] == "complete"


async def test_three_books_agree(gates: Gates) -> None:
    """Every answer has one record, every call upstream an allowing one, no refused call goes up."""
    rules = """
limits:
  - {id: few, description: F., unit: requests, per: [account], rate: 10/hour, burst: 10}
"""
    async with wired(gates, rules=rules) as w:

        async def one(number: int) -> tuple[int, str]:
            answer = await w.ask(ask(f"X-Client-Id: {number}"))
            return answer.status, answer.head.one("gatekeeper-decision") or ""

        async with asyncio.timeout(SOON_S):
            seen = dict(enumerate(await asyncio.gather(*map(one, range(40)))))
        await w.gate.stop()
        book = w.gate.book()
        decisions = [each for each in book if each["kind"] == "decision"]
        assert sorted(each["id"] for each in decisions) == sorted(each[1] for each in seen.values())
        allowed = {each["id"] for each in decisions if each["verdict"] == "allow"}
        upstream_ids = {int(each.head.one("x-client-id") or "-1") for each in w.upstream.book}
        assert upstream_ids == {number for number, (_, each) in seen.items() if each in allowed}
        assert upstream_ids == {number for number, (status, _) in seen.items() if status == 200}
        assert len(upstream_ids) == 10
        outcomes = [each["id"] for each in book if each["kind"] == "outcome"]
        assert sorted(outcomes) == sorted(allowed)
