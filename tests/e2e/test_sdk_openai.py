"""The real OpenAI SDK through the gate: what it gets equals what it would get past the gate."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import openai
import pytest
from aiohttp import web

from gatekeeper.demo import DemoSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.gates import Gates, RunningGate

HELLO: list[Any] = [{"role": "user", "content": "Hello there, who are you?"}]


@pytest.fixture
async def gate(gates: Gates) -> RunningGate:
    """Start a gate with the default rules before an endpoint whose clock stands still."""
    return await gates(demo=DemoSettings(clock=lambda: 1_800_000_000.0))


@pytest.fixture
async def direct(gate: RunningGate) -> AsyncIterator[openai.AsyncOpenAI]:
    """Return a client that goes past the gate."""
    async with openai.AsyncOpenAI(base_url=f"{gate.upstream.url}/v1", api_key="x") as client:
        yield client


async def test_chat(gate: RunningGate, direct: openai.AsyncOpenAI) -> None:
    """A completion is the same, usage included."""
    asked: Any = {"model": "gpt-5-mini", "messages": HELLO, "n": 2, "max_completion_tokens": 9}
    wanted = await direct.chat.completions.create(**asked)
    got = await gate.openai().chat.completions.create(**asked)
    assert got == wanted
    assert got.usage is not None
    assert got.usage.completion_tokens == 18


@pytest.mark.parametrize("usage", [True, False])
async def test_streamed_chat(gate: RunningGate, direct: openai.AsyncOpenAI, usage: bool) -> None:
    """A stream has the same chunks; a usage chunk only when it was asked for."""
    asked: Any = {"model": "demo-small", "messages": HELLO, "stream": True}
    if usage:
        asked["stream_options"] = {"include_usage": True}
    wanted = [chunk async for chunk in await direct.chat.completions.create(**asked)]
    got = [chunk async for chunk in await gate.openai().chat.completions.create(**asked)]
    assert got == wanted
    assert (got[-1].usage is not None) == usage


async def test_responses(gate: RunningGate, direct: openai.AsyncOpenAI) -> None:
    """Whole and streamed they are the same, and are charged what they report (H23)."""
    asked: Any = {"model": "demo-small", "input": HELLO, "max_output_tokens": 9}
    wanted = await direct.responses.create(**asked)
    got = await gate.openai().responses.with_raw_response.create(**asked)
    assert got.parse() == wanted
    await charged(gate, got.headers, wanted.usage.input_tokens, 9)  # type: ignore[union-attr]
    events = [event async for event in await direct.responses.create(**asked, stream=True)]
    raw = await gate.openai().responses.with_raw_response.create(**asked, stream=True)
    assert [event async for event in raw.parse()] == events
    await charged(gate, raw.headers, wanted.usage.input_tokens, 9)  # type: ignore[union-attr]


@pytest.mark.parametrize("usage", [True, False])
async def test_completions(gate: RunningGate, direct: openai.AsyncOpenAI, usage: bool) -> None:
    """Several prompts, whole and streamed; usage is told to those who ask, and charged anyway."""
    asked: Any = {"model": "demo-small", "prompt": ["Hello", "You there"], "max_tokens": 7, "n": 2}
    wanted = await direct.completions.create(**asked)
    assert wanted.usage is not None
    got = await gate.openai().completions.with_raw_response.create(**asked)
    assert got.parse() == wanted
    await charged(gate, got.headers, wanted.usage.prompt_tokens, 28)
    asked |= {"stream": True}
    if usage:
        asked["stream_options"] = {"include_usage": True}
    chunks = [chunk async for chunk in await direct.completions.create(**asked)]
    raw = await gate.openai().completions.with_raw_response.create(**asked)
    assert [chunk async for chunk in raw.parse()] == chunks
    assert (chunks[-1].usage is not None) == usage
    await charged(gate, raw.headers, wanted.usage.prompt_tokens, 28)


async def test_embeddings_and_moderations(gate: RunningGate, direct: openai.AsyncOpenAI) -> None:
    """Input is charged as reported; a moderation, which reports nothing, as estimated."""
    asked: Any = {"model": "demo-small", "input": ["some text", "more"]}
    wanted = await direct.embeddings.create(**asked)
    got = await gate.openai().embeddings.with_raw_response.create(**asked)
    assert got.parse() == wanted
    await charged(gate, got.headers, wanted.usage.prompt_tokens, 0)
    judged = await gate.openai().moderations.with_raw_response.create(input="some text")
    assert judged.parse() == await direct.moderations.create(input="some text")
    outcome = await gate.outcome(judged.headers["gatekeeper-decision"])
    assert outcome["usage"]["estimated"]
    assert outcome["usage"]["cost_cents"] == 0


async def charged(gate: RunningGate, headers: Any, given: int, written: int) -> None:
    """Hold the settlement of a call to what its answer reports."""
    usage = (await gate.outcome(headers["gatekeeper-decision"]))["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (given, written)
    assert not usage["estimated"]


async def test_stream_is_passed_on_as_it_comes(gate: RunningGate) -> None:
    """The first token reaches the caller while the upstream still writes."""
    go_on = asyncio.Event()

    async def two_halves(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk("first"))
        await go_on.wait()
        await response.write(chunk("second") + b"data: [DONE]\n\n")
        return response

    gate.upstream.answer = two_halves
    stream = await gate.openai().chat.completions.create(
        model="demo-small", messages=HELLO, stream=True
    )
    chunks = aiter(stream)
    first = await anext(chunks)
    assert first.choices[0].delta.content == "first"
    go_on.set()
    rest = [each.choices[0].delta.content async for each in chunks]
    assert rest == ["second"]


def chunk(text: str) -> bytes:
    """Return one event of a stream."""
    return (
        b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
        b'"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % text.encode()
    )


async def test_models(gate: RunningGate, direct: openai.AsyncOpenAI) -> None:
    """Listing models works too, and one that is missing stays the upstream's own 404."""
    client = gate.openai()
    assert (await client.models.list()).data == (await direct.models.list()).data
    assert (await client.models.retrieve("demo-small")).id == "demo-small"
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        await client.models.retrieve("no-such")


async def test_upstream_errors_stay_its_own(gate: RunningGate, direct: openai.AsyncOpenAI) -> None:
    """An error of the upstream arrives unchanged, with our decision id beside it."""
    messages: list[Any] = [{"content": "no role"}]
    said = []
    for client in (direct, gate.openai()):
        with pytest.raises(openai.BadRequestError) as raised:
            await client.chat.completions.create(model="demo-small", messages=messages)
        said.append(raised.value)
    assert str(said[0]) == str(said[1])
    assert "gatekeeper-decision" in said[1].response.headers


async def test_synchronous_client(gate: RunningGate) -> None:
    """The blocking client of the SDK works as well, streamed and not."""

    def talk() -> tuple[str | None, str]:
        with openai.OpenAI(base_url=f"{gate.url}/v1", api_key=gate.keys["acme"]) as client:
            whole = client.chat.completions.create(model="demo-small", messages=HELLO)
            stream = client.chat.completions.create(model="demo-small", messages=HELLO, stream=True)
            pieces = [each.choices[0].delta.content or "" for each in stream if each.choices]
            return whole.choices[0].message.content, "".join(pieces)

    whole, streamed = await asyncio.to_thread(talk)
    assert whole == streamed
    assert whole is not None
    assert "Hello there" in whole


async def test_a_stream_that_breaks_raises(gate: RunningGate) -> None:
    """An upstream that dies in the middle of a stream is an error in the SDK, not an end (H32)."""

    async def dies(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk("half"))
        assert request.transport is not None
        request.transport.abort()
        return response

    gate.upstream.answer = dies
    stream = await gate.openai().chat.completions.create(
        model="demo-small", messages=HELLO, stream=True
    )
    chunks = aiter(stream)
    assert (await anext(chunks)).choices[0].delta.content == "half"
    with pytest.raises(openai.APIError, match="broke off"):
        await anext(chunks)
