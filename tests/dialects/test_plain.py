"""Calls of no known dialect."""

from __future__ import annotations

from gatekeeper.dialects import PLAIN
from gatekeeper.dialects.base import Ask, Incoming
from gatekeeper.policy.model import Usage


def test_h24_plain_calls_ask_and_cost_nothing() -> None:
    """Bodies are not looked at, and answers are charged no tokens whatever they say."""
    assert PLAIN.read(Incoming(b"\x00\xff anything")) == Ask()
    reader = PLAIN.reader(Ask(), {"content-type": "application/json"})
    reader.feed(b'{"usage":{"prompt_tokens":5,"completion_tokens":5}}')
    assert reader.result() == Usage()
    assert reader.complete
    assert not reader.mid_event
