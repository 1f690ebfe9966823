"""Ends a stream of Anthropic messages early, as if ``max_tokens`` had been reached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from gatekeeper.dialects.sse import data_of

if TYPE_CHECKING:
    from gatekeeper.dialects.base import Ask
    from gatekeeper.policy.model import Usage


class _Event(msgspec.Struct):
    type: str = ""
    index: int = 0


_EVENT: Final = msgspec.json.Decoder(_Event)
_STOP: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


class MessageStopper:
    """Remembers which content blocks are open; see :class:`gatekeeper.dialects.family.Stopper`."""

    __slots__ = ("_open",)

    def __init__(self, ask: Ask) -> None:  # noqa: ARG002 - as the others
        self._open: set[int] = set()

    def see(self, event: bytes) -> None:
        """Note which block an event opens or closes."""
        if b'"content_block_st' not in event:  # as most: a piece of text
            return
        try:
            found = _EVENT.decode(data_of(event.strip()))
        except (msgspec.DecodeError, UnicodeError):
            return
        if found.type == "content_block_start":
            self._open.add(found.index)
        elif found.type == "content_block_stop":
            self._open.discard(found.index)

    def last_events(self, usage: Usage) -> bytes:
        """Close what is open; say ``max_tokens`` and what was used."""
        closing = [
            b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n' % index
            for index in sorted(self._open)
        ]
        told = msgspec.json.encode(
            {
                "type": "message_delta",
                "delta": {"stop_reason": "max_tokens", "stop_sequence": None},
                "usage": {"output_tokens": usage.output_tokens},
            }
        )
        return b"".join((*closing, b"event: message_delta\ndata: %b\n\n" % told, _STOP))
