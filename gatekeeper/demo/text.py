"""OpenAI completions, embeddings and moderations, as the demo endpoint speaks them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from gatekeeper.demo.model import (
    MOST_CHOICES,
    Answer,
    Demo,
    RefusedError,
    asks_usage,
    count_tokens,
    data_event,
    json_object,
    make_answer,
    read_bound,
    read_flag,
    send_stream,
    whole_number,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_DEFAULT_BOUND: Final = 16
_DIMENSIONS: Final = 8


class TextDemo(Demo):
    """Routes that take plain texts."""

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """Answer every prompt ``n`` times."""
        self.check_key(request)
        body = await json_object(request)
        model, prompts = self.check_model(body), _texts(body, "prompt")
        choices = whole_number(body, "n", 1, MOST_CHOICES) or 1
        bound = read_bound(body, "max_tokens") or _DEFAULT_BOUND
        include_usage = asks_usage(body)
        answers = [
            make_answer([{"content": prompt}], bound) for prompt in prompts for _ in range(choices)
        ]
        written = sum(len(answer.tokens) for answer in answers)
        given = sum(count_tokens(prompt) for prompt in prompts)
        usage = {
            "prompt_tokens": given,
            "completion_tokens": written,
            "total_tokens": given + written,
        }
        head = {
            "id": f"cmpl-{answers[0].id}",
            "object": "text_completion",
            "created": int(self.settings.clock()),
            "model": model,
        }
        if read_flag(body, "stream"):
            events = self._events(head, answers, usage if include_usage else None)
            return await send_stream(request, events, {"x-request-id": f"req_{answers[0].id}"})
        await self.think(written)
        rows = [_choice(index, each.text, each.finish) for index, each in enumerate(answers)]
        return web.json_response({**head, "choices": rows, "usage": usage})

    async def _events(
        self, head: dict[str, Any], answers: list[Answer], usage: dict[str, int] | None
    ) -> AsyncIterator[bytes]:
        asked: dict[str, Any] = {} if usage is None else {"usage": None}
        for index, answer in enumerate(answers):
            async for token in self.paced(answer.tokens):
                yield data_event({**head, "choices": [_choice(index, token, None)], **asked})
            yield data_event({**head, "choices": [_choice(index, "", answer.finish)], **asked})
        if usage is not None:
            yield data_event({**head, "choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        """Return vectors that are the same for the same text."""
        self.check_key(request)
        body = await json_object(request)
        model, texts = self.check_model(body), _texts(body, "input")
        given = sum(count_tokens(text) for text in texts)
        rows = [
            {"object": "embedding", "index": index, "embedding": _vector(text)}
            for index, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": given, "total_tokens": given}
        return web.json_response({"object": "list", "data": rows, "model": model, "usage": usage})

    async def moderations(self, request: web.Request) -> web.StreamResponse:
        """Flag nothing; like the real service, report no usage."""
        self.check_key(request)
        body = await json_object(request)
        result = {
            "flagged": False,
            "categories": {},
            "category_scores": {},
            "category_applied_input_types": {},
        }
        rows = [result for _ in _texts(body, "input")]
        model = body.get("model") or "omni-moderation-latest"
        return web.json_response({"id": "modr-demo", "model": model, "results": rows})


def _texts(body: dict[str, Any], name: str) -> list[str]:
    value = body.get(name)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise RefusedError(400, f"{name}: a text or a list of texts is required", name)
    return texts


def _choice(index: int, text: str, finish: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}


def _vector(text: str) -> list[float]:
    digest = hashlib.sha256(text.encode(errors="replace")).digest()
    return [byte / 128 - 1 for byte in digest[:_DIMENSIONS]]
