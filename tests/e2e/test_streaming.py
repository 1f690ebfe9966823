"""Bodies that flow: chunk by chunk, byte for byte, never complete when they are not (H25, H32)."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from typing import TYPE_CHECKING

import pytest
from support.gates import SOON_S
from support.wire import (
    ASK,
    ASK_STREAM,
    CHAT,
    OK,
    SSE_HEAD,
    Caller,
    Exchange,
    IncompleteError,
    RawUpstream,
    always,
    ask,
    request,
    until,
    wired,
)

from gatekeeper.settings import Deadlines, Sizes

if TYPE_CHECKING:
    from support.gates import Gates

ONE_SLOT = """
limits:
  - {id: slot, description: S., unit: concurrency, per: [account], slots: 1, lease: 1 hour}
"""
DELTA = b'{"choices":[{"index":0,"delta":{"content":"word "}}]}'
FINISH = b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
DONE = b"0\r\n\r\n"


class Stepped:
    """An upstream that sends the next event only when told."""

    def __init__(self) -> None:
        self.go = asyncio.Semaphore(0)
        self.sent = 0

    async def __call__(self, exchange: Exchange) -> None:
        """Send a head at once, then an event a step; the last two end the stream."""
        await exchange.body()
        await exchange.send(SSE_HEAD)
        for text in (DELTA, DELTA, FINISH, b"[DONE]"):
            await self.go.acquire()
            await exchange.event(text)
            self.sent += 1
        await exchange.send(DONE)


async def test_events_pass_one_by_one(gates: Gates) -> None:
    """The caller holds the head, and each event, before the upstream sends the next."""
    script = Stepped()
    async with wired(gates, RawUpstream(script)) as w:
        caller = await w.caller()
        caller.write(ask(body=ASK_STREAM))
        head = await caller.head()
        assert (head.status, script.sent) == (200, 0)
        for number, text in enumerate((DELTA, DELTA, FINISH, b"[DONE]"), 1):
            script.go.release()
            assert await caller.chunk() == b"data: " + text + b"\n\n"
            assert script.sent <= number
        assert await caller.chunk() == b""
        assert (await w.outcome(head))["ending"] == "complete"


async def test_events_cut_anywhere_arrive_whole(gates: Gates) -> None:
    """An event that comes byte by byte is passed on, and read, like any other."""
    stream = b"data: " + DELTA + b"\r\n\r\n" + b"data: " + FINISH + b"\n\n" + b"data: [DONE]\n\n"

    async def bytewise(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(SSE_HEAD)
        for byte in stream:
            await exchange.send(b"1\r\n%c\r\n" % byte)
            await asyncio.sleep(0)
        await exchange.send(DONE)

    async with wired(gates, RawUpstream(bytewise)) as w:
        answer = await w.ask(ask(body=ASK_STREAM))
        assert answer.body == stream
        outcome = await w.outcome(answer.head)
        assert outcome["ending"] == "complete"
        assert outcome["bytes_sent"] == len(stream)


async def test_uploads_stream_through_plain_routes(gates: Gates) -> None:
    """The upstream has the first part of a body before the caller sends the second."""
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    async def reading(exchange: Exchange) -> None:
        while True:
            size = int((await exchange.reader.readuntil(b"\r\n"))[:-2], 16)
            data = await exchange.reader.readexactly(size + 2)
            if not size:
                break
            seen.put_nowait(data[:-2])
        await exchange.send(OK)

    async with wired(gates, RawUpstream(reading)) as w:
        caller = await w.caller()
        caller.write(request("PUT", "/files/a", "Transfer-Encoding: chunked"))
        for part in (b"first", b"second", b"third"):
            caller.write(b"%x\r\n%b\r\n" % (len(part), part))
            async with asyncio.timeout(SOON_S):
                assert await seen.get() == part
        caller.write(DONE)
        assert (await caller.answer()).body == b"ok"


@pytest.mark.parametrize("target", [CHAT, "/plain"])
async def test_expect_100_continue(gates: Gates, target: str) -> None:
    """The body is asked for once the call may pass, and the answer is as ever."""
    async with wired(gates) as w:
        caller = await w.caller()
        length = f"Content-Length: {len(ASK)}"
        caller.write(request("POST", target, "Expect: 100-continue", length))
        assert (await caller.head()).line == "HTTP/1.1 100 Continue"
        answer = await caller.ask(ASK)
        assert (answer.status, answer.body) == (200, b"ok")
        assert w.upstream.book[0].body == ASK
        assert w.upstream.book[0].head.one("expect") is None


async def test_expect_is_not_answered_when_the_call_is_refused(gates: Gates) -> None:
    """A caller that may not call is told before it sends its body."""
    async with wired(gates) as w:
        expecting = ("Expect: 100-continue", "Content-Length: 10")
        assert (await w.ask(request("POST", CHAT, *expecting, key=None))).status == 401
        too_long = ("Expect: 100-continue", "Content-Length: 99999999")
        assert (await w.ask(request("POST", CHAT, *too_long))).status == 413


async def test_chunked_bodies(gates: Gates) -> None:
    """Chunk sizes, extensions and trailers of a caller are its own business, the bytes are not."""
    async with wired(gates) as w:
        wire = b"%X;ext=1\r\n%b\r\n%x\r\n%b\r\n0\r\nX-Trailer: 1\r\n\r\n"
        chunks = wire % (10, ASK[:10], len(ASK) - 10, ASK[10:])
        for target in (CHAT, "/plain"):
            caller = await w.caller()
            line = "Transfer-Encoding: chunked"
            answer = await caller.ask(request("POST", target, line) + chunks)
            assert answer.status == 200
            assert w.upstream.book[-1].body == ASK


async def test_connections_are_kept_and_shared(gates: Gates) -> None:
    """Calls in a row use one connection on either side; idle ones serve any caller."""
    async with wired(gates) as w:
        for _ in range(2):
            caller = await w.caller()
            for _ in range(5):
                assert (await caller.ask(ask())).status == 200
                assert (await caller.ask(request("GET", "/files/a"))).status == 200
        assert len(w.upstream.book) == 20
        assert w.upstream.connections == 1


async def test_calls_at_once_use_connections_of_their_own(gates: Gates) -> None:
    """No call waits behind another for a connection."""
    script = Stepped()
    async with wired(gates, RawUpstream(script)) as w:
        callers = [await w.caller() for _ in range(10)]
        for caller in callers:
            caller.write(ask(body=ASK_STREAM))
        for caller in callers:
            assert (await caller.head()).status == 200
        assert w.upstream.connections == 10
        for _ in range(40):
            script.go.release()
        for caller in callers:
            while await caller.chunk():
                pass


HEADS = b"""\
HTTP/1.1 200 Fine by me\r
Set-Cookie: a=1; Path=/\r
Set-Cookie: b=2\r
X-CaSe: Kept\r
x-twice: 1\r
x-twice: 2\r
Warning: 199 - "odd; text, here"\r
X-Empty: \r
X-Utf8: caf\xc3\xa9\r
X-Latin: caf\xe9\r
Server: upstream/1\r
Date: Sun, 06 Nov 1994 08:49:37 GMT\r
Etag: "x"\r
Gatekeeper-Decision: forged\r
"""
PACKED = gzip.compress(b"packed" * 100)
ANSWERS = {
    "sized": HEADS + b"Content-Type: text/x\r\nContent-Length: 5\r\n\r\nhello",
    "chunked": HEADS + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "empty": HEADS + b"Content-Length: 0\r\n\r\n",
    "no content": HEADS.replace(b"200 Fine by me", b"204 No Content") + b"\r\n",
    "not modified": HEADS.replace(b"200 Fine by me", b"304 Not Modified") + b"\r\n",
    "redirect": HEADS.replace(b"200 Fine by me", b"302 Found")
    + b"Location: /elsewhere\r\nContent-Length: 2\r\n\r\nok",
    "error": HEADS.replace(b"200 Fine by me", b"503 Later")
    + b"Retry-After: 3\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    "odd status": HEADS.replace(b"200 Fine by me", b"599 Odd") + b"Content-Length: 0\r\n\r\n",
    "packed": HEADS
    + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(PACKED)
    + PACKED,
    "interim": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    + HEADS
    + b"Content-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("target", [CHAT, "/plain"])
@pytest.mark.parametrize("wire", ANSWERS.values(), ids=ANSWERS.keys())
async def test_answers_are_as_from_the_upstream_itself(
    gates: Gates, wire: bytes, target: str
) -> None:
    """Status, reason, every field in order and every byte are what a direct call gets.

    Only the headers of the gate are added, and the connection's own framing may differ.
    """
    data = request("POST", target, body=ASK)
    async with wired(gates, RawUpstream(always(wire, then_close=True))) as w:
        direct = await Caller.connect(w.upstream.port)
        wanted = await direct.ask(data)
        if wanted.status < 200:
            wanted = await direct.answer()
        await direct.close()
        got = await w.ask(data)
        assert got.head.line == wanted.head.line
        assert got.body == wanted.body
        ours = {"gatekeeper-decision"}
        kept = [each for each in got.head.fields if each[0].lower() not in ours]
        assert kept == [each for each in wanted.head.fields if each[0].lower() not in ours]
        assert (got.head.one("gatekeeper-decision") or "").startswith("dec_")


async def test_answers_without_a_length_end_with_the_connection(gates: Gates) -> None:
    """An old upstream that ends by closing is read to its end, and framed for the caller."""
    wire = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello"
    async with wired(gates, RawUpstream(always(wire, then_close=True))) as w:
        caller = await w.caller()
        answer = await caller.ask(request())
        assert answer.body == b"hello"
        assert answer.head.one("transfer-encoding") == "chunked"
        assert (await caller.ask(request())).body == b"hello"


async def test_head_tells_the_length_and_sends_no_body(gates: Gates) -> None:
    """The Content-Length of a HEAD is the upstream's, and the connection goes on."""
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nContent-Type: a/b\r\n\r\n"
    async with wired(gates, RawUpstream(always(wire))) as w:
        caller = await w.caller()
        for _ in range(2):
            caller.write(request("HEAD", "/files/a"))
            head = (await caller.answer(to_head=True)).head
            assert head.one("content-length") == "12345"
        assert w.upstream.connections == 1


async def test_http_1_0_callers_get_no_chunks(gates: Gates) -> None:
    """A caller of HTTP/1.0 cannot read chunks: its answer ends with the connection."""
    wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    async with wired(gates, RawUpstream(always(wire))) as w:
        answer = await w.ask(request(version="HTTP/1.0"))
        assert answer.body == b"hello"
        assert answer.head.one("transfer-encoding") is None


async def test_requests_arrive_as_they_were_sent(gates: Gates) -> None:
    """Fields keep case, order and repetition; only what belongs to one connection is rebuilt."""
    lines = (
        "X-CaSe: Kept",
        "Accept: a/b",
        "Accept: c/d",
        "X-Empty: ",
        "X-Utf8: café",
        "Cookie: a=1",
    )
    async with wired(gates) as w:
        await w.ask(request("GET", "/files/a", *lines))
        fields = w.upstream.book[0].head.fields
        names = [f"{name}: {value}" for name, value in fields]
        assert names == [
            f"Host: 127.0.0.1:{w.upstream.port}",
            "Authorization: Bearer sk-one",
            *lines,
            "Via: 1.1 gatekeeper",
        ]


async def test_large_bodies_both_ways(gates: Gates) -> None:
    """20 MB up and down, read whole or streamed, arrive unchanged."""
    blob = bytes(range(256)) * 78_125
    digest = hashlib.sha256(blob).digest()
    chat = ASK[:-1] + b',"file":"' + b"x" * (20_000_000 - len(ASK) - 10) + b'"}'

    async def echo(exchange: Exchange) -> None:
        body = await exchange.body()
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async with wired(gates, RawUpstream(echo)) as w:
        plain = await w.ask(request("POST", "/files", body=blob))
        assert hashlib.sha256(plain.body).digest() == digest
        known = await w.ask(request("POST", "/v1/embeddings", body=chat))
        assert known.body == chat
        one_more = request("POST", "/files", f"Content-Length: {536_870_913}")
        assert (await w.ask(one_more)).status == 413


async def test_large_headers_of_an_answer(gates: Gates) -> None:
    """A header as large as the bound passes; see below for a bomb."""
    wire = OK.replace(b"\r\n", b"\r\nX-Large: " + b"x" * 16_000 + b"\r\n", 1)
    async with wired(gates, RawUpstream(always(wire))) as w:
        assert len((await w.ask(request())).head.one("x-large") or "") == 16_000


INVALID = {
    "header bomb": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 100_000 + b"\r\n",
    "not http": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "unasked upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\n\r\n\x81\x05hello",
    "two lengths": OK.replace(b"\r\n", b"\r\nContent-Length: 9\r\n", 1),
    "length and chunks": OK.replace(b"\r\n", b"\r\nTransfer-Encoding: chunked\r\n", 1),
    "control in a value": OK.replace(b"\r\n", b"\r\nX: a\x0bb\r\n", 1),
    "nul in a value": OK.replace(b"\r\n", b"\r\nX: a\x00b\r\n", 1),
    "bare return": OK.replace(b"\r\n", b"\r\nX: a\rX-Injected: 1\r\n", 1),
    "control in the reason": OK.replace(b" OK", b" O\x08K"),
    "status 99": OK.replace(b"200", b"99"),
}


@pytest.mark.parametrize("wire", INVALID.values(), ids=INVALID.keys())
async def test_h32_answers_that_cannot_be_used_are_502(gates: Gates, wire: bytes) -> None:
    """A mad upstream costs its caller one 502 with a record, and its connection is not reused."""
    async with wired(gates, RawUpstream(always(wire)), rules=ONE_SLOT) as w:
        answer = await w.ask(ask())
        assert answer.status == 502
        assert b"upstream_invalid" in answer.body
        assert "X-Injected" not in answer.head.raw.decode()
        outcome = await w.outcome(answer.head)
        assert (outcome["failure"], outcome["status"]) == ("upstream_invalid", None)
        assert w.count("gatekeeper_upstream_failures", "demo", "upstream_invalid") == 1
        assert w.count("gatekeeper_internal_errors") == 0
        w.upstream.script = always(OK)
        assert (await w.ask(ask())).status == 200
        assert w.upstream.connections == 2


def broken_after(head: bytes, *rest: bytes, how: str) -> RawUpstream:
    """Return an upstream that sends some of an answer; at the test's word the rest, and dies."""

    async def script(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(head)
        await exchange.go_on()
        await exchange.send(b"".join(rest))
        if how == "reset":
            exchange.reset()
        else:
            exchange.close()

    return RawUpstream(script)


def event(text: bytes) -> bytes:
    """Return an event as one chunk."""
    data = b"data: " + text + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


SSE_SIZED = SSE_HEAD.replace(b"Transfer-Encoding: chunked", b"Content-Length: 500")
SSE_TO_END = SSE_HEAD.replace(b"HTTP/1.1", b"HTTP/1.0").replace(
    b"Transfer-Encoding: chunked\r\n", b""
)
"""A stream that ends with the connection."""


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_h32_a_stream_that_breaks_ends_in_an_error_event(gates: Gates, how: str) -> None:
    """Between events, the caller's SDK is told in its own words; the framing stays open too."""
    upstream = broken_after(SSE_HEAD + event(DELTA), how=how)
    async with wired(gates, upstream, rules=ONE_SLOT) as w:
        caller = await w.caller()
        caller.write(ask(body=ASK_STREAM))
        head = await caller.head()
        assert await caller.chunk() == b"data: " + DELTA + b"\n\n"
        upstream.going.set()
        last = await caller.chunk()
        assert last.startswith(b'data: {"error"')
        assert await caller.closed() == b""
        outcome = await w.outcome(head)
        assert outcome["ending"] == "upstream_broke"
        assert 0 < outcome["usage"]["output_tokens"] < 50
        upstream.script = always(OK)
        assert (await w.ask(ask())).status == 200


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        (SSE_HEAD + event(DELTA), b"50\r\ndata: {half"),
        (SSE_HEAD + event(DELTA), b"zz\r\n"),
        (SSE_HEAD, event(DELTA)[:-6]),
        (SSE_HEAD, b"zz\r\n"),
        (SSE_SIZED, b"data: {half"),
        (SSE_HEAD.replace(b"event-stream", b"plain") + b"5\r\nhello\r\n", b""),
        (OK.replace(b"Length: 2", b"Length: 3"), b""),
        (OK.replace(b"Length: 2", b"Length: 30").replace(b"text/plain", b"application/json"), b""),
    ],
)
async def test_h32_half_an_answer_never_looks_complete(
    gates: Gates, first: bytes, rest: bytes
) -> None:
    """What is cut at the upstream is cut at the caller: no last chunk, no full length."""
    upstream = broken_after(first, rest, how="closed")
    async with wired(gates, upstream) as w:
        caller = await w.caller()
        caller.write(ask(body=ASK_STREAM))
        head = await caller.head()
        assert head.status == 200
        upstream.going.set()
        with pytest.raises(IncompleteError):
            await caller.rest_of(head)
        assert await caller.closed() == b""
        assert (await w.only_outcome())["ending"] == "upstream_broke"


@pytest.mark.parametrize("head", [SSE_HEAD, SSE_TO_END])
async def test_h32_a_clean_close_without_done_is_no_end(gates: Gates, head: bytes) -> None:
    """A stream that its upstream ends in order, but without its last event, is broken too."""
    text = b"data: " + DELTA + b"\n\n"
    body = (event(DELTA), DONE) if head is SSE_HEAD else (text,)
    upstream = broken_after(head, *body, how="closed")
    upstream.going.set()
    async with wired(gates, upstream) as w:
        caller = await w.caller()
        caller.write(ask(body=ASK_STREAM))
        with pytest.raises(IncompleteError) as cut:
            await caller.answer()
        assert cut.value.so_far.startswith(text + b'data: {"error"')
        assert (await w.only_outcome())["ending"] == "upstream_broke"


async def test_h32_callers_of_http_1_0_see_a_reset(gates: Gates) -> None:
    """Where only the close marks the end, a broken answer ends in a reset instead."""
    cut = SSE_HEAD.replace(b"event-stream", b"plain")
    upstream = broken_after(cut + b"5\r\nhello\r\n", how="closed")
    async with wired(gates, upstream) as w:
        caller = await w.caller()
        caller.write(request(version="HTTP/1.0"))
        assert (await caller.head()).status == 200
        upstream.going.set()
        with pytest.raises(ConnectionResetError):
            await caller.reader.read()


async def test_h32_an_upstream_that_dies_before_its_head(gates: Gates) -> None:
    """Closed or reset before a head: 502, and the caller may try again."""
    for how in ("closed", "reset"):
        upstream = broken_after(b"HTTP/1.1 2", how=how)
        upstream.going.set()
        async with wired(gates, upstream) as w:
            answer = await w.ask(ask())
            assert answer.status == 502
            assert answer.head.one("x-should-retry") == "true"


async def test_h25_a_caller_that_hangs_up_before_the_head(gates: Gates) -> None:
    """The upstream's connection is let go at once, and the call is settled once."""
    gone = asyncio.Event()

    async def waiting(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.gone()
        gone.set()

    for end in (Caller.reset, Caller.close):
        gone.clear()
        async with wired(gates, RawUpstream(waiting), rules=ONE_SLOT) as w:
            caller = await w.caller()
            caller.write(ask())
            await until(lambda w=w: len(w.upstream.book) == 1)
            ending = end(caller)
            if ending is not None:
                await ending
            async with asyncio.timeout(1):
                await gone.wait()
            outcome = await w.only_outcome()
            assert (outcome["ending"], outcome["status"]) == ("client_gone", None)
            w.upstream.script = always(OK)
            assert (await w.ask(ask())).status == 200


async def test_h25_a_caller_that_hangs_up_mid_stream(gates: Gates) -> None:
    """The upstream stops within a second; what was delivered is charged, once."""
    gone = asyncio.Event()

    async def endless(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(SSE_HEAD)
        await exchange.event(DELTA)
        await exchange.gone()
        gone.set()

    async with wired(gates, RawUpstream(endless), rules=ONE_SLOT) as w:
        caller = await w.caller()
        caller.write(ask(body=ASK_STREAM))
        head = await caller.head()
        assert await caller.chunk()
        caller.reset()
        async with asyncio.timeout(1):
            await gone.wait()
        outcome = await w.outcome(head)
        assert outcome["ending"] == "client_gone"
        assert 0 < outcome["usage"]["output_tokens"] < 50
        w.upstream.script = always(OK)
        assert (await w.ask(ask())).status == 200
        outcomes = [each for each in w.gate.book() if each["kind"] == "outcome"]
        assert [each["id"] for each in outcomes].count(outcome["id"]) == 1


async def test_h25_a_caller_that_hangs_up_while_it_uploads(gates: Gates) -> None:
    """Half an upload is broken off upstream, not ended as if it were whole, nor held against it."""
    async with wired(gates, rules=ONE_SLOT) as w:
        caller = await w.caller()
        caller.write(request("PUT", "/files/a", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n")
        await until(lambda: bool(w.upstream.received) and b"hello" in w.upstream.received[0])
        caller.reset()
        await until(lambda: w.gate.app.gate.active == 0)
        assert (await w.only_outcome())["ending"] == "client_gone"
        assert not w.upstream.received[0].endswith(DONE)
        assert w.gate.app.gate._parts.delivery.routes.routes[0].endpoints[0].failures == 0
        assert (await w.ask(ask())).status == 200


async def test_an_upstream_may_answer_before_the_body_is_sent(gates: Gates) -> None:
    """An early refusal reaches the caller although its upload is not over."""

    async def early(exchange: Exchange) -> None:
        await exchange.send(OK.replace(b"200 OK", b"403 No"))
        await exchange.gone()

    async with wired(gates, RawUpstream(early)) as w:
        caller = await w.caller()
        caller.write(request("PUT", "/files/a", "Content-Length: 1000000") + b"x" * 1000)
        assert (await caller.answer()).status == 403
        caller.write(b"x" * 999_000)


async def test_h32_a_silent_stream_is_cut(gates: Gates) -> None:
    """An upstream that says nothing for the idle time is given up, with an error event."""

    async def silent(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(SSE_HEAD)
        await exchange.event(DELTA)
        await exchange.gone()

    deadlines = Deadlines(idle_s=0.2)
    async with wired(gates, RawUpstream(silent), deadlines=deadlines) as w:
        caller = await w.caller()
        caller.write(ask(body=ASK_STREAM))
        head = await caller.head()
        assert await caller.chunk()
        assert b'"error"' in await caller.chunk()
        assert await caller.closed() == b""
        assert (await w.outcome(head))["ending"] == "upstream_silent"


async def test_h7_an_answer_that_inflates_without_end_is_passed_on(gates: Gates) -> None:
    """The gate reads packed answers along under a bound; the caller gets the packed bytes."""
    bomb = gzip.compress(b" " * 50_000_000)
    wire = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
    wire += b"Content-Length: %d\r\n\r\n" % len(bomb) + bomb
    async with wired(gates, RawUpstream(always(wire)), sizes=Sizes()) as w:
        assert (await w.ask(ask())).body == bomb


EXTRA = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"


@pytest.mark.parametrize(
    ("method", "wire"),
    [
        ("GET", OK + EXTRA),
        ("GET", OK + b"garbage\r\n\r\n"),
        ("HEAD", OK[:-2] + EXTRA),
        ("HEAD", OK),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n" + EXTRA),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison" + EXTRA),
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + EXTRA),
    ],
)
@pytest.mark.parametrize("later", [False, True])
async def test_h32_bytes_behind_an_answer_are_nobody_s_answer(
    gates: Gates, method: str, wire: bytes, later: bool
) -> None:
    """What an upstream sends beyond its answer, at once or later, never answers another call."""
    at = wire.index(b"\r\n\r\n") + 4

    async def talkative(exchange: Exchange) -> None:
        await exchange.body()
        if exchange.connection:
            await exchange.send(OK)
        elif later and wire[:at].endswith(b"\r\n\r\n") and EXTRA in wire:
            await exchange.send(wire[: wire.index(EXTRA)])
            await exchange.go_on()
            await exchange.send(EXTRA)
        else:
            await exchange.send(wire)

    async with wired(gates, RawUpstream(talkative)) as w:
        caller = await w.caller()
        caller.write(request(method, "/files/a"))
        first = await caller.answer(to_head=method == "HEAD")
        assert first.status in {200, 204, 304, 502}
        w.upstream.going.set()
        pool = w.gate.app.gate._parts.delivery.client._open
        await until(lambda: all(each.should_close for each in pool))  # it has come
        for _ in range(2):
            answer = await w.ask(request("GET", "/files/b"))
            assert (answer.status, answer.body) == (200, b"ok")
        assert w.upstream.connections == 2


async def test_connections_that_the_upstream_closed_are_not_used(gates: Gates) -> None:
    """An upstream that closes idle connections, said or unsaid, costs no call."""
    for wire in (OK, OK.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)):
        async with wired(gates, RawUpstream(always(wire, then_close=True))) as w:
            for number in range(3):
                assert (await w.ask(ask())).status == 200
                await until(lambda w=w: not w.upstream.open)
                assert w.upstream.connections == number + 1


async def test_a_repeatable_call_survives_a_connection_that_closes_under_it(
    gates: Gates,
) -> None:
    """A GET on a pooled connection that dies at that moment is sent again; a POST is not."""

    async def once(exchange: Exchange) -> None:
        await exchange.body()
        if len(w.upstream.book) in {2, 4}:
            exchange.reset()
        else:
            await exchange.send(OK)

    async with wired(gates, RawUpstream(once)) as w:
        assert (await w.ask(request("GET", "/files/a"))).status == 200
        assert (await w.ask(request("GET", "/files/b"))).status == 200
        assert (await w.ask(ask())).status == 502
        targets = [seen.head.target for seen in w.upstream.book]
        assert targets == ["/files/a", "/files/b", "/files/b", CHAT]
