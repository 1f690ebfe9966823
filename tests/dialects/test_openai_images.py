"""What images ask, what they cost, and how fewer are asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gatekeeper.dialects import dialect_for
from gatekeeper.dialects.base import Ask, Changes, Incoming
from gatekeeper.dialects.openai_images import INPUT_IMAGE_TOKENS, MOST_IMAGE_TOKENS
from gatekeeper.policy.model import UsageParts

IMAGES = dialect_for("POST", "/v1/images/generations")
FORM = "multipart/form-data; boundary=B"
JSON = {"content-type": "application/json"}
SSE = {"content-type": "text/event-stream"}


def read(**body: Any) -> Ask | str:
    """Read a JSON body."""
    return IMAGES.read(Incoming(json.dumps({"prompt": "A cat", **body}).encode()))


def form(*fields: tuple[str, str], pictures: int = 1) -> bytes:
    """Return a form with pictures."""
    parts = [
        f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields
    ]
    picture = b'--B\r\nContent-Disposition: form-data; name="image[]"; filename="a"\r\n\r\n\xff\r\n'
    return b"".join((*parts, *[picture] * pictures, b"--B--\r\n"))


@pytest.mark.parametrize(
    ("body", "output", "images"),
    [
        ({}, MOST_IMAGE_TOKENS, 1),
        ({"model": "gpt-image-1", "n": 3}, 3 * MOST_IMAGE_TOKENS, 3),
        ({"quality": "low", "size": "1024x1024"}, 408, 1),
        ({"quality": "high", "size": "1536x1024", "n": 2}, 12_480, 2),
        ({"quality": "high", "size": "3840x2160"}, MOST_IMAGE_TOKENS, 1),
        ({"quality": "auto", "size": "1024x1024"}, MOST_IMAGE_TOKENS, 1),
        ({"quality": "low", "size": "1024x1024", "partial_images": 2}, 608, 1),
        ({"quality": "low", "size": "1024x1024", "partial_images": 99}, 708, 1),
    ],
)
def test_what_is_not_said_is_taken_for_the_dearest(
    body: dict[str, Any], output: int, images: int
) -> None:
    """Each image at the size and quality that are named, partial ones included."""
    ask = read(**body)
    assert isinstance(ask, Ask)
    assert (ask.max_output_tokens, ask.choices, ask.fixed_output) == (output, images, True)
    assert ask.parts == UsageParts(image_output_tokens=output, images=images)


def test_a_form_asks_the_same() -> None:
    """Pictures to start from are input."""
    body = form(("model", "gpt-image-1"), ("n", "2"), ("prompt", "A cat"), ("stream", "true"))
    ask = IMAGES.read(Incoming(body, content_type=FORM))
    assert isinstance(ask, Ask)
    assert (ask.model, ask.choices, ask.stream) == ("gpt-image-1", 2, True)
    assert ask.parts.image_input_tokens == INPUT_IMAGE_TOKENS < ask.input_tokens


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([("n", "0")], "`n` must be"),
        ([("n", "1_0")], "`n` must be"),
        ([("n", "٣")], "`n` must be"),
        ([("n", "1"), ("n", "9")], "a field twice"),
        ([("model", "\n")], "`model` must be"),
        ([("stream", "yes")], "`stream` must be"),
    ],
)
def test_fields_of_a_form_have_one_meaning(fields: list[tuple[str, str]], said: str) -> None:
    """A number that another server reads otherwise is refused."""
    assert said in str(IMAGES.read(Incoming(form(*fields), content_type=FORM)))


@pytest.mark.parametrize(
    ("body", "said"), [({"n": 0}, "`n` must"), ({"model": 7}, "`model`"), ({"stream": 1}, "`str")]
)
def test_fields_of_a_body_have_one_meaning(body: dict[str, Any], said: str) -> None:
    """As everywhere."""
    assert said in str(read(**body))
    assert isinstance(IMAGES.read(Incoming(b"[")), str)


def test_fewer_images_are_asked_for_in_place() -> None:
    """In both forms of a body; nothing else changes, and nothing bounds an image."""
    text = b'{"n": 4, "prompt":"A cat"}'
    lower = Changes(max_choices=2)
    assert IMAGES.rewrite(Incoming(text), Ask(), lower) == text.replace(b"4", b"2")
    assert IMAGES.rewrite(Incoming(text), Ask(), Changes()) == text
    body = form(("n", "4"), ("prompt", "4"))
    changed = IMAGES.rewrite(Incoming(body, content_type=FORM), Ask(), lower)
    assert changed == body.replace(b"\r\n4\r\n", b"\r\n2\r\n", 1)
    few = form(("n", "1"))
    assert IMAGES.rewrite(Incoming(few, content_type=FORM), Ask(), lower) == few


def test_reported_usage_counts_to_the_token() -> None:
    """Behind megabytes of pictures, too."""
    usage = (
        b'"usage":{"input_tokens":50,"output_tokens":4160,"total_tokens":4210,'
        b'"input_tokens_details":{"text_tokens":10,"image_tokens":40}}'
    )
    for picture in (b"A" * 10, b"A" * 5_000_000):
        reader = IMAGES.reader(Ask("m", max_output_tokens=9_000), JSON)
        reader.feed(b'{"created":1,"data":[{"b64_json":"' + picture + b'"}],' + usage + b"}")
        found = reader.result()
        assert found is not None
        assert (found.input_tokens, found.output_tokens, found.estimated) == (50, 4_160, False)
        assert found.parts.image_input_tokens == 40


def test_a_streamed_image_tells_its_usage_at_the_end() -> None:
    """In one event that is larger than any text."""
    done = (
        b'event: image_generation.completed\ndata: {"type":"image_generation.completed",'
        b'"b64_json":"' + b"A" * 6_000_000 + b'","usage":{"input_tokens":5,"output_tokens":272}}'
    )
    reader = IMAGES.reader(Ask("m", stream=True, max_output_tokens=9_000), SSE)
    reader.feed(done + b"\n\n")
    found = reader.result()
    assert reader.complete
    assert found is not None
    assert (found.input_tokens, found.output_tokens, found.estimated) == (5, 272, False)


def test_images_that_report_nothing_are_billed_by_the_piece() -> None:
    """As many as were asked for; marked as not reported."""
    ask = read(n=2)
    assert isinstance(ask, Ask)
    reader = IMAGES.reader(ask, JSON)
    reader.feed(b'{"created":1,"data":[{"url":"a"},{"url":"b"}]}')
    found = reader.result()
    assert found is not None
    assert (found.parts.images, found.estimated) == (2, True)
