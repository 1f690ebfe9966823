"""What never becomes a call is counted and logged too, and echoes nothing (H9)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs
from support.wire import (
    ASK_STREAM,
    SSE_HEAD,
    Caller,
    Exchange,
    RawUpstream,
    always,
    ask,
    request,
    wired,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp.web import BaseRequest, StreamResponse
    from support.gates import Gates

BROKEN = (
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03evil\r\n\r\n", "BadHttpMethod"),
    (b"GET /evil HTTP/1.1\r\nevil\r\n\r\n", "BadHttpMessage"),
    (b"GET /evil HTTP/evil\r\nHost: evil\r\n\r\n", "BadStatusLine"),
    (b"GET http://[evil HTTP/1.1\r\nHost: evil\r\n\r\n", "InvalidURLError"),
    (b"GET /" + b"evil" * 5_000 + b" HTTP/1.1\r\nHost: evil\r\n\r\n", "LineTooLong"),
    (b"GET /evil HTTP/1.1\r\nX-Evil: " + b"evil" * 5_000 + b"\r\n\r\n", "LineTooLong"),
    (b"GET /evil HTTP/1.1\r\n" + b"evil: evil\r\n" * 200 + b"\r\n", "BadHttpMessage"),
)


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[Any]]:
    """Return what is logged."""
    with capture_logs() as lines:
        yield lines


@pytest.mark.parametrize(("data", "kind"), BROKEN)
async def test_h9_refusals_of_the_parser_are_counted_and_logged_once(
    gates: Gates, logs: list[Any], data: bytes, kind: str
) -> None:
    """One count by a kind of ours, one line of log, and a generic body without a byte of theirs."""
    async with wired(gates) as w:
        caller = await w.caller()
        answer = await caller.ask(data)
        assert await caller.closed() == b""
        assert answer.status == 400
        assert answer.head.one("content-type") == "application/problem+json"
        assert json.loads(answer.body)["code"] == "invalid_request"
        assert answer.head.one("server") is None
        assert b"evil" not in answer.head.raw + answer.body
        assert w.count("gatekeeper_parser_refusals", kind) == 1
        assert [(line["event"], line["kind"]) for line in logs] == [("refused_by_parser", kind)]
        assert logs[0]["peer"] == "127.0.0.0/24"
        assert "evil" not in json.dumps(logs)
        assert w.upstream.connections == 0
        assert f'gatekeeper_parser_refusals_total{{kind="{kind}"}} 1.0' in await w.gate.metrics()


async def test_h9_garbage_behind_a_good_call_is_refused_alone(gates: Gates) -> None:
    """The call is answered first; then the parser's refusal, counted, ends the connection."""
    async with wired(gates) as w:
        caller = await w.caller()
        assert (await caller.ask(ask())).status == 200
        assert (await caller.ask(b"evil\r\n\r\n")).status == 400
        assert await caller.closed() == b""
        assert w.count("gatekeeper_parser_refusals", "BadHttpMethod") == 1
        assert len(w.upstream.book) == 1


@pytest.mark.parametrize(
    "injected", ["%0d%0aX-Injected:%201", "\x0bX-Injected: 1", "\x85X-Injected:1"]
)
async def test_h9_no_header_can_be_injected(gates: Gates, injected: str) -> None:
    """What callers write appears in no header of an answer, whatever it holds."""
    async with wired(gates, cors={"allow_origins": ("*",)}) as w:
        for data in (
            request("GET", f"/a{injected}"),
            ask(f"User-Agent: a{injected}", f"Origin: http://a{injected}"),
            ask(f"X-Request-Id: a{injected}"),
            ask(key=f"sk{injected}"),
        ):
            answer = await w.ask(data)
            assert "injected" not in answer.head.raw.decode().lower()


async def test_a_defect_is_a_generic_500(
    gates: Gates, logs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug of ours tells nothing, is counted and logged, and ends the connection."""

    async def broken(_: object, request: BaseRequest) -> StreamResponse:
        raise RuntimeError("secret detail")

    async with wired(gates) as w:
        monkeypatch.setattr(w.gate.app.gate, "_handle", broken)
        caller = await w.caller()
        answer = await caller.ask(ask())
        assert await caller.closed() == b""
        assert answer.status == 500
        assert b"secret" not in answer.head.raw + answer.body
        assert json.loads(answer.body)["status"] == 500
        assert w.count("gatekeeper_internal_errors") == 1
        assert [line["event"] for line in logs] == ["defect"]
        assert w.gate.app.gate.active == 0


async def test_a_timeout_of_ours_is_a_defect_too(
    gates: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stray TimeoutError is not passed off as the parser's refusal."""

    async def broken(_: object, request: BaseRequest) -> StreamResponse:
        raise TimeoutError

    async with wired(gates) as w:
        monkeypatch.setattr(w.gate.app.gate, "_handle", broken)
        assert (await w.ask(ask())).status == 500
        assert w.count("gatekeeper_internal_errors") == 1
        assert "kind=" not in await w.gate.metrics()


ONE_SLOT = """
limits:
  - {id: slot, description: S., unit: concurrency, per: [account], slots: 1, lease: 1 hour}
"""


@pytest.mark.parametrize(
    "place",
    [
        "gatekeeper.deciding.to_record",
        "gatekeeper.delivery.grant_headers",
        "gatekeeper.delivery._headers_for",
        "gatekeeper.upstream.relay.pass_on",
        "gatekeeper.dialects.answer.AnswerReader.feed",
    ],
)
async def test_a_defect_gives_back_what_was_held(
    gates: Gates, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Wherever a call breaks, its slot is free again and its upstream connection let go."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    async with wired(gates, rules=ONE_SLOT) as w:
        with monkeypatch.context() as patch:
            patch.setattr(place, broken)
            caller = await w.caller()
            caller.write(ask())
            assert b"secret" not in await caller.closed()
            assert w.count("gatekeeper_internal_errors") == 1
        assert (await w.ask(ask())).status == 200


async def test_a_defect_at_the_first_byte_never_mixes_two_answers(
    gates: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a head is made, no other answer is sent in its framing."""

    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    wire = SSE_HEAD + b"2\r\nok\r\n0\r\n\r\n"
    async with wired(gates, RawUpstream(always(wire))) as w:
        monkeypatch.setattr("gatekeeper.dialects.answer.AnswerReader.feed", broken)
        caller = await w.caller()
        caller.write(ask(body=ASK_STREAM))
        assert await caller.closed() == b""
        assert w.count("gatekeeper_internal_errors") == 1


async def test_a_defect_after_the_head_never_looks_complete(
    gates: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once an answer has begun it can only be cut; the defect is counted all the same."""

    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    async def streaming(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(SSE_HEAD)
        await exchange.event(b"{}")
        await exchange.go_on()
        await exchange.event(b"{}")
        await exchange.send(b"0\r\n\r\n")

    async with wired(gates, RawUpstream(streaming)) as w:
        caller = await w.caller()
        caller.write(ask(body=ASK_STREAM))
        assert (await caller.head()).status == 200
        assert await caller.chunk()
        monkeypatch.setattr("gatekeeper.dialects.answer.AnswerReader.feed", broken)
        w.upstream.going.set()
        assert await caller.closed() == b""
        assert w.count("gatekeeper_internal_errors") == 1
        assert (await w.only_outcome())["ending"] != "complete"


async def test_pipelined_requests_are_answered_in_order(gates: Gates) -> None:
    """A hundred requests in one write: a hundred answers, each with its record, in order."""
    async with wired(gates) as w:
        caller: Caller = await w.caller()
        caller.write(b"".join(request("GET", f"/files/{number}") for number in range(100)))
        heads = [(await caller.answer()).head for _ in range(100)]
        assert {head.status for head in heads} == {200}
        targets = [seen.head.target for seen in w.upstream.book]
        assert targets == [f"/files/{number}" for number in range(100)]
        assert len({head.one("gatekeeper-decision") for head in heads}) == 100
