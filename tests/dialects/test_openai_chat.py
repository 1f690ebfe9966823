"""What a chat completion asks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gatekeeper.dialects import dialect_for
from gatekeeper.dialects.base import Ask, Incoming

CHAT = dialect_for("POST", "/v1/chat/completions")
MESSAGES = [{"role": "user", "content": "Hello there"}]


def read(**body: Any) -> Ask | str:
    """Read a chat body with a model and a message."""
    return CHAT.read(Incoming(json.dumps({"model": "m", "messages": MESSAGES, **body}).encode()))


def test_an_ordinary_ask() -> None:
    """Model, stream, bound and choices are read; the input is estimated."""
    ask = read(stream=True, max_tokens=100)
    assert isinstance(ask, Ask)
    assert (ask.model, ask.stream, ask.max_output_tokens, ask.choices) == ("m", True, 100, 1)
    assert 8 <= ask.input_tokens <= 40


def test_no_bound_named() -> None:
    """Without a bound there is none; the operator's worst case is held."""
    ask = read()
    assert isinstance(ask, Ask)
    assert ask.max_output_tokens is None


def test_h23_the_bound_counts_for_every_choice() -> None:
    """``n`` answers may each use the largest bound."""
    ask = read(n=4, max_tokens=1, max_completion_tokens=1_000)
    assert isinstance(ask, Ask)
    assert ask.max_output_tokens == 4_000
    assert ask.choices == 4


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"model": None}, "The field `model` must be the name of a model."),
        ({"model": "a\r\nb"}, "The field `model` must be the name of a model."),
        ({"stream": "true"}, "The field `stream` must be true or false."),
        ({"n": 0}, "The field `n` must be a whole number from 1 to 1024."),
        ({"max_tokens": -1}, "The field `max_tokens` must be a whole number from 0 to 10000000."),
    ],
)
def test_fields_that_bill_have_strict_types(body: dict[str, Any], sentence: str) -> None:
    """A field that bills and has another type is refused with its name, never its value."""
    assert read(**body) == sentence


def test_a_model_is_needed() -> None:
    """Without a name the upstream would pick a model that nobody checked."""
    assert (
        CHAT.read(Incoming(b'{"messages":[]}')) == "The field `model` must be the name of a model."
    )
    assert isinstance(CHAT.read(Incoming(b"not json")), str)
