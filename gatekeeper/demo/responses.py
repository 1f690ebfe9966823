"""OpenAI responses, as the demo endpoint speaks them."""

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
    send_stream,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class ResponsesDemo(Demo):
    """Responses, streamed and not."""

    async def responses(self, request: web.Request) -> web.StreamResponse:
        """Answer the last message of the input."""
        self.check_key(request)
        body = await json_object(request)
        model = self.check_model(body)
        answer = make_answer(_messages(body), read_bound(body, "max_output_tokens"))
        text = {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}
        item = {
            "id": f"msg_{answer.id}",
            "type": "message",
            "role": "assistant",
            "status": "incomplete" if answer.cut_short else "completed",
            "content": [text],
        }
        response = {
            "id": f"resp_{answer.id}",
            "object": "response",
            "created_at": int(self.settings.clock()),
            "status": item["status"],
            "model": model,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if answer.cut_short else None,
            "output": [item],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": {
                "input_tokens": answer.input_tokens,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": len(answer.tokens),
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": answer.input_tokens + len(answer.tokens),
            },
        }
        ids = {"x-request-id": f"req_{answer.id}"}
        if read_flag(body, "stream"):
            return await send_stream(request, self._events(response, answer), ids)
        await self.think(len(answer.tokens))
        return web.json_response(response, headers=ids)

    async def _events(self, response: dict[str, Any], answer: Answer) -> AsyncIterator[bytes]:
        item = response["output"][0]
        text = item["content"][0]
        begun = {**response, "status": "in_progress", "output": [], "usage": None}
        begun["incomplete_details"] = None
        place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        opened = {**item, "status": "in_progress", "content": []}
        number = 0

        def event(kind: str, **fields: Any) -> bytes:
            nonlocal number
            number += 1
            return named_event({"type": kind, "sequence_number": number - 1, **fields})

        yield event("response.created", response=begun)
        yield event("response.in_progress", response=begun)
        yield event("response.output_item.added", output_index=0, item=opened)
        yield event("response.content_part.added", **place, part={**text, "text": ""})
        async for token in self.paced(answer.tokens):
            yield event("response.output_text.delta", **place, delta=token, logprobs=[])
        yield event("response.output_text.done", **place, text=answer.text, logprobs=[])
        yield event("response.content_part.done", **place, part=text)
        yield event("response.output_item.done", output_index=0, item=item)
        yield event(f"response.{response['status']}", response=response)


def _messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    given = body.get("input")
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(messages, list) or not messages:
        raise RefusedError(400, "input: a text or a list of messages is required", "input")
    if not all(isinstance(message, dict) for message in messages):
        raise RefusedError(400, "input: each item must be an object", "input")
    return messages
