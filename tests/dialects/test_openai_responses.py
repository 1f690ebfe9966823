"""What a response asks, and what it consumed wherever that is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.asks import JSON, SSE, asked, event, refused, sent, told

from gatekeeper.dialects import dialect_for
from gatekeeper.dialects.base import UNCHANGED, AnswerPlan, Ask, Changes, Incoming
from gatekeeper.dialects.openai import UNNAMED
from gatekeeper.policy.model import Shaping, Usage, UsageParts
from gatekeeper.policy.words import LogprobsChange

RESPONSES = "/v1/responses"
STREAM = Ask("m", stream=True, input_tokens=10, max_output_tokens=100)
WHOLE = Ask("m", input_tokens=10, max_output_tokens=100)
USAGE = {
    "input_tokens": 30,
    "input_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 4},
    "output_tokens": 50,
    "output_tokens_details": {"reasoning_tokens": 40},
    "total_tokens": 80,
}
USED = Usage(
    30,
    50,
    parts=UsageParts(cached_input_tokens=20, cache_write_tokens=4, reasoning_tokens=40),
)


def response(status: str, usage: Any, **more: Any) -> dict[str, Any]:
    """Return a response object."""
    said = {"type": "output_text", "text": "one two three", "annotations": []}
    output = [{"type": "message", "role": "assistant", "content": [said]}]
    return {"object": "response", "status": status, "output": output, "usage": usage, **more}


def stream(last: str, usage: Any) -> bytes:
    """Return a stream that ends with this kind of event."""
    kinds = [
        {"type": "response.created", "response": response("in_progress", None)},
        {"type": "response.output_text.delta", "delta": "one two", "obfuscation": "xyz"},
        {"type": "response.output_text.delta", "delta": " three"},
        {"type": "response.output_text.done", "text": "one two three"},
        {"type": last, "response": response(last.partition(".")[2], usage)},
    ]
    return b"".join(event({**each, "sequence_number": at}) for at, each in enumerate(kinds))


def test_h23_responses_name_their_bound() -> None:
    """The bound is read, and lowered or put in under its own name."""
    assert asked(RESPONSES, model="m", input="hi", max_output_tokens=77).max_output_tokens == 77
    lower = Changes(max_output_tokens=10, bound_field="max_tokens")
    assert sent(RESPONSES, lower, model="m", max_output_tokens=77)["max_output_tokens"] == 10
    assert sent(RESPONSES, lower, model="m")["max_output_tokens"] == 10
    assert refused(RESPONSES, model=None, input="hi")


def test_a_response_may_leave_its_model_to_the_upstream() -> None:
    """The API takes that (a stored prompt names one); it is not a call without a model."""
    assert asked(RESPONSES, input="hi").model == UNNAMED


@pytest.mark.parametrize("last", ["response.completed", "response.incomplete", "response.failed"])
def test_h23_a_stream_never_settles_at_zero(last: str) -> None:
    """Usage stands inside the last event, parts and all."""
    assert told(RESPONSES, stream(last, USAGE), STREAM) == (USED, True)


def test_h24_explicit_zero_is_zero() -> None:
    """What is reported as nothing is nothing."""
    zero = {"input_tokens": 0, "output_tokens": 0}
    assert told(RESPONSES, stream("response.failed", zero), STREAM) == (Usage(0, 0), True)


def test_a_stream_without_a_report_is_estimated_from_its_pieces() -> None:
    """Once: what is repeated when a part is done was delivered already."""
    usage, whole = told(RESPONSES, stream("response.failed", None), STREAM)
    assert usage is not None
    assert whole
    assert usage.estimated
    assert usage.input_tokens == 10
    assert 3 <= usage.output_tokens <= 6


def test_an_error_ends_a_stream() -> None:
    """The API ends it so; nothing is missing."""
    failed = event({"type": "error", "code": "server_error", "message": "no"})
    usage, whole = told(RESPONSES, stream("response.in_progress", None) + failed, STREAM)
    assert whole
    assert usage is not None
    assert usage.estimated


def test_h23_a_document_never_settles_at_zero() -> None:
    """As reported; one that reports nothing is estimated from its text."""
    body = json.dumps(response("completed", USAGE)).encode()
    assert told(RESPONSES, body, WHOLE) == (USED, True)
    usage, _ = told(RESPONSES, json.dumps(response("completed", None)).encode(), WHOLE)
    assert usage is not None
    assert usage.estimated
    assert usage.output_tokens >= 3


def test_work_in_the_background_is_held_unless_it_reports() -> None:
    """Its caller may never come back for it."""
    assert asked(RESPONSES, model="m", background=True).held_unless_reported
    assert not asked(RESPONSES, model="m", background=False).held_unless_reported
    assert refused(RESPONSES, model="m", background="yes")


@pytest.mark.parametrize(
    ("body", "flags"),
    [
        ({}, set()),
        ({"include": ["message.output_text.logprobs"]}, {"logprobs"}),
        ({"include": ["reasoning.encrypted_content"]}, set()),
        ({"top_logprobs": 3}, {"logprobs"}),
        ({"top_logprobs": 0}, set()),
        ({"input": [{"role": "user", "content": "a"}]}, set()),
        (
            {"input": [{"role": "user"}, {"type": "message", "role": "assistant"}]},
            {"prefill"},
        ),
        ({"input": "assistant"}, set()),
    ],
)
def test_what_shaping_asks_after(body: dict[str, Any], flags: set[str]) -> None:
    """Log probabilities and an answer that the caller begins."""
    ask = asked(RESPONSES, model="m", **body)
    assert {name for name in ("logprobs", "prefill", "logit_bias") if getattr(ask, name)} == flags


def test_an_escape_hides_nothing() -> None:
    """A parser undoes it, so it is taken for what it may stand for."""
    text = rb'{"model":"m","include":["message.output_text.\u006cogprobs"]}'
    ask = dialect_for("POST", RESPONSES).read(Incoming(text))
    assert isinstance(ask, Ask)
    assert ask.logprobs


@pytest.mark.parametrize("path", ["/v1/responses/compact", "/v1/decisions"])
def test_h26_what_takes_no_bound_is_metered_all_the_same(path: str) -> None:
    """The model's longest answer is held, nothing is put into the body, the report is charged."""
    ask = asked(path, model="m", input="some text")
    assert ask.max_output_tokens is None
    assert sent(path, Changes(max_output_tokens=5), model="m") == {"model": "m"}
    assert told(path, json.dumps(response("completed", USAGE)).encode(), ask) == (USED, True)


@pytest.mark.parametrize(
    "path", ["/v1/responses/input_tokens", "/v1/chat/completions/input_tokens"]
)
def test_h24_counting_costs_nothing(path: str) -> None:
    """The model is named, as the account must be allowed to use it."""
    ask = asked(path, model="m", input="some text")
    assert ask == Ask("m")
    assert told(path, b'{"object":"response.input_tokens","input_tokens":9}', ask) == (
        Usage(),
        True,
    )
    assert refused(path, model=7)


def test_h24_what_was_made_before_is_not_charged_again() -> None:
    """Whether it has to be changed or not; the body of such a call asks for nothing."""
    stored = dialect_for("GET", "/v1/responses/resp_1")
    ask = stored.read(Incoming(b""))
    assert ask == Ask()
    for plan in (UNCHANGED, AnswerPlan(shaping=Shaping(logprobs=LogprobsChange.REMOVE))):
        for headers, body in (
            (JSON, json.dumps(response("completed", USAGE)).encode()),
            (SSE, stream("response.completed", USAGE)),
        ):
            reader = stored.reader(Ask(), headers, plan)
            assert reader.feed(body) + reader.end() == body
            assert reader.result() == Usage()
            assert reader.complete


def test_a_last_event_may_be_large() -> None:
    """It holds all that was made, images among it."""
    image = response("completed", USAGE, image="A" * 5_000_000)
    last = event({"type": "response.completed", "response": image})
    assert told(RESPONSES, last, STREAM) == (USED, True)
