"""What answers report, in the words of every family."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from gatekeeper.dialects.usage import Reported


class Holder(msgspec.Struct):
    """Whatever holds a report."""

    usage: Reported | None = None


class Timings(msgspec.Struct):
    """What llama.cpp tells at the end of each choice, usage or not."""

    prompt_n: int
    predicted_n: int
    cache_n: int = 0


class Choice(msgspec.Struct):
    """One of several answers to a prompt."""

    index: int = 0
    finish_reason: str | None = None


class Kind(msgspec.Struct):
    """What tells an end, where the rest of an event is not as it should be."""

    type: str | None = None
    choices: list[Choice] | None = None


class Event(msgspec.Struct):
    """One event of a stream, as far as it tells usage or an end."""

    type: str | None = None
    usage: Reported | None = None
    message: Holder | None = None
    """Anthropic ``message_start``: what is known before the first token."""
    response: Holder | None = None
    """OpenAI responses: the whole answer inside its last event."""
    choices: list[Choice] | None = None
    timings: msgspec.Raw = msgspec.Raw()


EVENT: Final = msgspec.json.Decoder(Event)
KIND: Final = msgspec.json.Decoder(Kind)
TIMINGS: Final = msgspec.json.Decoder(Timings)
ANSWER: Final = msgspec.json.Decoder(Holder)
REPORT: Final = re.compile(rb'"usage"\s*:\s*\{')
FINISH: Final = re.compile(rb'"finish_reason"\s*:\s*"')
USAGE: Final = msgspec.json.Decoder(Reported)


def read_event(data: bytes) -> Event | None:
    """Return an event; of one that is not as it should be, only what tells an end."""
    try:
        return EVENT.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    try:
        found = KIND.decode(data)
        return Event(type=found.type, choices=found.choices)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def is_json(body: bytes) -> bool:
    """Tell whether ``body`` is JSON at all: other than expected, but not cut short."""
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True
