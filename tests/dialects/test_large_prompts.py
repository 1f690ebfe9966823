"""Large prompts are counted in small steps and copied once (H12)."""

from __future__ import annotations

import base64
import json
import random
import tracemalloc
from typing import Any

import pytest

from gatekeeper.dialects.base import Ask, Incoming
from gatekeeper.dialects.estimate import estimate_tokens
from gatekeeper.dialects.openai_chat import OpenAIChat

CHAT = OpenAIChat()
SIZE = 6_000_000
IMAGE = "data:image/png;base64," + base64.b64encode(random.Random(12).randbytes(SIZE)).decode()
PROSE = ("The harbour was quiet, and nobody could say why.\n" * (SIZE // 40))[:SIZE]
CONTENTS: dict[str, Any] = {
    "prose": PROSE,
    "one word": "a" * SIZE,
    "chinese, escaped": "港口很安静" * (SIZE // 30),
    "escapes": '\\"\n' * (SIZE // 6),
    "image": [{"type": "image_url", "image_url": {"url": IMAGE}}],
    "image and prose": [
        {"type": "text", "text": PROSE},
        {"type": "image_url", "image_url": {"url": IMAGE}},
    ],
    "image in a tool's result": [
        {"type": "tool_result", "content": [{"type": "image", "source": {"data": IMAGE}}]}
    ],
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_h12_large_prompts_are_counted_in_steps_and_copied_once(kind: str) -> None:
    """No step is given more than a slice, and besides the body there is one copy of its field."""
    message = {"role": "user", "content": CONTENTS[kind]}
    body = json.dumps({"model": "m", "messages": [message]}).encode()
    steps: list[int] = []

    def count(text: bytes) -> int:
        steps.append(len(text))
        return estimate_tokens(text)

    tracemalloc.start()
    try:
        ask = CHAT.read(Incoming(body, count=count))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(ask, Ask)
    assert max(steps) < 20_000
    assert peak_bytes < 1.1 * len(body)
