"""Ending OpenAI responses early."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gatekeeper.dialects import response_stop
from gatekeeper.dialects.base import Ask
from gatekeeper.dialects.response_stop import ResponseStopper
from gatekeeper.policy.model import Usage, UsageParts

if TYPE_CHECKING:
    import pytest

USED = Usage(9, 40, estimated=True, parts=UsageParts(cached_input_tokens=4))
CREATED = {"type": "response.created", "response": {"id": "r", "status": "in_progress", "x": 1}}


def stopped(*events: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what ends a stream of these events, in proper form and sequence."""
    stopper = ResponseStopper(Ask("m"))
    for number, event in enumerate(events):
        stopper.see(b"data: %b\n\n" % json.dumps({**event, "sequence_number": number}).encode())
    found = []
    for each in stopper.last_events(USED)[:-2].split(b"\n\n"):
        name, data = each.split(b"\n")
        found.append(json.loads(data.removeprefix(b"data: ")))
        assert name == b"event: " + found[-1]["type"].encode()
    numbers = [each.pop("sequence_number") for each in found]
    assert numbers == list(range(len(events), len(events) + len(found)))
    return found


def added(place: int, **item: Any) -> dict[str, Any]:
    """Write the event that begins an item."""
    return {"type": "response.output_item.added", "output_index": place, "item": item}


def of(kind: str, place: int = 0, **more: Any) -> dict[str, Any]:
    """Write an event of an item."""
    return {"type": f"response.{kind}", "output_index": place, **more}


def test_the_last_event_tells_reason_usage_and_what_came() -> None:
    """The answer as it was announced, but incomplete."""
    (last,) = stopped(CREATED)
    assert last == {
        "type": "response.incomplete",
        "response": {
            "id": "r",
            "status": "incomplete",
            "x": 1,
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": [],
            "usage": {
                "input_tokens": 9,
                "input_tokens_details": {"cached_tokens": 4},
                "output_tokens": 40,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": 49,
            },
        },
    }


def test_what_is_open_is_closed_and_what_is_closed_stays() -> None:
    """Reasoning that is over, a message with one part over and one open."""
    thought = {"id": "rs", "type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}]}
    first = {"type": "output_text", "text": "whole", "annotations": []}
    found = stopped(
        CREATED,
        added(0, id="rs", type="reasoning", summary=[]),
        of("output_item.done", 0, item=thought),
        added(1, id="msg", type="message", content=[], status="in_progress"),
        of("content_part.added", 1, content_index=0, part={"type": "output_text", "text": ""}),
        of("output_text.delta", 1, content_index=0, delta="who"),
        of("content_part.done", 1, content_index=0, part=first),
        of("content_part.added", 1, content_index=1, part={"type": "refusal", "refusal": ""}),
        of("refusal.delta", 1, content_index=1, delta="I can"),
        of("refusal.delta", 1, content_index=1, delta="not"),
    )
    refusal = {"type": "refusal", "refusal": "I cannot"}
    message = {
        "id": "msg",
        "type": "message",
        "content": [first, refusal],
        "status": "incomplete",
    }
    at = {"item_id": "msg", "output_index": 1, "content_index": 1}
    assert found[:-1] == [
        {"type": "response.refusal.done", **at, "refusal": "I cannot"},
        {"type": "response.content_part.done", **at, "part": refusal},
        {"type": "response.output_item.done", "output_index": 1, "item": message},
    ]
    assert found[-1]["response"]["output"] == [thought, message]


def test_thoughts_and_calls_that_are_cut() -> None:
    """A summary ends like a text; a call is told incomplete, and never that its arguments are."""
    found = stopped(
        CREATED,
        added(0, id="rs", type="reasoning", summary=[]),
        of("reasoning_summary_part.added", summary_index=0, part={"type": "summary_text"}),
        of("reasoning_summary_text.delta", summary_index=0, delta="so"),
        added(1, id="fc", type="function_call", name="f", arguments=""),
        of("function_call_arguments.delta", 1, delta='{"a":'),
        of("function_call_arguments.delta", 1, delta=" 1"),
    )
    assert [each["type"] for each in found] == [
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "response.output_item.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    call = found[3]["item"]
    assert (call["arguments"], call["status"]) == ('{"a": 1', "incomplete")
    assert found[2]["item"]["summary"] == [{"type": "summary_text", "text": "so"}]


def test_a_long_answer_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the last event tells the state and the usage alone."""
    monkeypatch.setattr(response_stop, "MOST_KEPT_BYTES", 2_000)
    stopper = ResponseStopper(Ask("m"))
    part = of("content_part.added", content_index=0, part={"type": "output_text", "text": ""})
    for event in (CREATED, added(0, id="msg", type="message"), part):
        stopper.see(b"data: %b\n\n" % json.dumps(event).encode())
    piece = of("output_text.delta", content_index=0, delta="x" * 100)
    for _ in range(1_000):
        stopper.see(b"data: %b\n\n" % json.dumps(piece).encode())
    assert not stopper._items
    last = stopper.last_events(USED)
    assert last.count(b"event: ") == 1
    assert b'"output":[]' in last


def test_events_of_another_form_change_nothing() -> None:
    """Unknown kinds, places that were never announced, numbers that are none, no JSON."""
    stopper = ResponseStopper(Ask("m"))
    for event in (
        b"data: [DONE]\n\n",
        b"data: {\n\n",
        b'data: {"type":"response.new.kind","sequence_number":3}\n\n',
        b'data: {"type":"response.output_text.delta","output_index":9,"content_index":0}\n\n',
        b'data: {"type":"response.output_text.delta","sequence_number":"x"}\n\n',
        b'data: {"type":"response.output_item.added","output_index":[1],"item":{}}\n\n',
        b"data: 5\n\n",
    ):
        stopper.see(event)
    last = json.loads(stopper.last_events(USED).partition(b"data: ")[2])
    assert (last["sequence_number"], last["response"]["model"]) == (4, "m")
