"""OpenAI routes beside chat completions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gatekeeper.dialects import dialect_for
from gatekeeper.dialects.base import Ask, Incoming


def read(path: str, body: Any) -> Ask | str:
    """Read a JSON body sent to ``path``."""
    return dialect_for("POST", path).read(Incoming(json.dumps(body).encode()))


def test_h24_listing_models_costs_nothing() -> None:
    """No body, nothing asked, nothing charged."""
    models = dialect_for("GET", "/v1/models")
    assert models.read(Incoming(b"")) == Ask()
    reader = models.reader(Ask(), {"content-type": "application/json"})
    reader.feed(b'{"object":"list","data":[{"id":"text"}]}')
    usage = reader.result()
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (0, 0, False)


def test_embeddings_write_nothing() -> None:
    """Embeddings read input and have no output to hold."""
    ask = read("/v1/embeddings", {"model": "e", "input": ["some text"] * 20, "max_tokens": 9})
    assert isinstance(ask, Ask)
    assert ask.max_output_tokens == 0
    assert ask.input_tokens >= 40


def test_h23_completions_multiply_by_prompts() -> None:
    """Every prompt gets ``best_of`` answers."""
    body = {"model": "m", "prompt": ["a", "b", "c"], "n": 1, "best_of": 2, "max_tokens": 10}
    ask = read("/v1/completions", body)
    assert isinstance(ask, Ask)
    assert (ask.choices, ask.max_output_tokens) == (6, 60)


def test_h23_responses_name_their_bound() -> None:
    """The bound of responses is read."""
    ask = read("/v1/responses", {"model": "m", "input": "hi", "max_output_tokens": 77})
    assert isinstance(ask, Ask)
    assert ask.max_output_tokens == 77


def test_moderations_may_leave_the_model_out() -> None:
    """A default model is part of that API; a wrong name is still refused."""
    ask = read("/v1/moderations", {"input": "some text"})
    assert isinstance(ask, Ask)
    assert ask.model is None
    assert isinstance(read("/v1/moderations", {"input": "x", "model": 7}), str)


@pytest.mark.parametrize(
    "body",
    [{}, {"model": "m", "stream": 1}, {"model": "m", "n": 0}, {"model": "m", "n_predict": -1}, []],
)
def test_wrong_bodies_are_sentences(body: Any) -> None:
    """Whatever is wrong is told as a sentence."""
    said = read("/v1/completions", body)
    assert isinstance(said, str)
    assert said.endswith(".")
