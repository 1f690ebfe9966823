"""Answers of every generating family, streamed and not, whose tokens are known by construction.

Each word is one token of ``o200k_base``, its leading space included, and pieces hold several.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

WORDS: Final = (" the", " cat", " sat", " on", " a", " red", " mat", " and", " it", " was", " so")
PIECES: Final = tuple("".join(WORDS[start : start + 3]) for start in range(0, len(WORDS), 3))
GIVEN: Final = 9
"""Input tokens that the answers report."""
MOST: Final = 400
"""Output tokens that the requests allow."""
_MESSAGES: Final = [{"role": "user", "content": "Tell me of a cat, please."}]


def _event(value: dict[str, Any]) -> bytes:
    name = value.get("type")
    named = b"" if name is None else f"event: {name}\n".encode()
    return named + b"data: " + json.dumps(value).encode() + b"\n\n"


@dataclass(frozen=True)
class Family:
    """How one family is asked, and what it answers."""

    name: str
    target: str
    fields: dict[str, Any]
    events: tuple[bytes, ...]
    """A whole stream, the events that tell its usage and end it included."""
    document: bytes
    reports_at: int
    """Which event tells the final usage."""
    last: bytes
    """What a whole stream ends with."""
    input_at: int | None = None
    """Which event tells the input already, where one does."""

    def request(self, *, stream: bool, **more: Any) -> bytes:
        """Return a request body."""
        fields: dict[str, Any] = {"model": "demo-small", **self.fields, **more}
        if stream:
            fields["stream"] = True
            if self.name in {"chat", "completions"}:
                fields.setdefault("stream_options", {"include_usage": True})
        return json.dumps(fields).encode()

    def answer(self, *, stream: bool) -> bytes:
        """Return a whole answer."""
        return b"".join(self.events) if stream else self.document

    def reported_by(self, *, stream: bool) -> int:
        """Return after how many bytes of the answer its final usage is told."""
        if not stream:
            return len(self.document)
        return sum(map(len, self.events[: self.reports_at + 1]))

    def input_by(self) -> int | None:
        """Return after how many bytes of the stream the input is told."""
        return None if self.input_at is None else sum(map(len, self.events[: self.input_at + 1]))


def words_in(answer: bytes) -> int:
    """Return how many whole words of the known text came, which some streams tell twice."""
    kept = answer.replace(b'"', b" ").replace(b"\\", b" ").split(b" ")
    return min(len(WORDS), sum(kept[:-1].count(word.strip().encode()) for word in WORDS))


def _chunk(choices: list[dict[str, Any]], **more: Any) -> bytes:
    return _event(
        {"id": "c-1", "object": "x", "created": 1, "model": "m", "choices": choices} | more
    )


_USAGE: Final = {
    "prompt_tokens": GIVEN,
    "completion_tokens": len(WORDS),
    "total_tokens": GIVEN + len(WORDS),
}
_DONE: Final = b"data: [DONE]\n\n"
_IN_OUT: Final = {
    "input_tokens": GIVEN,
    "output_tokens": len(WORDS),
    "total_tokens": GIVEN + len(WORDS),
}
TEXT: Final = "".join(WORDS)


def _delta(text: str | None, finish: str | None = None) -> list[dict[str, Any]]:
    delta = {} if text is None else {"content": text}
    return [{"index": 0, "delta": delta, "finish_reason": finish}]


CHAT: Final = Family(
    "chat",
    "/v1/chat/completions",
    {"messages": _MESSAGES, "max_tokens": MOST},
    (
        _chunk([{"index": 0, "delta": {"role": "assistant", "content": ""}}]),
        *(_chunk(_delta(piece)) for piece in PIECES),
        _chunk(_delta(None, "stop")),
        _chunk([], usage=_USAGE),
        _DONE,
    ),
    json.dumps(
        {
            "id": "c-1",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}}],
            "usage": _USAGE,
        }
    ).encode(),
    len(PIECES) + 2,
    _DONE,
)
COMPLETIONS: Final = Family(
    "completions",
    "/v1/completions",
    {"prompt": "Tell me of a cat, please.", "max_tokens": MOST},
    (
        *(_chunk([{"index": 0, "text": piece, "finish_reason": None}]) for piece in PIECES),
        _chunk([{"index": 0, "text": "", "finish_reason": "stop"}]),
        _chunk([], usage=_USAGE),
        _DONE,
    ),
    json.dumps(
        {
            "id": "c-1",
            "choices": [{"index": 0, "text": TEXT, "finish_reason": "stop"}],
            "usage": _USAGE,
        }
    ).encode(),
    len(PIECES) + 1,
    _DONE,
)


def _response(status: str, **more: Any) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "m",
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "temperature": 1.0,
        "top_p": 1.0,
        "output": [],
        **more,
    }


def _numbered(*events: dict[str, Any]) -> tuple[bytes, ...]:
    return tuple(
        _event({**event, "sequence_number": number}) for number, event in enumerate(events)
    )


_ITEM: Final = {"id": "msg_1", "type": "message", "role": "assistant"}
_PLACE: Final = {"item_id": "msg_1", "output_index": 0, "content_index": 0}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


_WHOLE_ITEM: Final = {**_ITEM, "status": "completed", "content": [_part(TEXT)]}
_RESPONSE_EVENTS: Final = _numbered(
    {"type": "response.created", "response": _response("in_progress")},
    {
        "type": "response.output_item.added",
        "output_index": 0,
        "item": {**_ITEM, "status": "in_progress", "content": []},
    },
    {"type": "response.content_part.added", **_PLACE, "part": _part("")},
    *(
        {"type": "response.output_text.delta", **_PLACE, "delta": piece, "logprobs": []}
        for piece in PIECES
    ),
    {"type": "response.output_text.done", **_PLACE, "text": TEXT, "logprobs": []},
    {"type": "response.content_part.done", **_PLACE, "part": _part(TEXT)},
    {"type": "response.output_item.done", "output_index": 0, "item": _WHOLE_ITEM},
    {
        "type": "response.completed",
        "response": _response("completed", output=[_WHOLE_ITEM], usage=_IN_OUT),
    },
)
RESPONSES: Final = Family(
    "responses",
    "/v1/responses",
    {"input": "Tell me of a cat, please.", "max_output_tokens": MOST},
    _RESPONSE_EVENTS,
    json.dumps(_response("completed", output=[_WHOLE_ITEM], usage=_IN_OUT)).encode(),
    len(_RESPONSE_EVENTS) - 1,
    _RESPONSE_EVENTS[-1],
)
MESSAGES: Final = Family(
    "messages",
    "/v1/messages",
    {"messages": _MESSAGES, "max_tokens": MOST},
    (
        _event(
            {
                "type": "message_start",
                "message": {
                    "id": "msg_1",
                    "type": "message",
                    "role": "assistant",
                    "model": "m",
                    "content": [],
                    "stop_reason": None,
                    "stop_sequence": None,
                    "usage": {"input_tokens": GIVEN, "output_tokens": 1},
                },
            }
        ),
        _event(
            {
                "type": "content_block_start",
                "index": 0,
                "content_block": {"type": "text", "text": ""},
            }
        ),
        *(
            _event(
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "text_delta", "text": piece},
                }
            )
            for piece in PIECES
        ),
        _event({"type": "content_block_stop", "index": 0}),
        _event(
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": len(WORDS)},
            }
        ),
        _event({"type": "message_stop"}),
    ),
    json.dumps(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [{"type": "text", "text": TEXT}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": GIVEN, "output_tokens": len(WORDS)},
        }
    ).encode(),
    len(PIECES) + 3,
    _event({"type": "message_stop"}),
    input_at=0,
)
FAMILIES: Final = (CHAT, COMPLETIONS, RESPONSES, MESSAGES)
