"""vLLM's own routes: what they hold, and what they are charged."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.asks import asked, read, refused, sent, told

from gatekeeper.dialects.base import Ask, Changes
from gatekeeper.policy.model import Usage

GENERATE = "/inference/v1/generate"
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    ("path", "query", "others"),
    [
        ("/v1/rerank", "query", "documents"),
        ("/v2/rerank", "query", "documents"),
        ("/score", "text_1", "text_2"),
        ("/v1/score", "data_1", "data_2"),
    ],
)
def test_h23_a_query_is_read_once_with_each_text(path: str, query: str, others: str) -> None:
    """A long query against many texts costs its length times their number."""
    long = "a fairly long question about some matter " * 20
    one = asked(path, model="m", **{query: long, others: ["a"]}).input_tokens
    ten = asked(path, model="m", **{query: long, others: ["a"] * 10}).input_tokens
    assert ten > 9 * one


@pytest.mark.parametrize("path", ["/pooling", "/classify", "/v2/embed", "/v1/score"])
def test_what_is_pooled_has_no_output(path: str) -> None:
    """Input alone is held."""
    ask = asked(path, model="m", input="some text", max_tokens=5)
    assert ask.max_output_tokens == 0
    assert ask.input_tokens > 0
    assert refused(path, input="some text")


@pytest.mark.parametrize(
    "usage",
    [
        {"total_tokens": 56},
        {"prompt_tokens": 56, "total_tokens": 56, "completion_tokens": 0},
    ],
)
def test_h24_a_reranker_tells_a_total(usage: dict[str, int]) -> None:
    """It is the input, exactly."""
    ask = asked("/rerank", model="m", query="q", documents=["a", "b"])
    answer = json.dumps({"results": [], "usage": usage}).encode()
    assert told("/rerank", answer, ask) == (Usage(56, 0), True)


def test_h23_several_conversations_at_once() -> None:
    """Each may take the bound."""
    ask = asked(
        "/v1/chat/completions/batch", model="m", messages=[HELLO, HELLO], max_tokens=10, n=3
    )
    assert (ask.prompts, ask.choices, ask.max_output_tokens) == (2, 6, 60)
    assert not ask.prefill
    begun = [*HELLO, {"role": "assistant", "content": "Sure"}]
    path = "/v1/chat/completions/batch"
    assert asked(path, model="m", messages=[begun, HELLO]).prefill
    assert asked(path, model="m", messages="x").prompts == 1
    assert refused(path, messages=[HELLO])


def test_h23_sampling_parameters_hold_the_bound() -> None:
    """Tokens in are counted exactly; the answer's are told by no text, so it is held whole."""
    sampling = {"max_tokens": 10, "n": 2, "logprobs": 1}
    ask = asked(GENERATE, model="m", token_ids=[1, 2, 3], sampling_params=sampling)
    assert (ask.input_tokens, ask.choices, ask.max_output_tokens) == (
        3 + ask.input_tokens - 3,
        2,
        20,
    )
    assert ask.held_unless_reported
    assert ask.logprobs
    lower = Changes(max_output_tokens=4, max_choices=1)
    body = sent(GENERATE, lower, model="m", sampling_params={**sampling, "seed": 1})
    assert body["sampling_params"] == {"max_tokens": 4, "n": 1, "logprobs": 1, "seed": 1}
    assert sent(GENERATE, lower, model="m") == {"model": "m"}
    twice = read(GENERATE, {"model": "m", "sampling_params": [1]})
    assert isinstance(twice, str)


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ({"messages": HELLO, "max_tokens": 5}, 5),
        ({"prompt": ["a", "b"], "max_tokens": 5}, 10),
        ({"input": "a"}, 0),
    ],
)
def test_h26_invocations_are_what_they_hold(body: dict[str, Any], output: int) -> None:
    """SageMaker's one path for everything is metered as what it is."""
    assert asked("/invocations", model="m", **body).max_output_tokens == output
    assert refused("/invocations", **body)


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize", "/apply-template"])
def test_h24_tokens_may_be_counted_for_nothing(path: str) -> None:
    """A model may be named; llama.cpp has but one."""
    assert asked(path, model="m", prompt="x") == Ask("m")
    assert asked(path, content="x") == Ask()
    assert told(path, b'{"tokens":[1,2]}', Ask()) == (Usage(), True)


@pytest.mark.parametrize(
    ("field", "prefill"),
    [
        ({}, False),
        ({"continue_final_message": True}, True),
        ({"continue_final_message": False}, False),
        ({"add_generation_prompt": False}, True),
        ({"add_generation_prompt": True}, False),
    ],
)
def test_prefill_has_fields_of_its_own(field: dict[str, bool], prefill: bool) -> None:
    """The caller's words are continued, whoever said them."""
    assert asked("/v1/chat/completions", model="m", messages=HELLO, **field).prefill is prefill
