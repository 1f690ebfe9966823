"""The `openai` SDK's own realtime client through the gate, where its WebSocket library is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import openai
import pytest
from support.realtime import MODEL, limits, talking

if TYPE_CHECKING:
    from support.gates import Gates

websockets = pytest.importorskip("websockets")


async def test_turns_with_the_sdk(gates: Gates) -> None:
    """Connect, update the session, ask, and read the events as the SDK's own types."""
    async with talking(gates) as talk:
        client = talk.gate.openai()
        async with client.realtime.connect(model=MODEL) as connection:
            await connection.session.update(
                session={"type": "realtime", "output_modalities": ["text"]}
            )
            for _ in range(2):
                await connection.response.create()
                async for event in connection:
                    if event.type == "response.done":
                        assert event.response.usage is not None
                        assert event.response.usage.output_tokens == 5
                        break
        outcome = await talk.settled()
        assert (outcome["turns"], outcome["ending"]) == (2, "complete")


async def test_a_refused_handshake_with_the_sdk(gates: Gates) -> None:
    """The status reaches the caller."""
    async with talking(gates, rules=limits(output_tokens=1_000)) as talk:
        client = talk.gate.openai()
        async with client.realtime.connect(model=MODEL):
            with pytest.raises((websockets.exceptions.InvalidStatus, openai.APIError)) as refused:
                async with client.realtime.connect(model=MODEL, max_retries=0):
                    pass
            assert "429" in str(refused.value)


async def test_a_turn_without_room_with_the_sdk(gates: Gates) -> None:
    """The error event is one that the SDK knows."""
    async with talking(gates, rules=limits(output_tokens=1_000)) as talk:
        client = talk.gate.openai()
        async with client.realtime.connect(model=MODEL, max_retries=0) as connection:
            await connection.response.create()
            async for event in connection:
                if event.type == "response.done":
                    break
            await connection.response.create()
            async for event in connection:
                if event.type == "error":
                    assert event.error.code == "token_limit_exceeded"
                    assert "Decision id" in event.error.message
                    break
