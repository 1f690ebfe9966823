"""Shaping through a running gate: what the upstream is asked, what the caller gets."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest
from aiohttp import web
from support.gates import rules_text

from gatekeeper.dialects.base import AnswerPlan
from gatekeeper.dialects.shaping.chat import ChatShaper
from gatekeeper.policy.model import Shaping
from gatekeeper.policy.words import LogprobsChange
from gatekeeper.sources import master_secret
from gatekeeper.storage.secrets import derive

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from support.gates import Gates, RunningGate

FOLDER = Path(__file__).parents[1] / "data" / "shaping"
CHANGES = {
    "remove": "logprobs: remove",
    "round": "logprobs: round",
    "reasoning": "drop_reasoning: true",
}
PATHS = {
    "openai_chat": "/v1/chat/completions",
    "openai_completions": "/v1/completions",
    "openai_responses": "/v1/responses",
    "anthropic_messages": "/v1/messages",
    "llama_cpp": "/completion",
}
HELLO: list[Any] = [{"role": "user", "content": "Hello there, who are you?"}]
CHAT: Any = {"model": "demo-small", "messages": HELLO, "logprobs": True, "top_logprobs": 2}
MESSAGE: Any = {"model": "demo-small", "messages": HELLO, "max_tokens": 40}


async def shaping_gate(gates: Gates, *items: str, **more: Any) -> RunningGate:
    """Start a gate with rules of shaping that apply to every call."""
    lines = [f"  - {{id: s{n}, description: S., {item}}}\n" for n, item in enumerate(items)]
    return await gates(rules=rules_text("shaping:\n" + "".join(lines)), **more)


def saying(
    body: bytes, kind: str | None = None, **headers: str
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return an upstream that says ``body``, in pieces where it is a stream."""
    streamed = body[:1] not in b"[{"
    chosen = kind or ("text/event-stream" if streamed else "application/json")

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": chosen, **headers})
        await response.prepare(request)
        for start in range(0, len(body), 100):
            await response.write(body[start : start + 100])
        await response.write_eof()
        return response

    return answer


def said(case: str) -> bytes:
    """Return what the upstream says in a golden case."""
    return (FOLDER / f"{case}.in").read_bytes()


def wanted(case: str, change: str) -> bytes:
    """Return what a caller gets of a golden case."""
    path = FOLDER / f"{case}.{change}.out"
    return path.read_bytes() if path.exists() else said(case)


@pytest.mark.parametrize("change", CHANGES)
async def test_golden_answers_reach_the_caller(gates: Gates, change: str) -> None:
    """In every family, streamed and not, byte for byte, with headers that hold."""
    gate = await shaping_gate(gates, CHANGES[change])
    cases = [path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.in")]
    for case in sorted(cases):
        gate.upstream.answer = saying(said(case), ETag='"x"')
        asked = {**MESSAGE, "prompt": "x", "input": "x"}
        if streamed := said(case)[:1] != b"{":
            asked |= {"stream": True, "stream_options": {"include_usage": True}}
        path = PATHS[case.split("/")[0]]
        async with gate.http.post(path, json=asked, headers=gate.headers()) as answer:
            got = await answer.read()
            assert (answer.status, got) == (200, wanted(case, change)), case
            changes = "anthropic" not in case or change == "reasoning"
            assert ("ETag" in answer.headers) is not changes
            if changes and not streamed:
                assert answer.headers["content-length"] == str(len(got))
        outcome = await gate.outcome(answer.headers["gatekeeper-decision"])
        assert (outcome["ending"], outcome["bytes_sent"]) == ("complete", len(got))


async def test_a_decision_tells_what_was_shaped(gates: Gates) -> None:
    """The record, the outcome and ``explain`` say what was changed in call and answer."""
    gate = await shaping_gate(gates, "logprobs: round, max_output_tokens: 7", "max_choices: 2")
    async with gate.http.post(
        PATHS["openai_chat"], json={**CHAT, "n": 5}, headers=gate.headers()
    ) as answer:
        assert answer.status == 200
    decision_id = answer.headers["gatekeeper-decision"]
    decision = await gate.decision(decision_id)
    assert decision["shaping"] == {
        "rules": ["s0", "s1"],
        "logprobs": "round",
        "decimals": 1,
        "max_output_tokens": 7,
        "max_choices": 2,
    }
    assert decision["facts"]["call"]["choices"] == 5
    outcome = await gate.outcome(decision_id)
    assert (outcome["changes"]["max_output_tokens"], outcome["changes"]["max_choices"]) == (7, 2)
    told = (await gate.cli("explain", decision_id)).output
    assert "logprobs round decimals 1" in told
    assert "(by s0, s1)" in told


async def test_noise_replays_from_the_decision(gates: Gates) -> None:
    """The secret of the gate and the id of the decision give the same noise again."""
    gate = await shaping_gate(gates, "logprobs: noise, epsilon: 4")
    case = "openai_chat/stream"
    gate.upstream.answer = saying(said(case))
    key = derive(master_secret(gate.settings, {}), "noise")
    shaping = Shaping(logprobs=LogprobsChange.NOISE, decimals=1, epsilon=4.0)
    answers = set()
    asked = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    for _ in range(2):
        async with gate.http.post(
            PATHS["openai_chat"], json=asked, headers=gate.headers()
        ) as answer:
            got = await answer.read()
        answers.add(got)
        identity = answer.headers["gatekeeper-decision"].encode()
        seed = hashlib.blake2b(identity, key=key, digest_size=32).digest()
        shaper = ChatShaper(AnswerPlan(shaping=shaping, seed=seed))
        events = said(case).split(b"\n\n")[:-1]
        assert got == b"".join(shaper.event(event + b"\n\n") for event in events)
    assert len(answers) == 2
    assert said(case) not in answers


async def asked_of(gate: RunningGate, path: str, body: bytes) -> bytes:
    """Send ``body`` and return what the upstream was asked."""
    headers = gate.headers(content_type="application/json")
    async with gate.http.post(path, data=body, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
    received = gate.upstream.book[-1]
    assert received.headers["content-length"] == str(len(received.body))
    return received.body


async def test_bounds_are_lowered_in_place(gates: Gates) -> None:
    """The upstream gets the caller's body with other numbers, and no other byte changed."""
    gate = await shaping_gate(gates, "max_output_tokens: 9, max_choices: 2")
    body = (
        b'{ "model":"demo-small","messages" : [{"role":"user","content":"h\\u00e9 \\"n\\": 8"}],'
        b'"n":8,\n"max_tokens": 1000 , "x": {"max_tokens":5000}}'
    )
    got = await asked_of(gate, PATHS["openai_chat"], body)
    assert got == body.replace(b'"n":8', b'"n":2').replace(
        b'"max_tokens": 1000', b'"max_tokens": 9'
    )
    small = body.replace(b'"n":8', b'"n":2').replace(b"1000", b"8")
    assert await asked_of(gate, PATHS["openai_chat"], small) == small


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/chat/completions", b"max_completion_tokens"),
        ("/v1/completions", b"max_tokens"),
        ("/v1/responses", b"max_output_tokens"),
    ],
)
async def test_a_missing_bound_is_put_in(gates: Gates, path: str, field: bytes) -> None:
    """A call that names none gets one, in the word of its family."""
    gate = await shaping_gate(gates, "max_output_tokens: 9")
    gate.upstream.answer = saying(b"{}")
    body = b'{"model":"demo-small","messages":[],"prompt":"x","input":"x"}'
    assert await asked_of(gate, path, body) == body[:-1] + b',"%b":9}' % field


async def test_the_context_bounds_input_and_answer_together(gates: Gates) -> None:
    """What the input leaves is the bound on the answer; input that leaves nothing is refused."""
    gate = await shaping_gate(gates, "max_context_tokens: 200")
    short = json.loads(await asked_of(gate, PATHS["openai_chat"], json.dumps(CHAT).encode()))
    assert 150 < short.pop("max_completion_tokens") < 200
    assert short == CHAT
    long: Any = [{"role": "user", "content": "word " * 300}]
    with pytest.raises(openai.RateLimitError) as caught:
        await gate.openai().chat.completions.create(model="demo-small", messages=long)
    assert "at most 200 tokens: shorten the prompt" in str(caught.value)
    assert caught.value.code == "request_exceeds_limit"


async def test_parameters_are_refused_by_name(gates: Gates) -> None:
    """The exception of the SDK says which one to leave out; nothing reaches the upstream."""
    gate = await shaping_gate(gates, "refuse: [logit_bias, prefill, batch]")
    with pytest.raises(openai.PermissionDeniedError) as caught:
        await gate.openai().chat.completions.create(
            model="demo-small", messages=HELLO, logit_bias={"50256": -100}
        )
    assert caught.value.code == "parameter_not_permitted"
    assert "`logit_bias`" in str(caught.value)
    beginning: Any = {"role": "assistant", "content": "Sure, the"}
    with pytest.raises(openai.PermissionDeniedError, match="prefill"):
        await gate.openai().chat.completions.create(
            model="demo-small", messages=[*HELLO, beginning]
        )
    with pytest.raises(anthropic.PermissionDeniedError, match="prefill"):
        await gate.anthropic().messages.create(**{**MESSAGE, "messages": [*HELLO, beginning]})
    with pytest.raises(anthropic.PermissionDeniedError, match="one by one"):
        await gate.anthropic().messages.batches.create(
            requests=[{"custom_id": "a", "params": MESSAGE}]
        )
    assert gate.upstream.book == []


async def test_what_was_stored_is_shaped_when_it_is_fetched(gates: Gates) -> None:
    """An answer does not come out whole because it is asked for a second time."""
    gate = await shaping_gate(gates, "logprobs: remove, drop_reasoning: true")
    gate.upstream.answer = saying(said("openai_responses/document"))
    stored = await gate.openai().responses.retrieve("resp_1")
    assert [item.type for item in stored.output] == ["message", "function_call"]
    gate.upstream.answer = saying(said("openai_responses/stream"))
    kinds = [event.type async for event in await gate.openai().responses.retrieve("r", stream=True)]
    assert not [kind for kind in kinds if "reasoning" in kind]
    gate.upstream.answer = saying(said("openai_chat/deepseek-document"))
    chat = await gate.openai().chat.completions.retrieve("chatcmpl-1")
    assert chat.choices[0].logprobs is None
    assert not hasattr(chat.choices[0].message, "reasoning_content")


# --- what SDKs make of it ---


async def test_openai_reads_what_is_left(gates: Gates) -> None:
    """Chat and responses, streamed and not, come out of the SDK without reasoning or chances."""
    gate = await shaping_gate(gates, "logprobs: remove, drop_reasoning: true")
    client = gate.openai()
    gate.upstream.answer = saying(said("openai_chat/deepseek-document"))
    whole = await client.chat.completions.create(**CHAT)
    assert whole.choices[0].message.content == "9.11 < 9.8"
    assert whole.choices[0].logprobs is None
    assert not hasattr(whole.choices[0].message, "reasoning_content")
    gate.upstream.answer = saying(said("openai_chat/deepseek-stream"))
    chunks = [chunk async for chunk in await client.chat.completions.create(**CHAT, stream=True)]
    assert [chunk.choices[0].delta.content for chunk in chunks] == [None, "9", ""]
    gate.upstream.answer = saying(said("openai_responses/stream"))
    async with client.responses.stream(model="gpt-5", input="x") as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert not [kind for kind in kinds if "reasoning" in kind]
    assert [item.type for item in final.output] == ["message", "function_call"]
    assert final.output_text == "Hi!"
    assert final.usage is not None
    assert final.usage.output_tokens == 12


async def test_openai_reads_rounded_numbers(gates: Gates) -> None:
    """The numbers are numbers, and a token agrees with its alternatives."""
    gate = await shaping_gate(gates, "logprobs: round, decimals: 2")
    gate.upstream.answer = saying(said("openai_chat/document"))
    answer = await gate.openai().chat.completions.create(**CHAT)
    chances = answer.choices[0].logprobs
    assert chances is not None
    assert chances.content is not None
    assert [token.logprob for token in chances.content] == [0.0, -1.5, -9999.0]
    assert chances.content[1].top_logprobs[1].logprob == -1.5


async def test_anthropic_puts_the_blocks_together(gates: Gates) -> None:
    """Blocks close up, so that the SDK's own accumulation finds each where it belongs."""
    gate = await shaping_gate(gates, "drop_reasoning: true")
    gate.upstream.answer = saying(said("anthropic_messages/stream"))
    async with gate.anthropic().messages.stream(**MESSAGE) as stream:
        message = await stream.get_final_message()
    assert [block.type for block in message.content] == ["text", "tool_use"]
    assert message.content[0].text == 'Let me "thinking":'  # type: ignore[union-attr]
    assert message.content[1].input == {"index": 4}  # type: ignore[union-attr]
    assert message.stop_reason == "tool_use"
    gate.upstream.answer = saying(said("anthropic_messages/document"))
    whole = await gate.anthropic().messages.create(**MESSAGE)
    assert [block.type for block in whole.content] == ["text", "tool_use"]


# --- when nothing is changed, or cannot be ---


async def test_observe_mode_changes_nothing(gates: Gates) -> None:
    """It records what would be shaped; call and answer pass as they are."""
    gate = await shaping_gate(gates, "logprobs: remove, max_output_tokens: 5", mode="observe")
    gate.upstream.answer = saying(said("openai_chat/stream"))
    body = json.dumps({**CHAT, "stream": True, "stream_options": {"include_usage": True}}).encode()
    async with gate.http.post(PATHS["openai_chat"], data=body, headers=gate.headers()) as answer:
        assert await answer.read() == said("openai_chat/stream")
    assert gate.upstream.book[-1].body == body
    decision = await gate.decision(answer.headers["gatekeeper-decision"])
    assert decision["shaping"]["logprobs"] == "remove"


@pytest.mark.parametrize("kind", ["text/plain", "application/json"])
async def test_h32_an_answer_that_cannot_be_read_is_not_passed_on(gates: Gates, kind: str) -> None:
    """The caller gets an error of the gate, and not a byte of the answer."""
    gate = await shaping_gate(gates, "logprobs: remove")
    gate.upstream.answer = saying(said("openai_chat/document")[:-9], kind)
    with pytest.raises(openai.InternalServerError) as caught:
        await gate.openai().chat.completions.create(**CHAT)
    assert caught.value.status_code == 502
    assert "logprob" not in str(caught.value)


async def test_h32_a_stream_that_cannot_be_read_breaks_off(gates: Gates) -> None:
    """What came before stands; the event that cannot be read, and all behind it, do not."""
    gate = await shaping_gate(gates, "logprobs: remove")
    good = said("openai_chat/stream").split(b"\n\n")[0] + b"\n\n"
    gate.upstream.answer = saying(good + b'data: {"logprobs":\ndata: -1.5}\n\n' + good)
    stream = await gate.openai().chat.completions.create(**CHAT, stream=True)
    chunks = aiter(stream)
    assert (await anext(chunks)).choices[0].delta.role == "assistant"
    with pytest.raises(openai.APIError, match="broke off"):
        await anext(chunks)


async def test_h12_a_large_answer_does_not_hold_up_others(gates: Gates) -> None:
    """What takes long to shape is shaped on a thread: every byte of it arrives as it should."""
    gate = await shaping_gate(gates, "logprobs: round")
    token = {"token": "a", "logprob": -0.123456, "bytes": [97]}
    content = [{**token, "top_logprobs": [token] * 5}] * 600
    document = {"choices": [{"index": 0, "logprobs": {"content": content}}]}
    event = b"data: " + json.dumps(document).encode() + b"\n\n"
    for body in (json.dumps(document).encode(), event * 2 + b"data: [DONE]\n\n"):
        gate.upstream.answer = saying(body)
        async with gate.http.post(
            PATHS["openai_chat"], json=CHAT, headers=gate.headers()
        ) as answer:
            assert await answer.read() == body.replace(b"-0.123456", b"-0.1")
