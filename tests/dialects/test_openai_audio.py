"""What speech and transcripts ask, and what they cost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gatekeeper.dialects import dialect_for
from gatekeeper.dialects.base import Ask, Changes, Incoming
from gatekeeper.policy.model import Usage, UsageParts

SPEECH = dialect_for("POST", "/v1/audio/speech")
HEARD = dialect_for("POST", "/v1/audio/transcriptions")
FORM = "multipart/form-data; boundary=B"
JSON = {"content-type": "application/json"}
SSE = {"content-type": "text/event-stream"}
WAVE = b"RIFF\x00\x00\x00\x00WAVE"


def speech(**body: Any) -> Ask | str:
    """Read a call for speech."""
    whole = {"model": "tts-1", "input": "Hello there", "voice": "a", **body}
    return SPEECH.read(Incoming(json.dumps(whole).encode()))


def form(recording: bytes, **fields: str) -> bytes:
    """Return a form with a recording."""
    parts = [
        f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n'
    return b"".join((*parts, head, recording, b"\r\n--B--\r\n"))


def transcript(recording: bytes, **fields: str) -> Ask | str:
    """Read a call for a transcript."""
    return HEARD.read(Incoming(form(recording, **fields), content_type=FORM))


def test_speech_is_billed_by_characters_and_audio() -> None:
    """Both are in the worst case; without events nothing is reported, so that is charged."""
    ask = speech()
    assert isinstance(ask, Ask)
    assert ask.parts == UsageParts(audio_output_tokens=33, characters=11)
    assert (ask.max_output_tokens, ask.unreported, ask.fixed_output) == (33, True, True)
    assert ask.input_tokens >= 2
    slow = speech(speed=0.5)
    assert isinstance(slow, Ask)
    assert slow.max_output_tokens == 66


def test_speech_by_events_reports_its_usage() -> None:
    """To the token."""
    ask = speech(stream_format="sse", model="gpt-4o-mini-tts")
    assert isinstance(ask, Ask)
    assert not ask.unreported
    reader = SPEECH.reader(ask, SSE)
    reader.feed(b'data: {"type":"speech.audio.delta","audio":"AAAA"}\n\n')
    assert not reader.complete
    reader.feed(
        b'data: {"type":"speech.audio.done","usage":{"input_tokens":14,"output_tokens":101}}\n\n'
    )
    assert reader.complete
    assert reader.result() == Usage(14, 101)


@pytest.mark.parametrize(
    ("body", "said"),
    [({"model": 7}, "`model`"), ({"input": 7}, "`input` must be"), ({"speed": "x"}, "`speed` a")],
)
def test_what_is_wrong_with_speech(body: dict[str, Any], said: str) -> None:
    """Types are strict where they bill."""
    assert said in str(speech(**body))
    assert isinstance(SPEECH.read(Incoming(b"[")), str)


@pytest.mark.parametrize(
    ("recording", "length_s"), [(b"x" * 5_000, 5.0), (WAVE + b"x" * 79_988, 10.0)]
)
def test_a_recording_is_as_long_as_its_bytes_can_be(recording: bytes, length_s: float) -> None:
    """At the lowest rate of its kind; the transcript is bounded by the model alone."""
    ask = transcript(recording, model="whisper-1", prompt="Names: Ada")
    assert isinstance(ask, Ask)
    assert ask.parts.audio_s == length_s
    assert ask.input_tokens > ask.parts.audio_input_tokens == length_s * 17
    assert (ask.max_output_tokens, ask.fixed_output) == (None, True)


@pytest.mark.parametrize(
    ("usage", "wanted"),
    [
        ({"type": "duration", "seconds": 7}, Usage(parts=UsageParts(audio_s=7.0))),
        (
            {
                "type": "tokens",
                "input_tokens": 14,
                "input_token_details": {"text_tokens": 4, "audio_tokens": 10},
                "output_tokens": 45,
            },
            Usage(14, 45, parts=UsageParts(audio_input_tokens=10)),
        ),
    ],
)
def test_transcripts_report_tokens_or_seconds(usage: dict[str, Any], wanted: Usage) -> None:
    """Whichever; nothing of it is estimated."""
    ask = transcript(b"x" * 5_000, model="m")
    assert isinstance(ask, Ask)
    reader = HEARD.reader(ask, JSON)
    reader.feed(json.dumps({"text": "Hello", "usage": usage}).encode())
    assert reader.result() == wanted
    stream = HEARD.reader(ask, SSE)
    done = {"type": "transcript.text.done", "text": "Hello", "usage": usage}
    stream.feed(b'data: {"type":"transcript.text.delta","delta":"Hel"}\n\n')
    stream.feed(b"data: " + json.dumps(done).encode() + b"\n\n")
    assert stream.complete
    assert stream.result() == wanted


def test_a_transcript_as_text_is_charged_as_held() -> None:
    """Subtitles tell no usage: nothing can be read of them."""
    ask = transcript(b"x" * 5_000, model="m", response_format="srt")
    assert isinstance(ask, Ask)
    assert HEARD.reader(ask, {"content-type": "text/plain"}).result() is None


@pytest.mark.parametrize(
    ("fields", "said"), [({}, "`model`"), ({"model": "m", "stream": "1"}, "`stream` must be")]
)
def test_what_is_wrong_with_a_form(fields: dict[str, str], said: str) -> None:
    """The model is required; so is a form."""
    assert said in str(transcript(b"x", **fields))
    assert isinstance(HEARD.read(Incoming(b"{}")), str)


@pytest.mark.parametrize("dialect", [SPEECH, HEARD])
def test_nothing_of_audio_can_be_bounded(dialect: Any) -> None:
    """The body goes on as it came."""
    assert dialect.rewrite(Incoming(b"x"), Ask(), Changes(max_output_tokens=1)) == b"x"
