"""Splitting server-sent events."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.dialects.base import AnswerError
from gatekeeper.dialects.sse import EventCutter, EventSplitter, data_of

STREAM = b'event: a\ndata: {"x":1}\n\n: ping\n\ndata: one\ndata: two\n\n\ndata:[DONE]\n\n'
EVENTS = [b'event: a\ndata: {"x":1}', b": ping", b"data: one\ndata: two", b"data:[DONE]"]


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """Cut ``stream`` at the given places."""
    edges = [0, *sorted(places), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


@settings(max_examples=150, deadline=None)
@given(
    newline=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    places=st.lists(st.integers(0, len(STREAM) + 10), max_size=12),
)
def test_h32_events_are_the_same_wherever_chunks_are_cut(newline: bytes, places: list[int]) -> None:
    """Cuts, also in the middle of a line end, and the kind of line end change nothing."""
    splitter = EventSplitter()
    events: list[bytes] = []
    for chunk in cut(STREAM.replace(b"\n", newline), places):
        events += splitter.feed(chunk)
    assert [event.strip(b"\n") for event in events if event.strip(b"\n")] == EVENTS
    assert not splitter.mid_event


def test_byte_by_byte_with_carriage_returns() -> None:
    """The slowest upstream there is yields the same events."""
    splitter = EventSplitter()
    stream = STREAM.replace(b"\n", b"\r\n")
    events = [event for byte in stream for event in splitter.feed(bytes([byte]))]
    assert [event.strip(b"\n") for event in events if event.strip(b"\n")] == EVENTS


def test_mid_event_until_the_blank_line() -> None:
    """An event is open until its blank line has come."""
    splitter = EventSplitter()
    assert not splitter.mid_event
    splitter.feed(b'data: {"x"')
    assert splitter.mid_event
    assert splitter.rest == b'data: {"x"'
    splitter.feed(b":1}\n")
    assert splitter.mid_event
    assert splitter.feed(b"\n") == [b'data: {"x":1}']
    assert not splitter.mid_event


def test_an_endless_event_is_dropped_with_bounded_memory() -> None:
    """An event beyond the bound is let go; the one after it is read again."""
    splitter = EventSplitter(most_event_bytes=100)
    for _ in range(1_000):
        assert splitter.feed(b"data: " + b"x" * 50) == []
        assert len(splitter._pending) <= 100
    assert splitter.mid_event
    assert splitter.rest == b""
    assert splitter.feed(b"\n\ndata: next\n\n") == [b"data: next"]
    assert splitter.dropped == 1
    assert not splitter.mid_event


def test_data_lines_are_joined() -> None:
    """Data may be spread over lines, with or without the space behind the colon."""
    assert data_of(b"data: {}") == b"{}"
    assert data_of(b"event: x\ndata:{\ndata: }\nid: 7") == b"{\n}"
    assert data_of(b": comment") == b""


@settings(max_examples=150, deadline=None)
@given(
    newline=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    places=st.lists(st.integers(0, len(STREAM) + 10), max_size=12),
)
def test_h32_cut_events_are_the_stream_byte_for_byte(newline: bytes, places: list[int]) -> None:
    """Whole events only, each with its blank line, wherever chunks are cut."""
    cutter = EventCutter()
    stream = STREAM.replace(b"\n", newline)
    events: list[bytes] = []
    for chunk in cut(stream, places):
        events += cutter.feed(chunk)
    assert b"".join(events) + cutter.rest == stream
    said = [event.replace(newline, b"\n").strip(b"\n") for event in [*events, cutter.rest]]
    assert [event for event in said if event] == EVENTS


def test_an_event_beyond_the_bound_cannot_be_changed() -> None:
    """It would have to be held back for ever."""
    cutter = EventCutter(most_event_bytes=10)
    assert cutter.feed(b"data: 1\n\nda") == [b"data: 1\n\n"]
    with pytest.raises(AnswerError):
        cutter.feed(b"ta: 123456789")
