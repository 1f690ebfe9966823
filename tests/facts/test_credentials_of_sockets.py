"""The key that a page sends as subprotocol of a WebSocket, since it can set no header."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from gatekeeper.facts.credentials import _presented, _RefusedError

OFFER = "realtime, openai-insecure-api-key.sk-1, openai-beta.realtime-v1"


@pytest.mark.parametrize(
    ("lines", "secret"),
    [
        ([("Sec-WebSocket-Protocol", OFFER)], "sk-1"),
        ([("Sec-WebSocket-Protocol", "realtime")], None),
        ([("Sec-WebSocket-Protocol", "x-openai-insecure-api-key.sk-1")], None),
        ([("Sec-WebSocket-Protocol", "realtime"), ("Sec-WebSocket-Protocol", OFFER)], "sk-1"),
        ([("Sec-WebSocket-Protocol", OFFER), ("Authorization", "Bearer sk-1")], "sk-1"),
    ],
)
def test_the_key_among_subprotocols(lines: list[tuple[str, str]], secret: str | None) -> None:
    """It is a credential as any other."""
    assert _presented(CIMultiDict(lines)) == secret


@pytest.mark.parametrize(
    "lines",
    [
        [("Sec-WebSocket-Protocol", OFFER), ("Authorization", "Bearer sk-2")],
        [("Sec-WebSocket-Protocol", f"{OFFER}, openai-insecure-api-key.sk-2")],
        [("Sec-WebSocket-Protocol", OFFER), ("Sec-WebSocket-Protocol", OFFER)],
    ],
)
def test_h5_two_credentials_are_refused(lines: list[tuple[str, str]]) -> None:
    """The upstream might read the other one."""
    with pytest.raises(_RefusedError):
        _presented(CIMultiDict(lines))
