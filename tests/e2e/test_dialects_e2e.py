"""Text families end to end: what reaches the upstream, and what is charged for it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from support.asks import data
from support.gates import Clock, rules_text

if TYPE_CHECKING:
    from support.gates import Gates, RunningGate

TOKENS = """
limits:
  - {id: output, description: O., unit: output_tokens, per: [account], rate: 100000/month}
"""
SMALL = """
limits:
  - {id: output, description: O., unit: output_tokens, per: [account], rate: 300/month}
"""
CONTROLS = (
    ("POST", "/sleep"),
    ("POST", "/v1/load_lora_adapter"),
    ("POST", "/collective_rpc"),
    ("GET", "/slots"),
    ("POST", "/slots/1?action=erase"),
    ("POST", "/props"),
    ("DELETE", "/v1/models/ft:mine"),
    ("GET", "/v1/organization/costs"),
)


async def ask(gate: RunningGate, path: str, **body: Any) -> dict[str, Any]:
    """Send a body; return how the call ended."""
    headers = gate.headers()
    async with gate.http.post(path, json={"model": "m", **body}, headers=headers) as answer:
        await answer.read()
        return await gate.outcome(answer.headers["Gatekeeper-Decision"])


def answering(gate: RunningGate, value: Any) -> None:
    """Let the upstream answer this."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(value)

    gate.upstream.answer = answer


def last_body(gate: RunningGate) -> Any:
    """Return what the upstream got last."""
    return json.loads(gate.upstream.book[-1].body)


async def test_h26_controls_do_not_reach_a_model_server(gates: Gates) -> None:
    """By default nobody but the operator steers it."""
    gate = await gates(rules=rules_text())
    for method, path in CONTROLS:
        async with gate.http.request(method, path, headers=gate.headers()) as answer:
            assert answer.status == 404, path
            assert "error" in await answer.json()
    assert gate.upstream.book == []


async def test_h26_controls_can_be_let_through(gates: Gates) -> None:
    """Then they count as any other request does."""
    limit = "limits:\n  - {id: r, description: R., unit: requests, per: [account], rate: 8/month}"
    gate = await gates(rules=rules_text(limit), control_routes="meter")
    for _ in range(2):
        for method, path in CONTROLS:
            async with gate.http.request(method, path, headers=gate.headers()) as answer:
                await answer.read()
    assert [(each.method, each.target) for each in gate.upstream.book] == list(CONTROLS)
    assert answer.status == 429


@pytest.mark.parametrize("body", [{}, {"n_predict": -1}, {"max_tokens": -1, "n_predict": 5}])
async def test_h23_what_has_no_end_gets_one(gates: Gates, body: dict[str, Any]) -> None:
    """The bound that is held goes to the upstream, and the report is charged."""
    gate = await gates(rules=rules_text(TOKENS), clock=Clock())
    answering(gate, {"content": "x", "stop": True, "tokens_predicted": 7, "tokens_evaluated": 3})
    outcome = await ask(gate, "/completion", prompt="Hello", **body)
    bounds = {n: v for n, v in last_body(gate).items() if n in {"n_predict", "max_tokens"}}
    assert set(bounds.values()) <= {1000, 5}
    assert 1000 in bounds.values()
    usage = outcome["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["estimated"]) == (3, 7, False)


async def test_h23_a_lone_call_without_end_fits_a_small_limit(gates: Gates) -> None:
    """It is bound to what the limit can give."""
    gate = await gates(rules=rules_text(SMALL), clock=Clock())
    answering(gate, {"content": "x", "stop": True, "tokens_predicted": 7, "tokens_evaluated": 3})
    await ask(gate, "/completion", prompt=["a", "b", "c"])
    assert last_body(gate)["n_predict"] == 100


async def test_h23_a_bound_in_a_chat_reaches_the_upstream_by_its_name(gates: Gates) -> None:
    """Responses and completions have names of their own, whatever a chat's is called."""
    gate = await gates(
        rules=rules_text(SMALL), clock=Clock(), upstream={"chat_bound": "max_tokens"}
    )
    for path, field in (
        ("/v1/chat/completions", "max_tokens"),
        ("/v1/completions", "max_tokens"),
        ("/v1/responses", "max_output_tokens"),
    ):
        answering(gate, {"usage": {"prompt_tokens": 1, "completion_tokens": 0}})
        await ask(gate, path, prompt="x", input="x", messages=[])
        assert last_body(gate)[field] == 300


async def test_h23_work_in_the_background_is_charged_as_held(gates: Gates) -> None:
    """Unless it reports at once, as some servers do."""
    gate = await gates(rules=rules_text(TOKENS), clock=Clock())
    queued = {"object": "response", "status": "queued", "usage": None, "output": []}
    answering(gate, queued)
    body: dict[str, Any] = {"input": "Hello", "background": True, "max_output_tokens": 50}
    usage = (await ask(gate, "/v1/responses", **body))["usage"]
    assert (usage["output_tokens"], usage["estimated"]) == (50, True)
    answering(gate, {**queued, "usage": {"input_tokens": 3, "output_tokens": 4}})
    usage = (await ask(gate, "/v1/responses", **body))["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["estimated"]) == (3, 4, False)


async def test_h23_speech_that_breaks_off_is_charged_as_held(gates: Gates) -> None:
    """At the price of speech, and never above what was held."""
    rules = rules_text().replace(
        "output_cents_per_million: 400",
        "output_cents_per_million: 400, audio_output_cents_per_million: 8000",
    )
    gate = await gates(rules=rules)
    answering(gate, {"choices": [{"message": {"audio": {"data": "AAAA"}}}]})
    body = {"messages": [], "modalities": ["text", "audio"], "max_tokens": 100}
    outcome = await ask(gate, "/v1/chat/completions", **body)
    usage = outcome["usage"]
    assert usage["output_tokens"] == usage["parts"]["audio_output_tokens"] == 100
    decided = (await gate.decision(outcome["id"]))["facts"]["call"]["cost_cents"]
    assert usage["cost_cents"] == pytest.approx(decided)
    assert decided == pytest.approx(0.8, rel=0.05)


@pytest.mark.parametrize("asks", [True, False])
async def test_h25_a_stream_that_reports_as_it_goes_settles_exactly(
    gates: Gates, asks: bool
) -> None:
    """A caller that hangs up is charged what was reported last, and sees only what it asked for."""
    gate = await gates(rules=rules_text(TOKENS), upstream={"stream_usage": "continuous"})
    hung_up = asyncio.Event()

    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        choice = {"index": 0, "delta": {"content": "some words"}, "finish_reason": None}
        usage = {"prompt_tokens": 7, "completion_tokens": 11, "total_tokens": 18}
        await response.write(data({"choices": [choice], "usage": usage}))
        await hung_up.wait()
        return response

    gate.upstream.answer = half
    body: dict[str, Any] = {"model": "m", "messages": [], "stream": True}
    if asks:
        body["stream_options"] = {"include_usage": True}
    answer = await gate.http.post("/v1/chat/completions", json=body, headers=gate.headers())
    first = await answer.content.readuntil(b"\n\n")
    assert b"some words" in first
    assert b"usage" not in first
    answer.close()
    usage = (await gate.outcome(answer.headers["Gatekeeper-Decision"]))["usage"]
    hung_up.set()
    assert (usage["input_tokens"], usage["output_tokens"], usage["estimated"]) == (7, 11, False)
    assert last_body(gate)["stream_options"] == {
        "include_usage": True,
        "continuous_usage_stats": True,
    }


async def test_h24_stored_objects_and_counts_are_free_of_tokens(gates: Gates) -> None:
    """They are requests and bytes, and bodies that are no JSON pass as they are."""
    gate = await gates(rules=rules_text(TOKENS), plain_http="refuse", clock=Clock())
    for method, path in (
        ("GET", "/v1/chat/completions/chatcmpl-1"),
        ("POST", "/v1/chat/completions/chatcmpl-1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("POST", "/v1/conversations"),
        ("GET", "/v1/models"),
        ("GET", "/health"),
        ("POST", "/tokenize"),
    ):
        body = b'{"content":"x"}'
        async with gate.http.request(method, path, data=body, headers=gate.headers()) as answer:
            assert answer.status == 200, path
        outcome = await gate.outcome(answer.headers["Gatekeeper-Decision"])
        assert outcome["usage"]["input_tokens"] == outcome["usage"]["output_tokens"] == 0
        assert outcome["usage"]["bytes"] > 0


@pytest.mark.parametrize(
    "path",
    [
        "/openai/deployments/{}/chat/completions?api-version=1",
        "/engines/{}/chat/completions",
        "/v1/Engines/{}/chat/completions",
    ],
)
async def test_h26_a_deployment_in_the_path_is_the_model(gates: Gates, path: str) -> None:
    """An account that may use one model cannot reach another by naming the first."""
    gate = await gates(
        rules=rules_text(), accounts={"acme": {"tier": "restricted", "assurance": "ial2"}}
    )
    body = {"messages": [{"role": "user", "content": "Hello"}]}
    for deployment, named, status in (
        ("demo-small", {}, 200),
        ("demo-large", {}, 403),
        ("demo-large", {"model": "demo-small"}, 400),
        ("demo%2Dlarge", {"model": "demo-small"}, 400),
    ):
        url, headers = path.format(deployment), gate.headers()
        async with gate.http.post(url, json={**body, **named}, headers=headers) as answer:
            assert answer.status == status


async def test_h26_a_model_that_is_not_named_is_none_of_few(gates: Gates) -> None:
    """An account that may use one model cannot reach another by a prompt stored upstream."""
    accounts = {"acme": {}, "small": {"tier": "restricted", "assurance": "ial2"}}
    gate = await gates(rules=rules_text(), accounts=accounts)
    answering(gate, {"object": "response", "status": "completed"})
    for account, status in (("acme", 200), ("small", 403)):
        headers, body = gate.headers(account), {"prompt": {"id": "pmpt_big"}}
        async with gate.http.post("/v1/responses", json=body, headers=headers) as answer:
            assert answer.status == status
