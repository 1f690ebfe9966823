"""The demo endpoint speaks both families as their own SDKs expect."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from gatekeeper.demo import DemoSettings, build_demo_app
from gatekeeper.dialects import dialect_for
from gatekeeper.dialects.base import Incoming
from gatekeeper.policy.model import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

QUESTION: Any = [{"role": "user", "content": "Hello, \n\n world"}]
ANSWER = 'This is the demo model. You said: "Hello, world"'
WRITTEN = 14


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """Serve the demo endpoint without pauses; yield its base URL."""
    settings = DemoSettings(clock=lambda: 1_800_000_000.5, keys=frozenset({"good", "other"}))
    async with TestServer(build_demo_app(settings)) as server:
        yield str(server.make_url("")).rstrip("/")


@pytest.fixture
async def chat(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    """Yield an OpenAI client."""
    async with openai.AsyncOpenAI(api_key="good", base_url=f"{url}/v1", max_retries=0) as client:
        yield client


@pytest.fixture
async def claude(url: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Yield an Anthropic client."""
    async with anthropic.AsyncAnthropic(api_key="good", base_url=url, max_retries=0) as client:
        yield client


async def test_openai_whole(chat: openai.AsyncOpenAI) -> None:
    """A whole completion has text, finish reason and usage."""
    answer = await chat.chat.completions.create(model="demo-small", messages=QUESTION, n=2)
    assert [choice.message.content for choice in answer.choices] == [ANSWER, ANSWER]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.created == 1_800_000_000
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2 * WRITTEN
    assert answer.usage.prompt_tokens == 10
    assert answer.usage.total_tokens == 10 + 2 * WRITTEN
    again = await chat.chat.completions.create(model="demo-small", messages=QUESTION, n=2)
    assert again == answer


@pytest.mark.parametrize("include", [True, False])
async def test_openai_streamed(chat: openai.AsyncOpenAI, include: bool) -> None:
    """A stream has the same text; usage only when asked for, in a chunk of its own."""
    options: Any = {"stream_options": {"include_usage": True}} if include else {}
    stream = await chat.chat.completions.create(
        model="demo-small", messages=QUESTION, stream=True, **options
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == ANSWER
    usages = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert [usage.completion_tokens for usage in usages] == ([WRITTEN] if include else [])


async def test_anthropic_whole(claude: anthropic.AsyncAnthropic) -> None:
    """A whole message has text, stop reason and usage."""
    answer = await claude.messages.create(model="demo-large", max_tokens=99, messages=QUESTION)
    block = answer.content[0]
    assert block.type == "text"
    assert block.text == ANSWER
    assert answer.stop_reason == "end_turn"
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (10, WRITTEN)


async def test_anthropic_streamed(claude: anthropic.AsyncAnthropic) -> None:
    """The SDK's own accumulator makes the same message out of the stream."""
    async with claude.messages.stream(
        model="demo-large", max_tokens=99, messages=QUESTION
    ) as stream:
        message = await stream.get_final_message()
    block = message.content[0]
    assert block.type == "text"
    assert block.text == ANSWER
    assert (message.usage.input_tokens, message.usage.output_tokens) == (10, WRITTEN)


async def test_openai_completions(chat: openai.AsyncOpenAI) -> None:
    """Every prompt is answered, streamed or not, with a bound where none is named."""
    asked: Any = {"model": "m", "prompt": ["Hello, \n\n world", "You"], "max_tokens": 99}
    answer = await chat.completions.create(**asked)
    assert next(choice.text for choice in answer.choices) == ANSWER
    assert answer.usage is not None
    stream = await chat.completions.create(**asked, stream=True)
    pieces = [chunk.choices[0] async for chunk in stream]
    assert "".join(each.text for each in pieces if each.index == 0) == ANSWER
    assert sum(each.finish_reason == "stop" for each in pieces) == 2
    short = await chat.completions.create(model="m", prompt="tell me " * 20)
    assert short.choices[0].finish_reason == "length"


async def test_openai_responses(chat: openai.AsyncOpenAI) -> None:
    """The SDK's own accumulator makes the same response out of the stream."""
    whole = await chat.responses.create(model="m", input=QUESTION)
    assert whole.output_text == ANSWER
    assert whole.usage is not None
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (10, WRITTEN)
    async with chat.responses.stream(model="m", input="Hello, \n\n world") as stream:
        final = await stream.get_final_response()
    assert final.output_text == ANSWER
    assert final.status == "completed"
    short = await chat.responses.create(model="m", input=QUESTION, max_output_tokens=2)
    assert short.status == "incomplete"


async def test_openai_embeddings_and_moderations(chat: openai.AsyncOpenAI) -> None:
    """The same text has the same vector, and nothing is flagged."""
    made = await chat.embeddings.create(model="m", input=["a", "a", "b"], encoding_format="float")
    first, same, other = (each.embedding for each in made.data)
    assert first == same != other
    assert made.usage.prompt_tokens == 3
    judged = await chat.moderations.create(input="a")
    assert not judged.results[0].flagged


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("completions", {"prompt": [1]}),
        ("completions", {}),
        ("embeddings", {"input": []}),
        ("responses", {"input": 7}),
        ("responses", {"input": ["a"]}),
    ],
)
async def test_texts_are_checked(url: str, path: str, body: Any) -> None:
    """What is no text is refused, as the real services do."""
    async with (
        ClientSession(headers={"authorization": "Bearer good"}) as session,
        session.post(f"{url}/v1/{path}", json={"model": "m", **body}) as answer,
    ):
        assert answer.status == 400


async def test_the_bound_cuts_the_answer(
    chat: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
) -> None:
    """A smaller bound than the answer ends it with the family's own reason."""
    short = await chat.chat.completions.create(model="m", messages=QUESTION, max_tokens=3)
    assert short.choices[0].message.content == "This is the"
    assert short.choices[0].finish_reason == "length"
    message = await claude.messages.create(model="m", max_tokens=2, messages=QUESTION)
    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 2


async def test_models_and_health(chat: openai.AsyncOpenAI, url: str) -> None:
    """Models are listed and found; health answers as llama.cpp's server does."""
    assert [model.id async for model in chat.models.list()] == ["demo-small", "demo-large"]
    assert (await chat.models.retrieve("demo-large")).id == "demo-large"
    with pytest.raises(openai.NotFoundError):
        await chat.models.retrieve("other")
    async with ClientSession() as session, session.get(f"{url}/health") as answer:
        assert await answer.json() == {"status": "ok"}


@pytest.mark.parametrize(
    "body",
    [
        {"messages": QUESTION},
        {"model": "m"},
        {"model": "m", "messages": []},
        {"model": "m", "messages": ["hello"]},
        {"model": "m", "messages": QUESTION, "max_tokens": 0},
        {"model": "m", "messages": QUESTION, "max_tokens": "7"},
        {"model": "m", "messages": QUESTION, "max_tokens": 7, "stream": "yes"},
        {"model": "m", "messages": QUESTION, "n": 129, "max_tokens": True},
        [],
    ],
)
async def test_requests_are_checked(url: str, body: Any) -> None:
    """Both routes refuse what the real services refuse, in their own form."""
    headers = {
        "authorization": "Bearer good",
        "x-api-key": "good",
        "anthropic-version": "2023-06-01",
    }
    async with ClientSession(headers=headers) as session:
        async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["type"] == "invalid_request_error"
        async with session.post(f"{url}/v1/messages", json=body) as answer:
            assert answer.status == 400
            said = await answer.json()
            assert said["type"] == "error"
            assert said["error"]["type"] == "invalid_request_error"


async def test_what_each_family_alone_demands(
    url: str, chat: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
) -> None:
    """Stream options need a stream; messages need a version, a bound and a known key."""
    with pytest.raises(openai.BadRequestError, match="stream_options"):
        await chat.chat.completions.create(
            model="m", messages=QUESTION, stream_options={"include_usage": True}
        )
    with pytest.raises(openai.AuthenticationError):
        await chat.with_options(api_key="bad").chat.completions.create(model="m", messages=QUESTION)
    with pytest.raises(anthropic.AuthenticationError):
        await claude.with_options(api_key="bad").messages.create(
            model="m", max_tokens=1, messages=QUESTION
        )
    async with ClientSession(headers={"x-api-key": "good"}) as session:
        async with session.post(f"{url}/v1/messages", json={}) as answer:
            assert "anthropic-version" in (await answer.json())["error"]["message"]
        headers = {"anthropic-version": "2023-06-01"}
        body = {"model": "m", "messages": QUESTION}
        async with session.post(f"{url}/v1/messages", json=body, headers=headers) as answer:
            assert (await answer.json())["error"]["message"] == "max_tokens: Field required"


async def test_strict_models() -> None:
    """Unknown models are 404 when only the listed ones are served."""
    app = build_demo_app(DemoSettings(strict_models=True))
    async with TestServer(app) as server:
        url = str(server.make_url("/v1"))
        async with openai.AsyncOpenAI(api_key="any", base_url=url, max_retries=0) as client:
            with pytest.raises(openai.NotFoundError):
                await client.chat.completions.create(model="other", messages=QUESTION)


@pytest.mark.parametrize(
    ("path", "body", "wanted"),
    [
        ("/v1/chat/completions", {"stream_options": {"include_usage": True}}, Usage(10, WRITTEN)),
        ("/v1/chat/completions", {"stream": False}, Usage(10, WRITTEN)),
        ("/v1/messages", {"max_tokens": 50}, Usage(10, WRITTEN)),
        ("/v1/messages", {"max_tokens": 50, "stream": False}, Usage(10, WRITTEN)),
        ("/v1/completions", {"max_tokens": 50, "n": 2, "stream": False}, Usage(3, 2 * WRITTEN)),
        (
            "/v1/completions",
            {"max_tokens": 50, "stream_options": {"include_usage": True}},
            Usage(3, WRITTEN),
        ),
        ("/v1/responses", {"max_output_tokens": 50}, Usage(10, WRITTEN)),
        ("/v1/responses", {"max_output_tokens": 3, "stream": False}, Usage(10, 3)),
        ("/v1/embeddings", {"stream": False}, Usage(3, 0)),
    ],
)
async def test_h24_the_gate_reads_its_usage(
    url: str, path: str, body: dict[str, Any], wanted: Usage
) -> None:
    """Dialects read from these answers exactly what the demo reports, and see their end."""
    headers = {
        "authorization": "Bearer good",
        "x-api-key": "good",
        "anthropic-version": "2023-06-01",
    }
    dialect = dialect_for("POST", path)
    text = QUESTION[0]["content"]
    sent = {"model": "m", "stream": True, **body, "messages": QUESTION}
    if "messages" not in path and "chat" not in path:
        sent = {"model": "m", "stream": True, **body, "prompt": text, "input": text}
    async with (
        ClientSession(headers=headers) as session,
        session.post(url + path, json=sent) as answer,
    ):
        ask = dialect.read(Incoming(json.dumps(sent).encode()))
        assert not isinstance(ask, str)
        reader = dialect.reader(ask, answer.headers)
        async for chunk in answer.content.iter_any():
            reader.feed(chunk)
    assert reader.result() == wanted
    assert reader.complete


async def test_pauses_are_kept() -> None:
    """The first token and each further one wait as set; a whole answer waits for all of them."""
    slept: list[float] = []

    async def note(delay_s: float) -> None:
        slept.append(delay_s)

    settings = DemoSettings(first_token_s=0.5, token_s=0.25, pause=note)
    async with TestServer(build_demo_app(settings)) as server:
        url = str(server.make_url("/v1"))
        async with openai.AsyncOpenAI(api_key="any", base_url=url, max_retries=0) as client:
            stream = await client.chat.completions.create(
                model="m", messages=QUESTION, stream=True, max_tokens=3
            )
            assert len([chunk async for chunk in stream]) == 5
            assert slept == [0.5, 0.25, 0.25]
            await client.chat.completions.create(model="m", messages=QUESTION, max_tokens=3)
            assert slept[3:] == [1.25]
