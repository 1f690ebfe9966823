"""llama.cpp's own routes: what they hold, and what they are charged."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.asks import asked, data, refused, sent, told

from gatekeeper.dialects.base import Ask, Changes
from gatekeeper.policy.model import Usage, UsageParts

COMPLETION = "/completion"
CHAT = "/v1/chat/completions"
STREAM = Ask("m", stream=True, input_tokens=10, max_output_tokens=100)
WHOLE = Ask("m", input_tokens=10, max_output_tokens=100)


def piece(text: str, written: int, *, stop: bool = False, index: int = 0) -> dict[str, Any]:
    """Return a piece of an answer, as the server writes it."""
    return {
        "index": index,
        "content": text,
        "tokens": [],
        "stop": stop,
        "id_slot": 0,
        "tokens_predicted": written,
        "tokens_evaluated": 50,
    }


def test_h23_without_a_bound_there_is_no_end() -> None:
    """So one is put in, whether none is named or minus one."""
    for body in ({}, {"n_predict": -1}, {"max_tokens": -2}):
        ask = asked(COMPLETION, model="m", prompt="x", **body)
        assert (ask.max_output_tokens, ask.endless) == (None, True)
    bounded = asked(COMPLETION, model="m", prompt="x", n_predict=20)
    assert (bounded.max_output_tokens, bounded.endless) == (20, False)
    put_in = sent(COMPLETION, Changes(max_output_tokens=9), model="m", prompt="x")
    assert put_in["n_predict"] == 9
    lowered = sent(COMPLETION, Changes(max_output_tokens=9), model="m", n_predict=-1)
    assert lowered["n_predict"] == 9


@pytest.mark.parametrize("path", [COMPLETION, "/completions", "/infill"])
def test_h23_every_prompt_is_answered(path: str) -> None:
    """Several prompts and several answers to each."""
    ask = asked(path, model="m", prompt=["a", "b"], n_predict=5, n_cmpl=2, n_probs=3)
    assert (ask.choices, ask.max_output_tokens, ask.logprobs) == (4, 20, True)
    assert ask.wants_usage is None
    assert refused(path, prompt="x")
    assert refused(path, model="m", n_predict="5")
    assert refused(path, model="m", n_predict=5, n_cmpl=0)


def test_h24_a_stream_reports_as_it_goes() -> None:
    """Each piece tells the tokens up to now, so a stream that is cut is exact too."""
    pieces = [data(piece("one", 1)), data(piece(" two three", 3)), data(piece("", 3, stop=True))]
    assert told(COMPLETION, b"".join(pieces), STREAM) == (Usage(50, 3), True)
    assert told(COMPLETION, b"".join(pieces[:2]), STREAM) == (Usage(50, 3), False)
    zero = data(piece("", 0, stop=True))
    assert told(COMPLETION, zero, STREAM) == (Usage(50, 0), True)


def test_h24_answers_to_several_prompts_add_up() -> None:
    """They report each for itself; the stream is whole when all have ended."""
    ask = Ask("m", stream=True, choices=2, prompts=2, input_tokens=10, max_output_tokens=100)
    first, second = piece("a", 7, stop=True), piece("b", 5, stop=True, index=1)
    assert told(COMPLETION, data(first), ask) == (Usage(50, 7, estimated=True), False)
    assert told(COMPLETION, data(first) + data(second), ask) == (Usage(100, 12), True)
    both = json.dumps([first, second]).encode()
    assert told(COMPLETION, both, WHOLE) == (Usage(100, 12), True)
    assert told(COMPLETION, json.dumps(first).encode(), WHOLE) == (Usage(50, 7), True)


def test_an_openai_client_without_v1_is_read_too() -> None:
    """Its answers come in the other form."""
    answer = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    assert told("/completions", json.dumps(answer).encode(), WHOLE) == (Usage(3, 4), True)


@pytest.mark.parametrize(
    "odd", [{"tokens_predicted": -1}, {"tokens_predicted": "1"}, {"index": "a"}, []]
)
def test_nonsense_is_estimated(odd: Any) -> None:
    """A report with wrong numbers is no report."""
    body = odd if isinstance(odd, list) else {**piece("some text", 1), **odd}
    usage, _ = told(COMPLETION, json.dumps(body).encode(), WHOLE)
    assert usage is not None
    assert usage.estimated


def test_embeddings_report_nothing() -> None:
    """Their input is charged as estimated."""
    ask = asked("/embedding", model="m", content="some text")
    assert (ask.max_output_tokens, ask.input_tokens > 0) == (0, True)
    assert told("/embedding", b'[{"index":0,"embedding":[[0.1]]}]', ask) == (
        Usage(ask.input_tokens, 0, estimated=True),
        True,
    )
    assert refused("/embedding", content="x")


def timed(index: int = 0, **timings: Any) -> bytes:
    """Return the last chunk of a choice with its timings."""
    choice = {"index": index, "delta": {}, "finish_reason": "stop"}
    return data({"choices": [choice], "timings": timings})


def test_h24_timings_tell_where_usage_does_not() -> None:
    """Of every choice; the prompt is one. A report of usage stands above them."""
    end = timed(prompt_n=1, cache_n=236, predicted_n=35)
    assert told(CHAT, end + data("[DONE]"), STREAM) == (Usage(237, 35), True)
    two = end + timed(1, prompt_n=9, predicted_n=5)
    assert told(CHAT, two, Ask("m", stream=True, choices=2, max_output_tokens=None)) == (
        Usage(237, 40),
        True,
    )
    details = {"cached_tokens": 230}
    usage = {"prompt_tokens": 236, "completion_tokens": 30, "prompt_tokens_details": details}
    assert told(CHAT, end + data({"choices": [], "usage": usage}), STREAM) == (
        Usage(236, 30, parts=UsageParts(cached_input_tokens=230)),
        True,
    )
    odd, whole = told(CHAT, timed(prompt_n="1"), STREAM)
    assert odd is not None
    assert odd.estimated
    assert whole
