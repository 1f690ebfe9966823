"""Ending chat completions and completions early."""

from __future__ import annotations

import json
from typing import Any

from gatekeeper.dialects.answer import AnswerReader
from gatekeeper.dialects.base import AnswerPlan, Ask
from gatekeeper.dialects.openai_chat import CHAT
from gatekeeper.dialects.openai_stop import chat_stopper, completion_stopper
from gatekeeper.policy.model import Usage

USED = Usage(9, 40, estimated=True)
SSE = {"content-type": "text/event-stream"}


def chunk(**more: Any) -> bytes:
    """Write one chunk."""
    common = {"id": "c-1", "object": "chat.completion.chunk", "created": 7, "model": "m"}
    return b"data: " + json.dumps({**common, **more}).encode() + b"\r\n\r\n"


def piece(text: str, index: int = 0, finish: str | None = None) -> bytes:
    """Write a chunk of text."""
    choice = {"index": index, "delta": {"content": text}, "finish_reason": finish}
    return chunk(choices=[choice], system_fingerprint="fp", usage=None, obfuscation="xx")


def told(events: bytes) -> list[Any]:
    """Read events."""
    assert events.endswith(b"\n\n")
    data = [event.removeprefix(b"data: ") for event in events[:-2].split(b"\n\n")]
    return [json.loads(each) if each != b"[DONE]" else "DONE" for each in data]


def test_open_choices_are_finished_as_the_stream_would_have() -> None:
    """What chunks have in common stays; what is a chunk's own does not."""
    stopper = chat_stopper(Ask("m", choices=3))
    stopper.see(b": comment\n\n")
    for event in (piece("a"), piece("", 1, "stop"), piece("b", 2)):
        stopper.see(event)
    last, done = told(stopper.last_events(USED))
    assert done == "DONE"
    assert last == {
        "id": "c-1",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "m",
        "system_fingerprint": "fp",
        "choices": [
            {"delta": {}, "logprobs": None, "index": index, "finish_reason": "length"}
            for index in (0, 2)
        ],
    }


def test_usage_follows_where_it_was_asked_for() -> None:
    """With `usage: null` before it, as the API does; without open choices it stands alone."""
    asked = Ask("m", wants_usage=True)
    stopper = completion_stopper(asked)
    stopper.see(chunk(choices=[{"index": 0, "text": "a", "finish_reason": None}]))
    last, usage, done = told(stopper.last_events(USED))
    assert last["choices"] == [
        {"text": "", "logprobs": None, "index": 0, "finish_reason": "length"}
    ]
    assert last["usage"] is None
    assert usage["usage"] == {"prompt_tokens": 9, "completion_tokens": 40, "total_tokens": 49}
    assert (usage["id"], usage["choices"], done) == ("c-1", [], "DONE")
    finished = completion_stopper(asked)
    finished.see(chunk(choices=[{"index": 0, "text": "", "finish_reason": "stop"}]))
    assert len(told(finished.last_events(USED))) == 2


def test_a_stream_can_end_before_it_has_begun() -> None:
    """The very first event exceeds the budget: there is nothing to go by but the call."""
    last, done = told(chat_stopper(Ask("m")).last_events(USED))
    assert (last["model"], last["object"], done) == ("m", "chat.completion.chunk", "DONE")
    assert last["choices"][0]["finish_reason"] == "length"


def test_events_of_another_form_change_nothing() -> None:
    """What is no chunk, or no JSON, is passed on and not believed."""
    stopper = chat_stopper(Ask("m"))
    for event in (b'data: ["choices"]\n\n', b'data: {"choices" "finish_reason":"x"\n\n'):
        stopper.see(event)
    assert told(stopper.last_events(USED))[0]["choices"][0]["index"] == 0


def test_the_reader_stops_within_its_budget() -> None:
    """The event that exceeds it is not passed on, nor any after it; the budget is charged."""
    ask = Ask("m", stream=True, input_tokens=9, max_output_tokens=20)
    reader = AnswerReader(CHAT, ask, SSE, AnswerPlan(budget_tokens=20))
    words = b"".join(piece(" one two three") for _ in range(100))
    passed = b""
    for start in range(0, len(words), 50):
        passed += reader.feed(words[start : start + 50])
        if reader.stopped:
            break
    assert reader.stopped
    assert reader.feed(words) == b"" == reader.end()
    assert 15 <= passed.count(b"one two three") * 3 <= 20
    assert passed.endswith(b"data: [DONE]\n\n")
    assert reader.complete
    assert reader.result(20) == Usage(9, 20, estimated=True)
