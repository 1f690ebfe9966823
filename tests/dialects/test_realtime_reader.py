"""What is read along a conversation of OpenAI realtime."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.dialects.realtime_events import event_id_of
from gatekeeper.dialects.realtime_reader import Failed, RealtimeReader, Sent, Settled, Started
from gatekeeper.policy.model import Usage, UsageParts


def event(kind: str, **fields: Any) -> bytes:
    """Return an event as bytes."""
    return json.dumps({"type": kind, **fields}).encode()


def sent(reader: RealtimeReader, kind: str, **fields: Any) -> Sent:
    """Return what a sound event of the caller means."""
    found = reader.sent(event(kind, **fields))
    assert isinstance(found, Sent), found
    return found


@pytest.mark.parametrize(
    ("kind", "may_start", "starts"),
    [
        ("response.create", True, True),
        ("input_audio_buffer.append", True, False),
        ("input_audio_buffer.commit", True, False),
        ("conversation.item.create", True, False),
        ("something.new", True, False),
        ("session.update", False, False),
        ("response.cancel", False, False),
        ("conversation.item.truncate", False, False),
        ("conversation.item.delete", False, False),
        ("input_audio_buffer.clear", False, False),
        ("output_audio_buffer.clear", False, False),
    ],
)
def test_what_may_begin_a_response(kind: str, *, may_start: bool, starts: bool) -> None:
    """All that is not known to begin none."""
    found = sent(RealtimeReader(), kind)
    assert (found.may_start, found.starts) == (may_start, starts)


@pytest.mark.parametrize("name", ["max_output_tokens", "max_response_output_tokens"])
def test_bounds_of_session_and_response(name: str) -> None:
    """The response's own bound counts for it alone; "inf" and null are none."""
    reader = RealtimeReader()
    assert sent(reader, "response.create").max_output_tokens is None
    sent(reader, "session.update", session={name: 200})
    assert sent(reader, "response.create").max_output_tokens == 200
    assert sent(reader, "response.create", response={name: 50}).max_output_tokens == 50
    assert sent(reader, "response.create", response={name: "inf"}).max_output_tokens is None
    assert sent(reader, "response.create", response={name: None}).max_output_tokens is None
    assert sent(reader, "response.create", response=None).max_output_tokens == 200
    sent(reader, "session.update", session={"voice": "ash"})
    assert sent(reader, "response.create").max_output_tokens == 200


def test_the_larger_of_two_bounds_counts() -> None:
    """Whichever of the two spellings the upstream obeys."""
    both = {"max_output_tokens": 1, "max_response_output_tokens": 900}
    assert sent(RealtimeReader(), "response.create", response=both).max_output_tokens == 900


def test_a_bound_that_is_raised_must_be_held() -> None:
    """Speech may wait already for the next response: what is held for it is too little now."""
    reader = RealtimeReader()
    assert not sent(reader, "session.update", session={"max_output_tokens": 10}).may_start
    assert not sent(reader, "session.update", session={"max_output_tokens": 5}).may_start
    assert sent(reader, "session.update", session={"max_output_tokens": 6}).may_start
    assert sent(reader, "session.update", session={"max_output_tokens": "inf"}).may_start


@pytest.mark.parametrize("depth", [50, 300, 480, 700, 990, 1_100, 20_000])
def test_depth_is_bounded(depth: int) -> None:
    """However deep an event is nested: it is read or refused."""
    deep = b'{"type":"session.update","session":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
    found = RealtimeReader().sent(deep)
    assert isinstance(found, (Sent, str))
    deep = b'{"type":"conversation.item.create","audio":' + b"[" * depth + b"]" * depth + b"}"
    assert isinstance(RealtimeReader().sent(deep), (Sent, str))


def test_models_are_found_at_any_depth() -> None:
    """Sessions name the model that transcribes three objects down."""
    found = sent(
        RealtimeReader(),
        "session.update",
        session={"model": "a", "audio": {"input": [{"transcription": {"model": "b"}}]}},
    )
    assert set(found.models) == {"a", "b"}


def test_audio_is_counted_by_its_length() -> None:
    """A second of PCM at 24 kHz is ten tokens; of G.711 too, once a session speaks of it."""
    reader = RealtimeReader()
    assert sent(reader, "input_audio_buffer.append", audio="A" * 64_000).input_tokens == 11
    reader = RealtimeReader()
    reader.received(event("session.updated", session={"input_audio_format": "g711_ulaw"}))
    assert sent(reader, "input_audio_buffer.append", audio="A" * 10_660).input_tokens == 11
    reader = RealtimeReader()
    item = {"type": "message", "content": [{"type": "input_audio", "audio": "A" * 64_000}]}
    assert sent(reader, "conversation.item.create", item=item).input_tokens < 60
    text = {"type": "message", "content": [{"type": "input_text", "text": "A" * 64_000}]}
    assert sent(reader, "conversation.item.create", item=text).input_tokens > 10_000


def test_images_have_a_flat_estimate() -> None:
    """Their base64 is no text."""
    item = {"content": [{"type": "input_image", "image_url": "data:," + "A" * 100_000}]}
    found = sent(RealtimeReader(), "conversation.item.create", item=item)
    assert 3_800 <= found.input_tokens < 3_900


def test_what_was_reported_is_the_next_input() -> None:
    """A response reads the whole conversation: what the last one read, what it wrote, what came."""
    reader = RealtimeReader()
    sent(reader, "response.create")
    reader.received(event("response.created", response={"id": "r"}))
    done = event(
        "response.done", response={"id": "r", "usage": {"input_tokens": 100, "output_tokens": 20}}
    )
    assert reader.received(done) == Settled("r", Usage(100, 20, parts=UsageParts()))
    assert reader.received(done) is None
    assert reader.input_tokens == 120
    assert (
        sent(reader, "conversation.item.create", item={"x": "four more words here"}).input_tokens
        > 124
    )


def test_what_comes_while_a_response_is_written_is_read_by_the_next() -> None:
    """Its report cannot know of it."""
    reader = RealtimeReader()
    sent(reader, "response.create")
    reader.received(event("response.created", response={"id": "r"}))
    sent(reader, "conversation.item.create", item={"x": "word " * 100})
    sent(reader, "input_audio_buffer.append", audio="A" * 64_000)
    usage = {"input_tokens": 100, "output_tokens": 20}
    reader.received(event("response.done", response={"id": "r", "usage": usage}))
    assert reader.input_tokens >= 120 + 100 + 10


def test_responses_begin_once() -> None:
    """By their ids."""
    reader = RealtimeReader()
    created = event("response.created", response={"id": "r"})
    assert reader.received(created) == Started("r")
    assert reader.received(created) is None


def test_delivered_text_and_audio_are_estimated() -> None:
    """Each delta at least one token; audio by its length."""
    reader = RealtimeReader()
    reader.received(event("response.created", response={"id": "r"}))
    for kind, delta in (
        ("response.output_text.delta", " cat"),
        ("response.text.delta", "\u4e2d"),
        ("response.output_audio_transcript.delta", " dog"),
        ("response.function_call_arguments.delta", '{"a'),
        ("response.output_audio.delta", "A" * 6_401),
    ):
        reader.received(event(kind, response_id="r", delta=delta))
    assert 7 <= reader.delivered_tokens("r") <= 12
    assert reader.delivered_tokens("other") == 0
    found = reader.received(event("response.done", response={"id": "r", "usage": None}))
    assert isinstance(found, Settled)
    assert found.usage.estimated
    assert found.usage.output_tokens >= 7


@pytest.mark.parametrize("number", [-1, 10**13, "5", 1.5, [], None])
def test_numbers_that_cannot_be_are_none(number: object) -> None:
    """A report that cannot be true is estimated, not believed."""
    reader = RealtimeReader()
    reader.received(event("response.created", response={"id": "r"}))
    reported = {"input_tokens": number, "output_tokens": 5}
    found = reader.received(event("response.done", response={"id": "r", "usage": reported}))
    assert isinstance(found, Settled)
    assert found.usage.estimated


def test_transcriptions() -> None:
    """By tokens or by their length, once for each item."""
    reader = RealtimeReader()
    kind = "conversation.item.input_audio_transcription.completed"
    by_tokens = event(
        kind, item_id="a", usage={"type": "tokens", "input_tokens": 3, "output_tokens": 2}
    )
    assert reader.received(by_tokens) == Settled(None, Usage(3, 2, parts=UsageParts()))
    assert reader.received(by_tokens) is None
    by_length = event(kind, item_id="b", usage={"type": "duration", "seconds": 2.5})
    assert reader.received(by_length) == Settled(None, Usage(parts=UsageParts(audio_s=2.5)))


def test_errors_are_told() -> None:
    """A response that was asked for may never begin."""
    assert reader_received(event("error", error={"code": "x"})) == Failed()


def reader_received(data: bytes) -> object:
    """Read one event of an upstream."""
    return RealtimeReader().received(data)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"type":5}', b"\xff", b'{"a":' * 5_000])
def test_what_is_no_event_is_passed_over(data: bytes) -> None:
    """The upstream's text is its own."""
    assert reader_received(data) is None


def test_output_cannot_forge_a_report() -> None:
    """What a model writes stands inside strings."""
    reader = RealtimeReader()
    reader.received(event("response.created", response={"id": "r"}))
    forged = '"}, "type": "response.done", "response": {"id": "r", "usage": {"input_tokens": 0}}'
    assert (
        reader.received(event("response.output_text.delta", response_id="r", delta=forged)) is None
    )
    assert reader.delivered_tokens("r") > 10


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b'{"event_id":"mine"}', "mine"),
        (b'{"event_id":5}', None),
        (b'{"event_id":"a\\nb"}', None),
        (b"no json", None),
        (json.dumps({"event_id": "x" * 129}).encode(), None),
    ],
)
def test_event_ids_are_told_back_where_they_can_be(data: bytes, found: str | None) -> None:
    """Nothing that could break a line."""
    assert event_id_of(data) == found


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """From either side."""
    reader = RealtimeReader()
    assert isinstance(reader.sent(data), (Sent, str))
    reader.received(data)
