"""Shaping in every family, byte for byte: golden files, any chunking, and closed where unread.

``tests/data/shaping/<family>/<case>.in`` is what an upstream says, ``<case>.<change>.out`` what is
passed on; a change without a file of its own changes nothing.
"""

from __future__ import annotations

import gzip
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gatekeeper.dialects import dialect_for
from gatekeeper.dialects.answer import AnswerReader
from gatekeeper.dialects.base import AnswerError, AnswerPlan, Ask
from gatekeeper.dialects.family import Family
from gatekeeper.dialects.shaping.base import MOST_DROPPED
from gatekeeper.dialects.shaping.chat import ChatShaper
from gatekeeper.dialects.shaping.logprobs import MOST_PLACES
from gatekeeper.dialects.shaping.messages import MessagesShaper, shaper_of_messages
from gatekeeper.dialects.shaping.responses import ResponsesShaper
from gatekeeper.dialects.usage import text_pattern
from gatekeeper.policy.model import Shaping
from gatekeeper.policy.words import LogprobsChange

if TYPE_CHECKING:
    from collections.abc import Iterable

FOLDER = Path(__file__).parents[1] / "data" / "shaping"
CASES = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.in"))
SHAPERS: dict[str, Any] = {
    "openai_chat": ChatShaper,
    "openai_completions": ChatShaper,
    "llama_cpp": ChatShaper,
    "openai_responses": ResponsesShaper,
    "anthropic_messages": shaper_of_messages,
}
CHANGES = {
    "remove": Shaping(logprobs=LogprobsChange.REMOVE),
    "round": Shaping(logprobs=LogprobsChange.ROUND, decimals=1),
    "noise": Shaping(logprobs=LogprobsChange.NOISE, decimals=2, epsilon=10.0),
    "reasoning": Shaping(drop_reasoning=True),
}
ASK = Ask(max_output_tokens=100)


def reader(family: str, change: Shaping, kind: str, **headers: str) -> AnswerReader:
    """Return a reader of one answer that is shaped."""
    known = Family(text_pattern("content"), frozenset(), shaper=SHAPERS[family])
    plan = AnswerPlan(shaping=change, seed=b"golden")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return AnswerReader(known, ASK, {"content-type": kind, **named}, plan)


def kind_of(said: bytes) -> str:
    """Tell a stream from a document."""
    return "application/json" if said[:1] in b"[{" else "text/event-stream"


def shaped(family: str, change: Shaping, chunks: Iterable[bytes], kind: str) -> bytes:
    """Read chunks through a reader."""
    reading = reader(family, change, kind)
    return b"".join([*map(reading.feed, chunks), reading.end()])


def wanted(case: str, change: str) -> bytes:
    """Return what is to be passed on."""
    path = FOLDER / f"{case}.{change}.out"
    return path.read_bytes() if path.exists() else (FOLDER / f"{case}.in").read_bytes()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, change: str) -> None:
    """What is asked for is changed, and no other byte, wherever the answer is cut."""
    said = (FOLDER / f"{case}.in").read_bytes()
    family, kind, chance = case.split("/", maxsplit=1)[0], kind_of(said), random.Random(case)
    want = wanted(case, change)
    assert shaped(family, CHANGES[change], [said], kind) == want
    assert shaped(family, CHANGES[change], (bytes([each]) for each in said), kind) == want
    for _ in range(5):
        places = sorted(chance.sample(range(len(said)), 7))
        chunks = [said[a:b] for a, b in zip([0, *places], [*places, len(said)], strict=True)]
        assert shaped(family, CHANGES[change], chunks, kind) == want


def test_golden_files_are_all_read() -> None:
    """Every file of the folder belongs to a case and a change."""
    known = {f"{case}.in" for case in CASES}
    known |= {f"{case}.{change}.out" for case in CASES for change in CHANGES}
    assert {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.*")} <= known
    assert {case.split("/")[0] for case in CASES} == SHAPERS.keys()


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_left_to_take_out(case: str) -> None:
    """What has been taken out of an answer is not found in it a second time."""
    family = case.split("/", maxsplit=1)[0]
    for change in ("remove", "reasoning", "round"):
        once = wanted(case, change)
        assert shaped(family, CHANGES[change], [once], kind_of(once)) == once


@pytest.mark.parametrize("case", CASES)
def test_compressed_answers_are_shaped(case: str) -> None:
    """An upstream that compresses all the same is read, and passed on plain."""
    said = (FOLDER / f"{case}.in").read_bytes()
    family, change = case.split("/", maxsplit=1)[0], CHANGES["reasoning"]
    reading = reader(family, change, kind_of(said), content_encoding="gzip")
    assert reading.feed(gzip.compress(said)) + reading.end() == wanted(case, "reasoning")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/chat/completions"),
        ("GET", "/v1/chat/completions/chatcmpl-1"),
        ("GET", "/v1/chat/completions/chatcmpl-1/messages"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/responses"),
        ("GET", "/v1/responses/resp_1"),
        ("GET", "/v1/responses/resp_1/input_items"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("GET", "/v1/conversations/conv_1/items"),
        ("POST", "/v1/messages"),
        ("POST", "/completion"),
        ("POST", "/infill"),
        ("POST", "/chat/completions/batch"),
        ("POST", "/invocations"),
        ("POST", "/inference/v1/generate"),
    ],
)
def test_every_route_that_shows_what_a_model_wrote_is_shaped(method: str, path: str) -> None:
    """Also where it is fetched later: there is no way around."""
    dialect = dialect_for(method, path)
    plan = AnswerPlan(shaping=Shaping(logprobs=LogprobsChange.REMOVE, drop_reasoning=True))
    for kind in ("application/json", "text/event-stream"):
        assert dialect.reader(ASK, {"content-type": kind}, plan).changes
        assert not dialect.reader(ASK, {"content-type": kind}).changes


def test_messages_without_reasoning_to_drop_pass_through() -> None:
    """The family has no log probabilities: a rule about them does not hold its answers back."""
    assert not reader("anthropic_messages", CHANGES["remove"], "application/json").changes
    assert not reader("anthropic_messages", CHANGES["round"], "text/event-stream").changes


LOGPROBS = b'{"choices":[{"index":0,"logprobs":{"content":[{"token":"a","logprob":-1.25}]}}]}'


@pytest.mark.parametrize(
    "event",
    [
        b"data: " + LOGPROBS[:20] + b"\ndata: " + LOGPROBS[20:] + b"\n\n",
        b"data: " + LOGPROBS + LOGPROBS + b"\n\n",
        b"data: " + LOGPROBS + b"}\n\n",
        b"data: " + LOGPROBS[:-1] + b"\n\n",
        b"data: x" + LOGPROBS + b"\n\n",
        b"data: " + LOGPROBS.replace(b"-1.25", b'{"logprob":-1.25}').replace(b"0,", b'"0",')
        + b"\n\n",
        b"data: " + LOGPROBS.replace(b"-1.25", b"-1.2.5") + b"\n\n",
        b"data: " + LOGPROBS.replace(b'{"token"', b'[{"token"').replace(b"25}", b"25}]") + b"\n\n",
    ],
    ids=["two-lines", "twice", "behind", "short", "before", "index", "number", "nested"],
)  # fmt: skip
def test_an_event_that_cannot_be_read_is_not_passed_on(event: bytes) -> None:
    """Whatever a lenient client might make of it, nothing of it goes out."""
    reading = reader("openai_chat", CHANGES["round"], "text/event-stream")
    before = b'data: {"choices":[]}\n\n'
    assert reading.feed(before) == before
    with pytest.raises(AnswerError):
        reading.feed(event)


@pytest.mark.parametrize("family", SHAPERS)
def test_a_document_that_cannot_be_read_is_not_passed_on(family: str) -> None:
    """Cut short, no JSON, or of a kind that is not known: nothing goes out."""
    for kind, body in (
        ("application/json", b'{"choices":[{"logprobs":{"content":[]'),
        ("application/json", b"<html>"),
        ("application/json", b'{"choices":[]} {"choices":[]}'),
        ("text/plain", b'{"choices":[]}'),
        ("", b""),
    ):
        reading = reader(family, CHANGES["reasoning"], kind)
        assert reading.whole
        with pytest.raises(AnswerError):
            reading.feed(body + reading.end())


def test_odd_lines_of_a_stream() -> None:
    """A byte order mark, lines without space, ids, comments and other fields do not hide data."""
    event = (
        b"\xef\xbb\xbfdata:" + LOGPROBS + b"\r\nid: 7\r\n: data: x\r\n\r\n"
        b"event: data\rid\rdata\r\rretry: 5\ndata: [DONE]\n\ndatabase: 1\n\n"
    )
    got = shaped("openai_chat", CHANGES["remove"], [event], "text/event-stream")
    assert got == event.replace(b'{"content":[{"token":"a","logprob":-1.25}]}', b"null")


def test_odd_shapes_are_closed_or_left() -> None:
    """Members of the right name and another shape: what could tell a chance does not pass."""
    said = (
        b'{"choices":[7,{"index":0,"logprobs":{"content":[null,{"token":"a","logprob":null,'
        b'"entropy":1.23456,"extra":{"p":0.5},"top_logprobs":[],"rank":3}],"sum":-1.25,'
        b'"refusal":null},"message":null}],"prompt_logprobs":5,"data":{},"usage":null}'
    )
    want = (
        b'{"choices":[7,{"index":0,"logprobs":{"content":[null,{"token":"a","logprob":null,'
        b'"entropy":1.2,"extra":null,"top_logprobs":[],"rank":3}],"sum":null,'
        b'"refusal":null},"message":null}],"prompt_logprobs":5,"data":{},"usage":null}'
    )
    assert shaped("openai_chat", CHANGES["round"], [said], "application/json") == want


def test_a_member_that_stands_twice_is_taken_out_twice() -> None:
    """Parsers differ in which one they believe."""
    one = b'"logprobs":{"content":[{"token":"a","logprob":-1.25}]}'
    said = b'{"choices":[{"index":0,%b,"logprobs":null,%b}]}' % (one, one)
    none = b'"logprobs":null'
    want = b'{"choices":[{"index":0,%b,%b,%b}]}' % (none, none, none)
    assert shaped("openai_chat", CHANGES["remove"], [said], "application/json") == want


def test_stored_answers_are_shaped() -> None:
    """A page of stored completions, of stored messages, of the items of a response."""
    page = b'{"object":"list","data":[%b,{"role":"assistant","reasoning_content":"x"}]}' % LOGPROBS
    both = Shaping(logprobs=LogprobsChange.REMOVE, drop_reasoning=True)
    got = shaped("openai_chat", both, [page], "application/json")
    assert got == (
        b'{"object":"list","data":[{"choices":[{"index":0,"logprobs":null}]},{"role":"assistant"}]}'
    )
    items = b'{"object":"list","data":[{"type":"reasoning","id":"r"},{"type":"message"}]}'
    got = shaped("openai_responses", both, [items], "application/json")
    assert got == b'{"object":"list","data":[{"type":"message"}]}'
    item = b'{"id":"r","type":"reasoning","summary":[{"text":"x"}],"encrypted_content":"y"}'
    got = shaped("openai_responses", both, [item], "application/json")
    assert got == b'{"id":"r","type":"reasoning","summary":[]}'
    item = b'{"type":"message","content":[{"type":"output_text","logprobs":[{"logprob":-1}]}]}'
    got = shaped("openai_responses", both, [item], "application/json")
    assert got == b'{"type":"message","content":[{"type":"output_text","logprobs":[]}]}'


def test_what_litellm_says_again_is_taken_out_again() -> None:
    """Its answers hold the fields of its upstream a second time."""
    again = b'"provider_specific_fields":{"reasoning_content":"x","refusal":null}'
    said = b'{"choices":[{"message":{"content":"a","reasoning_content":"x",%b}}]}' % again
    want = said.replace(b'"reasoning_content":"x",', b"")
    assert shaped("openai_chat", CHANGES["reasoning"], [said], "application/json") == want


def test_what_stands_before_damage_is_passed_on() -> None:
    """Wherever the stream was cut: one chunk with both is as two."""
    good, bad = b'data: {"choices":[]}\n\n', b'data: {"logprobs":\ndata: 1}\n\n'
    reading = reader("openai_chat", CHANGES["round"], "text/event-stream")
    assert reading.feed(good + bad + good) == good
    with pytest.raises(AnswerError):
        reading.feed(good)
    with pytest.raises(AnswerError):
        reading.end()


def test_only_what_is_large_is_heavy() -> None:
    """What may take long is told before it is done, so that it can be done on a thread."""
    for kind in ("text/event-stream", "application/json"):
        reading = reader("openai_chat", CHANGES["round"], kind)
        assert not reading.heavy
        reading.feed(b"data: " + b"x" * 40_000)
        assert reading.heavy
    hiding = AnswerReader(
        Family(text_pattern("content"), frozenset(), lambda event: event),
        ASK,
        {"content-type": "text/event-stream"},
        AnswerPlan(hide_usage=True),
    )
    hiding.feed(b"data: " + b"x" * 40_000)
    assert not hiding.heavy


def test_results_of_a_batch_are_shaped() -> None:
    """A line of Anthropic's results holds a whole message."""
    line = (
        b'{"custom_id":"a","result":{"type":"succeeded","message":'
        b'{"content":[{"type":"thinking","thinking":"x"}]}}}'
    )
    got = MessagesShaper(AnswerPlan(shaping=CHANGES["reasoning"])).document(line)
    assert got == line.replace(b'{"type":"thinking","thinking":"x"}', b"")


def test_the_example_of_the_document_holds() -> None:
    """``docs/shaping.md`` shows what really comes out."""
    page = (Path(__file__).parents[2] / "docs" / "shaping.md").read_bytes()
    before, after = re.findall(rb"^```json\n(.*)\n```$", page, re.MULTILINE)
    got = ChatShaper(AnswerPlan(shaping=CHANGES["round"])).document(b'{"choices":[%b]}' % before)
    assert got == b'{"choices":[%b]}' % after


def test_memory_is_bounded() -> None:
    """An upstream that invents choices, or blocks to leave out, without end is cut off."""
    chat = ChatShaper(AnswerPlan(shaping=CHANGES["round"]))
    for index in range(MOST_PLACES):
        chat.event(b"data: " + LOGPROBS.replace(b":0,", b":%d," % index) + b"\n\n")
    with pytest.raises(AnswerError):
        chat.event(b"data: " + LOGPROBS.replace(b":0,", b":-1,") + b"\n\n")
    messages = MessagesShaper(AnswerPlan(shaping=CHANGES["reasoning"]))
    for index in range(MOST_DROPPED):
        messages.event(b'data: {"index":%d,"delta":{"type":"thinking_delta"}}\n\n' % index)
    with pytest.raises(AnswerError):
        messages.event(b'data: {"index":-1,"delta":{"type":"thinking_delta"}}\n\n')
