"""Anthropic messages, as the demo endpoint speaks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from gatekeeper.demo.model import (
    Answer,
    Demo,
    RefusedError,
    json_object,
    make_answer,
    named_event,
    read_bound,
    read_flag,
    read_messages,
    send_stream,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class MessagesDemo(Demo):
    """Messages."""

    async def messages(self, request: web.Request) -> web.StreamResponse:
        """Answer the last message."""
        self.check_key(request)
        if "anthropic-version" not in request.headers:
            raise RefusedError(400, "anthropic-version: header is required")
        body = await json_object(request)
        model, messages = self.check_model(body), read_messages(body)
        bound = read_bound(body, "max_tokens")
        if bound is None:
            raise RefusedError(400, "max_tokens: Field required")
        answer = make_answer(messages, bound)
        reason = "max_tokens" if answer.cut_short else "end_turn"
        message: dict[str, Any] = {
            "id": f"msg_{answer.id}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [{"type": "text", "text": answer.text}],
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": {
                "input_tokens": answer.input_tokens,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": len(answer.tokens),
            },
        }
        ids = {"request-id": f"req_{answer.id}"}
        if read_flag(body, "stream"):
            return await send_stream(request, self._message_events(message, answer), ids)
        await self.think(len(answer.tokens))
        return web.json_response(message, headers=ids)

    async def _message_events(
        self, message: dict[str, Any], answer: Answer
    ) -> AsyncIterator[bytes]:
        start = {
            **message,
            "content": [],
            "stop_reason": None,
            "usage": {**message["usage"], "output_tokens": min(1, len(answer.tokens))},
        }
        yield named_event({"type": "message_start", "message": start})
        block = {"type": "text", "text": ""}
        yield named_event({"type": "content_block_start", "index": 0, "content_block": block})
        yield named_event({"type": "ping"})
        async for token in self.paced(answer.tokens):
            delta = {"type": "text_delta", "text": token}
            yield named_event({"type": "content_block_delta", "index": 0, "delta": delta})
        yield named_event({"type": "content_block_stop", "index": 0})
        yield named_event(
            {
                "type": "message_delta",
                "delta": {"stop_reason": message["stop_reason"], "stop_sequence": None},
                "usage": {"output_tokens": len(answer.tokens)},
            }
        )
        yield named_event({"type": "message_stop"})
