"""OpenAI audio: speech, transcriptions and translations; billed by tokens, length or characters."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

import msgspec

from gatekeeper.dialects.answer import AnswerReader
from gatekeeper.dialects.base import UNCHANGED, Ask
from gatekeeper.dialects.body import is_model, model_of, read_fields
from gatekeeper.dialects.family import Family
from gatekeeper.dialects.multipart import read_form, text_of
from gatekeeper.dialects.openai import NO_MODEL, OpenAIErrors
from gatekeeper.dialects.usage import text_pattern
from gatekeeper.policy.model import UsageParts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.dialects.base import AnswerPlan, Changes, Incoming

_SPEECH: Final = Family(re.compile(rb"(?!)()"), frozenset({"speech.audio.done"}))
_TRANSCRIPT: Final = Family(text_pattern("text", "delta"), frozenset({"transcript.text.done"}))
_TEXT: Final = msgspec.json.Decoder(str)
_SPEED: Final = msgspec.json.Decoder(float | None)
_SLOWEST: Final = 0.25
"""Lowest speed of speech that the API takes."""
_SPOKEN_TOKENS: Final = 3
"""Output tokens of a spoken character, at most: 8 characters and 21 tokens a second."""
_COMPRESSED_BYTES_PER_S: Final = 1_000
"""Fewest bytes of a second of compressed speech (8 kbit/s): fewer bytes make less audio."""
_WAVE_BYTES_PER_S: Final = 8_000
"""Fewest bytes of a second of wave audio (8 bits at 8 kHz)."""
_HEARD_TOKENS_PER_S: Final = 17
"""Input tokens of a second of audio (OpenAI, 1,000 a minute)."""


class OpenAISpeech(OpenAIErrors):
    """``POST .../audio/speech``."""

    __slots__ = ()
    name: Final = "openai_audio"
    reads_body: Final = True

    def matches(self, method: str, path: str) -> bool:
        """Match by the end of the path, whatever prefix an upstream has."""
        return method == "POST" and path.lower().rstrip("/").endswith("/audio/speech")

    def read(self, incoming: Incoming) -> Ask | str:
        """Read a body; audio that comes without events tells no usage and is charged as held."""
        fields = read_fields(incoming.body)
        if isinstance(fields, str):
            return fields
        model = model_of(fields)
        if model is None:
            return NO_MODEL
        try:
            text = _TEXT.decode(fields.get("input", b""))
            speed = _SPEED.decode(fields.get("speed", b"null"))
        except (msgspec.DecodeError, UnicodeError):
            return "The field `input` must be text, and `speed` a number."
        spoken = math.ceil(len(text) * _SPOKEN_TOKENS / max(_SLOWEST, min(speed or 1.0, 1.0)))
        events = fields.get("stream_format") == b'"sse"'
        return Ask(
            model,
            events,
            incoming.count(text.encode()) + incoming.count(fields.get("instructions", b"")),
            spoken,
            parts=UsageParts(audio_output_tokens=spoken, characters=len(text)),
            fixed_output=True,
            unreported=not events,
        )

    def rewrite(self, incoming: Incoming, ask: Ask, changes: Changes) -> bytes:  # noqa: ARG002 - the protocol's signature
        """Return the body as it came: what is said cannot be bounded."""
        return incoming.body

    def reader(
        self, ask: Ask, headers: Mapping[str, str], plan: AnswerPlan = UNCHANGED
    ) -> AnswerReader:
        """Return a reader for a 2xx answer with these headers."""
        return AnswerReader(_SPEECH, ask, headers, plan)


class OpenAITranscript(OpenAIErrors):
    """``POST .../audio/{transcriptions,translations}``: a form with the recording."""

    __slots__ = ()
    name: Final = "openai_audio"
    reads_body: Final = True

    def matches(self, method: str, path: str) -> bool:
        """Match by the end of the path, whatever prefix an upstream has."""
        ends = ("/audio/transcriptions", "/audio/translations")
        return method == "POST" and path.lower().rstrip("/").endswith(ends)

    def read(self, incoming: Incoming) -> Ask | str:
        """Read a form; the recording is as long as its bytes can be at the lowest rate."""
        body = incoming.body
        parts = read_form(body, incoming.content_type)
        if isinstance(parts, str):
            return parts
        model = text_of(body, parts, "model")
        if not is_model(model):
            return NO_MODEL
        stream = text_of(body, parts, "stream")
        if stream not in {None, "true", "false"}:
            return "The field `stream` must be true or false."
        length_s = sum(
            part.size / _bytes_per_s(body[part.start : part.start + 12])
            for part in parts
            if part.file
        )
        heard = math.ceil(length_s * _HEARD_TOKENS_PER_S)
        prompt = (text_of(body, parts, "prompt") or "").encode()
        return Ask(
            model,
            stream == "true",
            heard + incoming.count(prompt),
            None,
            parts=UsageParts(audio_input_tokens=heard, audio_s=length_s),
            fixed_output=True,
        )

    def rewrite(self, incoming: Incoming, ask: Ask, changes: Changes) -> bytes:  # noqa: ARG002 - the protocol's signature
        """Return the body as it came: a transcript is as long as it is."""
        return incoming.body

    def reader(
        self, ask: Ask, headers: Mapping[str, str], plan: AnswerPlan = UNCHANGED
    ) -> AnswerReader:
        """Return a reader for a 2xx answer with these headers."""
        return AnswerReader(_TRANSCRIPT, ask, headers, plan)


def _bytes_per_s(head: bytes) -> int:
    wave = head[:4] == b"RIFF" and head[8:12] == b"WAVE"
    return _WAVE_BYTES_PER_S if wave else _COMPRESSED_BYTES_PER_S
