"""Reads request bodies and answers as the gate does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gatekeeper.dialects import dialect_for
from gatekeeper.dialects.base import Ask, Changes, Incoming

if TYPE_CHECKING:
    from gatekeeper.dialects.base import AnswerPlan
    from gatekeeper.policy.model import Usage

SSE = {"content-type": "text/event-stream; charset=utf-8"}
JSON = {"content-type": "application/json"}


def read(path: str, body: Any) -> Ask | str:
    """Read a JSON body sent to ``path``."""
    return dialect_for("POST", path).read(Incoming(json.dumps(body).encode(), path))


def asked(path: str, **body: Any) -> Ask:
    """Read a good body."""
    ask = read(path, body)
    assert isinstance(ask, Ask), ask
    return ask


def refused(path: str, **body: Any) -> str:
    """Read a bad body; whatever is wrong is told as a sentence."""
    said = read(path, body)
    assert isinstance(said, str), said
    assert said.endswith(".")
    return said


def sent(path: str, changes: Changes, **body: Any) -> Any:
    """Return a body as the upstream gets it."""
    text = json.dumps(body).encode()
    changed = dialect_for("POST", path).rewrite(Incoming(text, path), Ask(), changes)
    return json.loads(changed)


def data(value: Any, newline: str = "\n") -> bytes:
    """Write one event without a name."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return f"data: {text}{newline}{newline}".encode()


def event(value: dict[str, Any]) -> bytes:
    """Write one named event."""
    return f"event: {value['type']}\n".encode() + data(value)


def told(
    path: str, answer: bytes, ask: Ask, plan: AnswerPlan | None = None
) -> tuple[Usage | None, bool]:
    """Return what an answer consumed, and whether it is whole."""
    dialect = dialect_for("POST", path)
    headers = SSE if ask.stream else JSON
    reader = dialect.reader(ask, headers) if plan is None else dialect.reader(ask, headers, plan)
    reader.feed(answer)
    reader.end()
    return reader.result(), reader.complete
