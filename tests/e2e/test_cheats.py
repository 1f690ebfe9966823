"""Callers that want more tokens than they pay for, each with a trick that once worked."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from support.endings import outcomes
from support.gates import SOON_S, Clock
from support.wire import Exchange, RawUpstream, request, until, wired

if TYPE_CHECKING:
    from support.gates import Gates
    from support.wire import Wired

LIMITS = """
limits:
  - {id: input, description: I., unit: input_tokens, per: [account], rate: 1000000/month}
  - {id: output, description: O., unit: output_tokens, per: [account], rate: 1000000/month}
"""
CALL = {"model": "demo-small", "max_tokens": 500, "messages": [{"role": "user", "content": "Hi"}]}
LINE = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": CALL}
ANTHROPIC_BATCH = {"requests": [{"custom_id": "a", "params": CALL}]}
OPENAI_BATCH = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions"}
BACKGROUND = {"model": "demo-small", "input": "Hi", "max_output_tokens": 500, "background": True}


def post(target: str, fields: Any, *more: str) -> bytes:
    """Return a call with a JSON body."""
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return request("POST", target, *(more or ("Content-Type: application/json",)), body=body)


async def charged(w: Wired, count: int = 1) -> dict[str, Any]:
    """Return what the last of so many calls was charged."""
    async with asyncio.timeout(SOON_S):
        while len(found := outcomes(w)) < count:  # noqa: ASYNC110 - the log writes by a thread
            await asyncio.sleep(0.005)
    usage: dict[str, Any] = found[-1]["usage"]
    return usage


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        ("/v1/batches", OPENAI_BATCH),
        ("/v1/messages/batches", ANTHROPIC_BATCH),
        ("/v1/responses", BACKGROUND),
    ],
)
async def test_h25_work_that_outlasts_its_caller_is_paid_by_one_that_leaves_at_once(
    gates: Gates, target: str, fields: dict[str, Any]
) -> None:
    """It goes on at the upstream, and what comes of it is fetched later, where nothing is paid."""
    file = json.dumps(LINE).encode()

    async def script(exchange: Exchange) -> None:
        await exchange.body()
        if exchange.head.target.endswith("/content"):
            await exchange.send(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(file), file)
            )
        else:
            await exchange.gone()

    async with wired(gates, RawUpstream(script), rules=LIMITS, clock=Clock()) as w:
        caller = await w.caller()
        caller.write(post(target, fields))
        await until(lambda: any(each.head.target == target for each in w.upstream.book))
        caller.reset()
        usage = await charged(w)
        assert (usage["output_tokens"], usage["estimated"]) == (500, True)


STOP = """
limits:
  - {id: output, description: O., unit: output_tokens, per: [account], rate: 600/month,
     at_end: stop}
"""


async def test_h23_a_quota_that_yields_does_not_let_in_what_cannot_be_made_smaller(
    gates: Gates,
) -> None:
    """A batch is as large as it is: the last tokens of a quota are not enough for it."""
    batch = {"requests": ANTHROPIC_BATCH["requests"] * 2}
    async with wired(gates, rules=STOP, clock=Clock()) as w:
        assert (await w.ask(post("/v1/messages/batches", batch))).status == 429
        assert (await w.ask(post("/v1/messages/batches", ANTHROPIC_BATCH))).status == 200
        assert (await w.ask(post("/v1/messages/batches", ANTHROPIC_BATCH))).status == 429
        assert (await w.ask(post("/v1/chat/completions", CALL))).status == 200
        assert len(w.upstream.book) == 2


UTF_7 = (
    b'{"model":"demo-small","max_tokens":1,"messages":[],'
    b'"user":"+ACIALAAi-max+AF8-tokens+ACIAOg-1000,+ACI-x+ACIAOgAi-"}'
)
FORM = b'{"model":"demo-small","n":1,"prompt":"&model=dear&n=10&prompt=cat&"}'


@pytest.mark.parametrize(
    ("target", "content_type", "body"),
    [
        ("/v1/chat/completions", "application/json; charset=utf-7", UTF_7),
        ("/v1/chat/completions", 'application/json; x=y; Charset = "UTF-7"', UTF_7),
        ("/v1/messages", "application/json; charset=utf-8; charset=utf-16", UTF_7),
    ],
)
async def test_h23_a_body_has_one_meaning_whatever_its_content_type_says(
    gates: Gates, target: str, content_type: str, body: bytes
) -> None:
    """What is JSON here would be another charset's text at an upstream."""
    async with wired(gates, rules=LIMITS, clock=Clock()) as w:
        answer = await w.ask(post(target, body, f"Content-Type: {content_type}"))
        assert (answer.status, w.upstream.book) == (400, [])
        assert b"content-type" in answer.body


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "Application/X-WWW-Form-URLencoded; charset=utf-8"],
)
async def test_h23_what_is_read_as_json_goes_on_as_json(gates: Gates, content_type: str) -> None:
    """Curl calls anything a form; a server that believed it would find one in a string."""
    async with wired(gates, rules=LIMITS, clock=Clock()) as w:
        said = post("/v1/images/generations", FORM, f"Content-Type: {content_type}")
        assert (await w.ask(said)).status == 200
        (received,) = w.upstream.book
        assert received.head.all("content-type") == ["application/json"]
        assert received.body == FORM


async def test_bodies_need_not_say_that_they_are_json(gates: Gates) -> None:
    """Many callers do not, and some say in which charset."""
    types = ("application/json; charset=UTF-8", "text/plain", "application/octet-stream")
    async with wired(gates, rules=LIMITS, clock=Clock()) as w:
        for each in types:
            said = post("/v1/chat/completions", CALL, f"Content-Type: {each}")
            assert (await w.ask(said)).status == 200


@pytest.mark.parametrize("method", ["PUT", "PATCH", "GET", "DELETE"])
async def test_h26_a_body_is_metered_whatever_the_method(gates: Gates, method: str) -> None:
    """Some servers look at the path alone; a body that generates there is held here."""
    body = json.dumps(CALL).encode()
    async with wired(gates, rules=LIMITS, clock=Clock()) as w:
        answer = await w.ask(request(method, "/v1/chat/completions", body=body))
        decision = await w.decision(answer.head)
        call = decision["facts"]["call"]
        assert (call["dialect"], call["max_output_tokens"]) == ("openai_chat", 500)


async def test_an_empty_body_asks_for_nothing(gates: Gates) -> None:
    """A list is a list, though its caller says that nothing follows."""
    async with wired(gates, rules=LIMITS, clock=Clock()) as w:
        answer = await w.ask(request("GET", "/v1/chat/completions", body=b""))
        assert answer.status == 200
        assert "max_output_tokens" not in (await w.decision(answer.head))["facts"]["call"]


async def test_h26_no_header_makes_another_request_of_what_was_judged(gates: Gates) -> None:
    """Of method and target the upstream gets one each, and nothing outlasts its caller unseen."""
    fields = [
        "X-HTTP-Method-Override: POST",
        "X-HTTP-Method: POST",
        "X-Method-Override: POST",
        "X-Original-URL: /v1/chat/completions",
        "X-Rewrite-URL: /v1/chat/completions",
        "X-Conversation-Id: mine",
    ]
    async with wired(gates, rules=LIMITS, clock=Clock()) as w:
        assert (await w.ask(request("GET", "/v1/models", *fields))).status == 200
        names = {name.lower() for name, _ in w.upstream.book[0].head.fields}
        assert names.isdisjoint(each.partition(":")[0].lower() for each in fields)


FEW = """
limits:
  - {id: calls, description: C., unit: requests, per: [account], rate: 3/day}
  - {id: slots, description: S., unit: concurrency, per: [account], slots: 1, lease: 1 hour}
"""


async def test_h22_files_are_read_for_batches_within_the_limit_on_requests(gates: Gates) -> None:
    """One that holds no batch is charged as a request; one that does is charged once, with it."""
    files = [json.dumps(LINE).encode(), b"x", b"x", b"x"]
    read: list[bytes] = []

    async def script(exchange: Exchange) -> None:
        await exchange.body()
        body = b"{}"
        if exchange.head.target.endswith("/content"):
            body = files[len(read)]
            read.append(body)
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async with wired(gates, RawUpstream(script), rules=FEW, clock=Clock()) as w:
        said = [(await w.ask(post("/v1/batches", OPENAI_BATCH))).status for _ in files]
        assert said == [200, 400, 400, 429]
        assert len(read) == 3
        assert len(w.upstream.book) == len(read) + 1


async def test_h10_a_file_that_never_ends_holds_up_others_for_a_while_only(gates: Gates) -> None:
    """Two are read at a time, so each has its time."""

    async def script(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nx")
        await exchange.gone()

    deadlines = {"body_s": 0.1}
    async with wired(gates, RawUpstream(script), deadlines=deadlines) as w:
        asked = [w.ask(post("/v1/batches", OPENAI_BATCH)) for _ in range(5)]
        assert {each.status for each in await asyncio.gather(*asked)} == {503}


SLOW = """
limits:
  - {id: input, description: I., unit: input_tokens, per: [account], rate: 10000/month}
  - {id: volume, description: V., unit: bytes, per: [account], rate: 10000000/month}
  - {id: slots, description: S., unit: concurrency, per: [account], slots: 1, lease: 1 day}
"""


async def test_h23_who_outlasts_a_hold_pays_for_what_was_used_beyond_it(gates: Gates) -> None:
    """What was held stays charged, and the rest is charged too."""
    usage = {"prompt_tokens": 5_000, "completion_tokens": 1, "total_tokens": 5_001}
    answer = json.dumps({"choices": [], "usage": usage}).encode()
    clock = Clock()

    async def script(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.go_on()
        await exchange.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(answer), answer)
        )

    async with wired(gates, RawUpstream(script), rules=SLOW, clock=clock) as w:
        caller = await w.caller()
        caller.write(post("/v1/chat/completions", CALL))
        await until(lambda: len(w.upstream.book) == 1)
        clock.advance(3_700)
        w.upstream.going.set()
        assert (await caller.answer()).body == answer
        outcome = await w.only_outcome()
        assert outcome["usage"]["input_tokens"] == 5_000
        cells = w.gate.app.gate._parts.limiter._cells  # type: ignore[attr-defined]
        levels = {key[0].partition(":")[2]: cell for key, cell in cells.items()}
        assert 4_900 < levels["input_tokens"].used / 1_000_000 <= 5_000
        assert levels["bytes"].used / 1_000_000 >= len(answer)
        assert not levels["concurrency"].leases


@pytest.mark.parametrize(
    ("target", "named", "put_in"),
    [
        ("/v1/chat/completions", {"n_predict": 7}, {"max_completion_tokens": 7}),
        ("/v1/chat/completions", {"max_output_tokens": 7, "n": 2}, {"max_completion_tokens": 7}),
        ("/v1/chat/completions", {"n_predict": 7, "max_tokens": 5}, {}),
        ("/v1/completions", {"max_completion_tokens": 7}, {"max_tokens": 7}),
        ("/v1/responses", {"max_tokens": 7}, {"max_output_tokens": 7}),
        ("/completion", {"max_output_tokens": 7}, {"n_predict": 7}),
    ],
)
async def test_h23_a_bound_of_another_api_bounds_this_one_too(
    gates: Gates, target: str, named: dict[str, int], put_in: dict[str, int]
) -> None:
    """A server that does not know the field would write on, while next to nothing is held."""
    what = {"messages": [], "prompt": "Hi", "input": "Hi"}
    async with wired(gates, rules=LIMITS, clock=Clock()) as w:
        fields = {"model": "demo-small", **what, **named}
        assert (await w.ask(post(target, fields))).status == 200
        assert json.loads(w.upstream.book[0].body) == {**fields, **put_in}


async def test_h23_a_batch_is_held_without_the_bounds_of_another_api(gates: Gates) -> None:
    """Nothing can be put into a file: what may write on is held as if it named no bound."""
    line = {**LINE, "body": {"model": "demo-small", "messages": [], "n_predict": 1}}
    file = json.dumps(line).encode()

    async def script(exchange: Exchange) -> None:
        await exchange.body()
        body = file if exchange.head.target.endswith("/content") else b"{}"
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async with wired(gates, RawUpstream(script), rules=LIMITS, clock=Clock()) as w:
        answer = await w.ask(post("/v1/batches", OPENAI_BATCH))
        assert (await w.outcome(answer.head))["usage"]["output_tokens"] == 1_000
