"""What an Anthropic message asks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gatekeeper.dialects import dialect_for
from gatekeeper.dialects.base import Ask, Changes, Incoming

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


@pytest.mark.parametrize(
    ("thinking", "most"),
    [
        (None, 64),
        ({"type": "disabled"}, 64),
        ({"type": "adaptive"}, 64),
        ({"type": "enabled", "budget_tokens": 32}, 64),
        ({"type": "enabled", "budget_tokens": 100_000}, 100_000),
    ],
)
def test_h23_a_thinking_budget_is_held(thinking: dict[str, Any] | None, most: int) -> None:
    """One that is larger than the bound, too: with interleaved thinking the API takes it."""
    ask = read(thinking=thinking)
    assert isinstance(ask, Ask)
    assert ask.max_output_tokens == most


@pytest.mark.parametrize(
    "thinking", ["enabled", {"budget_tokens": "9"}, {"budget_tokens": -1}, {"budget_tokens": 10**9}]
)
def test_a_thinking_budget_has_one_meaning(thinking: Any) -> None:
    """Anything else than a whole number within reason is refused."""
    assert "`thinking" in str(read(thinking=thinking))


def test_fields_that_bill_are_written_one_way() -> None:
    """A twin in other letters may be read by the upstream and not by us, or the other way."""
    assert "`thinking` must be written in lower case" in str(read(Thinking={"budget_tokens": 9}))


@pytest.mark.parametrize(
    ("messages", "prefill"),
    [
        ([], False),
        ([{"role": "user", "content": "assistant"}], False),
        ([{"role": "assistant", "content": "Sure"}, {"role": "user", "content": "?"}], False),
        ([{"role": "user", "content": "?"}, {"role": "assistant", "content": "Sure:"}], True),
    ],
)
def test_prefill_is_seen(messages: list[dict[str, str]], prefill: bool) -> None:
    """The answer is begun by the caller when the last message is the assistant's."""
    ask = read(messages=messages)
    assert isinstance(ask, Ask)
    assert ask.prefill is prefill


@pytest.mark.parametrize("messages", ["x", [1], {"role": "user"}])
def test_messages_have_a_shape(messages: Any) -> None:
    """Otherwise nobody could tell who speaks last."""
    assert "`messages` must be" in str(read(messages=messages))


@pytest.mark.parametrize(
    ("control", "part"),
    [
        ({"type": "ephemeral"}, "cache_write_tokens"),
        ({"type": "ephemeral", "ttl": "1h"}, "cache_write_1h_tokens"),
    ],
)
def test_what_may_be_cached_is_held_at_its_price(control: dict[str, str], part: str) -> None:
    """Writing a cache is dearer than reading a prompt."""
    ask = read(system=[{"type": "text", "text": "Be kind.", "cache_control": control}])
    assert isinstance(ask, Ask)
    assert getattr(ask.parts, part) == ask.input_tokens > 0


@pytest.mark.parametrize(
    ("thinking", "bound", "sent"),
    [
        ({"type": "enabled", "budget_tokens": 2_000}, 4_000, 2_000),
        ({"type": "enabled", "budget_tokens": 2_000}, 2_000, 1_999),
        ({"type": "enabled", "budget_tokens": 2_000}, 1_025, 1_024),
        ({"type": "enabled", "budget_tokens": 2_000}, 1_024, None),
        ({"type": "adaptive"}, 100, None),
    ],
)
def test_a_lower_bound_lowers_the_thinking_budget(
    thinking: dict[str, Any], bound: int, sent: int | None
) -> None:
    """The API refuses a budget that is not below the bound, or is below 1,024."""
    body = {**BODY, "max_tokens": 8_000, "thinking": thinking, "metadata": {"user_id": "ü"}}
    incoming = Incoming(json.dumps(body, indent=1).encode())
    ask = MESSAGES.read(incoming)
    assert isinstance(ask, Ask)
    changed = MESSAGES.rewrite(incoming, ask, Changes(max_output_tokens=bound))
    found = json.loads(changed)
    assert found["max_tokens"] == bound
    assert found["thinking"].get("budget_tokens") == sent
    assert {**found, "max_tokens": 0, "thinking": 0} == {**body, "max_tokens": 0, "thinking": 0}


def test_a_bound_without_thinking_changes_one_number() -> None:
    """Every other byte stays."""
    text = b'{"model":"m", "max_tokens" : 8000,\n "messages":[]}'
    incoming = Incoming(text)
    changed = MESSAGES.rewrite(incoming, Ask("m"), Changes(max_output_tokens=10))
    assert changed == text.replace(b"8000", b"10")
    assert MESSAGES.rewrite(incoming, Ask("m"), Changes(max_output_tokens=9_000)) == text
