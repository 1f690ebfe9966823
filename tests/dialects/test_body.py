"""Reading request bodies: one meaning for every parser, or a refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.dialects import dialect_for
from gatekeeper.dialects.base import Incoming
from gatekeeper.dialects.body import (
    choices_of,
    flag,
    model_of,
    output_bound,
    prompts_of,
    read_fields,
)


def fields(**body: Any) -> dict[str, bytes]:
    """Return the fields of a body."""
    found = read_fields(json.dumps(body).encode())
    assert isinstance(found, dict)
    return found


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(
    body=st.dictionaries(st.text().filter(lambda name: name.islower()), JSON, max_size=6),
    indent=st.sampled_from([None, 0, 3]),
    ascii_only=st.booleans(),
)
def test_h12_whatever_json_writes_is_read_back(
    body: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    """Any object without repeated names is split into exactly its fields, spaces or not."""
    text = json.dumps(body, indent=indent, ensure_ascii=ascii_only)
    try:
        sent = text.encode()
    except UnicodeEncodeError:
        return  # lone surrogates cannot be sent as UTF-8
    found = read_fields(sent)
    if isinstance(found, str):
        assert "\\ud" in text  # a lone surrogate in a name
    else:
        assert {name: json.loads(value) for name, value in found.items()} == body


@settings(max_examples=150, deadline=None)
@given(
    before=st.lists(st.sampled_from(['"a":1', '"b":"x"', '"c":[1,{"max_tokens":3}]']), unique=True),
    first=st.sampled_from(["1", "10", "100000", '"1"', "[1]", "null"]),
    second=st.sampled_from(["1", "10", "100000", '"1"', "[1]", "null"]),
    between=st.lists(st.sampled_from(['"d":1', '"e":{"f":"}"}']), unique=True),
    spelling=st.sampled_from(['"max_tokens"', '"max\\u005ftokens"', '"\\u006dax_tokens"']),
    space=st.sampled_from(["", " ", "\n\t"]),
)
def test_h23_a_field_named_twice_is_refused(  # noqa: PLR0917 - what hypothesis varies
    before: list[str], first: str, second: str, between: list[str], spelling: str, space: str
) -> None:
    """Whatever stands around them, and however spelled, two of a name never pass."""
    parts = [*before, f'"max_tokens"{space}:{first}', *between, f"{spelling}:{space}{second}"]
    body = "{" + f"{space},{space}".join(parts) + space + "}"
    assert read_fields(body.encode()) == "The body names a field twice at its top level."


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"model"',
        b"{",
        b'{"a":1}{"a":1}',
        b'{"a":1,}',
        b"{'a':1}",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":01}',
        b'{"a":1 /* comment */}',
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        b'{"\xff":1}',
        b'{"\\ud800":1}',
    ],
)
def test_anything_but_one_json_object_is_refused(body: bytes) -> None:
    """What parsers disagree on is refused with a sentence that quotes nothing."""
    assert read_fields(body) == "The body must be one JSON object (RFC 8259) in UTF-8."


@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth_bombs_are_refused(brackets: tuple[bytes, bytes]) -> None:
    """A hundred thousand levels are refused, not an exception."""
    opening, closing = brackets
    bomb = b'{"a":' + opening * 100_000 + b"1" + closing * 100_000 + b"}"
    assert read_fields(bomb) == "The body is nested too deeply."


@pytest.mark.parametrize(
    "name", ["Max_Tokens", "MAX_TOKENS", "max_token\u017f", "Model", "N", "Stream"]
)
def test_other_spellings_of_billing_fields_are_refused(name: str) -> None:
    """Parsers that ignore case (Go) would obey a field that others ignore."""
    found = read_fields(json.dumps({name: 1}).encode())
    assert isinstance(found, str)
    assert found.endswith("must be written in lower case.")


def test_other_fields_may_be_spelled_at_will() -> None:
    """Case matters only where it bills."""
    assert set(fields(Temperature=1, X=2)) == {"Temperature", "X"}


@pytest.mark.parametrize(
    ("body", "bound"),
    [
        ({}, None),
        ({"max_tokens": None}, None),
        ({"max_tokens": 7}, 7),
        ({"max_tokens": 0}, 0),
        ({"max_tokens": 1, "max_completion_tokens": 100_000}, 100_000),
        ({"max_completion_tokens": 5, "n_predict": 9, "max_tokens": None}, 9),
    ],
)
def test_h23_the_largest_bound_counts(body: dict[str, Any], bound: int | None) -> None:
    """A small bound beside a large one does not hide it."""
    assert output_bound(fields(**body)) == bound


@pytest.mark.parametrize(
    "value",
    ["-1", "1.5", "1.0", "1e3", "1e400", '"100"', "true", "[1]", "{}", "10000001", "9" * 5_000],
)
@pytest.mark.parametrize("name", ["max_tokens", "n"])
def test_h23_bounds_of_another_type_are_refused(name: str, value: str) -> None:
    """Negative, fractional, huge and textual numbers are refused, by the field's name only."""
    found = read_fields(f'{{"{name}":{value}}}'.encode())
    assert isinstance(found, dict)
    said = output_bound(found) if name == "max_tokens" else choices_of(found)
    assert isinstance(said, str)
    assert said.startswith(f"The field `{name}` must be a whole number from ")


def test_h23_choices() -> None:
    """As many answers as the larger of ``n`` and ``best_of``, at least one."""
    assert choices_of(fields()) == 1
    assert choices_of(fields(n=None)) == 1
    assert choices_of(fields(n=3, best_of=5)) == 5
    assert choices_of(fields(n=3, best_of=0)) == 3
    assert isinstance(choices_of(fields(n=0)), str)


@pytest.mark.parametrize(
    ("prompt", "count"),
    [("one", 1), (["a", "b", "c"], 3), ([1, 2, 3], 1), ([[1, 2], [3]], 2), ([], 1), (["1"], 1)],
)
def test_h23_prompts_are_counted(prompt: Any, count: int) -> None:
    """A list of prompts is that many; a list of tokens is one."""
    assert prompts_of(fields(prompt=prompt)) == count
    assert prompts_of(fields()) == 1


def test_flags_are_booleans() -> None:
    """Neither text nor numbers pass for a boolean."""
    assert flag(fields(), "stream") is False
    assert flag(fields(stream=None), "stream") is False
    assert flag(fields(stream=True), "stream") is True
    wrong: list[Any] = ["true", 1, [], "x" * 100]
    for value in wrong:
        assert flag(fields(stream=value), "stream") == "The field `stream` must be true or false."


@pytest.mark.parametrize(
    "name", ["", "a\nb", "a\x1b[0m", " gpt-4o", "gpt-4o ", "x" * 257, None, 7, ["m"]]
)
def test_h38_names_of_models_are_printable_and_short(name: Any) -> None:
    """A model's name can be written to logs and records as it is."""
    assert model_of(fields(model=name)) is None


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({}, None),
        ({"models": None}, None),
        ({"models": []}, None),
        ({"models": ["m"]}, None),
        ({"models": ["m", "dear"]}, "models"),
        ({"models": "dear"}, "models"),
        ({"fallbacks": [{"m": ["dear"]}]}, "fallbacks"),
    ],
)
def test_h26_a_call_names_no_model_to_fall_back_on(more: dict[str, Any], field: str | None) -> None:
    """Its account may be allowed one and not the other, and pays for the first."""
    body = {"model": "m", "max_tokens": 1, "messages": [], **more}
    for path in ("/v1/chat/completions", "/v1/messages"):
        said = dialect_for("POST", path).read(Incoming(json.dumps(body).encode(), path))
        assert isinstance(said, str) == (field is not None)
        assert field is None or f"`{field}`" in str(said)


def test_models_have_names() -> None:
    """Ordinary names, paths and tags among them, pass."""
    for name in ("gpt-4o", "org/model:latest@v1", "模型"):
        assert model_of(fields(model=name)) == name
    assert model_of(fields()) is None
