"""What a completion asks, and what its answers consumed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.asks import asked, data, read, refused, sent, told

from gatekeeper.dialects.base import AnswerPlan, Ask, Changes
from gatekeeper.policy.model import Usage

COMPLETIONS = "/v1/completions"


@pytest.mark.parametrize(
    ("prompt", "more", "answers", "tokens"),
    [
        ("a", {}, 1, 10),
        (["a", "b", "c"], {"best_of": 2}, 6, 60),
        ([[1, 2], [3]], {"n": 2}, 4, 40),
        ([1, 2, 3], {"n": 2, "best_of": 5}, 5, 50),
        ("a", {"n_cmpl": 3}, 3, 30),
        ("a", {"prompt_embeds": ["AAAA", "BBBB"]}, 3, 30),
        (None, {"prompt_embeds": "AAAA"}, 1, 10),
    ],
)
def test_h23_the_bound_counts_for_every_answer_to_every_prompt(
    prompt: Any, more: dict[str, Any], answers: int, tokens: int
) -> None:
    """Prompts as text, tokens or embeddings, each answered as often as the largest field says."""
    ask = asked(COMPLETIONS, model="m", prompt=prompt, max_tokens=10, **more)
    assert (ask.choices, ask.max_output_tokens) == (answers, tokens)


def test_input_is_prompt_and_suffix() -> None:
    """Text behind the gap is read too; tokens are counted exactly."""
    prompt = asked(COMPLETIONS, model="m", prompt="x y z")
    both = asked(COMPLETIONS, model="m", prompt="x y z", suffix="and so it ended " * 9)
    assert both.input_tokens >= prompt.input_tokens + 27
    assert asked(COMPLETIONS, model="m", prompt=[10_000] * 7).input_tokens == 7


@pytest.mark.parametrize(
    ("field", "flag"),
    [
        ({"logprobs": 0}, "logprobs"),
        ({"prompt_logprobs": 0}, "logprobs"),
        ({"logprobs": 5}, "logprobs"),
        ({"logit_bias": {"50256": -100}}, "logit_bias"),
        ({"allowed_token_ids": [1]}, "logit_bias"),
    ],
)
def test_what_shaping_asks_after(field: dict[str, Any], flag: str) -> None:
    """Log probabilities, the sampled token's alone too, and pushes at single tokens."""
    assert getattr(asked(COMPLETIONS, model="m", prompt="x", **field), flag)
    for nothing in (None, False):
        plain = asked(COMPLETIONS, model="m", prompt="x", **dict.fromkeys(field, nothing))
        assert not getattr(plain, flag)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"model": "m", "stream": 1},
        {"model": "m", "n": 0},
        {"model": "m", "n_predict": "7"},
        {"model": "m", "max_tokens": 1.5},
        {"model": "m", "stream_options": [1]},
        {"model": "m", "stream_options": {"include_usage": 1}},
        [],
    ],
)
def test_wrong_bodies_are_sentences(body: Any) -> None:
    """Whatever is wrong is told as a sentence."""
    said = read(COMPLETIONS, body)
    assert isinstance(said, str)
    assert said.endswith(".")


def test_h24_a_stream_reports_in_its_last_chunk() -> None:
    """As chat does, with and without its end."""
    ask = Ask("m", stream=True, input_tokens=9, max_output_tokens=50)
    text = data({"choices": [{"index": 0, "text": " one two", "finish_reason": None}]})
    last = data({"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})
    usage = data({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    assert told(COMPLETIONS, text + last + usage + data("[DONE]"), ask) == (Usage(3, 4), True)
    estimate, whole = told(COMPLETIONS, text, ask)
    assert estimate is not None
    assert estimate.estimated
    assert 2 <= estimate.output_tokens <= 50
    assert not whole


def test_usage_is_asked_for_and_hidden() -> None:
    """The call says so, and the stream is as it would have been."""
    body = sent(COMPLETIONS, Changes(report_usage=True), model="m", prompt="x", stream=True)
    assert body["stream_options"] == {"include_usage": True}
    ask = Ask("m", stream=True, input_tokens=9, max_output_tokens=50)
    usage = data({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    assert told(COMPLETIONS, usage + data("[DONE]"), ask, AnswerPlan(hide_usage=True)) == (
        Usage(3, 4),
        True,
    )


def test_bounds_go_by_their_names() -> None:
    """What is named is lowered where it stands; what is missing is put in as ``max_tokens``."""
    lower = Changes(max_output_tokens=10, bound_field="max_completion_tokens", max_choices=2)
    body = sent(COMPLETIONS, lower, model="m", prompt="x", best_of=5, n=1)
    assert body == {"model": "m", "prompt": "x", "best_of": 2, "n": 1, "max_tokens": 10}
    body = sent(COMPLETIONS, lower, model="m", prompt="x", n_predict=-1, max_tokens=7)
    assert body == {"model": "m", "prompt": "x", "n_predict": 10, "max_tokens": 7}


def test_azure_names_the_model_in_the_path() -> None:
    """That one is judged where the body names none; two are refused when the call is taken."""
    path = "/openai/deployments/gpt-4o/completions"
    assert asked(path, prompt="x").model == "gpt-4o"
    assert asked(path, prompt="x", model="gpt-4o").model == "gpt-4o"
    assert asked("/openai/deployments/a%20b/completions", prompt="x").model == "a b"
    assert refused("/openai/deployments/a%0Ab/completions", prompt="x")
    assert json.dumps(asked("/openai/Deployments/GPT/chat/completions").model) == '"GPT"'
