"""A budget that ends in mid-stream ends the answer there, in the API's own words."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest
from support.families import CHAT, COMPLETIONS, FAMILIES, MESSAGES, RESPONSES, Family
from support.gates import Clock
from support.wire import SSE_HEAD, Exchange, RawUpstream, always, request, until, wired

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from support.gates import Gates, RunningGate
    from support.wire import Wired

BUDGET = 40
STOP = f"""
limits:
  - {{id: output, description: O., unit: output_tokens, per: [account], rate: {BUDGET}/month,
     at_end: stop}}
  - {{id: slots, description: S., unit: concurrency, per: [account], slots: 9, lease: 1 hour}}
"""
SHADOW = STOP.replace("at_end: stop}", "at_end: stop, mode: shadow}")
STOP_THEN_COST = (
    STOP
    + """\
  - {id: cost, description: C., unit: cost, per: [account], rate: 100/month}
"""
)


def beginning(family: Family) -> tuple[bytes, ...]:
    """Return the events before the first text."""
    return family.events[
        : {"chat": 1, "completions": 0, "responses": 3, "messages": 2}[family.name]
    ]


def endless(family: Family) -> Callable[[Exchange], Awaitable[None]]:
    """Return a script that heeds no bound: the same few words for ever."""
    first = beginning(family)
    piece = family.events[len(first)]

    async def script(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(SSE_HEAD)
        for event in first:
            await exchange.send(b"%x\r\n%b\r\n" % (len(event), event))
        leaving = asyncio.create_task(exchange.gone())
        while not leaving.done():
            await exchange.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asyncio.sleep(0.002)

    return script


def level(gate: RunningGate, unit: str) -> float:
    """Return what a limit stands at, in units."""
    cells = gate.app.gate._parts.limiter._cells  # type: ignore[attr-defined]
    (cell,) = [cell for key, cell in cells.items() if key[0].endswith(f":{unit}")]
    return float(cell.used / 1_000_000)


async def ended(w: Wired, decision_id: str, ending: str = "stopped") -> dict[str, Any]:
    """Show that a call ended within its budget and holds nothing any more."""
    outcome = await w.gate.outcome(decision_id)
    assert outcome["ending"] == ending
    parts = w.gate.app.gate._parts
    assert not parts.limiter._open  # type: ignore[attr-defined]
    await until(lambda: not parts.delivery.client._open)  # type: ignore[attr-defined]
    return outcome


def client(w: Wired, kind: type[Any], base: str = "/v1") -> Any:
    """Return an SDK's client of the gate."""
    return kind(api_key="sk-one", base_url=f"{w.gate.url}{base}", max_retries=0)


async def test_a_chat_stream_ends_with_length(gates: Gates) -> None:
    """`openai` reads a whole answer; the budget is charged, to the token; then the next is 429."""
    async with (
        wired(gates, RawUpstream(endless(CHAT)), STOP, clock=Clock()) as w,
        client(w, openai.AsyncOpenAI) as sdk,
    ):
        asked: Any = {**CHAT.fields, "model": "demo-small"}
        stream = await sdk.chat.completions.create(**asked, stream=True)
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].choices[0].finish_reason == "length"
        assert chunks[-1].usage is None
        assert {(each.id, each.model, each.object) for each in chunks} == {("c-1", "m", "x")}
        text = "".join(each.choices[0].delta.content or "" for each in chunks)
        assert 0.6 * BUDGET < len(text.split()) <= BUDGET
        outcome = await ended(w, stream.response.headers["gatekeeper-decision"])
        assert outcome["usage"]["output_tokens"] == BUDGET
        assert outcome["usage"]["estimated"]
        assert level(w.gate, "output_tokens") == BUDGET
        assert json.loads(w.upstream.book[0].body)["max_tokens"] == BUDGET
        with pytest.raises(openai.RateLimitError) as raised:
            await sdk.chat.completions.create(**asked)
        assert raised.value.code == "token_limit_exceeded"
        assert raised.value.response.headers["retry-after"] == str(30 * 86_400 // BUDGET)


async def test_every_choice_ends_and_usage_is_told_if_it_was_asked_for(gates: Gates) -> None:
    """A choice that is over stays over; the others end with `length`, and the usage follows."""
    done = (
        CHAT.events[0]
        .replace(b'"finish_reason"', b'"x"')
        .replace(
            b'"delta": {"role": "assistant", "content": ""}',
            b'"finish_reason": "stop", "delta": {}',
        )
    )
    assert b"stop" in done

    async def two(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(SSE_HEAD + b"%x\r\n%b\r\n" % (len(done), done))
        await endless_after(exchange)

    async def endless_after(exchange: Exchange) -> None:
        piece = CHAT.events[1].replace(b'"index": 0', b'"index": 1')
        leaving = asyncio.create_task(exchange.gone())
        while not leaving.done():
            await exchange.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asyncio.sleep(0.002)

    async with (
        wired(gates, RawUpstream(two), STOP, clock=Clock()) as w,
        client(w, openai.AsyncOpenAI) as sdk,
    ):
        asked: Any = {**CHAT.fields, "n": 2, "stream_options": {"include_usage": True}}
        stream = await sdk.chat.completions.create(**asked, model="demo-small", stream=True)
        chunks = [chunk async for chunk in stream]
        *_, last, told = chunks
        assert [(each.index, each.finish_reason) for each in last.choices] == [(1, "length")]
        assert (told.choices, told.usage.completion_tokens) == ([], BUDGET)
        assert told.usage.total_tokens == told.usage.prompt_tokens + BUDGET
        assert json.loads(w.upstream.book[0].body)["max_tokens"] == BUDGET // 2


async def test_a_completion_ends_with_length(gates: Gates) -> None:
    """The older API too."""
    upstream = RawUpstream(endless(COMPLETIONS))
    async with (
        wired(gates, upstream, STOP, clock=Clock()) as w,
        client(w, openai.AsyncOpenAI) as sdk,
    ):
        stream = await sdk.completions.create(**COMPLETIONS.fields, model="demo-small", stream=True)
        chunks = [chunk async for chunk in stream]
        assert (chunks[-1].choices[0].finish_reason, chunks[-1].choices[0].text) == ("length", "")
        await ended(w, stream.response.headers["gatekeeper-decision"])
        assert level(w.gate, "output_tokens") == BUDGET


async def test_a_response_ends_incomplete(gates: Gates) -> None:
    """`response.incomplete` holds what came, its reason and its usage, in proper sequence."""
    upstream = RawUpstream(endless(RESPONSES))
    async with (
        wired(gates, upstream, STOP, clock=Clock()) as w,
        client(w, openai.AsyncOpenAI) as sdk,
    ):
        stream = await sdk.responses.create(**RESPONSES.fields, model="demo-small", stream=True)
        events = [event async for event in stream]
        text = "".join(each.delta for each in events if each.type.endswith("text.delta"))
        response = events[-1].response
        assert events[-1].type == "response.incomplete"
        assert (response.status, response.id) == ("incomplete", "resp_1")
        assert response.incomplete_details.reason == "max_output_tokens"
        assert response.output_text == text
        assert response.usage.output_tokens == BUDGET
        numbers = [each.sequence_number for each in events[-5:]]
        assert numbers == list(range(numbers[0], numbers[0] + 5))
        assert [each.type for each in events[-4:-1]] == [
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
        ]
        assert events[-2].item.status == "incomplete"
        await ended(w, stream.response.headers["gatekeeper-decision"])
        assert level(w.gate, "output_tokens") == BUDGET


async def test_the_sdks_own_collector_takes_the_end_of_a_response(gates: Gates) -> None:
    """What the SDK puts together from the events agrees with the last one."""
    upstream = RawUpstream(endless(RESPONSES))
    async with (
        wired(gates, upstream, STOP.replace("40/month", "30/month"), clock=Clock()) as w,
        client(w, openai.AsyncOpenAI) as sdk,
        sdk.responses.stream(**RESPONSES.fields, model="demo-small") as stream,
    ):
        kinds = [event.type async for event in stream]
        assert kinds[-1] == "response.incomplete"


async def test_a_message_ends_with_max_tokens(gates: Gates) -> None:
    """`anthropic` reads a whole message."""
    upstream = RawUpstream(endless(MESSAGES))
    async with wired(gates, upstream, STOP, clock=Clock()) as w:
        async with (
            client(w, anthropic.AsyncAnthropic, "") as sdk,
            sdk.messages.stream(**MESSAGES.fields, model="demo-small") as stream,
        ):
            message = await stream.get_final_message()
            assert message.stop_reason == "max_tokens"
            assert message.usage.output_tokens == BUDGET
            assert 0.6 * BUDGET < len(message.content[0].text.split()) <= BUDGET
            decision_id = stream.response.headers["gatekeeper-decision"]
        outcome = await ended(w, decision_id)
        assert (outcome["usage"]["input_tokens"], outcome["usage"]["output_tokens"]) == (9, BUDGET)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
async def test_the_upstream_is_let_go_within_a_chunk(gates: Gates, family: Family) -> None:
    """Nothing is read beyond the event that exceeds the budget, and the framing ends properly."""
    go = asyncio.Semaphore(0)
    sent = 0

    async def stepped(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.body()
        await exchange.send(SSE_HEAD)
        first = beginning(family)
        for event in (*first, *([family.events[len(first)]] * 1_000)):
            leaving = asyncio.create_task(exchange.gone())
            stepping = asyncio.create_task(go.acquire())
            await asyncio.wait({leaving, stepping}, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done():
                return
            leaving.cancel()
            await exchange.send(b"%x\r\n%b\r\n" % (len(event), event))
            sent += 1

    async with wired(gates, RawUpstream(stepped), STOP, clock=Clock()) as w:
        caller = await w.caller()
        body = family.request(stream=True)
        caller.write(request("POST", family.target, "Content-Type: application/json", body=body))
        head = await caller.head()
        passed = 0
        while True:
            go.release()
            chunk = await caller.chunk()
            if (
                chunk
                != (*beginning(family), *([family.events[len(beginning(family))]] * 999))[passed]
            ):
                break
            passed += 1
        assert sent == passed + 1
        assert await caller.chunk() == b""
        await ended(w, head.one("gatekeeper-decision") or "")
        assert (await caller.ask(request(key=None))).status == 401  # the connection goes on


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
async def test_what_is_left_is_the_bound_of_an_answer_at_once(gates: Gates, family: Family) -> None:
    """An answer that is not streamed is bounded at the upstream, and charged as it reports."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    wire = head % len(family.document) + family.document
    async with wired(gates, RawUpstream(always(wire)), STOP_THEN_COST, clock=Clock()) as w:
        asked = request("POST", family.target, body=family.request(stream=False))
        for left in (40, 29, 18, 7):
            assert (await w.ask(asked)).status == 200
            bound = [
                value
                for name, value in json.loads(w.upstream.book[-1].body).items()
                if name.startswith("max_")
            ]
            assert bound == [left]
        assert level(w.gate, "output_tokens") == 44  # a debt: the last was given 7 and wrote 11
        assert (await w.ask(asked)).status == 429


async def test_an_upstream_that_heeds_its_bound_is_not_cut(gates: Gates) -> None:
    """An answer within its budget passes byte for byte, and is charged as it reports."""
    stream = b"".join(CHAT.events)
    wire = SSE_HEAD + b"%x\r\n%b\r\n0\r\n\r\n" % (len(stream), stream)
    async with wired(gates, RawUpstream(always(wire)), STOP, clock=Clock()) as w:
        answer = await w.ask(request("POST", CHAT.target, body=CHAT.request(stream=True)))
        assert answer.body == stream
        outcome = await w.outcome(answer.head)
        assert (outcome["ending"], outcome["usage"]["output_tokens"]) == ("complete", 11)
        assert not outcome["usage"]["estimated"]


async def test_h31_a_budget_in_shadow_mode_ends_nothing(gates: Gates) -> None:
    """The bound goes to the upstream as the caller named it."""
    stream = b"".join(CHAT.events)
    wire = SSE_HEAD + b"%x\r\n%b\r\n0\r\n\r\n" % (len(stream), stream)
    async with wired(gates, RawUpstream(always(wire)), SHADOW, clock=Clock()) as w:
        for _ in range(6):
            asked = CHAT.request(stream=True)
            answer = await w.ask(request("POST", CHAT.target, body=asked))
            assert (answer.body, w.upstream.book[-1].body) == (stream, asked)
