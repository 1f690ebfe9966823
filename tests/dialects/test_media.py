"""Images, documents and recordings inside a prompt."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest

from gatekeeper.dialects.body import read_fields
from gatekeeper.dialects.estimate import estimate_tokens
from gatekeeper.dialects.media import (
    ANTHROPIC_IMAGE_TOKENS,
    AUDIO_BYTES_PER_TOKEN,
    MOST_DOCUMENT_TOKENS,
    OPENAI_COARSE_TOKENS,
    OPENAI_DETAILED_TOKENS,
    OPENAI_IMAGE_TOKENS,
    OPENAI_MINI_TOKENS,
    PAGE_TOKENS,
    RECORDING_TOKENS,
)
from gatekeeper.dialects.prompt import input_tokens

IMAGE = "iVBORw0KGgo" * 5_000
PDF = base64.b64encode(b"%PDF-1.7\n" + bytes(3_000_000)).decode()
AROUND = 80
"""Tokens of the message around a part, at most."""


def tokens_of(part: dict[str, Any], **body: Any) -> int:
    """Return the input tokens of a message with one part beside a question."""
    content = [{"type": "text", "text": "What is this?"}, part]
    sent = {"messages": [{"role": "user", "content": content}], **body}
    found = read_fields(json.dumps(sent).encode())
    assert isinstance(found, dict)
    return input_tokens(found, estimate_tokens)


def image_url(detail: str | None = None) -> dict[str, Any]:
    """Return a chat part with an image."""
    url = {"url": f"data:image/png;base64,{IMAGE}"}
    return {"type": "image_url", "image_url": url | ({"detail": detail} if detail else {})}


INPUT_IMAGE = {"type": "input_image", "image_url": f"data:image/png;base64,{IMAGE}"}


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        (image_url(), OPENAI_IMAGE_TOKENS),
        (image_url("auto"), OPENAI_IMAGE_TOKENS),
        (image_url("original"), OPENAI_IMAGE_TOKENS),
        (image_url("high"), OPENAI_DETAILED_TOKENS),
        (image_url("low"), OPENAI_COARSE_TOKENS),
        ({"type": "image_url", "image_url": "https://example.com/a.png"}, OPENAI_IMAGE_TOKENS),
        (INPUT_IMAGE, OPENAI_IMAGE_TOKENS),
        (INPUT_IMAGE | {"detail": "low"}, OPENAI_COARSE_TOKENS),
        ({"type": "input_image", "file_id": "file-1", "detail": "high"}, OPENAI_DETAILED_TOKENS),
        ({"type": "computer_screenshot", "image_url": "data:,"}, OPENAI_IMAGE_TOKENS),
        (
            {"type": "image", "source": {"type": "base64", "media_type": "i/p", "data": IMAGE}},
            ANTHROPIC_IMAGE_TOKENS,
        ),
        ({"type": "image", "source": {"type": "url", "url": "https://x"}}, ANTHROPIC_IMAGE_TOKENS),
        ({"type": "image", "source": {"type": "file", "file_id": "f"}}, ANTHROPIC_IMAGE_TOKENS),
    ],
)
def test_h12_images_cost_a_flat_number(part: dict[str, Any], tokens: int) -> None:
    """An image counts the same however it is sent; its base64 is not text."""
    assert tokens < tokens_of(part) < tokens + AROUND
    result = {"type": "tool_result", "content": [part]}
    assert tokens < tokens_of(result) < tokens + AROUND
    output = {"type": "function_call_output", "call_id": "c", "output": [part]}
    assert tokens < tokens_of({"type": "text", "text": ""}, input=[output]) < tokens + AROUND


def test_letters_of_media_may_be_escaped() -> None:
    r"""``"im\u0061ge_url"`` is an image to every parser, so it is one here."""
    sent = json.dumps({"messages": [{"content": [image_url()]}]})
    found = read_fields(sent.replace("image_url", "im\\u0061ge_url").encode())
    assert isinstance(found, dict)
    assert OPENAI_IMAGE_TOKENS < input_tokens(found, estimate_tokens) < OPENAI_IMAGE_TOKENS + AROUND


def test_the_model_that_counts_images_most() -> None:
    """An image of gpt-4o-mini costs 32 times its tokens."""
    assert tokens_of(image_url(), model="gpt-4o-mini-2024-07-18") > OPENAI_MINI_TOKENS
    assert tokens_of(image_url("low"), model="gpt-4o-mini") < OPENAI_COARSE_TOKENS + AROUND


def patches(width: int, height: int, most: int) -> int:
    """Count 32-pixel patches after scaling to at most ``most``, as OpenAI does."""
    raw = math.ceil(width / 32) * math.ceil(height / 32)
    if raw <= most:
        return raw
    scale = math.sqrt(most * 32 * 32 / (width * height))
    fit = min(
        math.floor(width * scale / 32) / (width * scale / 32),
        math.floor(height * scale / 32) / (height * scale / 32),
    )
    scaled = (math.ceil(round(side * scale * fit, 6) / 32) for side in (width, height))
    return math.prod(scaled)


def tiles(width: int, height: int) -> int:
    """Count 512-pixel tiles after scaling to 2,048 by 768, as OpenAI does."""
    scale = min(1.0, 2048 / max(width, height))
    scale = min(scale, 768 / min(width, height))
    return math.ceil(width * scale / 512) * math.ceil(height * scale / 512)


@pytest.mark.parametrize("width", [1, 512, 769, 2_048, 6_000, 8_000])
@pytest.mark.parametrize("height", [1, 512, 769, 2_048, 6_000, 8_000])
def test_no_size_costs_more_than_is_held(width: int, height: int) -> None:
    """The vendors' formulas, on the sizes that they take, stay below the flat numbers."""
    assert math.ceil(patches(width, height, 10_000) * 1.2) <= OPENAI_IMAGE_TOKENS
    assert math.ceil(patches(width, height, 2_500) * 1.2) <= OPENAI_DETAILED_TOKENS
    assert math.ceil(patches(width, height, 1_536) * 2.46) <= OPENAI_DETAILED_TOKENS
    assert 85 + 170 * tiles(width, height) <= OPENAI_DETAILED_TOKENS
    assert 2_833 + 5_667 * tiles(width, height) <= OPENAI_MINI_TOKENS
    assert ANTHROPIC_IMAGE_TOKENS > 1_568 * 1_568 / 750


@pytest.mark.parametrize(
    "part",
    [
        {"type": "document", "source": {"type": "base64", "data": PDF}},
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF}"}},
        {"type": "input_file", "file_data": PDF},
    ],
)
def test_documents_cost_by_size(part: dict[str, Any]) -> None:
    """A document of 3 MB is held for half a million tokens, one of any size for a million."""
    assert len(PDF) / 8 <= tokens_of(part) < len(PDF) / 8 + AROUND
    assert tokens_of({"type": "input_file", "file_data": PDF[:1_000]}) < PAGE_TOKENS + AROUND
    many = {"type": "input_file", "file_data": PDF * 3}
    assert tokens_of(many) < MOST_DOCUMENT_TOKENS + AROUND


def test_documents_of_text_cost_at_least_their_text() -> None:
    """A text file in base64 is held for no less than its text would be."""
    text = "港口很安静。The harbour was quiet.\n" * 300
    data = base64.b64encode(text.encode()).decode()
    tokens = tokens_of({"type": "input_file", "file_data": data})
    assert tokens >= estimate_tokens(text.encode())


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_file", "file_id": "file-1"},
        {"type": "input_file", "file_url": "https://example.com/a.pdf"},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
    ],
)
def test_documents_that_are_elsewhere_cost_a_page(part: dict[str, Any]) -> None:
    """What is only named is held for a page; how long it is cannot be seen."""
    assert PAGE_TOKENS < tokens_of(part) < PAGE_TOKENS + AROUND


def test_documents_of_parts_cost_their_parts() -> None:
    """A document given as content is its text and images."""
    source = {"type": "content", "content": [{"type": "text", "text": "a"}, image_url("low")]}
    tokens = tokens_of({"type": "document", "source": source})
    assert OPENAI_COARSE_TOKENS < tokens < OPENAI_COARSE_TOKENS + AROUND


def test_recordings_cost_by_size() -> None:
    """A recording costs a sixteenth of its base64, or a page where only its address is known."""
    inline = {"type": "input_audio", "input_audio": {"data": IMAGE, "format": "wav"}}
    least = len(IMAGE) / AUDIO_BYTES_PER_TOKEN
    assert least <= tokens_of(inline) < least + AROUND
    named = {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}}
    assert RECORDING_TOKENS <= tokens_of(named) < RECORDING_TOKENS + AROUND
