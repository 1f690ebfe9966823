"""A stream of messages that is ended early is a whole answer to its reader."""

from __future__ import annotations

import json
from typing import Any

from gatekeeper.dialects.anthropic_stop import MessageStopper
from gatekeeper.dialects.base import Ask
from gatekeeper.policy.model import Usage


def event(kind: str, **fields: Any) -> bytes:
    """Return an event as the API writes it."""
    data = json.dumps({"type": kind, **fields})
    return f"event: {kind}\ndata: {data}\n\n".encode()


def ended(*events: bytes) -> list[dict[str, Any]]:
    """Return the data of the last events after ``events``."""
    stopper = MessageStopper(Ask())
    for each in events:
        stopper.see(each)
    last = stopper.last_events(Usage(3, 40))
    return [json.loads(part.split(b"data: ")[1]) for part in last.split(b"\n\n") if part]


def test_open_blocks_are_closed_in_their_order() -> None:
    """Then the reason and the usage are told, then the end."""
    text = {"type": "text", "text": ""}
    found = ended(
        event("message_start", message={}),
        event("content_block_start", index=0, content_block=text),
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hi"}),
        event("content_block_stop", index=0),
        event("content_block_start", index=1, content_block=text),
        event("content_block_start", index=2, content_block=text),
    )
    assert [each["type"] for each in found] == [
        "content_block_stop",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert [each["index"] for each in found[:2]] == [1, 2]
    assert found[2]["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert found[2]["usage"] == {"output_tokens": 40}


def test_text_that_looks_like_an_event_opens_nothing() -> None:
    """What a model says is inside of a string; what is no JSON is passed over."""
    said = json.dumps({"type": "content_block_start", "index": 7})
    delta = {"type": "text_delta", "text": said}
    found = ended(
        event("content_block_delta", index=0, delta=delta), b'data: {"content_block_start"\n\n'
    )
    assert [each["type"] for each in found] == ["message_delta", "message_stop"]
