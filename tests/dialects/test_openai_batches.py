"""A batch is read where its calls stand: in a file at the upstream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gatekeeper.dialects import dialect_for
from gatekeeper.dialects.base import Ask, Changes, Incoming
from gatekeeper.dialects.estimate import estimate_tokens
from gatekeeper.dialects.openai_batches import endpoint_of, read_batch

CREATE = dialect_for("POST", "/v1/batches")
CHAT = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "Hello"}]}


def lines(*calls: dict[str, Any]) -> bytes:
    """Return the file of a batch."""
    return b"\n".join(json.dumps(call).encode() for call in calls) + b"\n"


def call(url: str = "/v1/chat/completions", **body: Any) -> dict[str, Any]:
    """Return a line."""
    return {"custom_id": "a", "method": "POST", "url": url, "body": {**CHAT, **body}}


def read(content: bytes) -> Ask | str:
    """Read a batch's file."""
    return read_batch(content, dialect_for, estimate_tokens)


def test_the_calls_of_a_file_add_up() -> None:
    """Each by the family of its url; at half the price, and charged as held."""
    ask = read(lines(call(n=2), call("/v1/responses", max_output_tokens=30, max_tokens=None)))
    assert isinstance(ask, Ask)
    assert (ask.model, ask.max_output_tokens, ask.prompts) == ("m", 50, 2)
    assert (ask.price_factor, ask.unreported, ask.fixed_output) == (0.5, True, True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no call"),
        (b"nonsense", "Call 1 of the batch: The line must be one JSON object"),
        (lines({"url": "/v1/chat/completions"}), "The line must be"),
        (lines(call(), call(model="n")), "another model"),
        (lines(call(n=0)), "Call 1 of the batch: The field `n`"),
        (lines(call("/v1/files")), "no route whose calls can be batched"),
        (lines({**call(), "method": "GET"}), "no route whose calls can be batched"),
        (lines(call("/v1/batches", input_file_id="f")), "cannot hold a batch"),
        (lines(call("/nowhere")), "no route whose calls can be batched"),
    ],
)
def test_what_is_wrong_with_a_file(content: bytes, said: str) -> None:
    """Nothing goes on of a batch that cannot be read whole."""
    assert said in str(read(content))


TWICE = b'{"url":"/v1/chat/completions","body":{},"body":{"model":"m"}}'
LINE_IN_A_LINE = lines(call(metadata=[1, 2])).replace(b"[1, 2]", b"[1,\r2]")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (TWICE, "names a field twice"),
        (lines({**call(), "URL": "/v1/embeddings"}), "lower case"),
        (LINE_IN_A_LINE, "The line must be"),
        (lines(call("/v1/embeddings", input="x")), "the `endpoint` of the batch"),
        (lines(call("/v1/responses/r/cancel")), "the `endpoint` of the batch"),
    ],
)
def test_h23_a_call_has_one_meaning(content: bytes, said: str) -> None:
    """Whether an upstream goes by its url or by the endpoint of all; its lines end as ours do."""
    found = read_batch(content, dialect_for, estimate_tokens, "/v1/chat/completions")
    assert said in str(found)


def test_h23_a_call_in_a_batch_names_no_deployment() -> None:
    """It would be billed as another model than its body names."""
    url = "/openai/Deployments/dear/chat/completions"
    assert "no route" in str(read(lines(call(url))))
    assert "no route" in str(read_batch(lines(call(url)), dialect_for, estimate_tokens, url))


@pytest.mark.parametrize(
    ("body", "endpoint"),
    [
        (b'{"endpoint":"/v1/responses"}', "/v1/responses"),
        (b"{}", None),
        (b'{"endpoint":null}', None),
        (b'{"endpoint":7}', ""),
    ],
)
def test_the_endpoint_of_a_batch(body: bytes, endpoint: str | None) -> None:
    """Where none is named, each call goes by its own url."""
    assert endpoint_of(body) == endpoint


@pytest.mark.parametrize(
    "body", [b"[", b"{}", b'{"input_file_id":7}', b'{"input_file_id":"../admin"}']
)
def test_a_batch_names_a_file(body: bytes) -> None:
    """By an id that is nothing but an id."""
    assert isinstance(CREATE.read(Incoming(body)), str)
    assert CREATE.read(Incoming(b'{"input_file_id":"file-1"}')) == Ask(
        file="file-1", unreported=True
    )


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/v1/batches", "openai_batches"),
        ("GET", "/v1/batches/b1", "openai_batches"),
        ("POST", "/v1/batches/b1/cancel", "openai_batches"),
        ("POST", "/v1/files", "openai_files"),
        ("GET", "/v1/files/f1/content", "openai_files"),
        ("POST", "/v1/uploads/u1/parts", "openai_files"),
        ("POST", "/v1/vector_stores/v1/search", "openai_files"),
    ],
)
def test_what_costs_no_tokens_streams_through(method: str, path: str, name: str) -> None:
    """However large it is."""
    dialect = dialect_for(method, path)
    assert (dialect.name, dialect.reads_body) == (name, False)
    assert dialect.read(Incoming(b"x")) == Ask()
    assert dialect.rewrite(Incoming(b"x"), Ask(), Changes()) == b"x"
    assert dialect.reader(Ask(), {}).feed(b"x") == b"x"


def test_a_batch_is_changed_by_nothing() -> None:
    """No single bound holds for it."""
    assert CREATE.rewrite(Incoming(b"x"), Ask(), Changes(max_choices=1)) == b"x"
