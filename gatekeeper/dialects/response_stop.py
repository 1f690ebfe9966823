"""Ends streams of OpenAI responses early, as if ``max_output_tokens`` had been reached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from gatekeeper.dialects.sse import data_of

if TYPE_CHECKING:
    from gatekeeper.dialects.base import Ask
    from gatekeeper.policy.model import Usage

MOST_KEPT_BYTES: Final = 16_777_216
"""Of an answer's events; beyond it the last event tells its state, and no longer its text."""
_PIECES: Final = {
    "response.output_text.delta": ("content", "text"),
    "response.refusal.delta": ("content", "refusal"),
    "response.reasoning_text.delta": ("content", "text"),
    "response.reasoning_summary_text.delta": ("summary", "text"),
    "response.function_call_arguments.delta": ("", "arguments"),
    "response.custom_tool_call_input.delta": ("", "input"),
    "response.mcp_call_arguments.delta": ("", "arguments"),
}
"""Event to the list of parts and the field that its ``delta`` belongs to."""
_PARTS: Final = {
    "response.content_part.added": "content",
    "response.content_part.done": "content",
    "response.reasoning_summary_part.added": "summary",
    "response.reasoning_summary_part.done": "summary",
}
_ENDS: Final = {
    "output_text": ("response.output_text.done", "text"),
    "refusal": ("response.refusal.done", "refusal"),
    "reasoning_text": ("response.reasoning_text.done", "text"),
    "summary_text": ("response.reasoning_summary_text.done", "text"),
}
_PART_ENDS: Final = {
    "content": ("response.content_part.done", "content_index"),
    "summary": ("response.reasoning_summary_part.done", "summary_index"),
}
_Event = dict[str, Any]


class _Seen(msgspec.Struct):
    """What is known of an event."""

    type: str
    sequence_number: int | None = None
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    delta: str | None = None
    item: _Event | None = None
    part: _Event | None = None
    response: _Event | None = None

    def number(self, where: str) -> int:
        """Return which of the parts it belongs to."""
        return self.summary_index if where == "summary" else self.content_index if where else 0


_SEEN: Final = msgspec.json.Decoder(_Seen)


class _Item:
    """An output item under way: as it was announced, its parts, and the text that came for it."""

    __slots__ = ("closed", "fields", "open", "parts", "texts")

    def __init__(self, fields: _Event) -> None:
        self.fields = fields
        self.open = True
        self.closed: set[tuple[str, int]] = set()
        self.parts: dict[tuple[str, int], _Event] = {}
        self.texts: dict[tuple[str, int, str], list[str]] = {}

    def note(self, event: _Seen) -> None:
        """Take what an event adds to the item."""
        kind = event.type
        if kind == "response.output_item.done" and event.item is not None:
            self.fields, self.open = event.item, False
        elif kind in _PARTS and event.part is not None:
            place = (_PARTS[kind], event.number(_PARTS[kind]))
            self.parts[place] = event.part
            if kind.endswith(".done"):
                self.closed.add(place)
                for name in ("text", "refusal"):
                    self.texts.pop((*place, name), None)
        elif kind in _PIECES and event.delta is not None:
            where, name = _PIECES[kind]
            key = (where, event.number(where), name)
            self.texts.setdefault(key, []).append(event.delta)

    def cut(self) -> _Event:
        """Return the item as far as it came."""
        whole = dict(self.fields)
        for (where, number, name), pieces in self.texts.items():
            holder = self.parts.get((where, number)) if where else whole
            if holder is not None:
                holder[name] = "".join(pieces)
        for where in ("content", "summary"):
            parts = [part for (of, _), part in sorted(self.parts.items()) if of == where]
            if parts:
                whole[where] = parts
        return {**whole, "status": "incomplete"}


class ResponseStopper:
    """Collects what an answer consists of; see :class:`gatekeeper.dialects.family.Stopper`."""

    __slots__ = ("_items", "_kept_bytes", "_next", "_response")

    def __init__(self, ask: Ask) -> None:
        self._response: _Event = {"object": "response", "model": ask.model, "output": []}
        self._items: dict[int, _Item] = {}
        self._kept_bytes = 0
        self._next = 0

    def see(self, event: bytes) -> None:
        """Note what an event adds."""
        try:
            found = _SEEN.decode(data_of(event.strip()))
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return  # an event of another form adds nothing that is known here
        if found.sequence_number is not None:
            self._next = max(self._next, found.sequence_number + 1)
        if found.response is not None:
            self._response = found.response
            return
        self._kept_bytes += len(event)
        if self._kept_bytes > MOST_KEPT_BYTES:
            self._items.clear()
        elif found.type == "response.output_item.added" and found.item is not None:
            self._items[found.output_index] = _Item(found.item)
        elif (item := self._items.get(found.output_index)) is not None:
            item.note(found)

    def last_events(self, usage: Usage) -> bytes:
        """Close what is open; say that the answer is incomplete, why, and what was used."""
        events: list[_Event] = []
        output: list[_Event] = []
        for place, item in sorted(self._items.items()):
            if not item.open:
                output.append(item.fields)
                continue
            cut = item.cut()
            events += self._part_ends(place, item, str(cut.get("id", "")))
            events.append({"type": "response.output_item.done", "output_index": place, "item": cut})
            output.append(cut)
        parts = usage.parts
        used = {
            "input_tokens": usage.input_tokens,
            "input_tokens_details": {"cached_tokens": parts.cached_input_tokens},
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {"reasoning_tokens": parts.reasoning_tokens},
            "total_tokens": usage.input_tokens + usage.output_tokens,
        }
        response = {
            **self._response,
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": output,
            "usage": used,
        }
        events.append({"type": "response.incomplete", "response": response})
        return b"".join(
            b"event: %b\ndata: %b\n\n"
            % (
                event["type"].encode(),
                msgspec.json.encode({**event, "sequence_number": self._next + number}),
            )
            for number, event in enumerate(events)
        )

    def _part_ends(self, place: int, item: _Item, item_id: str) -> list[_Event]:
        events: list[_Event] = []
        for (where, number), part in sorted(item.parts.items()):
            known = _ENDS.get(str(part.get("type")))
            if (where, number) in item.closed or known is None:
                continue
            kind, index = _PART_ENDS[where]
            at = {"item_id": item_id, "output_index": place, index: number}
            text_kind, name = known
            more: _Event = {"logprobs": []} if text_kind == "response.output_text.done" else {}
            events.append({"type": text_kind, **at, name: part.get(name, ""), **more})
            events.append({"type": kind, **at, "part": part})
        return events
