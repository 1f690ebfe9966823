"""Limits through the real path: burst, refill, settling to what is reported, side doors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import openai
import pytest
from aiohttp import web
from support.gates import Clock, eventually, rules_text

from gatekeeper.demo import DemoSettings

if TYPE_CHECKING:
    from support.gates import Gates, RunningGate

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
CALL: Any = {"model": "demo-small", "messages": HELLO, "max_tokens": 100}

REQUESTS = """
limits:
  - {id: requests, description: R., unit: requests, per: [account], rate: 60/minute, burst: 3}
"""
TOKENS = """
limits:
  - {id: input, description: I., unit: input_tokens, per: [account], rate: 5000/month}
  - {id: output, description: O., unit: output_tokens, per: [account], rate: 1000/month}
  - {id: cost, description: C., unit: cost, per: [account], rate: 100/month}
"""
SLOTS = """
limits:
  - {id: slots, description: S., unit: concurrency, per: [account], slots: 2, lease: 1 minute}
"""


def left(headers: Any, quota: str) -> int:
    """Return how much of a quota the RateLimit header says is left."""
    found = re.search(rf'"{quota}";r=(\d+)', headers["ratelimit"])
    assert found is not None, headers["ratelimit"]
    return int(found[1])


async def test_burst_then_refill(gates: Gates) -> None:
    """The burst passes, then 429 with the wait; a token flows back each second, and no more."""
    clock = Clock()
    gate = await gates(rules=rules_text(REQUESTS), clock=clock)
    client = gate.openai()
    seen = [await client.models.with_raw_response.list() for _ in range(3)]
    assert [left(each.headers, "requests") for each in seen] == [2, 1, 0]
    assert seen[0].headers["ratelimit-policy"] == '"requests";q=60;w=60'
    with pytest.raises(openai.RateLimitError) as raised:
        await client.models.list()
    assert raised.value.response.headers["retry-after"] == "1"
    assert raised.value.response.headers["ratelimit"] == '"requests";r=0;t=1'
    clock.advance(2)
    for _ in range(2):
        await client.models.list()
    with pytest.raises(openai.RateLimitError):
        await client.models.list()


async def test_accounts_do_not_share(gates: Gates) -> None:
    """One account at its limit leaves another's alone."""
    gate = await gates(rules=rules_text(REQUESTS), clock=Clock(), accounts={"one": {}, "two": {}})
    for _ in range(3):
        await gate.openai("one").models.list()
    with pytest.raises(openai.RateLimitError):
        await gate.openai("one").models.list()
    await gate.openai("two").models.list()


@pytest.mark.parametrize("stream", [False, True])
async def test_settled_to_what_the_upstream_reports(gates: Gates, stream: bool) -> None:
    """Held is the worst case; the next answer and the outcome show what was really used."""
    gate = await gates(rules=rules_text(TOKENS), clock=Clock())
    client = gate.openai()
    more: Any = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    first = await client.chat.completions.with_raw_response.create(**CALL, **more)
    held_input = 5000 - left(first.headers, "input-tokens")
    assert left(first.headers, "output-tokens") == 900  # the worst case is held
    usage = None
    if stream:
        parsed: Any = first.parse()
        async for chunk in parsed:
            usage = chunk.usage or usage
    else:
        usage = first.parse().usage
    assert usage is not None
    assert 0 < usage.completion_tokens < 100
    outcome = await gate.outcome(first.headers["gatekeeper-decision"])
    assert outcome["usage"] == {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "cost_cents": pytest.approx(
            (usage.prompt_tokens * 100 + usage.completion_tokens * 400) / 1_000_000
        ),
        "estimated": False,
        "bytes": outcome["usage"]["bytes"],
        "parts": {},
    }
    assert outcome["usage"]["bytes"] > outcome["bytes_sent"] > 0
    assert (outcome["status"], outcome["ending"], outcome["upstream"]) == (200, "complete", "demo")
    second = await client.chat.completions.with_raw_response.create(**CALL)
    spent = 1000 - usage.completion_tokens - 100
    assert left(second.headers, "output-tokens") == spent
    assert left(second.headers, "input-tokens") == 5000 - usage.prompt_tokens - held_input


async def test_settled_anthropic_stream(gates: Gates) -> None:
    """The usage of a streamed message is read from its events."""
    gate = await gates(rules=rules_text(TOKENS), clock=Clock())
    async with gate.anthropic().messages.stream(
        model="demo-small", messages=HELLO, max_tokens=100
    ) as stream:
        message = await stream.get_final_message()
        decision_id = stream.response.headers["gatekeeper-decision"]
    usage = (await gate.outcome(decision_id))["usage"]
    assert usage["input_tokens"] == message.usage.input_tokens
    assert usage["output_tokens"] == message.usage.output_tokens
    assert not usage["estimated"]


async def test_a_stream_without_usage_is_estimated(gates: Gates) -> None:
    """Where the upstream reports nothing, what was delivered is estimated and marked so."""
    gate = await gates(rules=rules_text(TOKENS), clock=Clock(), upstream={"stream_usage": "leave"})
    answer = await gate.openai().chat.completions.with_raw_response.create(**CALL, stream=True)
    parsed: Any = answer.parse()
    async for _ in parsed:
        pass
    usage = (await gate.outcome(answer.headers["gatekeeper-decision"]))["usage"]
    assert usage["estimated"]
    assert 0 < usage["output_tokens"] <= 100


async def test_errors_of_the_upstream_cost_no_output(gates: Gates) -> None:
    """After a 500, and after an upstream that is gone, the whole output quota is there again."""
    gate = await gates(rules=rules_text(TOKENS), clock=Clock())
    client = gate.openai()

    async def fail(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "boom"}}, status=500)

    gate.upstream.answer = fail
    for _ in range(2):
        with pytest.raises(openai.InternalServerError) as raised:
            await client.chat.completions.create(**CALL)
        assert left(raised.value.response.headers, "output-tokens") == 900
    outcome = await gate.outcome(raised.value.response.headers["gatekeeper-decision"])
    assert outcome["usage"]["output_tokens"] == 0
    assert outcome["status"] == 500
    await gate.upstream.stop()
    for _ in range(2):
        with pytest.raises(openai.InternalServerError, match="cannot be reached") as raised:
            await client.chat.completions.create(**CALL)
        assert left(raised.value.response.headers, "output-tokens") == 900
    outcome = await gate.outcome(raised.value.response.headers["gatekeeper-decision"])
    assert (outcome["failure"], outcome["status"]) == ("upstream_unreachable", None)


async def test_slots_come_back(gates: Gates) -> None:
    """Two streams hold both slots; the third call is refused until one of them ends."""
    gate = await gates(
        rules=rules_text(SLOTS), clock=Clock(), demo=DemoSettings(first_token_s=60.0)
    )
    client = gate.openai()
    streams: list[Any] = [
        await client.chat.completions.create(**CALL, stream=True) for _ in range(2)
    ]
    with pytest.raises(openai.RateLimitError) as raised:
        await client.chat.completions.create(**CALL, stream=True)
    assert raised.value.code == "concurrency_limit_exceeded"
    await streams[0].close()

    async def served() -> bool:
        return (await send(gate, "GET", "/v1/models"))[0] == 200

    await eventually(served)
    await streams[1].close()


# --- side doors (H26) ---


async def send(gate: RunningGate, method: str, path: str, **headers: str) -> tuple[int, str]:
    """Send a call without a body; return its status and decision id."""
    async with gate.http.request(method, path, headers=gate.headers(**headers)) as answer:
        await answer.read()
        return answer.status, answer.headers.get("gatekeeper-decision", "")


ROUTES = (
    ("GET", "/v1/models"),
    ("HEAD", "/v1/models"),
    ("GET", "/v1/chat/completions"),
    ("DELETE", "/v1/files/file-1"),
    ("GET", "/v1/messages/batches"),
    ("OPTIONS", "/v1/chat/completions"),
    ("POST", "/v1/evals"),
    ("PUT", "/anything?at=all"),
    ("PATCH", "/"),
)
KNOWN = 5
"""How many of them belong to a family."""


async def test_h26_every_route_that_reaches_the_upstream_is_metered(gates: Gates) -> None:
    """Unknown paths and methods count against the request limit and leave an allowing record."""
    many = REQUESTS.replace("burst: 3", f"burst: {len(ROUTES)}")
    gate = await gates(rules=rules_text(many), clock=Clock())
    for number, (method, path) in enumerate(ROUTES):
        status, decision_id = await send(gate, method, path, x_client_id=str(number))
        assert status < 429, (method, path)
        record = await gate.decision(decision_id)
        assert record["verdict"] == "allow"
        assert (await gate.outcome(decision_id))["status"] == status
    for method, path in ROUTES:
        assert (await send(gate, method, path))[0] == 429, (method, path)
    assert [each.client_id for each in gate.upstream.book] == [str(n) for n in range(len(ROUTES))]


async def test_h26_unknown_routes_can_be_shut(gates: Gates) -> None:
    """With `plain_http: refuse` only routes whose cost is understood are served; others are 404."""
    gate = await gates(rules=rules_text(), plain_http="refuse")
    seen = [(await send(gate, *route))[0] for route in ROUTES]
    assert seen[KNOWN:] == [404] * len(ROUTES[KNOWN:])
    assert [(each.method, each.target) for each in gate.upstream.book] == list(ROUTES[:KNOWN])


async def test_h26_the_gates_own_paths_never_reach_the_upstream(gates: Gates) -> None:
    """Nothing under /gatekeeper/ is forwarded, not even what does not exist."""
    gate = await gates(rules=rules_text())
    assert (await send(gate, "GET", "/gatekeeper/v1/verify/forged"))[0] == 410
    assert (await send(gate, "POST", "/gatekeeper/v2/anything"))[0] == 404
    assert gate.upstream.book == []


async def test_h26_preflights_are_answered_here_by_setting(gates: Gates) -> None:
    """An allowed origin gets its answer here; any other preflight is a call like every other."""
    gate = await gates(rules=rules_text(), cors={"allow_origins": ("https://app.example",)})
    asked = {"access-control-request-method": "POST", "origin": "https://app.example"}
    async with gate.http.options("/v1/chat/completions", headers=asked) as answer:
        assert answer.status == 204
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert "authorization" in answer.headers["access-control-allow-headers"]
    for other in ({**asked, "origin": "https://evil.example"}, {"origin": asked["origin"]}):
        async with gate.http.options("/v1/chat/completions", headers=other) as answer:
            assert answer.status == 401
    origin = asked["origin"]
    async with gate.http.get("/v1/models", headers=gate.headers(origin=origin)) as answer:
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == origin
        assert "Gatekeeper-Decision" in answer.headers["access-control-expose-headers"]
    assert [each.method for each in gate.upstream.book] == ["GET"]
