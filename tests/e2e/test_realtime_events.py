"""Events of OpenAI realtime that could be read in two ways, and models that are not permitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.realtime import (
    PATH,
    talking,
)

if TYPE_CHECKING:
    from support.gates import Gates


@pytest.mark.parametrize(
    "event",
    [
        "no json",
        "[]",
        '{"type":"response.create","type":"session.update"}',
        '{"Type":"response.create"}',
        '{"type":5}',
        '{"type":"response.create","response":[]}',
        '{"type":"response.create","response":{"max_output_tokens":1,"max_output_tokens":9}}',
        '{"type":"response.create","response":{"Max_Output_Tokens":1}}',
        '{"type":"response.create","response":{"max_output_tokens":"10"}}',
        '{"type":"response.create","response":{"max_output_tokens":-1}}',
        '{"type":"session.update","session":' + '{"a":' * 5_000 + "1" + "}" * 5_000 + "}",
    ],
)
async def test_an_event_of_two_meanings_is_not_passed_on(gates: Gates, event: str) -> None:
    """The caller is told by an event, and may go on."""
    async with talking(gates) as talk:
        client = await talk.connect()
        await client.hear_till("session.created")
        await client.socket.send_str(event)
        error = await client.hear_till("error")
        assert error["error"]["type"] == "invalid_request_error"
        assert error["error"]["code"] == "invalid_body"
        await client.say("response.create")
        await client.hear_till("response.done")
        assert len(talk.upstream.sessions[0].events) == 1
        await client.socket.close()


async def test_binary_is_no_event(gates: Gates) -> None:
    """The family speaks text; what cannot be read cannot be metered."""
    async with talking(gates) as talk:
        client = await talk.connect()
        await client.socket.send_bytes(b"\x00")
        assert (await client.hear_till("error"))["error"]["code"] == "invalid_body"
        await client.socket.close()


@pytest.mark.parametrize(
    "session",
    [
        {"type": "realtime", "model": "demo-large"},
        {"type": "transcription", "audio": {"input": {"transcription": {"model": "other"}}}},
        {"input_audio_transcription": {"model": "other"}},
    ],
)
async def test_a_model_that_is_not_permitted_is_none_later_either(
    gates: Gates, session: dict[str, Any]
) -> None:
    """A restricted account may use one model, whichever event names another."""
    accounts = {"acme": {"tier": "restricted"}}
    async with talking(gates, accounts=accounts) as talk:
        client = await talk.connect()
        await client.say("session.update", session=session)
        error = await client.hear_till("error")
        assert error["error"]["code"] == "model_not_permitted"
        assert await client.closed() == 1008
        assert talk.upstream.sessions[0].events == []


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "name the model"),
        ("?model=", "name the model"),
        ("?model=a&model=b", "twice"),
        ("?Model=a", "lower case"),
        ("?intent=other", "name the model"),
    ],
)
async def test_the_model_is_named_once(gates: Gates, query: str, says: str) -> None:
    """Prices and permissions rest on it."""
    async with talking(gates) as talk:
        async with talk.gate.http.get(
            f"{PATH}{query}",
            headers={
                **talk.gate.headers(),
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            },
        ) as answer:
            body = await answer.json()
            assert answer.status == 400
            assert says in body["error"]["message"]
        assert talk.upstream.sessions == []
