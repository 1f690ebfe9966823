"""The real Anthropic SDK through the gate: what it gets equals what it would get past the gate."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anthropic
import pytest
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.gates import Gates, RunningGate

HELLO: Any = {
    "model": "claude-haiku-4-5",
    "max_tokens": 40,
    "messages": [{"role": "user", "content": "Hello there, who are you?"}],
}


@pytest.fixture
async def gate(gates: Gates) -> RunningGate:
    """Start a gate with the default rules."""
    return await gates()


@pytest.fixture
async def direct(gate: RunningGate) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Return a client that goes past the gate."""
    async with anthropic.AsyncAnthropic(base_url=gate.upstream.url, api_key="x") as client:
        yield client


async def test_messages(gate: RunningGate, direct: anthropic.AsyncAnthropic) -> None:
    """A message is the same, usage included."""
    wanted = await direct.messages.create(**HELLO)
    got = await gate.anthropic().messages.create(**HELLO)
    assert got == wanted
    assert got.usage.output_tokens > 0


async def test_streamed_messages(gate: RunningGate, direct: anthropic.AsyncAnthropic) -> None:
    """A stream has the same events, and the same message comes out of it."""
    async with direct.messages.stream(**HELLO) as stream:
        wanted = [event async for event in stream]
    async with gate.anthropic().messages.stream(**HELLO) as stream:
        got = [event async for event in stream]
        message = await stream.get_final_message()
    assert got == wanted
    assert (
        message.usage.output_tokens == (await direct.messages.create(**HELLO)).usage.output_tokens
    )


async def test_bearer_token_instead_of_key(gate: RunningGate) -> None:
    """The SDK's `auth_token`, sent as `Authorization: Bearer`, is read as well."""
    client = gate.anthropic(api_key=None, auth_token=gate.keys["acme"])
    assert (await client.messages.create(**HELLO)).content


async def test_synchronous_client(gate: RunningGate) -> None:
    """The blocking client of the SDK works as well, streamed and not."""

    def talk() -> tuple[str, str]:
        with anthropic.Anthropic(base_url=gate.url, api_key=gate.keys["acme"]) as client:
            whole = client.messages.create(**HELLO).content[0]
            with client.messages.stream(**HELLO) as stream:
                return getattr(whole, "text", ""), "".join(stream.text_stream)

    whole, streamed = await asyncio.to_thread(talk)
    assert whole == streamed
    assert "Hello there" in whole


async def test_upstream_errors_stay_its_own(
    gate: RunningGate, direct: anthropic.AsyncAnthropic
) -> None:
    """An error of the upstream arrives unchanged, with our decision id beside it."""
    wrong = {**HELLO, "messages": [{"content": "no role"}]}
    said = []
    for client in (direct, gate.anthropic()):
        with pytest.raises(anthropic.BadRequestError) as raised:
            await client.messages.create(**wrong)
        said.append(raised.value)
    assert str(said[0]) == str(said[1])
    assert "gatekeeper-decision" in said[1].response.headers


async def test_a_stream_that_breaks_raises(gate: RunningGate) -> None:
    """An upstream that dies in the middle of a stream is an error in the SDK, not an end (H32)."""

    async def dies(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'event: ping\ndata: {"type":"ping"}\n\n')
        assert request.transport is not None
        request.transport.abort()
        return response

    gate.upstream.answer = dies
    stream = await gate.anthropic().messages.create(**HELLO, stream=True)
    with pytest.raises(anthropic.APIStatusError, match="broke off"):
        async for _ in stream:
            pass
