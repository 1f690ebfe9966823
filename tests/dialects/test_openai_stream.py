"""A stream that reports only because the gate asked is the stream that would have come."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.asks import SSE, data

from gatekeeper.dialects import dialect_for
from gatekeeper.dialects.base import AnswerPlan, Ask
from gatekeeper.dialects.openai_stream import hide_usage
from gatekeeper.policy.model import Usage

PLAN = AnswerPlan(hide_usage=True)
USAGE = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
ASK = Ask("m", stream=True, input_tokens=10, max_output_tokens=100)
words = st.text(max_size=6) | st.sampled_from(
    ['"usage":null', ',"usage":{', 'data: {"usage":{}}\n\n', "[DONE]", "\\", "\u2028", "港口"]
)
extras = st.dictionaries(
    st.sampled_from(["obfuscation", "service_tier", "x", "system_fingerprint"]),
    words | st.none() | st.lists(st.integers(), max_size=2) | st.just({"usage": None}),
    max_size=3,
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Draw a stream as it comes when usage is asked for, and as it would have come without."""
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    style: dict[str, Any] = draw(
        st.sampled_from([{"separators": (",", ":")}, {}, {"separators": (" , ", " :  ")}])
    )
    ascii_only = draw(st.booleans())
    place = draw(st.sampled_from(["first", "last", "middle", "absent"]))
    asked, without = [], []
    for text in draw(st.lists(words, max_size=8)):
        more = draw(extras)
        kind = draw(st.sampled_from(["chunk", "chunk", "comment", "filter", "other"]))
        if kind == "comment":
            asked.append(f": ping{newline}{newline}")
            without.append(asked[-1])
            continue
        if kind == "other":
            asked.append(f"event: x{newline}data: [1]{newline}{newline}")
            without.append(asked[-1])
            continue
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        chunk: dict[str, Any] = {"id": "c", "choices": [choice] if kind == "chunk" else [], **more}
        named = {
            "first": {"usage": None, **chunk},
            "middle": {"id": "c", "usage": None, **chunk},
            "last": {**chunk, "usage": None},
            "absent": chunk,
        }[place]
        for out, value in ((asked, named), (without, chunk)):
            written = json.dumps(value, ensure_ascii=ascii_only, **style)
            out.append(f"data: {written}{newline}{newline}")
    last = {"id": "c", "choices": [], "usage": USAGE}
    asked.append(f"data: {json.dumps(last, **style)}{newline}{newline}")
    for out in (asked, without):
        out.append(f"data: [DONE]{newline}{newline}")
    return "".join(asked).encode(), "".join(without).encode()


@settings(max_examples=200)
@given(both=streams(), places=st.lists(st.integers(0, 1_500), max_size=12))
def test_h24_hidden_usage_leaves_no_trace(both: tuple[bytes, bytes], places: list[int]) -> None:
    """Byte for byte, wherever chunks are cut and however they are written; it is charged."""
    asked, without = both
    reader = dialect_for("POST", "/v1/chat/completions").reader(ASK, SSE, PLAN)
    edges = [0, *sorted(min(place, len(asked)) for place in places), len(asked)]
    passed = [reader.feed(asked[start:end]) for start, end in pairwise(edges)]
    passed.append(reader.end())
    assert b"".join(passed) == without
    assert reader.result() == Usage(12, 5)
    assert reader.complete


@pytest.mark.parametrize(
    "event",
    [
        b": usage\n\n",
        b'event: x\ndata: {"usage":1}\n\n',
        b'data: "usage"\n\n',
        b'data: {"usage":\n\n',
        b'data: {"x":{"usage":{"prompt_tokens":1}},"choices":[]}\n\n',
        b"data: [DONE]\n\n",
    ],
)
def test_what_is_no_report_stays(event: bytes) -> None:
    """Only the outer object's member is a report of ours."""
    assert hide_usage(event) == event


def test_h24_usage_on_every_chunk_goes_too() -> None:
    """Some servers report as they go; a caller that did not ask sees none of it."""
    choice = {"index": 0, "delta": {"content": "one"}, "finish_reason": None}
    stream = data({"id": "c", "choices": [choice], "usage": USAGE})
    reader = dialect_for("POST", "/v1/chat/completions").reader(ASK, SSE, PLAN)
    assert reader.feed(stream) == data({"id": "c", "choices": [choice]})
    assert reader.result() == Usage(12, 5)


def test_h24_running_reports_go_and_the_one_that_was_asked_for_stays() -> None:
    """Where the gate has every chunk report for callers that asked for one report."""
    choice = {"index": 0, "delta": {"content": "one"}, "finish_reason": None}
    piece, last = data({"id": "c", "choices": [choice]}), data({"choices": [], "usage": USAGE})
    early = {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 13}
    running = data({"id": "c", "choices": [choice], "usage": early})
    plan = AnswerPlan(hide_usage=True, leave_last_usage=True)
    reader = dialect_for("POST", "/v1/chat/completions").reader(ASK, SSE, plan)
    assert reader.feed(running) == piece
    assert reader.result() == Usage(12, 1)
    assert reader.feed(last) == last
    assert reader.result() == Usage(12, 5)


def test_h24_a_reader_that_hides_nothing_passes_bytes_on() -> None:
    """A caller that asked gets its report, in the very objects that came."""
    reader = dialect_for("POST", "/v1/chat/completions").reader(ASK, SSE)
    chunk = data({"choices": [], "usage": USAGE})
    assert reader.feed(chunk) is chunk
