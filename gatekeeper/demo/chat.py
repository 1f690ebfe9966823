"""OpenAI chat completions and the list of models, as the demo endpoint speaks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from gatekeeper.demo.model import (
    MOST_CHOICES,
    Answer,
    Demo,
    RefusedError,
    asks_usage,
    data_event,
    json_object,
    make_answer,
    openai_error,
    read_bound,
    read_flag,
    read_messages,
    send_stream,
    whole_number,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class ChatDemo(Demo):
    """Chat completions and models."""

    async def models(self, _: web.Request) -> web.Response:
        """List the models."""
        rows = [self._model_row(name) for name in self.settings.models]
        return web.json_response({"object": "list", "data": rows})

    async def model(self, request: web.Request) -> web.Response:
        """Return one model."""
        name = request.match_info["model"]
        if name not in self.settings.models:
            return openai_error(RefusedError(404, "The model does not exist.", "model"))
        return web.json_response(self._model_row(name))

    def _model_row(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": 1_767_225_600, "owned_by": "gatekeeper"}

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer the last message, ``n`` times."""
        self.check_key(request)
        body = await json_object(request)
        model, messages = self.check_model(body), read_messages(body)
        bounds = [read_bound(body, name) for name in ("max_tokens", "max_completion_tokens")]
        choices = whole_number(body, "n", 1, MOST_CHOICES) or 1
        include_usage = asks_usage(body)
        answer = make_answer(messages, min((b for b in bounds if b is not None), default=None))
        head = {
            "id": f"chatcmpl-{answer.id}",
            "created": int(self.settings.clock()),
            "model": model,
        }
        written = len(answer.tokens) * choices
        usage = {
            "prompt_tokens": answer.input_tokens,
            "completion_tokens": written,
            "total_tokens": answer.input_tokens + written,
        }
        finish = answer.finish
        if read_flag(body, "stream"):
            head["object"] = "chat.completion.chunk"
            events = self._chat_events(
                head, answer, choices, finish, usage if include_usage else None
            )
            return await send_stream(request, events, {"x-request-id": f"req_{answer.id}"})
        await self.think(len(answer.tokens))
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        return web.json_response(
            {
                **head,
                "object": "chat.completion",
                "choices": [
                    {"index": i, "message": message, "logprobs": None, "finish_reason": finish}
                    for i in range(choices)
                ],
                "usage": usage,
            },
            headers={"x-request-id": f"req_{answer.id}"},
        )

    async def _chat_events(
        self,
        head: dict[str, Any],
        answer: Answer,
        choices: int,
        finish: str,
        usage: dict[str, int] | None,
    ) -> AsyncIterator[bytes]:
        asked: dict[str, Any] = {} if usage is None else {"usage": None}

        def chunk(index: int, delta: dict[str, str], reason: str | None = None) -> bytes:
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
            return data_event({**head, "choices": [choice], **asked})

        for index in range(choices):
            yield chunk(index, {"role": "assistant", "content": ""})
        async for token in self.paced(answer.tokens):
            for index in range(choices):
                yield chunk(index, {"content": token})
        for index in range(choices):
            yield chunk(index, {}, finish)
        if usage is not None:
            yield data_event({**head, "choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"
