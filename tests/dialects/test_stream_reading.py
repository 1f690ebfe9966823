"""Streams that are read in batches and changed by short cuts: the same as event by event."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.dialects import dialect_for
from gatekeeper.dialects.base import AnswerPlan, Ask
from gatekeeper.policy.model import Usage

CHAT = dialect_for("POST", "/v1/chat/completions")
MESSAGES = dialect_for("POST", "/v1/messages")
ASK = Ask("m", stream=True, input_tokens=10, max_output_tokens=10_000)
SSE = {"content-type": "text/event-stream"}
HIDING = AnswerPlan(hide_usage=True)
WORD = (
    b'{"id":"c","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,'
    b'"finish_reason":null}]'
)
REPORT = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":9}}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}\n\n'
DONE = b"data: [DONE]\n\n"


def hidden(event: bytes) -> bytes:
    """Return what a caller gets of one event who did not ask for usage."""
    reader = CHAT.reader(ASK, SSE, HIDING)
    return reader.feed(event) + reader.end()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (WORD + b',"usage":null}', WORD + b"}"),
        (WORD + b',"usage":null,"obfuscation":"aB3"}', WORD + b',"obfuscation":"aB3"}'),
        (WORD + b',"usage":null,"a":-1.5e3,"b":true}', WORD + b',"a":-1.5e3,"b":true}'),
        (WORD + b',"usage":null,"usage":null}', WORD + b"}"),
        (WORD + b',"usage": null }', WORD + b" }"),
        (WORD + b',"usage":null,"x":{"y":1}}', WORD + b',"x":{"y":1}}'),
        (b'{"usage":null,"id":"c"}', b'{"id":"c"}'),
        (b'{"usage":null}', b"{}"),
    ],
)
def test_h24_a_null_report_is_taken_out_alone(before: bytes, after: bytes) -> None:
    """Wherever the member stands, no other byte changes."""
    assert hidden(b"data: " + before + b"\n\n") == b"data: " + after + b"\n\n"


@pytest.mark.parametrize(
    "kept",
    [
        WORD + b',"x":{"usage":null}}',
        WORD + b',"x":[{"y":1,"usage":null}]}',
        WORD.replace(b" word", rb" ,\"usage\":null}") + b"}",
        WORD + rb',"x":"\",\"usage\":null"}',
    ],
)
def test_h24_a_report_of_something_else_stays(kept: bytes) -> None:
    """Members of inner objects and words of the model are not ours to hide."""
    assert hidden(b"data: " + kept + b"\n\n") == b"data: " + kept + b"\n\n"


def test_h24_the_report_itself_is_dropped_whole() -> None:
    """A chunk that would not have been sent does not arrive, and is read nevertheless."""
    reader = CHAT.reader(ASK, SSE, HIDING)
    assert reader.feed(STOP + REPORT + DONE) == STOP.replace(b',"usage":null', b"") + DONE
    assert reader.result() == Usage(7, 9)
    assert reader.complete


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["usage", "a", "b\n", '"usage":null']), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=300)
@given(
    members=st.dictionaries(st.text(max_size=5), _values, max_size=4),
    place=st.integers(0, 4),
    spaced=st.booleans(),
    escaped=st.booleans(),
)
def test_h24_hiding_takes_one_member_whatever_stands_around_it(
    members: dict[str, Any], place: int, spaced: bool, escaped: bool
) -> None:
    """The short cut for the usual chunk and the long way agree with a parser."""
    wanted = {name: value for name, value in members.items() if name != "usage"}
    items = list(wanted.items())
    given_ = dict([*items[:place], ("usage", None), *items[place:]])
    separators = None if spaced else (",", ":")
    text = json.dumps(given_, separators=separators, ensure_ascii=escaped).encode()
    event = hidden(b"data: " + text + b"\n\n")
    assert event.endswith(b"\n\n")
    assert list(json.loads(event[6:]).items()) == items


LONG = b"".join(b"data: " + WORD + b',"usage":null}\n\n' for _ in range(110))
TEXT = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":" word"}}\n\n'
)
START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":'
    b'{"input_tokens":21,"output_tokens":1}}}\n\n'
)
END = (
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},'
    b'"usage":{"output_tokens":80}}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'
)


@settings(max_examples=60)
@given(places=st.lists(st.integers(0, 17_000), max_size=30), hides=st.booleans())
def test_h25_long_streams_count_the_same_wherever_they_are_cut(
    places: list[int], hides: bool
) -> None:
    """Reports and ends among hundreds of words are found, and words without a report counted."""
    plan = HIDING if hides else AnswerPlan()
    whole = CHAT.reader(ASK, SSE, plan)
    whole.feed(LONG)
    delivered = whole.result()
    assert delivered is not None
    assert delivered.estimated
    assert delivered.output_tokens >= 110
    for dialect, stream, usage, complete in (
        (CHAT, LONG, delivered, False),
        (CHAT, LONG + STOP + REPORT + DONE, Usage(7, 9), True),
        (CHAT, REPORT + LONG[:-2], None, False),
        (MESSAGES, START + TEXT * 120 + END, Usage(21, 80), True),
    ):
        reader = dialect.reader(ASK, SSE, plan)
        edges = [0, *sorted(place for place in places if place < len(stream)), len(stream)]
        passed = b"".join(reader.feed(stream[start:end]) for start, end in pairwise(edges))
        if usage is not None:
            assert reader.result() == usage
        assert reader.complete == complete
        if not hides or dialect is MESSAGES:
            assert passed == stream


def test_h32_whether_an_error_can_be_put_in_is_known_at_any_moment() -> None:
    """What waits to be read does not hide that an event stands open."""
    reader = CHAT.reader(ASK, SSE)
    reader.feed(LONG[:500])
    assert reader.mid_event
    reader.feed(LONG[500 : LONG.index(b"\n\n", 500) + 2])
    assert not reader.mid_event
