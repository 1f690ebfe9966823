"""Reads along a conversation of OpenAI realtime: what begins a response, and what one consumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from gatekeeper.dialects.body import read_fields
from gatekeeper.dialects.estimate import estimate_tokens
from gatekeeper.dialects.json_text import unescaped
from gatekeeper.dialects.media import OPENAI_DETAILED_TOKENS
from gatekeeper.dialects.prompt import text_tokens
from gatekeeper.dialects.realtime_events import (
    BOUNDS,
    UpstreamEvent,
    UpstreamResponse,
    bound_of,
    event_of,
    misspelt,
    models_in,
    object_in,
    text_of,
    usage_of,
    without_media,
)
from gatekeeper.policy.model import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

_STARTS: Final = "response.create"
_UPDATES: Final = frozenset({"session.update", "transcription_session.update"})
_IDLE: Final = frozenset(
    {
        *_UPDATES,
        "response.cancel",
        "conversation.item.delete",
        "conversation.item.retrieve",
        "conversation.item.truncate",
        "input_audio_buffer.clear",
        "output_audio_buffer.clear",
    }
)
"""Events on which no model begins to work. One that is not known here may be a turn."""
_TRANSCRIBED: Final = "conversation.item.input_audio_transcription.completed"
_LINEAR_CHARS: Final = (6_400, 3_200)
_COMPANDED_CHARS: Final = (1_066, 533)
"""Base64 characters of audio that are one token, heard (100 ms) and spoken (50 ms): PCM at 24 kHz,
or G.711 at 8 kHz."""
_COMPANDED_MARKS: Final = (b"g711", b"audio/pcmu", b"audio/pcma")
_REMEMBERED: Final = 1_024
_ANY: Final = msgspec.json.Decoder()


class Sent(Struct, frozen=True, gc=False):
    """What an event of the caller means for limits."""

    may_start: bool
    """Whether the model may begin to work because of it, by itself or with what came before."""
    starts: bool = False
    """Whether it asks for a response of its own."""
    max_output_tokens: int | None = None
    """Bound on that response, or on the next one; ``None`` when nobody named one."""
    input_tokens: int = 0
    """What the next response will read, all told. Estimated."""
    models: tuple[str, ...] = ()
    """Models that it names: the account must be allowed to use them."""


class Started(Struct, frozen=True, gc=False):
    """The upstream began a response."""

    id: str


class Failed(Struct, frozen=True, gc=False):
    """The upstream told an error: a response that was asked for may never begin."""


class Settled(Struct, frozen=True, gc=False):
    """The upstream reported what a response, or a transcription, consumed; told once."""

    id: str | None
    """Of the response; ``None`` for a transcription."""
    usage: Usage


_FAILED: Final = Failed()


class RealtimeReader:
    """Reads along both ways of one conversation. Never changes what is passed on."""

    def __init__(self, count: Callable[[bytes], int] = estimate_tokens) -> None:
        """``count`` counts the tokens of UTF-8 text."""
        self._count = count
        self._bound: int | None = None
        self._known_tokens = 0
        """Of the conversation, as the last response reported it."""
        self._added_tokens = 0
        self._added_audio_chars = 0
        self._known_added = (0, 0)
        """How much of what was added, tokens and characters, that response had read."""
        self._chars = _LINEAR_CHARS
        self._delivered: dict[str, _Delivered] = {}
        """By response under way."""
        self._ended: dict[str, None] = {}

    def sent(self, event: bytes) -> Sent | str:
        """Read an event of the caller; a sentence when it could be read in two ways."""
        try:
            return self._sent(event)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return "The event is nested too deeply, or is not Unicode."

    def _sent(self, event: bytes) -> Sent | str:
        fields = read_fields(event)
        if isinstance(fields, str):
            return fields.replace("body", "event")
        if (wrong := misspelt(fields)) is not None:
            return wrong
        kind = text_of(fields.get("type"))
        if kind is None:
            return "The field `type` must be the name of an event."
        if kind in _UPDATES:
            return self._updated(fields)
        if kind in _IDLE:
            return Sent(may_start=False)
        if kind == "input_audio_buffer.append":
            self._added_audio_chars += len(fields.get("audio", b""))
            return self._may_start(self._bound)
        if kind != _STARTS:
            self._add(event)
            return self._may_start(self._bound)
        response = object_in(fields, "response")
        if isinstance(response, str):
            return response
        bound = bound_of(response)
        if isinstance(bound, str):
            return bound
        self._add(event)
        named = any(name in response for name in BOUNDS)
        return self._may_start(bound if named else self._bound, starts=True)

    def received(self, event: bytes) -> Started | Failed | Settled | None:
        """Read an event of the upstream."""
        found = event_of(event)
        if found is None:
            return None
        kind = found.type
        if kind.endswith(".delta") and kind.startswith("response."):
            self._deliver(found)
            return None
        if kind == "response.created" and found.response is not None:
            return self._started(found.response.id or "")
        if kind == "response.done" and found.response is not None:
            return self._done(found.response)
        if kind == _TRANSCRIBED and found.usage is not None:
            return self._transcribed(found)
        if kind in {"session.created", "session.updated"}:
            self._note_format(event)
        return _FAILED if kind == "error" else None

    def delivered_tokens(self, response_id: str) -> int:
        """Estimate what a response under way has delivered."""
        delivered = self._delivered.get(response_id)
        return 0 if delivered is None else delivered.tokens(self._chars[1])

    @property
    def input_tokens(self) -> int:
        """What a response would read now, all told. Estimated."""
        known_tokens, known_chars = self._known_added
        audio = -(-(self._added_audio_chars - known_chars) // self._chars[0])
        return self._known_tokens + self._added_tokens - known_tokens + audio

    def _may_start(self, bound: int | None, *, starts: bool = False) -> Sent:
        return Sent(
            may_start=True,
            starts=starts,
            max_output_tokens=bound,
            input_tokens=self.input_tokens,
        )

    def _updated(self, fields: dict[str, bytes]) -> Sent | str:
        session = object_in(fields, "session")
        if isinstance(session, str):
            return session
        bound = bound_of(session)
        if isinstance(bound, str):
            return bound
        raw = fields.get("session", b"{}")
        models = tuple(models_in(_ANY.decode(raw)))
        self._note_format(raw)
        self._add(raw)
        before = self._bound
        if not any(name in session for name in BOUNDS):
            return Sent(may_start=False, models=models)
        self._bound = bound
        if before is None or (bound is not None and bound <= before):
            return Sent(may_start=False, models=models)
        # What is held for the next response is too little now, and speech may be waiting already.
        return replace(self._may_start(bound), models=models)

    def _note_format(self, event: bytes) -> None:
        """Take the denser format for good once anybody speaks of it."""
        if any(mark in event for mark in _COMPANDED_MARKS):
            self._chars = _COMPANDED_CHARS

    def _add(self, event: bytes) -> None:
        """Count what an event adds to the conversation: text, and recordings by their length."""
        if b'"audio"' not in event and b'"input_image"' not in event:
            self._added_tokens += text_tokens(event, self._count)
            return
        audio_chars, images, rest = without_media(_ANY.decode(event))
        self._added_audio_chars += audio_chars
        text = text_tokens(msgspec.json.encode(rest), self._count)
        self._added_tokens += images * OPENAI_DETAILED_TOKENS + text

    def _started(self, response_id: str) -> Started | None:
        if response_id in self._delivered or response_id in self._ended:
            return None
        added = (self._added_tokens, self._added_audio_chars)
        self._delivered[response_id] = _Delivered(self._count, added)
        return Started(response_id)

    def _deliver(self, event: UpstreamEvent) -> None:
        delivered = self._delivered.get(event.response_id or "")
        if delivered is not None:
            delivered.take(bytes(event.delta), audio=event.type.endswith("audio.delta"))

    def _done(self, response: UpstreamResponse) -> Settled | None:
        response_id = response.id or ""
        if response_id in self._ended:
            return None
        delivered = self._delivered.pop(response_id, None)
        self._ended[response_id] = None
        while len(self._ended) > _REMEMBERED:
            del self._ended[next(iter(self._ended))]
        reported = response.usage
        if reported is None or reported.input_tokens is None or reported.output_tokens is None:
            tokens = 0 if delivered is None else delivered.tokens(self._chars[1])
            return Settled(response_id, Usage(self.input_tokens, tokens, estimated=True))
        usage = usage_of(reported)
        self._known_tokens = usage.input_tokens + usage.output_tokens
        added = (self._added_tokens, self._added_audio_chars)
        self._known_added = max(self._known_added, added if delivered is None else delivered.added)
        return Settled(response_id, usage)

    def _transcribed(self, event: UpstreamEvent) -> Settled | None:
        item_id = f"item {event.item_id}"
        if event.usage is None or item_id in self._ended:
            return None
        self._ended[item_id] = None
        return Settled(None, usage_of(event.usage))


class _Delivered:
    """What came of one response that is still under way."""

    __slots__ = ("_audio_chars", "_count", "_text_tokens", "added")

    def __init__(self, count: Callable[[bytes], int], added: tuple[int, int]) -> None:
        self._count = count
        self.added = added
        """What the caller had added when it began: it has read no more."""
        self._audio_chars = 0
        self._text_tokens = 0

    def take(self, delta: bytes, *, audio: bool) -> None:
        if audio:
            self._audio_chars += len(delta) - 2
        else:
            self._text_tokens += self._count(unescaped(delta[1:-1]))

    def tokens(self, chars_per_token: int) -> int:
        return self._text_tokens - -self._audio_chars // chars_per_token
