"""OpenAI realtime through the gate: a response is held before, settled after, counted once."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING

import aiohttp
import pytest
from support.gates import SOON_S, eventually
from support.realtime import (
    MODEL,
    PATH,
    PLENTY,
    WORDS,
    Client,
    Session,
    limits,
    talking,
    usage,
)
from support.wire import until

if TYPE_CHECKING:
    from support.gates import Gates


async def test_a_turn_is_charged_as_reported(gates: Gates) -> None:
    """Two turns: the limits, the turns' records and the outcome say what the upstream reported."""
    async with talking(gates) as talk:
        client = await talk.connect()
        for number in (1, 2):
            await client.say("response.create", event_id=f"mine_{number}")
            done = await client.hear_till("response.done")
            assert done["response"]["usage"] == usage(10, 5)
            assert (talk.used("input_tokens"), talk.used("output_tokens")) == (
                10 * number,
                5 * number,
            )
        assert talk.used("requests") == 2
        await client.socket.close()
        outcome = await talk.settled()
        turns = talk.turns()
        assert [turn["turn"] for turn in turns] == [1, 2]
        assert {turn["id"] for turn in turns} == {outcome["id"]}
        used = outcome["usage"]
        assert (used["input_tokens"], used["output_tokens"], used["estimated"]) == (20, 10, False)
        assert used["cost_cents"] == pytest.approx(sum(t["usage"]["cost_cents"] for t in turns))
        assert used["bytes"] == talk.used("bytes")
        assert (outcome["status"], outcome["ending"], outcome["turns"]) == (101, "complete", 2)
        assert talk.used("requests") == 2
        assert (await talk.gate.decision(outcome["id"]))["facts"]["call"]["model"] == MODEL
        assert [event["type"] for event in talk.upstream.sessions[0].events] == [
            "response.create"
        ] * 2


async def test_events_pass_unchanged(gates: Gates) -> None:
    """What either side says arrives to the byte, in order, whatever its size and spacing."""
    said = [
        '{"type" : "session.update","session":{"instructions":"Sei höflich. \\u00fc"}}',
        '{"type":"conversation.item.create","item":{"type":"message","x":"' + "y" * 200_000 + '"}}',
        '{"type":"response.create"}',
    ]
    heard: list[str] = []

    async def echo(session: Session) -> None:
        for _ in said:
            message = await session.socket.receive()
            heard.append(message.data)
            await session.socket.send_str(message.data)

    async with talking(gates, echo) as talk:
        client = await talk.connect()
        for text in said:
            await client.socket.send_str(text)
        back = [(await client.socket.receive()).data for _ in said]
        assert heard == said
        assert back == said
        await client.socket.close()
        await talk.settled()


async def test_the_first_turn_is_held_before_the_handshake_goes_on(gates: Gates) -> None:
    """Whoever has nothing left is refused by HTTP in the family's words; nothing goes upstream."""
    async with talking(gates, rules=limits(requests=1, output_tokens=5_000)) as talk:
        first = await talk.connect()
        assert talk.used("output_tokens") == 1_000  # the model's most
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await talk.connect()
        assert refused.value.status == 429
        assert refused.value.headers is not None
        assert "RateLimit" in refused.value.headers
        await first.socket.close()
        assert len(talk.upstream.sessions) == 1


async def test_a_slot_is_held_as_long_as_the_connection_lasts(gates: Gates) -> None:
    """A turn that is settled frees no slot; the end of the connection does."""
    async with talking(gates, rules=limits(concurrency=1)) as talk:
        client = await talk.connect()
        await client.say("response.create")
        await client.hear_till("response.done")
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await talk.connect()
        assert refused.value.status == 429
        await client.socket.close()
        await talk.settled()
        second = await talk.connect()
        await second.socket.close()


async def test_a_turn_without_room_ends_the_conversation(gates: Gates) -> None:
    """The caller reads why in the family's event and in the close; the upstream is closed."""
    async with talking(gates, rules=limits(output_tokens=1_000)) as talk:
        client = await talk.connect()
        await client.say("session.update", session={"type": "realtime", "max_output_tokens": 998})
        await client.say("response.create")
        await client.hear_till("response.done")
        await client.say("response.create", event_id="mine_2")
        error = await client.hear_till("error")
        assert error["error"]["type"] == "rate_limit_error"
        assert error["error"]["code"] == "token_limit_exceeded"
        assert error["error"]["event_id"] == "mine_2"
        assert "Wait" in error["error"]["message"]
        assert await client.closed() == 1008
        session = talk.upstream.sessions[0]
        await asyncio.wait_for(session.ended.wait(), SOON_S)
        assert session.closed == 1001
        assert [event["type"] for event in session.events] == ["session.update", "response.create"]
        outcome = await talk.settled()
        assert outcome["ending"] == "stopped"
        assert talk.used("output_tokens") == 5
        refused = await talk.gate.decision(error["error"]["decision_id"])
        assert refused["verdict"] == "rate_limited"


async def test_a_bound_that_can_never_fit_is_named(gates: Gates) -> None:
    """Under a small limit the model's own most never fits: the event says how to send less."""
    async with talking(gates, rules=limits(output_tokens=100)) as talk:
        client = await talk.connect()
        await client.say("response.create")
        error = await client.hear_till("error")
        assert error["error"]["code"] == "request_exceeds_limit"
        assert "max_output_tokens" in error["error"]["message"]
        await client.say("response.create", response={"max_output_tokens": 60})
        assert (await client.hear_till("response.done"))["response"]["usage"] == usage(10, 5)
        await client.socket.close()
        await talk.settled()
        assert talk.used("output_tokens") == 5


async def test_a_turn_under_way_is_waited_for(gates: Gates) -> None:
    """Speech that comes while the model answers waits, where two turns do not fit at once."""
    going = asyncio.Event()

    async def slow(session: Session) -> None:
        await session.next()
        await session.say("response.created", response={"id": "r1"})
        await going.wait()
        await session.say("response.done", response={"id": "r1", "usage": usage(10, 5)})
        await session.next()
        await session.say("input_audio_buffer.committed")

    async with talking(gates, slow, rules=limits(output_tokens=1_500)) as talk:
        client = await talk.connect()
        await client.say("response.create")
        await client.hear_till("response.created")
        await client.say("input_audio_buffer.append", audio="AAAA")
        session = await talk.upstream.session()
        for _ in range(5):  # enough rounds for the event, if it were passed on
            async with talk.gate.http.get("/gatekeeper/v1/limits") as answer:
                await answer.read()
        assert len(session.events) == 1
        assert session.waiting == 0
        going.set()
        await client.hear_till("input_audio_buffer.committed")
        assert [event["type"] for event in session.events][1:] == ["input_audio_buffer.append"]
        await client.socket.close()
        await talk.settled()


async def test_h24_usage_that_comes_twice_counts_once(gates: Gates) -> None:
    """A response is settled by its id; an explicit zero is zero."""

    async def twice(session: Session) -> None:
        await session.next()
        await session.turn("r1", WORDS, usage(7, 4))
        await session.turn("r1", WORDS, usage(7, 4))
        await session.next()
        await session.turn("r2", WORDS, usage(0, 0))

    async with talking(gates, twice) as talk:
        client = await talk.connect()
        await client.say("response.create")
        await client.hear_till("response.done")
        await client.hear_till("response.done")
        await client.say("response.create")
        await client.hear_till("response.done")
        await client.socket.close()
        outcome = await talk.settled()
        assert outcome["turns"] == 2
        assert (talk.used("input_tokens"), talk.used("output_tokens")) == (7, 4)
        assert outcome["usage"]["estimated"] is False


async def test_parts_of_usage_are_told_apart(gates: Gates) -> None:
    """Cached, heard and spoken tokens are told apart; heard ones in the cache count as cached."""
    reported = usage(
        10,
        6,
        input_token_details={
            "cached_tokens": 3,
            "text_tokens": 5,
            "audio_tokens": 5,
            "cached_tokens_details": {"text_tokens": 1, "audio_tokens": 2},
        },
        output_token_details={"text_tokens": 2, "audio_tokens": 4},
    )

    async def script(session: Session) -> None:
        await session.next()
        await session.turn("r1", WORDS, reported)

    rules = limits(cost=1_000_000)
    async with talking(gates, script, rules=rules) as talk:
        client = await talk.connect()
        await client.say("response.create")
        await client.hear_till("response.done")
        await client.socket.close()
        outcome = await talk.settled()
        parts = outcome["usage"]["parts"]
        assert parts["cached_input_tokens"] == 3
        assert parts["audio_input_tokens"] == 3
        assert parts["audio_output_tokens"] == 4


async def test_transcriptions_are_charged(gates: Gates) -> None:
    """In a conversation beside its turns; by tokens as reported, once per item."""

    async def script(session: Session) -> None:
        await session.next()
        for _ in range(2):
            await session.say(
                "conversation.item.input_audio_transcription.completed",
                item_id="i1",
                content_index=0,
                transcript="hi",
                usage={"type": "tokens", "input_tokens": 30, "output_tokens": 2},
            )
        await session.turn("r1", WORDS, usage(10, 4))

    async with talking(gates, script) as talk:
        client = await talk.connect()
        await client.say("response.create")
        await client.hear_till("response.done")
        await client.socket.close()
        outcome = await talk.settled()
        assert outcome["turns"] == 2
        assert (talk.used("input_tokens"), talk.used("output_tokens")) == (40, 6)


async def test_a_session_that_only_transcribes(gates: Gates) -> None:
    """Each item is its turn, and what it held is given back."""

    async def script(session: Session) -> None:
        for number in (1, 2):
            await session.next()
            await session.say(
                "conversation.item.input_audio_transcription.completed",
                item_id=f"i{number}",
                transcript="hi",
                usage={"type": "tokens", "input_tokens": 30, "output_tokens": 2},
            )

    async with talking(gates, script) as talk:
        client = await talk.connect(f"{PATH}?intent=transcription")
        for number in (1, 2):
            await client.say(
                "input_audio_buffer.append", audio=base64.b64encode(b"x" * 90).decode()
            )
            await client.hear()
            await until(lambda number=number: talk.used("input_tokens") == 30 * number)  # type: ignore[misc]
        await client.socket.close()
        await talk.settled()
        assert (talk.used("input_tokens"), talk.used("output_tokens")) == (60, 4)


async def test_a_response_that_nobody_asked_for_is_held_too(gates: Gates) -> None:
    """With turn detection the upstream begins by itself: on what was held when speech passed."""

    async def script(session: Session) -> None:
        await session.next()
        await session.turn("r1", WORDS, usage(10, 4))
        await session.turn("r2", WORDS, usage(10, 4))

    async with talking(gates, script, rules=limits(output_tokens=2_000)) as talk:
        client = await talk.connect()
        await client.say("input_audio_buffer.append", audio="AAAA")
        await client.hear_till("response.done")
        await client.hear_till("response.done")
        await client.socket.close()
        await talk.settled()
        assert talk.used("output_tokens") == 8


async def test_a_ban_takes_effect_at_the_next_turn(gates: Gates) -> None:
    """A connection outlives no decision about its account."""
    async with talking(gates) as talk:
        client = await talk.connect()
        await client.say("response.create")
        await client.hear_till("response.done")
        await talk.gate.cli("accounts", "set", "acme", "banned_until=forever")
        directory = talk.gate.app.gate._parts.directory
        await directory.refresh(talk.gate.app._unix_s())
        await client.say("response.create")
        assert (await client.hear_till("error"))["error"]["code"] == "account_suspended"
        assert await client.closed() == 1008
        assert len(talk.upstream.sessions[0].events) == 1


async def test_metrics_count_messages_and_bytes(gates: Gates) -> None:
    """By direction and kind."""
    async with talking(gates) as talk:
        client = await talk.connect()
        await client.say("response.create")
        await client.hear_till("response.done")
        await client.socket.close()
        outcome = await talk.settled()
        value = talk.gate.app.metrics.value
        assert value("gatekeeper_websocket_messages", "from_caller", "text") == 1
        assert value("gatekeeper_websocket_messages", "to_caller", "text") == 8
        assert value("gatekeeper_websocket_messages", "from_caller", "close") == 1
        assert value("gatekeeper_websocket_bytes", "to_caller") == outcome["bytes_sent"]
        assert value("gatekeeper_tokens", "output", "no") == 5
        assert value("gatekeeper_answers", "demo", "1xx", "complete") == 1


async def test_no_key_and_no_prompt_is_written_down(gates: Gates) -> None:
    """Of what was said, the records hold numbers alone."""
    async with talking(gates) as talk:
        key = talk.gate.keys["acme"]
        client = await talk.connect(
            headers={}, protocols=["realtime", f"openai-insecure-api-key.{key}"]
        )
        assert client.socket.protocol == "realtime"
        await client.say("response.create", response={"instructions": "a secret prompt"})
        await client.hear_till("response.done")
        await client.socket.close()
        await talk.settled()
        book = json.dumps(talk.gate.book())
        assert "secret" not in book
        assert key not in book
        assert "insecure" not in book
        session = talk.upstream.sessions[0]
        assert key not in str(session.headers)
        assert session.headers["Sec-WebSocket-Protocol"] == "realtime"


async def test_the_limits_of_many_conversations_are_one(gates: Gates) -> None:
    """Conversations side by side share the account's limits to the token."""
    async with talking(gates, rules=PLENTY) as talk:

        async def converse() -> None:
            client: Client = await talk.connect()
            for _ in range(5):
                await client.say("response.create")
                await client.hear_till("response.done")
            await client.socket.close()

        await asyncio.gather(*(converse() for _ in range(10)))

        async def over() -> bool:
            return talk.held() == 0

        await eventually(over)
        assert (talk.used("input_tokens"), talk.used("output_tokens")) == (500, 250)
        assert talk.used("requests") == 50
