"""OpenAI routes that only read: embeddings, moderations, models."""

from __future__ import annotations

import json

import pytest
from support.asks import asked, refused, told

from gatekeeper.dialects import dialect_for
from gatekeeper.dialects.base import Ask, Incoming
from gatekeeper.policy.model import Usage

EMBEDDINGS = "/v1/embeddings"
MODERATIONS = "/v1/moderations"


def test_h24_listing_models_costs_nothing() -> None:
    """No body is read, nothing asked, nothing charged."""
    models = dialect_for("GET", "/v1/models")
    assert not models.reads_body
    assert models.read(Incoming(b"")) == Ask()
    assert models.rewrite(Incoming(b"x"), Ask(), None) == b"x"  # type: ignore[arg-type]
    reader = models.reader(Ask(), {"content-type": "application/json"})
    reader.feed(b'{"object":"list","data":[{"id":"text"}]}')
    usage = reader.result()
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (0, 0, False)


def test_embeddings_write_nothing() -> None:
    """Embeddings read input and have no output to hold."""
    ask = asked(EMBEDDINGS, model="e", input=["some text"] * 20, max_tokens=9)
    assert ask.max_output_tokens == 0
    assert ask.input_tokens >= 40
    assert refused(EMBEDDINGS, input="x") == "The field `model` must be the name of a model."


@pytest.mark.parametrize(
    ("tokens", "count"), [([1, 22, 333], 3), ([[1, 2], [3, 4, 50_000]], 5), ([], 0)]
)
def test_token_ids_are_counted_exactly(tokens: object, count: int) -> None:
    """They are no text: each is one token, however many digits it has."""
    assert asked(EMBEDDINGS, model="e", input=tokens).input_tokens == count


def test_h24_embeddings_are_charged_what_they_report() -> None:
    """Usage has no output, and nothing is estimated."""
    ask = asked(EMBEDDINGS, model="e", input="some text")
    answer = {"data": [], "usage": {"prompt_tokens": 2, "total_tokens": 2}}
    assert told(EMBEDDINGS, json.dumps(answer).encode(), ask) == (Usage(2, 0), True)


def test_moderations_may_leave_the_model_out() -> None:
    """The default model is free; a wrong name is still refused."""
    ask = asked(MODERATIONS, input="some text")
    assert (ask.model, ask.price_factor) == (None, 0.0)
    assert asked(MODERATIONS, model="m", input="some text").price_factor == 1.0
    assert refused(MODERATIONS, input="x", model=7)
    usage, whole = told(MODERATIONS, b'{"id":"m","results":[]}', ask)
    assert usage == Usage(ask.input_tokens, 0, estimated=True)
    assert whole
