"""What a body sends to the model, counted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.dialects.body import read_fields
from gatekeeper.dialects.estimate import estimate_tokens
from gatekeeper.dialects.exact_tokens import ExactTokens
from gatekeeper.dialects.media import OPENAI_IMAGE_TOKENS
from gatekeeper.dialects.prompt import input_tokens

exact = ExactTokens()
TEXT = st.text(st.characters(codec="utf-8"), max_size=60) | st.text(
    st.sampled_from(" .;:/\\'\"\n\r\tabcABC019é中。🙂(){}-_"), max_size=60
)
MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
        "content": TEXT,
    },
    optional={"name": st.sampled_from(["bob", "alice_x", "N"])},
)


def fields(**body: Any) -> dict[str, bytes]:
    """Return the fields of a body."""
    found = read_fields(json.dumps(body).encode())
    assert isinstance(found, dict)
    return found


@given(messages=st.lists(MESSAGE, min_size=1, max_size=8), ascii_only=st.booleans())
def test_an_exact_count_covers_what_chat_formats_add(
    messages: list[dict[str, str]], ascii_only: bool
) -> None:
    """Never below the true count of a chat prompt, and at most ten tokens a message above it.

    The true count is OpenAI's: three tokens a message and its values, one for a name, three before
    the answer.
    """
    body = json.dumps({"messages": messages}, ensure_ascii=ascii_only).encode()
    found = read_fields(body)
    assert isinstance(found, dict)
    true = 3 + sum(
        3 + sum(exact(value.encode()) for value in message.values()) + ("name" in message)
        for message in messages
    )
    assert true <= input_tokens(found, exact) <= true + 10 * len(messages)


@given(content=TEXT.filter(str.strip), image=st.booleans())
def test_an_exact_count_is_the_same_where_media_are_looked_for(content: str, image: bool) -> None:
    """Text beside an image, in parts, is counted as text alone, and the image on top."""
    part = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    parts = [{"type": "text", "text": content}, *([part] if image else [])]
    tokens = input_tokens(fields(messages=[{"role": "user", "content": parts}]), exact)
    least = 3 + 4 + exact(content.encode()) + (OPENAI_IMAGE_TOKENS if image else 0)
    assert least <= tokens <= least + 20


def test_input_is_everything_that_may_reach_the_model() -> None:
    """Prompts count under any name; settings do not."""
    text = "a fairly long sentence that makes up some tokens of its own " * 10
    for count in (estimate_tokens, exact):
        least = count(text.encode())
        assert input_tokens(fields(messages=[{"role": "user", "content": text}]), count) >= least
        assert input_tokens(fields(tools=[{"description": text}]), count) >= least
        assert input_tokens(fields(some_vendor_field=text), count) >= least
        assert input_tokens(fields(tools=[{"parameters": {text: 1}}]), count) >= least
        assert input_tokens(fields(x=[12345678] * 100), count) >= 200
        nothing = fields(model="m", stream=True, max_tokens=5, temperature=1)
        assert input_tokens(nothing, count) == 0


def test_escapes_weigh_what_they_stand_for() -> None:
    r"""Chinese sent as ``\uXXXX`` is counted like the same text in UTF-8."""
    messages = [{"role": "user", "content": '港口很安静, "最后一条船"\n' * 500}]
    sent = {
        json.dumps({"messages": messages}, ensure_ascii=ascii_only).encode()
        for ascii_only in (True, False)
    }
    counted = set()
    for body in sent:
        found = read_fields(body)
        assert isinstance(found, dict)
        counted.add(input_tokens(found, estimate_tokens))
    assert len(sent) == 2
    assert max(counted) - min(counted) < 20  # each slice rounds up


TEXT_64K = "iVBORw0KGgo" * 5_000


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": f"data:image/png;base64,{TEXT_64K}"},
        {"type": "base64", "data": TEXT_64K},
        {"type": "image", "text": TEXT_64K},
        {"type": "image_url", "image_url": {"other": TEXT_64K}},
        {"type": "document", "source": {"type": "text", "data": TEXT_64K}},
        {"type": ["image"], "source": {"data": TEXT_64K}},
        {"type": "image_url", "image_url": {"url": "x"}, "text": TEXT_64K},
        {"type": "document", "source": {"type": "url", "url": "x"}, "context": TEXT_64K},
    ],
)
def test_base64_elsewhere_is_text(part: dict[str, Any]) -> None:
    """Only what an upstream reads as an image is one; text in disguise costs in full."""
    found = fields(messages=[{"role": "user", "content": [part]}])
    assert input_tokens(found, exact) >= exact(TEXT_64K.encode())
    assert input_tokens(found, estimate_tokens) >= exact(TEXT_64K.encode())


def test_a_field_named_twice_hides_nothing() -> None:
    """Parsers that keep the first of two texts would send on one that the last has replaced."""
    part = b'{"type":"image_url","image_url":{"url":"x"},"text":"%b","text":""}'
    found = {"messages": b"[%b]" % (part % TEXT_64K.encode())}
    assert input_tokens(found, exact) >= exact(TEXT_64K.encode())


def test_what_cannot_be_taken_apart_is_text() -> None:
    """Lone surrogates and images deeper than any real one are counted byte by byte."""
    image = {"type": "image", "source": {"type": "base64", "data": TEXT_64K}}
    broken = json.dumps([image, {"\ud800": 1}])
    assert input_tokens({"messages": broken.encode()}, exact) > len(TEXT_64K) / 3
    deep: Any = [image]
    for _ in range(12):
        deep = {"content": [deep]}
    assert input_tokens(fields(messages=deep), exact) > len(TEXT_64K) / 3
