"""The plan of a conservation test: what each request asks, and what goes wrong with it.

The upstream is told its part of it in a header of the request, so that
it needs no plan of its own.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

WORDS: Final = tuple(
    re.findall(
        "[a-z]+",
        "people water world house place right small large great never "
        "under after before should because through between another without school "
        "system program question government company number night point money story "
        "month business group problem service friend father power change interest "
        "member family community morning history party result reason research moment "
        "teacher force education",
    )
)
"""Each of them is one token with the space before it, and is estimated at one token or more.

How the estimate compares with the true count of other text is shown in tests/dialects.
"""
PLAY: Final = "x-play"
"""Header that tells the upstream its part."""
MODEL: Final = "demo-small"
YIELDING: Final = "demo-yielding"
"""Model whose quota of output gives what is left instead of refusing."""
SHAPED: Final = "demo-shaped"
"""Model whose calls are bounded and whose answers are changed."""
MOST_OUTPUT: Final = 200
"""The bound on output of a call that names none."""


class Family(StrEnum):
    """What is called."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"
    MODERATIONS = "moderations"
    MODELS = "models"
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    BATCHES = "batches"
    IMAGES = "images"
    SPEECH = "speech"
    TRANSCRIPTS = "transcripts"
    FILES = "files"
    FILE_BATCHES = "file_batches"
    REALTIME = "realtime"
    PLAIN = "plain"

    @property
    def path(self) -> str:
        """Where it is called."""
        return _PATHS[self]

    @property
    def generates(self) -> bool:
        """Whether text is written."""
        return self in _GENERATING

    @property
    def unreported(self) -> bool:
        """Whether its answer tells no usage, so that it is charged what it holds."""
        return self in _UNREPORTED

    @property
    def free(self) -> bool:
        """Whether it costs no tokens."""
        return self in _FREE


_PATHS: Final = {
    Family.CHAT: "/v1/chat/completions",
    Family.COMPLETIONS: "/v1/completions",
    Family.RESPONSES: "/v1/responses",
    Family.EMBEDDINGS: "/v1/embeddings",
    Family.MODERATIONS: "/v1/moderations",
    Family.MODELS: "/v1/models",
    Family.MESSAGES: "/v1/messages",
    Family.COUNT_TOKENS: "/v1/messages/count_tokens",
    Family.BATCHES: "/v1/messages/batches",
    Family.IMAGES: "/v1/images/generations",
    Family.SPEECH: "/v1/audio/speech",
    Family.TRANSCRIPTS: "/v1/audio/transcriptions",
    Family.FILES: "/v1/files",
    Family.FILE_BATCHES: "/v1/batches",
    Family.REALTIME: "/v1/realtime",
    Family.PLAIN: "/custom/thing",
}
_GENERATING: Final = frozenset({Family.CHAT, Family.COMPLETIONS, Family.RESPONSES, Family.MESSAGES})
_UNREPORTED: Final = frozenset({Family.BATCHES, Family.FILE_BATCHES, Family.SPEECH})
_FREE: Final = frozenset({Family.PLAIN, Family.FILES, Family.MODELS, Family.COUNT_TOKENS})
UNREAD: Final = frozenset({Family.PLAIN, Family.FILES})
"""Families whose bodies the gate passes through."""
ASKED_BY_HEAD: Final = frozenset({Family.MODELS, Family.REALTIME})
"""Families whose requests have no body."""
FORM: Final = "multipart/form-data; boundary=conservation"


class Fault(StrEnum):
    """What the upstream does wrong."""

    NONE = "none"
    SLOW = "slow"
    RESET_BEFORE_HEAD = "reset_before_head"
    CLOSED_BEFORE_HEAD = "closed_before_head"
    RESET_AFTER_HEAD = "reset_after_head"
    RESET_MID_BODY = "reset_mid_body"
    TRUNCATED = "truncated"
    MALFORMED_CHUNK = "malformed_chunk"
    SILENT = "silent"
    SERVER_ERROR = "server_error"
    BUSY = "busy"
    BAD_REQUEST = "bad_request"
    NO_END = "no_end"
    """Framed to its end, but the last event (or the end of the document) is missing."""
    NO_USAGE = "no_usage"
    TWICE = "twice"
    ZERO = "zero"
    OVERRUN = "overrun"
    """More is written than the bound allows."""


MID_BODY: Final = frozenset(
    {Fault.RESET_MID_BODY, Fault.TRUNCATED, Fault.MALFORMED_CHUNK, Fault.SILENT}
)


class Cut(StrEnum):
    """Where the caller hangs up."""

    NONE = "none"
    MID_REQUEST = "mid_request"
    BEFORE_HEAD = "before_head"
    AFTER_HEAD = "after_head"
    FIRST_CHUNK = "first_chunk"
    MID_BODY = "mid_body"
    LAST_EVENT = "last_event"
    STALL = "stall"
    """It stops to read instead."""


class Chaos(StrEnum):
    """What happens to the processes."""

    KILL = "kill"
    TERMINATE = "terminate"
    STORE_KILL = "store_kill"
    STORE_FREEZE = "store_freeze"


@dataclass(frozen=True, slots=True)
class Disaster:
    """One of these, once so many requests have begun."""

    at: int
    kind: Chaos
    worker: int
    lasts_s: float


@dataclass(frozen=True, slots=True)
class Planned:
    """One request, and what goes wrong with it."""

    id: str
    account: str
    worker: int
    family: Family
    stream: bool
    wants_usage: bool
    model: str
    choices: int
    prompt: str
    prompt_words: int
    bound: int | None
    """Output tokens of a choice that it names."""
    gzip: bool
    keeps_open: bool
    chunked: bool
    """Whether the body is sent without a length."""
    fault: Fault
    cut: Cut
    cut_at: float
    """How far into the body, from 0 to 1; also how long until a caller hangs up."""
    play: dict[str, Any]

    def body(self) -> bytes:
        """Return the body of the request."""
        if self.family in ASKED_BY_HEAD:
            return b""
        if self.family in UNREAD:
            return self.prompt.encode()
        if self.family is Family.TRANSCRIPTS:
            return _form({"model": self.model, "prompt": self.prompt}, b"\xff" * 4_000)
        return json.dumps(self._fields(), separators=(",", ":")).encode()

    def _fields(self) -> dict[str, Any]:
        family, fields = self.family, {"model": self.model, **self._prompted()}
        if family is Family.FILE_BATCHES:
            return {"input_file_id": "file-x", "endpoint": Family.CHAT.path}
        if family is Family.BATCHES:
            params = {**fields, "max_tokens": self.bound}
            return {"requests": [{"custom_id": str(number), "params": params} for number in (1, 2)]}
        if family.generates and self.bound is not None:
            fields["max_output_tokens" if family is Family.RESPONSES else "max_tokens"] = self.bound
        if self.choices > 1:
            fields["n"] = self.choices
        if self.stream:
            fields["stream"] = True
        if self.wants_usage:
            fields["stream_options"] = {"include_usage": True}
        return fields

    def _prompted(self) -> dict[str, Any]:
        match self.family:
            case Family.CHAT | Family.MESSAGES | Family.COUNT_TOKENS | Family.BATCHES:
                return {"messages": [{"role": "user", "content": self.prompt}]}
            case Family.COMPLETIONS:
                return {"prompt": self.prompt}
            case Family.IMAGES:
                return {"prompt": self.prompt, "quality": "low", "size": "1024x1024"}
            case _:
                return {"input": self.prompt}


def _form(fields: dict[str, str], recording: bytes) -> bytes:
    parts = [
        f'--conservation\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    head = '--conservation\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n'
    return "".join([*parts, head]).encode() + recording + b"\r\n--conservation--\r\n"


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole run."""

    seed: int
    requests: tuple[Planned, ...]
    disasters: tuple[Disaster, ...]
