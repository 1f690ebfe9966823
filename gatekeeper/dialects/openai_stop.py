"""Ends streams of the OpenAI families early, as if their bound on output had been reached."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gatekeeper.dialects.sse import data_of

if TYPE_CHECKING:
    from gatekeeper.dialects.base import Ask
    from gatekeeper.policy.model import Usage

_FINISH: Final = re.compile(rb'"finish_reason"\s*:\s*"')
_DONE: Final = b"data: [DONE]\n\n"
_ANY: Final = msgspec.json.Decoder()


class _Choice(msgspec.Struct):
    index: int = 0
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None


_CHUNK: Final = msgspec.json.Decoder(_Chunk)


class ChoiceStopper:
    """Ends chat completions and completions: ``length`` for every choice that is still open."""

    __slots__ = ("_ask", "_empty", "_finished", "_first", "_kind")

    def __init__(self, ask: Ask, *, kind: str, empty: dict[str, Any]) -> None:
        """``kind`` is the ``object`` of a chunk, ``empty`` a choice without any text."""
        self._ask = ask
        self._kind = kind
        self._empty = empty
        self._first = b""
        self._finished: set[int] = set()

    def see(self, event: bytes) -> None:
        """Keep what chunks have in common, and which choices are over."""
        if not self._first and b'"choices"' in event:
            self._first = event
        if _FINISH.search(event):
            try:
                chunk = _CHUNK.decode(data_of(event.strip()))
            except (msgspec.DecodeError, UnicodeError):
                return
            self._finished.update(
                choice.index for choice in chunk.choices or () if choice.finish_reason
            )

    def last_events(self, usage: Usage) -> bytes:
        """Finish what is open; tell the usage to callers that asked."""
        common = self._common()
        told = self._ask.wants_usage is True
        open_choices = [
            {**self._empty, "index": index, "finish_reason": "length"}
            for index in range(self._ask.choices)
            if index not in self._finished
        ]
        events = []
        if open_choices:
            more = {"usage": None} if told else {}
            events.append({**common, "choices": open_choices, **more})
        if told:
            counted = {
                "prompt_tokens": usage.input_tokens,
                "completion_tokens": usage.output_tokens,
                "total_tokens": usage.input_tokens + usage.output_tokens,
            }
            events.append({**common, "choices": [], "usage": counted})
        return b"".join(b"data: %b\n\n" % msgspec.json.encode(each) for each in events) + _DONE

    def _common(self) -> dict[str, Any]:
        """Return the fields that are the same in every chunk: those that are no containers."""
        fields = _read(self._first) or {
            "id": "",
            "object": self._kind,
            "created": 0,
            "model": self._ask.model,
        }
        return {
            name: value
            for name, value in fields.items()
            if name not in {"usage", "obfuscation"} and not isinstance(value, (dict, list))
        }


chat_stopper = partial(
    ChoiceStopper, kind="chat.completion.chunk", empty={"delta": {}, "logprobs": None}
)
completion_stopper = partial(
    ChoiceStopper, kind="text_completion", empty={"text": "", "logprobs": None}
)


def _read(event: bytes) -> dict[str, Any] | None:
    """Return an event's data, if it is an object."""
    try:
        found = _ANY.decode(data_of(event.strip()))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
