"""OpenAI realtime through the gate: a response is held before, settled after, counted once."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from support.gates import SOON_S, eventually
from support.realtime import (
    MODEL,
    PATH,
    PLENTY,
    Client,
    Session,
    Talking,
    limits,
    talking,
    usage,
)
from support.wire import until

from gatekeeper.settings import Deadlines, Sizes

if TYPE_CHECKING:
    from support.gates import Gates

WORDS = [" cat", " dog", " house", " tree"]


async def settled(talk: Talking) -> dict[str, Any]:
    """Wait until a conversation is over and all that it held is settled."""
    outcome = await talk.outcome()
    await until(lambda: talk.held() == 0)
    return outcome


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
        outcome = await settled(talk)
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
        await settled(talk)


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
        await settled(talk)
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
        outcome = await settled(talk)
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
        await settled(talk)
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
        await asyncio.sleep(0)
        assert len(session.events) == 1
        going.set()
        await client.hear_till("input_audio_buffer.committed")
        assert [event["type"] for event in session.events][1:] == ["input_audio_buffer.append"]
        await client.socket.close()
        await settled(talk)


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
        outcome = await settled(talk)
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
        outcome = await settled(talk)
        parts = outcome["usage"]["parts"]
        assert parts["cached_input_tokens"] == 3
        assert parts["audio_input_tokens"] == 3
        assert parts["audio_output_tokens"] == 4


async def test_h25_a_caller_that_is_gone_is_charged_what_was_delivered(gates: Gates) -> None:
    """Between delivered and held, marked as estimated; the upstream is let go of at once."""
    told = asyncio.Event()

    async def script(session: Session) -> None:
        await session.next()
        await session.say("response.created", response={"id": "r1"})
        for word in WORDS * 10:
            await session.say("response.output_text.delta", response_id="r1", delta=word)
        told.set()

    async with talking(gates, script) as talk:
        client = await talk.connect()
        await client.say("response.create", response={"instructions": "Speak of cats."})
        for _ in range(41):
            await client.hear()
        client.cut()
        outcome = await settled(talk)
        assert outcome["ending"] == "client_gone"
        used = outcome["usage"]
        assert used["estimated"] is True
        assert 40 <= used["output_tokens"] <= 1_000
        assert 3 <= used["input_tokens"] <= 80
        assert talk.used("output_tokens") == used["output_tokens"]
        assert talk.used("input_tokens") == used["input_tokens"]
        session = talk.upstream.sessions[0]
        await asyncio.wait_for(session.ended.wait(), SOON_S)
        assert session.closed == 1006  # no proper end


@pytest.mark.parametrize("heard", [0, 1, 2, 3, 5, 6])
async def test_h25_gone_at_any_event(gates: Gates, heard: int) -> None:
    """Wherever the caller leaves: nothing stays held; charged is reported, or an estimate."""
    async with talking(gates) as talk:
        client = await talk.connect()
        await client.say("response.create")
        for _ in range(heard):
            await client.hear()
        client.cut()
        outcome = await settled(talk)
        used = outcome["usage"]
        assert talk.used("output_tokens") == used["output_tokens"]
        assert talk.used("input_tokens") == used["input_tokens"]
        assert used["output_tokens"] <= 1_000
        assert talk.used("requests") == 1
        if outcome["turns"] and not used["estimated"]:
            assert (used["input_tokens"], used["output_tokens"]) == (10, 5)


async def test_h32_an_upstream_that_breaks_off_is_no_proper_end(gates: Gates) -> None:
    """The caller is told 1011; what was delivered is charged."""

    async def script(session: Session) -> None:
        await session.next()
        await session.say("response.created", response={"id": "r1"})
        for word in WORDS:
            await session.say("response.output_text.delta", response_id="r1", delta=word)
        assert session.socket._req is not None
        assert session.socket._req.transport is not None
        session.socket._req.transport.abort()

    async with talking(gates, script) as talk:
        client = await talk.connect()
        await client.say("response.create")
        assert await client.closed() == 1011
        outcome = await settled(talk)
        assert outcome["ending"] == "upstream_broke"
        assert 4 <= outcome["usage"]["output_tokens"] <= 1_000
        assert talk.used("output_tokens") == outcome["usage"]["output_tokens"]


@pytest.mark.parametrize("code", [1000, 1001, 1008, 3000, 4321])
async def test_codes_of_a_close_pass_both_ways(gates: Gates, code: int) -> None:
    """Either side's code and reason reach the other."""

    async def closing(session: Session) -> None:
        if await session.next() is not None:
            await session.socket.close(code=code, message=b"enough")

    async with talking(gates, closing) as talk:
        client = await talk.connect()
        await client.say("response.cancel")
        assert await client.closed() == code
        await talk.upstream.sessions[0].ended.wait()
        other = await talk.connect()
        await other.socket.close(code=code, message=b"enough")
        session = await talk.upstream.session(1)
        await asyncio.wait_for(session.ended.wait(), SOON_S)
        assert session.closed == code


async def test_a_close_just_before_hanging_up_is_passed_on(gates: Gates) -> None:
    """A caller that closes and is gone at once ended in order."""
    async with talking(gates) as talk:
        client = await talk.connect()
        writer = client.socket._writer
        await writer.close(4000)
        client.socket._response.close()
        session = await talk.upstream.session()
        await asyncio.wait_for(session.ended.wait(), SOON_S)
        assert session.closed == 4000
        assert (await settled(talk))["ending"] == "complete"


async def test_pings_pass(gates: Gates) -> None:
    """A ping is answered by the other side, not by the gate, and keeps both lines alive."""
    seen: list[bytes] = []

    async def script(session: Session) -> None:
        session.socket._autoping = False
        message = await session.socket.receive()
        seen.append(message.data)
        await session.socket.pong(b"from the upstream")

    async with talking(gates, script) as talk:
        client = await talk.connect(autoping=False)
        await client.socket.ping(b"from the caller")
        message = await client.socket.receive()
        assert (message.type, bytes(message.data)) == (
            aiohttp.WSMsgType.PONG,
            b"from the upstream",
        )
        assert list(map(bytes, seen)) == [b"from the caller"]
        await client.socket.close()


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
        outcome = await settled(talk)
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
        await settled(talk)
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
        await settled(talk)
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


async def test_a_silent_conversation_is_ended(gates: Gates) -> None:
    """Both sides are told; what was held is given back."""
    deadlines = Deadlines(websocket_idle_s=0.05)
    async with talking(gates, deadlines=deadlines) as talk:
        client = await talk.connect()
        assert await client.closed() == 1001
        outcome = await settled(talk)
        assert outcome["ending"] == "timed_out"
        assert outcome["turns"] == 0
        assert (talk.used("requests"), talk.used("output_tokens")) == (1, 0)
        assert talk.upstream.sessions[0].closed == 1001


async def test_a_message_is_bounded(gates: Gates) -> None:
    """Either way: the sender is told 1009, and the other side that it was no proper end."""

    async def script(session: Session) -> None:
        if await session.next() is not None:
            await session.say("x" * 2_000)

    async with talking(gates, script, sizes=Sizes(max_message_bytes=1_000)) as talk:
        client = await talk.connect()
        await client.say("x" * 2_000)
        assert await client.closed() == 1009
        first = talk.upstream.sessions[0]
        await asyncio.wait_for(first.ended.wait(), SOON_S)
        assert first.closed == 1006
        other = await talk.connect()
        await other.say("response.cancel")
        assert await other.closed() == 1011
        second = talk.upstream.sessions[1]
        await asyncio.wait_for(second.ended.wait(), SOON_S)
        assert second.closed == 1009


async def test_a_caller_that_reads_nothing_is_cut(gates: Gates) -> None:
    """Its upstream is held back meanwhile, not read into memory."""

    async def flood(session: Session) -> None:
        await session.next()
        await session.say("response.created", response={"id": "r1"})
        while True:
            await session.say("response.output_text.delta", response_id="r1", delta="x" * 60_000)

    deadlines = Deadlines(write_s=0.2)
    async with talking(gates, flood, deadlines=deadlines) as talk:
        client = await talk.connect()
        await client.say("response.create")
        await client.hear_till("response.created")
        client.socket._response.connection.transport.pause_reading()  # type: ignore[union-attr]
        outcome = await settled(talk)
        assert outcome["ending"] in {"client_stalled", "client_gone"}
        assert talk.used("output_tokens") <= 1_000


async def test_metrics_count_messages_and_bytes(gates: Gates) -> None:
    """By direction and kind."""
    async with talking(gates) as talk:
        client = await talk.connect()
        await client.say("response.create")
        await client.hear_till("response.done")
        await client.socket.close()
        outcome = await settled(talk)
        value = talk.gate.app.metrics.value
        assert value("gatekeeper_websocket_messages", "from_caller", "text") == 1
        assert value("gatekeeper_websocket_messages", "to_caller", "text") == 8
        assert value("gatekeeper_websocket_messages", "from_caller", "close") == 1
        assert value("gatekeeper_websocket_bytes", "to_caller") == outcome["bytes_sent"]
        assert value("gatekeeper_tokens", "output", "no") == 5
        assert value("gatekeeper_answers", "demo", "1xx", "complete") == 1


YIELDING = """
limits:
  - {id: of-output, description: D., unit: output_tokens, per: [account], rate: 1/month,
     burst: 50, at_end: stop}
"""


async def test_a_budget_ends_a_response_on_its_way(gates: Gates) -> None:
    """Where a rule gives what is left: the response ends there, and its upstream."""

    async def script(session: Session) -> None:
        await session.next()
        await session.say("response.created", response={"id": "r1"})
        for word in WORDS * 50:
            await session.say("response.output_text.delta", response_id="r1", delta=word)

    async with talking(gates, script, rules=YIELDING) as talk:
        client = await talk.connect()
        await client.say("response.create")
        error = await client.hear_till("error")
        assert error["error"]["code"] == "token_limit_exceeded"
        assert await client.closed() == 1008
        outcome = await settled(talk)
        assert talk.used("output_tokens") == outcome["usage"]["output_tokens"] == 50


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
        await settled(talk)
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
