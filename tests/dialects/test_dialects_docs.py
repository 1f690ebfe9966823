"""The dialects' page says what the code does, and its example runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from support.asks import JSON, SSE, event

from gatekeeper.dialects import DIALECTS, REALTIME
from gatekeeper.dialects.base import Ask, Changes, Incoming
from gatekeeper.policy.model import Usage

PAGE = (Path(__file__).parents[2] / "docs" / "dialects.md").read_text(encoding="utf-8")


def test_every_dialect_has_its_row() -> None:
    """No more and no fewer than are registered."""
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted({REALTIME.name, *(dialect.name for dialect in DIALECTS)})


def test_the_example_is_a_dialect() -> None:
    """It reads, bounds and charges calls, whole and streamed, as it stands on the page."""
    code = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(code) == 1
    made: dict[str, Any] = {}
    example = compile(code[0], "dialects.md", "exec", dont_inherit=True)
    exec(example, made)  # noqa: S102 - the page is ours
    dialect = made["CohereChat"]()
    assert dialect.matches("POST", "/v2/chat")
    incoming = Incoming(b'{"model":"command","messages":[{"content":"hi"}],"max_tokens":9}')
    ask = dialect.read(incoming)
    assert isinstance(ask, Ask)
    assert (ask.model, ask.max_output_tokens) == ("command", 9)
    assert b'"max_tokens":5' in dialect.rewrite(incoming, ask, Changes(max_output_tokens=5))
    usage = {"tokens": {"input_tokens": 3, "output_tokens": 4}}
    text = {"type": "content-delta", "delta": {"message": {"content": {"text": "Hello"}}}}
    for headers, body in (
        (JSON, json.dumps({"usage": usage}).encode()),
        (SSE, event(text) + event({"type": "message-end", "delta": {"usage": usage}})),
    ):
        reader = dialect.reader(ask, headers)
        reader.feed(body)
        assert reader.result() == Usage(3, 4)
        assert reader.complete
