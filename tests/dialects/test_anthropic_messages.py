"""What an Anthropic message asks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gatekeeper.dialects import dialect_for
from gatekeeper.dialects.base import Ask, Incoming

MESSAGES = dialect_for("POST", "/v1/messages")
COUNT = dialect_for("POST", "/v1/messages/count_tokens")
BODY = {
    "model": "m",
    "max_tokens": 64,
    "system": "Be kind and brief.",
    "messages": [{"role": "user", "content": "Hello there"}],
}


def read(**body: Any) -> Ask | str:
    """Read a message body."""
    return MESSAGES.read(Incoming(json.dumps({**BODY, **body}).encode()))


def test_an_ordinary_ask() -> None:
    """Model, stream and bound are read; system prompt and messages are estimated."""
    ask = read(stream=True)
    assert isinstance(ask, Ask)
    assert (ask.model, ask.stream, ask.max_output_tokens, ask.choices) == ("m", True, 64, 1)
    assert 12 <= ask.input_tokens <= 50


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"max_tokens": None}, "`max_tokens` is missing"),
        ({"max_tokens": "64"}, "`max_tokens` must be"),
        ({"model": 7}, "`model` must be"),
        ({"stream": 1}, "`stream` must be"),
    ],
)
def test_fields_that_bill_have_strict_types(body: dict[str, Any], word: str) -> None:
    """The bound is required, as the API has it; other types are refused."""
    said = read(**body)
    assert isinstance(said, str)
    assert word in said


def test_not_json() -> None:
    """A broken body is a sentence on both routes."""
    assert isinstance(MESSAGES.read(Incoming(b"[")), str)
    assert isinstance(COUNT.read(Incoming(b"[")), str)


def test_h24_counting_tokens_costs_nothing() -> None:
    """Counting names a model, so that it can be checked, and asks for nothing."""
    assert COUNT.read(Incoming(json.dumps(BODY).encode())) == Ask("m")
    assert isinstance(COUNT.read(Incoming(b"{}")), str)
    reader = COUNT.reader(Ask("m"), {"content-type": "application/json"})
    reader.feed(b'{"input_tokens":2095}')
    usage = reader.result()
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (0, 0, False)
    assert reader.complete
