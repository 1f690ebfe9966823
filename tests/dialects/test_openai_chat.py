"""What a chat completion asks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.asks import sent

from gatekeeper.dialects import dialect_for
from gatekeeper.dialects.base import Ask, Changes, Incoming
from gatekeeper.policy.model import NO_PARTS
from gatekeeper.terms import worst_usage

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
        ({"max_tokens": "7"}, "The field `max_tokens` must be a whole number up to 10000000."),
        (
            {"max_tokens": 10**7 + 1},
            "The field `max_tokens` must be a whole number up to 10000000.",
        ),
    ],
)
def test_fields_that_bill_have_strict_types(body: dict[str, Any], sentence: str) -> None:
    """A field that bills and has another type is refused with its name, never its value."""
    assert read(**body) == sentence


@pytest.mark.parametrize(
    ("messages", "prefill"),
    [
        ([{"role": "user", "content": "assistant"}], False),
        ([{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}], False),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], True),
        ([{"role": "user"}, {"content": "b", "role": "assistant", "prefix": True}], True),
        ([], False),
        (["assistant"], False),
        ("assistant", False),
    ],
)
def test_prefill_is_seen(messages: Any, prefill: bool) -> None:
    """The last message decides: an assistant's begins the answer."""
    ask = read(messages=messages)
    assert isinstance(ask, Ask)
    assert ask.prefill is prefill


def test_an_escape_hides_no_prefill() -> None:
    """Roles are read as a parser reads them."""
    body = rb'{"model":"m","messages":[{"role":"\u0061ssistant","content":"x"}]}'
    ask = CHAT.read(Incoming(body))
    assert isinstance(ask, Ask)
    assert ask.prefill


@pytest.mark.parametrize(
    ("field", "flags"),
    [
        ({"logprobs": True}, {"logprobs"}),
        ({"logprobs": False, "top_logprobs": 0}, set()),
        ({"top_logprobs": 5}, {"logprobs"}),
        ({"prompt_logprobs": 0}, {"logprobs"}),
        ({"n_probs": 2}, {"logprobs"}),
        ({"logit_bias": {}}, set()),
        ({"logit_bias": {" 1": 2}}, {"logit_bias"}),
        ({"allowed_token_ids": [5]}, {"logit_bias"}),
    ],
)
def test_what_shaping_asks_after(field: dict[str, Any], flags: set[str]) -> None:
    """Whoever speaks which dialect of it."""
    ask = read(**field)
    assert isinstance(ask, Ask)
    assert {name for name in ("logprobs", "logit_bias", "prefill") if getattr(ask, name)} == flags


@pytest.mark.parametrize(
    ("field", "outlasts", "held"),
    [
        ({}, False, False),
        ({"store": False}, False, False),
        ({"store": True}, True, True),
        ({"store": True, "stream": True}, True, False),
    ],
)
def test_h25_what_is_stored_outlasts_its_caller(
    field: dict[str, Any], outlasts: bool, held: bool
) -> None:
    """It can be fetched later, where nothing is charged."""
    ask = read(**field)
    assert isinstance(ask, Ask)
    assert (ask.outlasts, ask.held_unless_reported) == (outlasts, held)


@pytest.mark.parametrize("field", [{"modalities": ["text", "audio"]}, {"audio": {"voice": "x"}}])
def test_h23_speech_is_held_at_its_price(field: dict[str, Any]) -> None:
    """All of the answer may be spoken, and a piece of a recording tells no tokens."""
    ask = read(max_tokens=100, **field)
    assert isinstance(ask, Ask)
    assert ask.parts.audio_output_tokens >= 100
    assert worst_usage(ask, 1, 100).parts.audio_output_tokens == 100
    assert ask.held_unless_reported
    silent = read(modalities=["text"])
    assert isinstance(silent, Ask)
    assert silent.parts is NO_PARTS


def test_h23_recordings_are_held_at_their_price() -> None:
    """All of the input may be one."""
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA" * 400, "format": "wav"}}
    ask = read(messages=[{"role": "user", "content": [sound]}])
    assert isinstance(ask, Ask)
    assert ask.parts.audio_input_tokens == ask.input_tokens >= 100


def test_h23_a_prediction_may_bill_as_output() -> None:
    """What the model does not take of it is charged all the same."""
    ask = read(max_tokens=100, prediction={"type": "content", "content": "some words " * 50})
    assert isinstance(ask, Ask)
    assert ask.max_output_tokens is not None
    assert ask.max_output_tokens > 200
    unbound = read(prediction={"type": "content", "content": "some words"})
    assert isinstance(unbound, Ask)
    assert unbound.max_output_tokens is None


def test_the_upstream_names_the_bound() -> None:
    """A bound is put in as the upstream calls it; one that is named is lowered where it stands."""
    path, lower = "/v1/chat/completions", Changes(max_output_tokens=9)
    assert sent(path, lower, model="m") == {"model": "m", "max_completion_tokens": 9}
    named = Changes(max_output_tokens=9, bound_field="max_tokens")
    assert sent(path, named, model="m") == {"model": "m", "max_tokens": 9}
    assert sent(path, named, max_completion_tokens=20) == {"max_completion_tokens": 9}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ("{}", '{"include_usage":true}'),
        ("null", '{"include_usage":true}'),
        (
            '{ "include_usage" : false, "include_obfuscation":1e0 }',
            '{ "include_usage" : true, "include_obfuscation":1e0 }',
        ),
        ('{"x": "\\u0041"}', '{"include_usage":true,"x": "\\u0041"}'),
    ],
)
def test_usage_is_asked_for_in_place(options: str, wanted: str) -> None:
    """Whatever else is asked for stays as it was written."""
    text = '{"model":"m", "stream_options" :%s,"a":1.0}'
    incoming = Incoming((text % options).encode())
    changed = CHAT.rewrite(incoming, Ask(), Changes(report_usage=True))
    assert changed == (text % wanted).encode()


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (None, '{"include_usage":true,"continuous_usage_stats":true}'),
        (
            '{"include_usage": true, "x":1}',
            '{"continuous_usage_stats":true,"include_usage": true, "x":1}',
        ),
        (
            '{"continuous_usage_stats":false}',
            '{"include_usage":true,"continuous_usage_stats":true}',
        ),
    ],
)
def test_running_reports_are_asked_for_in_place(options: str | None, wanted: str) -> None:
    """Both options are set, and others stay."""
    body = b'{"model":"m"' + (f',"stream_options":{options}' if options else "").encode() + b"}"
    often = Changes(report_usage=True, report_continuously=True)
    changed = CHAT.rewrite(Incoming(body), Ask(), often)
    assert changed == b'{"model":"m","stream_options":%b}' % wanted.encode()


@pytest.mark.parametrize(
    ("options", "wants"),
    [
        ({"include_usage": True, "continuous_usage_stats": True}, None),
        ({"include_usage": True, "continuous_usage_stats": False}, True),
        ({"continuous_usage_stats": True}, False),
        (None, False),
    ],
)
def test_what_a_caller_wants_to_be_told(options: Any, wants: bool | None) -> None:
    """Nothing is added for one that asks for everything."""
    ask = read(stream=True, stream_options=options)
    assert isinstance(ask, Ask)
    assert ask.wants_usage is wants


def test_h24_no_option_is_asked_for_in_another_case() -> None:
    """Servers that do not tell cases apart would report nothing after all."""
    assert "lower case" in str(read(stream=True, stream_options={"Include_Usage": False}))


def test_a_bound_that_is_null_is_filled_in() -> None:
    """No field is named twice."""
    body = b'{"max_completion_tokens" : null,"model":"m","max_tokens":null}'
    changed = CHAT.rewrite(Incoming(body), Ask(), Changes(max_output_tokens=7))
    assert changed == b'{"max_completion_tokens" : 7,"model":"m","max_tokens":null}'


def test_a_model_is_needed() -> None:
    """Without a name the upstream would pick a model that nobody checked."""
    assert (
        CHAT.read(Incoming(b'{"messages":[]}')) == "The field `model` must be the name of a model."
    )
    assert isinstance(CHAT.read(Incoming(b"not json")), str)
