"""Every way an answer can end, and what is charged for it (H23, H25).

Where the upstream reports usage, charged equals reported, to the token; where it cannot, delivered
<= charged <= held, marked as estimated. Whatever happens, nothing stays held.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from support.families import CHAT, FAMILIES, GIVEN, WORDS, Family, words_in
from support.gates import SOON_S, Clock
from support.wire import (
    OK,
    SSE_HEAD,
    Exchange,
    IncompleteError,
    RawUpstream,
    always,
    request,
    until,
    wired,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from support.gates import Gates
    from support.wire import Caller, Wired

LIMITS = """
limits:
  - {id: input, description: I., unit: input_tokens, per: [account], rate: 1000000/month}
  - {id: output, description: O., unit: output_tokens, per: [account], rate: 1000000/month}
  - {id: slots, description: S., unit: concurrency, per: [account], slots: 3, lease: 1 hour}
"""
DRAIN = {"on_disconnect": "drain"}
STREAMED = [(family, stream) for family in FAMILIES for stream in (True, False)]
NAMES = [f"{family.name}-{'stream' if stream else 'document'}" for family, stream in STREAMED]


def ask(family: Family, *, stream: bool, **more: Any) -> bytes:
    """Return a call of a family."""
    fields = ("Content-Type: application/json",)
    return request("POST", family.target, *fields, body=family.request(stream=stream, **more))


def head_of(family: Family, *, stream: bool) -> bytes:
    """Return the head of its answer."""
    if stream:
        return SSE_HEAD
    length = len(family.document)
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % length
    )


async def send_part(exchange: Exchange, data: bytes, *, stream: bool) -> None:
    """Send some of a body, in its framing."""
    if data:
        await exchange.send(b"%x\r\n%b\r\n" % (len(data), data) if stream else data)


async def receive(caller: Caller, size: int, *, stream: bool) -> bytes:
    """Read exactly so much of a body."""
    if not stream:
        return await caller.reader.readexactly(size)
    got = b""
    while len(got) < size:
        got += await caller.chunk()
    assert len(got) == size
    return got


def outcomes(w: Wired) -> list[dict[str, Any]]:
    """Return how the calls ended, in their order."""
    return [each for each in w.gate.book() if each["kind"] == "outcome"]


def held_by(w: Wired) -> dict[str, dict[str, float]]:
    """Return what each admitted call held, by its id and unit."""
    return {
        each["id"]: {status["unit"]: status["requested"] for status in each["limits"]}
        for each in w.gate.book()
        if each["kind"] == "decision" and each["verdict"] == "allow"
    }


async def settled(w: Wired, count: int) -> list[dict[str, Any]]:
    """Wait until so many calls are settled and recorded; show that the books agree."""
    parts = w.gate.app.gate._parts
    await until(lambda: w.gate.app.gate.active == 0 and len(parts.delivery.drains) == 0)
    async with asyncio.timeout(SOON_S):
        while len(found := outcomes(w)) < count:  # noqa: ASYNC110 - the log writes by a thread
            await asyncio.sleep(0.005)
    assert len(found) == count
    assert len({each["id"] for each in found}) == count  # each once
    assert not parts.limiter._open  # type: ignore[attr-defined]
    levels = {key[0].partition(":")[2]: cell for key, cell in parts.limiter._cells.items()}  # type: ignore[attr-defined]
    for unit in ("input_tokens", "output_tokens"):
        charged = sum(each["usage"][unit] for each in found)
        assert levels[unit].used == charged * 1_000_000 if charged else True
    assert not levels["concurrency"].leases
    return found


def check(outcome: dict[str, Any], held: dict[str, float], delivered: int, exact: bool) -> None:
    """Show that a charge keeps the law that holds for it."""
    usage = outcome["usage"]
    if exact:
        assert not usage["estimated"]
        assert (usage["input_tokens"], usage["output_tokens"]) == (GIVEN, len(WORDS))
        return
    assert usage["estimated"]
    assert delivered <= usage["output_tokens"] <= held["output_tokens"]
    assert 0 < usage["input_tokens"] <= held["input_tokens"]


@pytest.mark.parametrize(("family", "stream"), STREAMED, ids=NAMES)
async def test_h25_a_caller_that_hangs_up_at_any_byte(
    gates: Gates, family: Family, stream: bool
) -> None:
    """After every few bytes of an answer: upstream let go, charged by the laws, nothing held."""
    answer = family.answer(stream=stream)
    cuts = sorted({*range(0, len(answer), 41), len(answer) - 1, len(answer) * stream} - {0})
    so_far: list[int] = []
    gone: list[int] = []

    async def partly(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(head_of(family, stream=stream))
        await send_part(exchange, answer[: so_far[-1]], stream=stream)
        await exchange.gone()
        gone.append(so_far[-1])

    async with wired(gates, RawUpstream(partly), rules=LIMITS, clock=Clock()) as w:
        for cut in cuts:
            so_far.append(cut)
            caller = await w.caller()
            caller.write(ask(family, stream=stream))
            assert (await caller.head()).status == 200
            assert await receive(caller, cut, stream=stream) == answer[:cut]
            caller.reset()
            async with asyncio.timeout(1):
                await until(lambda cut=cut: gone[-1:] == [cut])
        found = await settled(w, len(cuts))
        held = held_by(w)
        for cut, outcome in zip(cuts, found, strict=True):
            assert outcome["ending"] == "client_gone"
            exact = cut >= family.reported_by(stream=stream) - 1 - stream
            check(outcome, held[outcome["id"]], words_in(answer[:cut]), exact)
            told = family.input_by()
            if stream and told is not None and cut >= told:
                assert outcome["usage"]["input_tokens"] == GIVEN


def connections(w: Wired) -> set[Any]:
    """Return the gate's open connections to its upstream."""
    found: set[Any] = w.gate.app.gate._parts.delivery.client._open  # type: ignore[attr-defined]
    return found


POINTS = ("before the head", "after the head", "first chunk", "mid-event", "last event")


async def cut_at(w: Wired, family: Family, point: str, *, stream: bool = True) -> None:
    """Hang up at one of five points."""
    caller = await w.caller()
    seen = len(w.upstream.book)
    caller.write(ask(family, stream=stream))
    await until(lambda: len(w.upstream.book) == seen + 1)
    if point != "before the head":
        assert (await caller.head()).status == 200
        size = len(bytes_at(family, point, stream=stream))
        await receive(caller, size, stream=stream)
    caller.reset()


def bytes_at(family: Family, point: str, *, stream: bool) -> bytes:
    """Return what has been sent of an answer at one of five points."""
    if point in {"before the head", "after the head"}:
        return b""
    if not stream:
        size = len(family.document)
        return family.document[: {"first chunk": 1, "mid-event": size // 2}.get(point, size - 1)]
    if point == "last event":
        return b"".join(family.events)
    first = family.events[0] if point == "first chunk" else b"".join(family.events[:4])
    return first if point == "first chunk" else first[:-20]


def pausing_at(family: Family, point: str, *, stream: bool) -> RawUpstream:
    """Return an upstream that goes on at the test's word."""

    async def script(exchange: Exchange) -> None:
        await exchange.body()
        sent = bytes_at(family, point, stream=stream)
        if point == "before the head":
            await exchange.go_on()
        await exchange.send(head_of(family, stream=stream))
        await send_part(exchange, sent, stream=stream)
        if point != "before the head":
            await exchange.go_on()
        rest = family.answer(stream=stream)[len(sent) :]
        await send_part(exchange, rest, stream=stream)
        if stream:
            await exchange.send(b"0\r\n\r\n")

    return RawUpstream(script)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize(("family", "stream"), STREAMED, ids=NAMES)
async def test_h25_an_answer_is_read_on_and_charged_to_the_token(
    gates: Gates, family: Family, stream: bool, point: str
) -> None:
    """With `on_disconnect: drain`, whenever the caller leaves: what is reported is charged."""
    upstream = pausing_at(family, point, stream=stream)
    async with wired(gates, upstream, LIMITS, clock=Clock(), upstream_fields=DRAIN) as w:
        await cut_at(w, family, point, stream=stream)
        drains = w.gate.app.gate._parts.delivery.drains
        await until(lambda: w.gate.app.gate.active == 0 and len(drains) == 1)
        assert w.gate.app.gate._parts.limiter._open  # type: ignore[attr-defined]
        upstream.going.set()
        (outcome,) = await settled(w, 1)
        check(outcome, {}, 0, exact=True)
        assert (outcome["ending"], outcome["drained"]) == ("client_gone", "complete")
        assert outcome["status"] == 200
        assert w.count("gatekeeper_drains", "demo", "complete") == 1
        upstream.script = always(OK)
        assert (await w.ask(ask(CHAT, stream=False))).status == 200
        assert upstream.connections == 1  # the answer was read to its end


async def test_h25_an_answer_is_read_on_within_its_bounds(gates: Gates) -> None:
    """Too long or too much: cut, settled to what came, the connection dropped."""
    upstream = pausing_at(CHAT, "first chunk", stream=True)
    short = {**DRAIN, "drain_s": 0.2}
    async with wired(gates, upstream, LIMITS, clock=Clock(), upstream_fields=short) as w:
        await cut_at(w, CHAT, "first chunk")
        (outcome,) = await settled(w, 1)
        assert outcome["drained"] == "cut"
        check(outcome, held_by(w)[outcome["id"]], 0, exact=False)
        assert not connections(w)
        upstream.going.set()
    small = pausing_at(CHAT, "first chunk", stream=True)
    little = {**DRAIN, "drain_bytes": 300}
    async with wired(gates, small, LIMITS, clock=Clock(), upstream_fields=little) as w:
        await cut_at(w, CHAT, "first chunk")
        await until(lambda: len(w.gate.app.gate._parts.delivery.drains) == 1)
        small.going.set()
        (outcome,) = await settled(w, 1)
        assert outcome["drained"] == "cut"


async def test_h25_only_so_many_answers_are_read_on(gates: Gates) -> None:
    """Beyond the bound, a caller's leaving cancels as ever; a slot is kept until the settlement."""
    upstream = pausing_at(CHAT, "first chunk", stream=True)
    one = {**DRAIN, "drains": 1}
    async with wired(gates, upstream, LIMITS, clock=Clock(), upstream_fields=one) as w:
        await cut_at(w, CHAT, "first chunk")
        await until(lambda: len(w.gate.app.gate._parts.delivery.drains) == 1)
        for _ in range(3):
            await cut_at(w, CHAT, "first chunk")
            await until(lambda: w.gate.app.gate.active == 0)
        assert len(connections(w)) == 1
        assert w.count("gatekeeper_drains", "demo", "refused") == 3
        two = [await w.caller() for _ in range(3)]
        for caller in two:
            caller.write(ask(CHAT, stream=True))
        statuses = sorted([(await caller.head()).status for caller in two])
        assert statuses == [200, 200, 429]  # the third slot is the drain's
        upstream.going.set()
        for caller in two:
            await caller.close()
        found = await settled(w, 6)
        assert [each["drained"] for each in found].count("complete") >= 1


async def test_h40_answers_that_are_read_on_end_before_the_process(gates: Gates) -> None:
    """The gate stops only when they are settled, or when its own time is up."""
    upstream = pausing_at(CHAT, "first chunk", stream=True)
    async with wired(gates, upstream, LIMITS, clock=Clock(), upstream_fields=DRAIN) as w:
        await cut_at(w, CHAT, "first chunk")
        drains = w.gate.app.gate._parts.delivery.drains
        await until(lambda: len(drains) == 1)
        stopping = asyncio.create_task(w.gate.app.stop(drain_s=SOON_S))
        await asyncio.sleep(0.05)
        assert not stopping.done()
        upstream.going.set()
        await stopping
        check(outcomes(w)[0], {}, 0, exact=True)
    for point in ("before the head", "first chunk"):
        upstream = pausing_at(CHAT, point, stream=True)
        async with wired(gates, upstream, LIMITS, clock=Clock(), upstream_fields=DRAIN) as w:
            await cut_at(w, CHAT, point)
            await until(lambda w=w: len(w.gate.app.gate._parts.delivery.drains) == 1)
            await w.gate.app.stop(drain_s=0.1)
            (outcome,) = outcomes(w)
            assert (outcome["drained"], outcome["usage"]["estimated"]) == ("cut", True)
            upstream.going.set()


# --- what is charged for answers that tell little ---

JSON_HEAD = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"


def answering(
    body: bytes, status: bytes = b"200 OK", more: bytes = b"", kind: bytes = b"application/json"
) -> bytes:
    """Return a whole answer."""
    head = JSON_HEAD % (status, len(body), more)
    return head.replace(b"Content-Type: application/json", b"Content-Type: " + kind) + body


def reporting(usage: bytes) -> bytes:
    """Return an answer of eleven words with this for its usage."""
    text = "".join(WORDS).encode()
    return answering(b'{"choices":[{"message":{"content":"%b"}}],"usage":%b}' % (text, usage))


NOTHING = "nothing"
"""Neither input nor output: the upstream has refused, failed, or sent elsewhere."""
HELD = "held"
"""All that was held: who knows what it was."""
INPUT = "input"
"""The input alone, as it was held: nothing came."""
COUNTED = "counted"
"""The input as held, the output as counted."""
CHARGED = {
    "refused": (answering(b'{"error":{"message":"no"}}', b"400 Bad Request"), NOTHING),
    "limited": (answering(b"{}", b"429 Too Many Requests"), NOTHING),
    "failed": (answering(b"{}", b"500 Oops"), NOTHING),
    "overloaded with usage": (reporting(b'{"prompt_tokens":5}').replace(b"200", b"503"), NOTHING),
    "elsewhere": (answering(b"", b"307 Temporary", b"Location: /v1/other\r\n"), NOTHING),
    "created": (answering(CHAT.document, b"201 Created"), (GIVEN, len(WORDS))),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", INPUT),
    "empty": (answering(b"", kind=b"text/plain"), INPUT),
    "text": (answering(b"hello", kind=b"text/plain"), HELD),
    "no type": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", HELD),
    "accepted text": (answering(b"hello", b"202 Accepted", kind=b"text/plain"), HELD),
    "unknown coding": (answering(b"\x8b\x00", more=b"Content-Encoding: br\r\n"), HELD),
    "damaged coding": (answering(b"no gzip", more=b"Content-Encoding: gzip\r\n"), HELD),
    "negative": (reporting(b'{"prompt_tokens":-1,"completion_tokens":-5}'), COUNTED),
    "a trillion": (reporting(b'{"prompt_tokens":9,"completion_tokens":1e12}'), COUNTED),
    "five billion": (reporting(b'{"prompt_tokens":9,"completion_tokens":5000000000}'), COUNTED),
    "text for numbers": (reporting(b'{"prompt_tokens":"9","completion_tokens":"11"}'), COUNTED),
    "null": (reporting(b"null"), COUNTED),
    "a list": (reporting(b"[1,2]"), COUNTED),
    "nothing in it": (reporting(b"{}"), COUNTED),
    "zero": (reporting(b'{"prompt_tokens":0,"completion_tokens":0}'), (0, 0)),
    "more than held": (reporting(b'{"prompt_tokens":900,"completion_tokens":9000}'), (900, 9000)),
    "other JSON": (answering(b'"' + b"word " * 3_000 + b'"'), HELD),
}


async def test_h23_what_is_charged_for_an_answer(gates: Gates) -> None:
    """Reported, or counted, or held: an answer is never free because it cannot be read."""
    async with wired(gates, rules=LIMITS, clock=Clock()) as w:
        for wire, _ in CHARGED.values():
            w.upstream.script = always(wire)
            assert (await w.ask(ask(CHAT, stream=False))).status < 504
        found = await settled(w, len(CHARGED))
        holds = held_by(w)
    for (name, (_, charged)), outcome in zip(CHARGED.items(), found, strict=True):
        usage, held = outcome["usage"], holds[outcome["id"]]
        got = (usage["input_tokens"], usage["output_tokens"])
        if charged == COUNTED:
            assert got[0] == held["input_tokens"], name
            assert len(WORDS) <= got[1] < held["output_tokens"], name
        else:
            most = (held["input_tokens"], held["output_tokens"])
            wanted = {NOTHING: (0, 0), HELD: most, INPUT: (most[0], 0)}.get(charged, charged)  # type: ignore[call-overload]
            assert got == wanted, name
        assert usage["estimated"] is (charged in {COUNTED, HELD, INPUT}), name


async def test_h25_an_answer_that_cannot_be_read_and_is_cut_is_charged_as_held(
    gates: Gates,
) -> None:
    """Whoever hangs up in the middle of it does not get its first half for nothing."""

    async def partly(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(answering(b"x" * 50, kind=b"text/plain")[:-20])
        await exchange.gone()

    async with wired(gates, RawUpstream(partly), LIMITS, clock=Clock()) as w:
        caller = await w.caller()
        caller.write(ask(CHAT, stream=False))
        await caller.head()
        await caller.reader.readexactly(30)
        caller.reset()
        (outcome,) = await settled(w, 1)
        (held,) = held_by(w).values()
        assert outcome["usage"]["output_tokens"] == held["output_tokens"]


BYTES = """
limits:
  - {id: bytes, description: B., unit: bytes, per: [account], rate: 1000/month}
"""


async def test_h26_bytes_count_whatever_frames_them(gates: Gates) -> None:
    """Uploads of untold length and downloads are counted; a debt refuses what has no body too."""
    async with wired(gates, RawUpstream(always(answering(b"y" * 300))), BYTES, clock=Clock()) as w:
        chunked = request("PUT", "/files/a", "Transfer-Encoding: chunked")
        for sent in (600, 0):
            part = b"%x\r\n%b\r\n" % (sent, b"x" * sent) if sent else b""
            assert (await w.ask(chunked + part + b"0\r\n\r\n")).status == 200
        await until(lambda: len(outcomes(w)) == 2)
        found = outcomes(w)
        assert [each["usage"]["bytes"] for each in found] == [900, 300]
        assert (await w.ask(request("GET", "/files/a"))).status == 429
        assert (await w.ask(chunked + b"0\r\n\r\n")).status == 429


# --- answers that the upstream leaves incomplete (H32) ---

WAYS = ("closed", "reset", "ended in order", "malformed chunk", "half a chunk")


def breaking(
    family: Family, how: str, cut: int, go_on: asyncio.Event, *, stream: bool
) -> Callable[[Exchange], Awaitable[None]]:
    """Return a script that sends so much of an answer, and fails at the test's word."""

    async def script(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(head_of(family, stream=stream))
        await send_part(exchange, family.answer(stream=stream)[:cut], stream=stream)
        await go_on.wait()
        last = {
            "malformed chunk": b"zz\r\n",
            "half a chunk": b"50\r\ndata: {half",
            "ended in order": b"0\r\n\r\n",
        }
        await exchange.send(last.get(how, b""))
        if how == "reset":
            exchange.reset()
        else:
            exchange.close()

    return script


async def broken(w: Wired, family: Family, how: str, cut: int, *, stream: bool) -> bytes:
    """Let an answer break after so many bytes; return what the caller got after them."""
    go_on = asyncio.Event()
    w.upstream.script = breaking(family, how, cut, go_on, stream=stream)
    caller = await w.caller()
    caller.write(ask(family, stream=stream))
    head = await caller.head()
    await receive(caller, cut, stream=stream)
    go_on.set()
    with pytest.raises(IncompleteError) as raised:
        await caller.rest_of(head)
    if how != "ended in order":
        await until(lambda: not connections(w))  # none is used again
    return raised.value.so_far


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
async def test_h32_a_stream_left_incomplete_never_looks_complete(
    gates: Gates, family: Family
) -> None:
    """In every family, however it fails and wherever: no proper end, charged by the laws."""
    events = family.events
    cuts = [len(events[0]), len(b"".join(events[:3])) - 20, len(b"".join(events[:-1]))]
    told_at_end = family.reports_at == len(events) - 1
    cases = [(how, cut) for how in WAYS for cut in cuts]
    if family.name in {"chat", "completions"}:  # with a finish reason, some servers end in order
        cases.remove(("ended in order", cuts[-1]))
    async with wired(gates, rules=LIMITS, clock=Clock()) as w:
        for how, cut in cases:
            told = await broken(w, family, how, cut, stream=True)
            assert family.last not in told, (how, cut)
            assert not told or b"error" in told or told.endswith(b"{half"), (how, cut)
        found = await settled(w, len(cases))
        holds = held_by(w)
    for (how, cut), outcome in zip(cases, found, strict=True):
        assert outcome["ending"] == "upstream_broke", (how, cut)
        exact = cut == cuts[-1] and not told_at_end
        check(outcome, holds[outcome["id"]], words_in(family.answer(stream=True)[:cut]), exact)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
async def test_h32_a_document_left_incomplete_never_looks_complete(
    gates: Gates, family: Family
) -> None:
    """A document that stops short stops short at the caller; what came is charged."""
    size = len(family.document)
    cases = [(how, cut) for how in ("closed", "reset") for cut in (1, size // 2, size - 1)]
    async with wired(gates, rules=LIMITS, clock=Clock()) as w:
        for how, cut in cases:
            assert await broken(w, family, how, cut, stream=False) == b"", (how, cut)
        found = await settled(w, len(cases))
        holds = held_by(w)
    for (how, cut), outcome in zip(cases, found, strict=True):
        assert outcome["ending"] == "upstream_broke", (how, cut)
        delivered = words_in(family.document[:cut])
        check(outcome, holds[outcome["id"]], delivered, cut == size - 1)
