"""What is charged for answers that tell little, and for those that break off (H23, H25, H32)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from support.endings import (
    LIMITS,
    ask,
    check,
    connections,
    head_of,
    held_by,
    outcomes,
    receive,
    send_part,
    settled,
)
from support.families import CHAT, FAMILIES, GIVEN, WORDS, Family, words_in
from support.gates import Clock
from support.wire import Exchange, IncompleteError, RawUpstream, always, request, until, wired

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from support.gates import Gates
    from support.wire import Wired

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
