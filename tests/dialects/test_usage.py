"""Reading usage along an answer."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.dialects import dialect_for
from gatekeeper.dialects.answer_document import MOST_JSON_BYTES
from gatekeeper.dialects.base import AnswerReader, Ask
from gatekeeper.dialects.estimate import estimate_tokens
from gatekeeper.policy.model import Usage, UsageParts

CHAT = dialect_for("POST", "/v1/chat/completions")
MESSAGES = dialect_for("POST", "/v1/messages")
RESPONSES = dialect_for("POST", "/v1/responses")
EMBEDDINGS = dialect_for("POST", "/v1/embeddings")
ASK = Ask("m", stream=True, input_tokens=10, max_output_tokens=100)
SSE = {"content-type": "text/event-stream; charset=utf-8"}
JSON = {"content-type": "application/json"}
WORDS = [" one", " two", " three", ' "four"', " five\n"]


def data(value: Any) -> bytes:
    """Write one event without a name."""
    text = json.dumps(value, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


def event(value: dict[str, Any]) -> bytes:
    """Write one named event."""
    name: str = value["type"]
    return f"event: {name}\n".encode() + data(value)


def chunk(text: str | None = None, finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    """Write one chunk of a chat completion."""
    delta = {} if text is None else {"content": text}
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return data({"id": "c", "choices": [choice], **more})


def usage_chunk(prompt: int, completion: int) -> bytes:
    """Write the last chunk of a completion whose usage was asked for."""
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    return data({"id": "c", "choices": [], "usage": usage})


DONE = b"data: [DONE]\n\n"
CHAT_STREAM = b"".join([*(chunk(word, usage=None) for word in WORDS), chunk(finish="stop")])


def message_start(**usage: int) -> bytes:
    """Write the first event of a message."""
    return event({"type": "message_start", "message": {"id": "msg", "usage": usage}})


def text_delta(text: str) -> bytes:
    """Write a piece of a message."""
    delta = {"type": "text_delta", "text": text}
    return event({"type": "content_block_delta", "index": 0, "delta": delta})


def message_delta(**usage: int) -> bytes:
    """Write the event that tells the final usage of a message."""
    return event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage})


STOP = event({"type": "message_stop"})
CACHED = UsageParts(cached_input_tokens=4_000, cache_write_tokens=300)
MESSAGE_STREAM = b"".join(
    [
        message_start(
            input_tokens=20,
            cache_creation_input_tokens=300,
            cache_read_input_tokens=4_000,
            output_tokens=1,
        ),
        *(text_delta(word) for word in WORDS),
        message_delta(output_tokens=15),
        STOP,
    ]
)


def fed(reader: AnswerReader, body: bytes, size: int = 10**9) -> AnswerReader:
    """Feed ``body`` in chunks of ``size``."""
    for start in range(0, len(body), size):
        reader.feed(body[start : start + size])
    return reader


@settings(max_examples=60, deadline=None)
@given(places=st.lists(st.integers(0, 2_000), max_size=10), coded=st.booleans())
def test_h24_reported_usage_wherever_chunks_are_cut(places: list[int], coded: bool) -> None:
    """Both families' streams give the same usage for any cuts, gzip or not."""
    for dialect, stream, wanted in (
        (CHAT, CHAT_STREAM + usage_chunk(12, 5) + DONE, Usage(12, 5)),
        (MESSAGES, MESSAGE_STREAM, Usage(4_320, 15, parts=CACHED)),
    ):
        body = gzip.compress(stream) if coded else stream
        headers = {**SSE, "content-encoding": "gzip"} if coded else SSE
        reader = dialect.reader(ASK, headers)
        edges = [0, *sorted(places), len(body)]
        for start, end in pairwise(edges):
            reader.feed(body[start:end])
        assert reader.result() == wanted
        assert reader.complete


def test_h24_usage_twice_counts_once() -> None:
    """Cumulative reports are not added up."""
    stream = usage_chunk(12, 2) + usage_chunk(12, 5) + usage_chunk(12, 5) + DONE
    assert fed(CHAT.reader(ASK, SSE), stream).result() == Usage(12, 5)
    stream = MESSAGE_STREAM.replace(STOP, message_delta(output_tokens=15) + STOP)
    assert fed(MESSAGES.reader(ASK, SSE), stream).result() == Usage(4_320, 15, parts=CACHED)


def test_h24_explicit_zero_is_zero() -> None:
    """A reported zero is believed, not estimated over."""
    stream = CHAT_STREAM + usage_chunk(12, 0) + DONE
    assert fed(CHAT.reader(ASK, SSE), stream).result() == Usage(12, 0)
    body = b'{"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0}}'
    assert fed(CHAT.reader(ASK, JSON), body).result() == Usage(0, 0)
    stream = message_start(input_tokens=20, output_tokens=1) + message_delta(output_tokens=0) + STOP
    assert fed(MESSAGES.reader(ASK, SSE), stream).result() == Usage(20, 0)


def test_h24_the_end_of_a_message_has_the_last_word() -> None:
    """What its start told of the input and the output is replaced, as in the SDK's own sum."""
    start = message_start(input_tokens=612, output_tokens=63)
    stream = start + message_delta(input_tokens=28, output_tokens=50) + STOP
    assert fed(MESSAGES.reader(ASK, SSE), stream).result() == Usage(28, 50)


def test_h24_a_stream_without_usage_is_estimated() -> None:
    """What was delivered is estimated and marked; the input is the estimate of the ask."""
    reader = fed(CHAT.reader(ASK, SSE), CHAT_STREAM + DONE)
    usage = reader.result()
    assert usage is not None
    assert usage.estimated
    assert usage.input_tokens == 10
    assert 5 <= usage.output_tokens <= 15


def test_h25_an_answer_cut_short_is_charged_what_was_delivered() -> None:
    """The estimate grows with the text, and reading the result twice changes nothing."""
    reader = CHAT.reader(ASK, SSE)
    before = reader.result()
    assert before == Usage(10, 0, estimated=True)
    reader = CHAT.reader(ASK, SSE)
    fed(reader, chunk("some words that were delivered ") * 600)
    half = reader.result()
    assert half is not None
    assert 3_000 <= half.output_tokens <= 4_800
    assert reader.result() == half


def test_h25_a_message_cut_short_keeps_its_reported_input() -> None:
    """Input is known from the first event; output is estimated from the text."""
    stream = MESSAGE_STREAM[: MESSAGE_STREAM.index(b"event: message_delta")]
    usage = fed(MESSAGES.reader(ASK, SSE), stream).result()
    assert usage is not None
    assert usage.estimated
    assert usage.input_tokens == 4_320
    assert 5 <= usage.output_tokens <= 15


def test_h25_text_after_the_last_report_is_counted_on_top() -> None:
    """A report in the middle covers what came before it; what follows it is not free."""
    reader = fed(CHAT.reader(ASK, SSE), CHAT_STREAM + usage_chunk(12, 5))
    assert reader.result(50) == Usage(12, 5)
    fed(reader, chunk(" more words than that") * 2)
    usage = reader.result(50)
    assert usage is not None
    assert usage.estimated
    assert 13 <= usage.output_tokens <= 18
    fed(reader, usage_chunk(12, 14))
    assert reader.result(50) == Usage(12, 14)


def test_h25_a_report_with_each_piece_settles_a_cut_to_the_token() -> None:
    """Where the upstream reports all along, a cut between two events is exact."""
    reader = CHAT.reader(ASK, SSE)
    for number in range(1, 8):
        usage = {"prompt_tokens": 12, "completion_tokens": number}
        fed(reader, chunk(" antidisestablishmentarianism", usage=usage))
        assert reader.result(50) == Usage(12, number)


def test_h25_short_words_are_a_token_each() -> None:
    """However little they weigh; and a count is raised by what it may fall short."""
    usage = fed(CHAT.reader(ASK, SSE), chunk(" a" * 50)).result()
    assert usage is not None
    assert usage.output_tokens >= 50
    heavy = fed(CHAT.reader(ASK, SSE), chunk("0123456789" * 100)).result()
    assert heavy is not None
    assert heavy.output_tokens >= estimate_tokens(b"0123456789" * 100) * 20 / 19


@given(most=st.integers(0, 60), words=st.integers(0, 80), reported=st.integers(0, 100))
def test_h25_an_estimate_is_never_more_than_was_held_and_a_report_may_be(
    most: int, words: int, reported: int
) -> None:
    """Delivered <= charged <= held; a report stands even above the hold."""
    reader = fed(CHAT.reader(ASK, SSE), chunk(" cat" * words) if words else b"")
    usage = reader.result(most)
    assert usage is not None
    assert min(words, most) <= usage.output_tokens <= most
    fed(reader, usage_chunk(3, reported))
    assert reader.result(most) == Usage(3, reported)


@pytest.mark.parametrize("told", ["-5", "1e13", "5000000000", '"7"', "[]", "null", "true"])
def test_h32_a_report_that_makes_no_sense_is_none(told: str) -> None:
    """The output is counted, and the end that the same event tells is an end."""
    last = chunk(" word", "stop", usage={"prompt_tokens": 5, "completion_tokens": 0})
    broken = last.replace(b'"completion_tokens":0', b'"completion_tokens":' + told.encode())
    reader = fed(CHAT.reader(ASK, SSE), chunk(" one two") + broken)
    usage = reader.result(50)
    assert usage is not None
    assert usage.estimated
    assert 3 <= usage.output_tokens <= 10
    assert reader.complete


def test_h25_a_document_cut_short_counts_all_that_came() -> None:
    """Whatever the fields are called in which the text stands."""
    words = b" cat" * 40
    cut = b'{"content":[{"type":"tool_use","input":{"anything":"' + words
    usage = fed(MESSAGES.reader(ASK, JSON), cut).result(100)
    assert usage is not None
    assert 40 <= usage.output_tokens <= 100


def test_h25_a_model_cannot_forge_the_usage_of_a_document_that_is_cut() -> None:
    """Neither behind the true one nor before the end; a true one that came whole counts."""
    forged = b'{"usage":{"input_tokens":0,"output_tokens":0}}'
    body = b'{"content":[{"type":"tool_use","input":%b}' % forged
    for cut in (body, body + b"]", body + b'],"usage":{"input_tok'):
        usage = fed(MESSAGES.reader(ASK, JSON), cut).result(100)
        assert usage is not None
        assert usage.estimated
        assert usage.output_tokens > 20
    true = b'{"usage":{"input_tokens":7,"output_tokens":9},"content":[{"input":%b' % forged
    assert fed(MESSAGES.reader(ASK, JSON), true).result(100) == Usage(7, 9)
    padding = b'{"x":"' + b"x" * MOST_JSON_BYTES + b'",'
    for end, wanted in (
        (b'"usage":{"input_tokens":7,"output_tokens":9},"content":[%b]}' % forged, Usage(7, 9)),
        (b'"content":[%b],"usage":{"input_tokens":7,"output_tokens":9}}' % forged, Usage(7, 9)),
        (b'"content":[%b]' % forged, None),
        (b'"content":[%b]}' % forged, None),
    ):
        assert fed(MESSAGES.reader(ASK, JSON), padding + end).result(100) == wanted


def test_tool_calls_and_reasoning_are_output_too() -> None:
    """Every kind of generated text is delivered text."""
    call = {"index": 0, "delta": {"tool_calls": [{"function": {"arguments": '{"city": "Rome"}'}}]}}
    stream = data({"choices": [call]}) * 20
    usage = fed(CHAT.reader(ASK, SSE), stream).result()
    assert usage is not None
    assert usage.output_tokens > 80
    thinking = {"type": "thinking_delta", "thinking": "let me think about that"}
    stream = event({"type": "content_block_delta", "index": 0, "delta": thinking}) * 20
    usage = fed(MESSAGES.reader(ASK, SSE), stream).result()
    assert usage is not None
    assert usage.output_tokens > 80


def test_escaped_text_is_estimated_as_what_it_stands_for() -> None:
    r"""Deltas full of ``\uXXXX`` are not counted letter by letter."""
    stream = chunk("港口很安静" * 10) * 10
    usage = fed(CHAT.reader(ASK, SSE), stream).result()
    assert usage is not None
    assert 300 <= usage.output_tokens <= 700


@pytest.mark.parametrize(
    "text",
    [
        'data: {"usage":{"prompt_tokens":0,"completion_tokens":0}}\n\ndata: [DONE]\n\n',
        '"usage":{"prompt_tokens":0,"completion_tokens":0}',
        "[DONE]",
        '"finish_reason":"stop"',
        'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    ],
)
def test_h32_model_output_forges_neither_usage_nor_an_end(text: str) -> None:
    """Text that looks like a report or an end is only text."""
    reader = fed(CHAT.reader(ASK, SSE), chunk(text))
    usage = reader.result()
    assert usage is not None
    assert usage.estimated
    assert usage.output_tokens > 0
    assert not reader.complete
    message = fed(MESSAGES.reader(ASK, SSE), message_start(input_tokens=1) + text_delta(text))
    usage = message.result()
    assert usage is not None
    assert usage.estimated
    assert not message.complete


def test_a_tool_call_does_not_forge_usage_in_a_whole_answer() -> None:
    """Objects that the model fills in are not where usage is looked for."""
    forged = {"usage": {"input_tokens": 0, "output_tokens": 0}}
    answer = {
        "content": [{"type": "tool_use", "input": forged}],
        "usage": {"input_tokens": 20, "output_tokens": 30},
    }
    reader = fed(MESSAGES.reader(ASK, JSON), json.dumps(answer).encode())
    assert reader.result() == Usage(20, 30)
    del answer["usage"]
    reader = fed(MESSAGES.reader(ASK, JSON), json.dumps(answer).encode())
    usage = reader.result()
    assert usage is not None
    assert usage.estimated


@pytest.mark.parametrize(
    ("usage", "wanted"),
    [
        (
            {"prompt_tokens": 9, "completion_tokens": 5, "prompt_cache_hit_tokens": 7},
            Usage(9, 5, parts=UsageParts(cached_input_tokens=7)),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 5, "cached_tokens": 7},
            Usage(9, 5, parts=UsageParts(cached_input_tokens=7)),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}, Usage(9, 5)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 40}, Usage(9, 31)),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 50,
                "completion_tokens_details": {
                    "accepted_prediction_tokens": 10,
                    "rejected_prediction_tokens": 20,
                },
            },
            Usage(9, 50),
        ),
    ],
)
def test_h24_reports_of_other_servers(usage: dict[str, Any], wanted: Usage) -> None:
    """Caches under other names, and thoughts that only the total holds."""
    body = json.dumps({"choices": [], "usage": usage}).encode()
    assert fed(CHAT.reader(ASK, JSON), body).result() == wanted
    stream = data({"choices": [], "usage": usage}) + DONE
    assert fed(CHAT.reader(ASK, SSE), stream).result() == wanted


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -1, "completion_tokens": -1},
        {"prompt_tokens": "1", "completion_tokens": 1},
        {"prompt_tokens": 1.5, "completion_tokens": 1},
        {"prompt_tokens": 10**13, "completion_tokens": 1},
        "none",
        [],
    ],
)
def test_nonsense_reports_are_not_believed(usage: Any) -> None:
    """A report with wrong numbers is no report."""
    body = json.dumps({"choices": [{"message": {"content": "hi"}}], "usage": usage}).encode()
    reader = fed(CHAT.reader(ASK, JSON), body)
    found = reader.result()
    assert found is not None
    assert found.estimated
    assert reader.complete
    stream = data({"choices": [], "usage": usage})
    found = fed(CHAT.reader(ASK, SSE), stream).result()
    assert found is not None
    assert found.estimated


@pytest.mark.parametrize(
    "end", [DONE, b"data: [DONE]\n", b"data:[DONE]\r\n\r\n", chunk(finish="stop")]
)
def test_h32_a_chat_stream_is_complete_with_its_end(end: bytes) -> None:
    """``[DONE]`` or a finish reason ends a stream, with or without the last blank line."""
    reader = fed(CHAT.reader(ASK, SSE), chunk("hi") + end, size=3)
    assert reader.complete


def test_h32_every_choice_must_finish() -> None:
    """With two choices one finish reason is not the end."""
    ask = Ask("m", stream=True, choices=2, max_output_tokens=None)
    reader = fed(CHAT.reader(ask, SSE), chunk(finish="stop", index=1) * 2)
    reader.feed(chunk("more"))
    assert not fed(CHAT.reader(ask, SSE), chunk(finish="stop", index=1) * 2).complete
    assert fed(reader, chunk(finish="length", index=0)).complete


@pytest.mark.parametrize(
    ("dialect", "headers", "body"),
    [
        (CHAT, SSE, CHAT_STREAM + DONE),
        (MESSAGES, SSE, MESSAGE_STREAM),
        (CHAT, JSON, b'{"choices":[{"message":{"content":"x"}}],"usage":{"completion_tokens":1}}'),
    ],
    ids=["chat", "messages", "document"],
)
def test_h32_an_answer_cut_anywhere_never_looks_complete(
    dialect: Any, headers: dict[str, str], body: bytes
) -> None:
    """Every true prefix that lacks the end is incomplete and still gives some usage."""
    ends = [
        body.find(b'"finish_reason":"stop"'),
        body.find(b'"type":"message_stop"'),
        len(body) - 1,
    ]
    end = min(place for place in ends if place > 0)
    for length in range(0, end, 7):
        reader = fed(dialect.reader(ASK, headers), body[:length])
        assert not reader.complete
        assert reader.result() is not None


def test_h32_between_events_only() -> None:
    """An error event fits between events, never inside one or into a coded stream."""
    reader = CHAT.reader(ASK, SSE)
    assert not reader.mid_event
    reader.feed(chunk("hi")[:-2])
    assert reader.mid_event
    reader.feed(b"\n\n")
    assert not reader.mid_event
    assert CHAT.reader(ASK, {**SSE, "content-encoding": "gzip"}).mid_event


def test_responses_report_inside_their_last_event() -> None:
    """The newer OpenAI API nests its usage; it is not settled at zero (H23)."""
    delta = event({"type": "response.output_text.delta", "delta": "hello"})
    usage = {"input_tokens": 11, "output_tokens": 22}
    last = event({"type": "response.completed", "response": {"id": "r", "usage": usage}})
    reader = fed(RESPONSES.reader(ASK, SSE), delta)
    assert not reader.complete
    partial = reader.result()
    assert partial is not None
    assert partial.output_tokens > 0
    reader = fed(RESPONSES.reader(ASK, SSE), delta + last)
    assert reader.result() == Usage(11, 22)
    assert reader.complete


def test_embeddings_are_charged_input_only() -> None:
    """Usage without output is whole; a body beyond the bound is read from its tail."""
    ask = Ask("e", input_tokens=50, max_output_tokens=0)
    usage = b'"usage":{"prompt_tokens":8,"total_tokens":8}}'
    small = fed(EMBEDDINGS.reader(ask, JSON), b'{"data":[],' + usage)
    assert small.result() == Usage(8, 0)
    large = EMBEDDINGS.reader(ask, JSON)
    large.feed(b'{"data":[')
    for _ in range(MOST_JSON_BYTES // 10_000 + 2):
        large.feed(b"0.12345678," * 1_000)
    assert not large.complete
    fed(large, b"0]," + usage)
    assert large.result() == Usage(8, 0)
    assert large.complete
    missing = fed(EMBEDDINGS.reader(ask, JSON), b'{"data":[]}')
    assert missing.result() == Usage(50, 0, estimated=True)


def test_bodies_beyond_the_bound_take_bounded_memory() -> None:
    """Only a tail is kept; without usage in it nobody knows what the answer was, broken or not."""
    for tail in (b"x" * 10, b'"usage":{"prompt_tokens":', b'"usage":{"prompt_tokens":-1}}'):
        reader = CHAT.reader(ASK, JSON)
        for _ in range(40):
            reader.feed(b"x" * 100_000)
            assert len(reader._reader._kept) <= MOST_JSON_BYTES  # type: ignore[attr-defined]
        reader.feed(tail)
        assert reader.result() is None


def test_what_cannot_be_read_is_not_guessed() -> None:
    """Unknown codings and types, bombs and damage give no usage; only framing tells their end."""
    for headers in (
        {**JSON, "content-encoding": "br"},
        {**JSON, "content-encoding": "gzip, br"},
        {"content-type": "text/html"},
        {},
    ):
        reader = fed(CHAT.reader(ASK, headers), b"\x8b\x00 something")
        assert reader.result() is None
        assert reader.complete
    damaged = fed(CHAT.reader(ASK, {**JSON, "content-encoding": "gzip"}), b"not gzip")
    assert damaged.result() is None
    assert damaged.complete
    bomb = gzip.compress(b"{" + b" " * 70_000_000)
    reader = fed(CHAT.reader(ASK, {**JSON, "content-encoding": "gzip"}), bomb)
    assert reader.result() is None


def test_other_json_is_complete_but_estimated() -> None:
    """An answer of another shape is whole JSON all the same; half of it is not."""
    for body in (b"[1,2]", b'"text"', b'{"usage":7}'):
        reader = fed(CHAT.reader(ASK, JSON), body)
        assert reader.complete
        usage = reader.result()
        assert usage is not None
        assert usage.estimated
    assert not fed(CHAT.reader(ASK, JSON), b'{"usage":7').complete
    assert not fed(CHAT.reader(ASK, JSON), b'{"a":' + b"[" * 100_000).complete


def test_a_document_is_read_again_when_more_comes() -> None:
    """Looking early neither counts text twice nor misses the report."""
    body = b'{"choices":[{"message":{"content":"some text here"}}]}'
    reader = fed(CHAT.reader(ASK, JSON), body[:-2])
    assert not reader.complete
    fed(reader, body[-2:])
    assert reader.complete
    assert reader.result() == fed(CHAT.reader(ASK, JSON), body).result()


def test_a_report_that_is_nested_without_end_is_none() -> None:
    """Whoever settles gets an estimate, and no defect that would leave the hold open."""
    deep = b'{"iterations":[' * 3_000 + b"]}" * 3_000
    reader = fed(CHAT.reader(ASK, JSON), b'{"usage":' + deep + b',"choices":')
    usage = reader.result(100)
    assert usage is not None
    assert (usage.output_tokens, usage.estimated) == (100, True)
