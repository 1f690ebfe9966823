"""Traces end to end: a real gate, a real upstream, and a collector that speaks OTLP over HTTP."""

from __future__ import annotations

import asyncio
import builtins
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.gates import SOON_S, rules_text

from gatekeeper.settings import Settings
from gatekeeper.sources import StartError, tracing_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opentelemetry.proto.trace.v1.trace_pb2 import Span
    from support.gates import Gates, RunningGate

CHAT = "/v1/chat/completions"
BODY = {"model": "demo-small", "messages": [{"role": "user", "content": "a secret plan"}]}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
UNSAMPLED = PARENT[:-1] + "0"
WRITTEN = ("secret", "plan", "demo-small", "acme", "127.0.0.1", "7.7.7.7", "chat/completions")


@dataclass
class Collector:
    """Keeps every span it is sent."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    resources: list[dict[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    silent: asyncio.Event | None = None

    async def take(self, request: web.Request) -> web.Response:
        """Decode one export."""
        if self.silent is not None:
            await self.silent.wait()
        message = ExportTraceServiceRequest.FromString(await request.read())
        self.headers.append(dict(request.headers))
        for each in message.resource_spans:
            named = {a.key: a.value.string_value for a in each.resource.attributes}
            self.resources.append(named)
            self.spans += [span for scope in each.scope_spans for span in scope.spans]
        return web.Response(content_type="application/x-protobuf")


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Run a collector."""
    collector = Collector()
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    try:
        yield collector
    finally:
        await runner.cleanup()


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    """Run a collector for one test."""
    async with collecting() as found:
        yield found


def tracing(collector: Collector, **more: object) -> dict[str, Any]:
    """Return settings that send everything to the collector."""
    return {"tracing": {"endpoint": collector.url, "sample_ratio": 1.0, **more}}


async def spans_of(gate: RunningGate, collector: Collector) -> dict[str, Span]:
    """Stop the gate, which sends what waits, and return its spans by name."""
    await gate.stop()
    return {span.name: span for span in collector.spans}


def attributes(span: Span) -> dict[str, Any]:
    """Return the attributes of a span as values."""
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes
    }


async def test_a_call_is_four_spans(collector: Collector, gates: Gates) -> None:
    """Server span; below it decide with reserve, and upstream, whose id the upstream received."""
    gate = await gates(rules=rules_text(), **tracing(collector, service_name="front"))
    async with gate.http.post(CHAT, json=BODY, headers=gate.headers()) as answer:
        assert answer.status == 200
        await answer.read()
    spans = await spans_of(gate, collector)
    (decision_id,) = {record["id"] for record in gate.book()}
    assert set(spans) == {"POST openai_chat", "decide", "reserve", "upstream"}
    call, decide = spans["POST openai_chat"], spans["decide"]
    assert call.parent_span_id == b""
    assert decide.parent_span_id == call.span_id
    assert spans["reserve"].parent_span_id == decide.span_id
    assert spans["upstream"].parent_span_id == call.span_id
    assert len({span.trace_id for span in spans.values()}) == 1
    assert call.start_time_unix_nano == decide.start_time_unix_nano
    assert decide.end_time_unix_nano <= spans["upstream"].start_time_unix_nano
    assert spans["upstream"].end_time_unix_nano <= call.end_time_unix_nano

    told = attributes(call)
    assert told["gatekeeper.decision.id"] == decision_id
    assert told["gatekeeper.verdict"] == "allow"
    assert told["gatekeeper.upstream"] == "demo"
    assert told["gatekeeper.ending"] == "complete"
    assert told["http.response.status_code"] == 200
    assert told["gen_ai.usage.output_tokens"] > 0
    (received,) = gate.upstream.book
    sent = f"00-{call.trace_id.hex()}-{spans['upstream'].span_id.hex()}-01"
    assert received.headers["traceparent"] == sent
    assert collector.resources[0]["service.name"] == "front"


async def test_a_look_at_limits_is_one_span(collector: Collector, gates: Gates) -> None:
    """Nothing was decided or reserved, and the span does not say whose limits they were."""
    gate = await gates(rules=rules_text(), **tracing(collector))
    async with gate.http.get("/gatekeeper/v1/limits", headers=gate.headers()) as answer:
        assert answer.status == 200
    spans = await spans_of(gate, collector)
    assert set(spans) == {"call"}
    assert attributes(spans["call"]) == {"http.response.status_code": 200}


async def test_a_refusal_is_traced_with_its_reason(collector: Collector, gates: Gates) -> None:
    """A refused call has no upstream span, and its span says why; 4xx is no error of ours."""
    gate = await gates(rules=rules_text(), **tracing(collector))
    async with gate.http.post(CHAT, json=BODY, headers={"x-api-key": "wrong"}) as answer:
        assert answer.status == 401
    spans = await spans_of(gate, collector)
    assert set(spans) == {"POST openai_chat", "decide"}
    told = attributes(spans["POST openai_chat"])
    assert told["gatekeeper.verdict"] == "unauthenticated"
    assert told["gatekeeper.reason"] == answer.headers.get(
        "x-gatekeeper-reason", told["gatekeeper.reason"]
    )
    assert told["http.response.status_code"] == 401
    assert spans["POST openai_chat"].status.code == 0


async def test_an_upstream_that_is_gone_is_an_error(collector: Collector, gates: Gates) -> None:
    """The upstream span names the failure, the call's its status."""
    gate = await gates(rules=rules_text(), **tracing(collector))
    await gate.upstream.stop()
    async with gate.http.post(CHAT, json=BODY, headers=gate.headers()) as answer:
        assert answer.status == 502
    spans = await spans_of(gate, collector)
    assert attributes(spans["upstream"])["error.type"] == "upstream_unreachable"
    assert attributes(spans["POST openai_chat"])["error.type"] == "502"
    assert spans["POST openai_chat"].status.code == 2


async def test_nothing_that_a_caller_wrote_is_in_a_trace(
    collector: Collector, gates: Gates
) -> None:
    """No address, account, key, prompt, model or path, in no attribute and no name."""
    gate = await gates(rules=rules_text(), **tracing(collector))
    headers = gate.headers(x_forwarded_for="7.7.7.7", user_agent="secret/1", tracestate="secret=1")
    async with gate.http.post(CHAT, json=BODY, headers=headers) as answer:
        assert answer.status == 200
    await spans_of(gate, collector)
    text = str(collector.spans).replace('string_value: "127.0.0.1"', "", 1)  # the upstream's own
    assert len(collector.spans) == 4
    assert [word for word in WRITTEN if word in text] == []


async def test_a_trusted_proxy_says_which_trace_a_call_belongs_to(
    collector: Collector, gates: Gates
) -> None:
    """Its traceparent becomes the parent, and its tracestate goes on."""
    gate = await gates(rules=rules_text(), **tracing(collector, sample_ratio=0.0))
    headers = gate.headers(traceparent=PARENT, tracestate="rojo=1")
    async with gate.http.post(CHAT, json=BODY, headers=headers) as answer:
        assert answer.status == 200
    spans = await spans_of(gate, collector)
    assert spans["POST openai_chat"].trace_id.hex() == TRACE
    assert spans["POST openai_chat"].parent_span_id.hex() == PARENT.split("-")[2]
    (received,) = gate.upstream.book
    assert received.headers["traceparent"].split("-")[1] == TRACE
    assert received.headers["tracestate"] == "rojo=1"


async def test_a_parent_that_was_not_sampled_is_not_sampled(
    collector: Collector, gates: Gates
) -> None:
    """The call goes on with the headers it came with."""
    gate = await gates(rules=rules_text(), **tracing(collector))
    headers = gate.headers(traceparent=UNSAMPLED)
    async with gate.http.post(CHAT, json=BODY, headers=headers) as answer:
        assert answer.status == 200
    assert await spans_of(gate, collector) == {}
    assert gate.upstream.book[0].headers["traceparent"] == UNSAMPLED


@pytest.mark.parametrize(("follow", "joined"), [("trusted_proxies", False), ("everyone", True)])
async def test_a_stranger_joins_no_trace_unless_told(
    collector: Collector, gates: Gates, follow: str, joined: bool
) -> None:
    """Who is no trusted proxy decides neither what is sampled nor where it belongs."""
    gate = await gates(
        rules=rules_text(),
        listener={"trusted_proxies": ()},
        **tracing(collector, follow_parents=follow),
    )
    headers = gate.headers(traceparent=PARENT, tracestate="rojo=1")
    async with gate.http.post(CHAT, json=BODY, headers=headers) as answer:
        assert answer.status == 200
    spans = await spans_of(gate, collector)
    assert (spans["POST openai_chat"].trace_id.hex() == TRACE) is joined
    assert ("tracestate" in gate.upstream.book[0].headers) is joined


async def test_a_ratio_of_zero_samples_nothing(collector: Collector, gates: Gates) -> None:
    """Sampled out, a call is forwarded with no header of ours."""
    gate = await gates(rules=rules_text(), **tracing(collector, sample_ratio=0.0))
    async with gate.http.post(CHAT, json=BODY, headers=gate.headers()) as answer:
        assert answer.status == 200
    assert await spans_of(gate, collector) == {}
    assert "traceparent" not in gate.upstream.book[0].headers


async def test_the_collector_is_told_the_secret_header(collector: Collector, gates: Gates) -> None:
    """Its API key comes from the environment or a file."""
    header = {"name": "x-collector-key", "value": {"env": "COLLECTOR_KEY"}}
    gate = await gates(
        rules=rules_text(),
        environ={"COLLECTOR_KEY": "hunter2"},
        **tracing(collector, headers=[header]),
    )
    async with gate.http.post(CHAT, json=BODY, headers=gate.headers()) as answer:
        assert answer.status == 200
    await spans_of(gate, collector)
    assert collector.headers[0]["x-collector-key"] == "hunter2"


async def test_a_collector_that_is_silent_holds_no_call(collector: Collector, gates: Gates) -> None:
    """Calls are answered while the exporter waits; spans are given up, and the gate stops."""
    collector.silent = asyncio.Event()
    gate = await gates(rules=rules_text(), **tracing(collector))
    tracer = gate.app.gate._parts.tracing
    assert tracer is not None
    for _ in range(2_000):  # several batches, each of which would wait for its own deadline
        tracer._begin(None).span.end()
    for _ in range(5):
        async with gate.http.post(CHAT, json=BODY, headers=gate.headers()) as answer:
            assert answer.status == 200
    async with asyncio.timeout(SOON_S):
        await gate.stop()
    assert collector.spans == []
    collector.silent.set()


def test_without_the_extra_the_gate_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configured traces without the packages are a mistake at start, not silence."""
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.delitem(sys.modules, "gatekeeper.tracing", raising=False)
    settings = Settings.model_validate({"tracing": {"endpoint": "http://127.0.0.1:4318/v1/traces"}})
    with pytest.raises(StartError, match=r"pip install 'gatekeeper\[tracing\]'"):
        tracing_of(settings, {})


def test_without_an_endpoint_nothing_is_loaded() -> None:
    """The packages of the extra are imported only where traces are configured."""
    assert tracing_of(Settings(), {}) is None
