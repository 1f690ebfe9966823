"""A batch is held at the worst case of all calls in it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gatekeeper.dialects import dialect_for
from gatekeeper.dialects.base import UNCHANGED, Ask, Changes, Incoming
from gatekeeper.dialects.batch import MOST_CALLS, summed
from gatekeeper.policy.model import UsageParts

CREATE = dialect_for("POST", "/v1/messages/batches")
PARAMS = {"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": "Hello"}]}


def read(*params: Any) -> Ask | str:
    """Read a batch of calls."""
    requests = [{"custom_id": str(number), "params": each} for number, each in enumerate(params)]
    return CREATE.read(Incoming(json.dumps({"requests": requests}).encode()))


def test_a_batch_is_the_sum_of_its_calls() -> None:
    """Input, output and answers add up; it costs half, and is charged what it holds."""
    one, both = read(PARAMS), read(PARAMS, {**PARAMS, "max_tokens": 36})
    assert isinstance(one, Ask)
    assert isinstance(both, Ask)
    assert (both.model, both.max_output_tokens, both.choices, both.prompts) == ("m", 100, 2, 2)
    assert both.input_tokens == 2 * one.input_tokens > 0
    assert (both.price_factor, both.unreported) == (0.5, True)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[", "must be one JSON object"),
        (b"{}", "holds no call"),
        (b'{"requests":7}', "must be a list"),
        (
            b'{"requests":[{"custom_id":"a"}]}',
            "Call 1 of the batch: The call must be an object with",
        ),
        (b'{"requests":[7]}', "Call 1 of the batch: The call must be one JSON object"),
        (b'{"requests":[{"params":{},"params":{"model":"m"}}]}', "names a field twice"),
        (b'{"requests":[{"params":{"model":"m"}}]}', "Call 1 of the batch: The field `max_tokens`"),
    ],
)
def test_what_is_wrong_with_a_batch(body: bytes, said: str) -> None:
    """Each call is read as strictly as one that comes alone."""
    assert said in str(CREATE.read(Incoming(body)))


def test_a_batch_names_one_model() -> None:
    """Accounts are allowed models one by one; a second one would slip through."""
    assert "Call 2 of the batch names another model" in str(read(PARAMS, {**PARAMS, "model": "n"}))


def test_flags_parts_and_missing_bounds_are_those_of_all() -> None:
    """Whatever one call asks for, the batch does."""
    asks = [
        Ask("m", max_output_tokens=None, logprobs=True, parts=UsageParts(images=1)),
        Ask("m", max_output_tokens=5, prefill=True, parts=UsageParts(images=2)),
        Ask("m", max_output_tokens=5, logit_bias=True),
    ]
    found = summed(asks)
    assert isinstance(found, Ask)
    assert found.max_output_tokens is None
    assert (found.logprobs, found.prefill, found.logit_bias) == (True, True, True)
    assert found.parts.images == 3


def test_a_batch_is_bounded() -> None:
    """The API's own bound holds here too."""
    assert "at most" in str(summed(Ask("m") for _ in range(MOST_CALLS + 1)))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/messages/batches"),
        ("GET", "/v1/messages/batches/b1"),
        ("GET", "/v1/messages/batches/b1/results"),
        ("POST", "/v1/messages/batches/b1/cancel"),
        ("DELETE", "/v1/messages/batches/b1"),
    ],
)
def test_all_else_of_batches_streams_through(method: str, path: str) -> None:
    """It costs no tokens, and its refusals are those of the family."""
    dialect = dialect_for(method, path)
    assert (dialect.name, dialect.reads_body) == ("anthropic_batches", False)
    assert dialect.read(Incoming(b"anything")) == Ask()


def test_a_batch_is_changed_by_nothing() -> None:
    """No single bound holds for it, and its answer tells no usage."""
    incoming = Incoming(b'{"requests":[]}')
    assert CREATE.rewrite(incoming, Ask("m"), Changes(max_output_tokens=1)) == incoming.body
    reader = CREATE.reader(Ask(), {"content-type": "application/json"}, UNCHANGED)
    assert reader.feed(b"{}") == b"{}"
