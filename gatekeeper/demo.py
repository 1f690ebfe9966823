"""A model endpoint without a model: OpenAI chat completions and Anthropic messages, for trying out.

``gatekeeper demo`` serves it. Answers are the same for the same question and usage is
plausible, so that everything in front of it can be seen to work. It checks requests as the real
services do where SDKs and gateways depend on it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    _Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_WORD: Final = re.compile(r"\s*(?:\w+|[^\w\s])")
_LONGEST_ECHO: Final = 400
_MOST_CHOICES: Final = 128
_MOST_BODY_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """How the demo endpoint behaves."""

    models: tuple[str, ...] = ("demo-small", "demo-large")
    """Listed under ``/v1/models``; any other name is answered too unless ``strict_models``."""
    strict_models: bool = False
    keys: frozenset[str] = frozenset()
    """Keys that are taken; empty: any, or none at all."""
    first_token_s: float = 0.0
    token_s: float = 0.0
    """Pause before each further token."""
    clock: Callable[[], float] = time.time
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep


class _RefusedError(Exception):
    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param


@dataclass(frozen=True, slots=True)
class _Answer:
    id: str
    tokens: tuple[str, ...]
    input_tokens: int
    cut_short: bool

    @property
    def text(self) -> str:
        return "".join(self.tokens)


def build_demo_app(settings: DemoSettings | None = None) -> web.Application:
    """Return the demo endpoint as an application."""
    demo = _Demo(settings or DemoSettings())
    app = web.Application(client_max_size=_MOST_BODY_BYTES)
    app.add_routes(
        [
            web.get("/health", _health),
            web.get("/v1/models", demo.models),
            web.get("/v1/models/{model}", demo.model),
            web.post("/v1/chat/completions", _refusing(demo.chat, _openai_error)),
            web.post("/v1/messages", _refusing(demo.messages, _anthropic_error)),
        ]
    )
    return app


async def _health(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


class _Demo:
    def __init__(self, settings: DemoSettings) -> None:
        self._settings = settings

    async def models(self, _: web.Request) -> web.Response:
        rows = [self._model_row(name) for name in self._settings.models]
        return web.json_response({"object": "list", "data": rows})

    async def model(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]
        if name not in self._settings.models:
            return _openai_error(_RefusedError(404, "The model does not exist.", "model"))
        return web.json_response(self._model_row(name))

    def _model_row(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": 1_767_225_600, "owned_by": "gatekeeper"}

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self._check_key(request)
        body = await _json_object(request)
        model, messages = self._check_model(body), _messages(body)
        bounds = [_bound(body, name) for name in ("max_tokens", "max_completion_tokens")]
        choices = _whole(body, "n", 1, _MOST_CHOICES) or 1
        include_usage = _include_usage(body)
        answer = _answer(messages, min((b for b in bounds if b is not None), default=None))
        head = {
            "id": f"chatcmpl-{answer.id}",
            "created": int(self._settings.clock()),
            "model": model,
        }
        written = len(answer.tokens) * choices
        usage = {
            "prompt_tokens": answer.input_tokens,
            "completion_tokens": written,
            "total_tokens": answer.input_tokens + written,
        }
        finish = "length" if answer.cut_short else "stop"
        if _flag(body, "stream"):
            head["object"] = "chat.completion.chunk"
            events = self._chat_events(
                head, answer, choices, finish, usage if include_usage else None
            )
            return await _stream(request, events, {"x-request-id": f"req_{answer.id}"})
        await self._think(len(answer.tokens))
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
        answer: _Answer,
        choices: int,
        finish: str,
        usage: dict[str, int] | None,
    ) -> AsyncIterator[bytes]:
        asked: dict[str, Any] = {} if usage is None else {"usage": None}

        def chunk(index: int, delta: dict[str, str], reason: str | None = None) -> bytes:
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
            return _data({**head, "choices": [choice], **asked})

        for index in range(choices):
            yield chunk(index, {"role": "assistant", "content": ""})
        async for token in self._paced(answer.tokens):
            for index in range(choices):
                yield chunk(index, {"content": token})
        for index in range(choices):
            yield chunk(index, {}, finish)
        if usage is not None:
            yield _data({**head, "choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"

    async def messages(self, request: web.Request) -> web.StreamResponse:
        self._check_key(request)
        if "anthropic-version" not in request.headers:
            raise _RefusedError(400, "anthropic-version: header is required")
        body = await _json_object(request)
        model, messages = self._check_model(body), _messages(body)
        bound = _bound(body, "max_tokens")
        if bound is None:
            raise _RefusedError(400, "max_tokens: Field required")
        answer = _answer(messages, bound)
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
        if _flag(body, "stream"):
            return await _stream(request, self._message_events(message, answer), ids)
        await self._think(len(answer.tokens))
        return web.json_response(message, headers=ids)

    async def _message_events(
        self, message: dict[str, Any], answer: _Answer
    ) -> AsyncIterator[bytes]:
        start = {
            **message,
            "content": [],
            "stop_reason": None,
            "usage": {**message["usage"], "output_tokens": min(1, len(answer.tokens))},
        }
        yield _event({"type": "message_start", "message": start})
        block = {"type": "text", "text": ""}
        yield _event({"type": "content_block_start", "index": 0, "content_block": block})
        yield _event({"type": "ping"})
        async for token in self._paced(answer.tokens):
            delta = {"type": "text_delta", "text": token}
            yield _event({"type": "content_block_delta", "index": 0, "delta": delta})
        yield _event({"type": "content_block_stop", "index": 0})
        yield _event(
            {
                "type": "message_delta",
                "delta": {"stop_reason": message["stop_reason"], "stop_sequence": None},
                "usage": {"output_tokens": len(answer.tokens)},
            }
        )
        yield _event({"type": "message_stop"})

    def _check_key(self, request: web.Request) -> None:
        """Take either header in either family: ``anthropic`` sends Bearer since its version 2."""
        key = request.headers.get("x-api-key", "")
        key = key or request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._settings.keys and key not in self._settings.keys:
            raise _RefusedError(401, "Incorrect API key provided.")

    def _check_model(self, body: dict[str, Any]) -> str:
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise _RefusedError(400, "you must provide a model parameter", "model")
        if self._settings.strict_models and model not in self._settings.models:
            raise _RefusedError(404, "The model does not exist.", "model")
        return model

    async def _think(self, tokens: int) -> None:
        delay_s = self._settings.first_token_s + self._settings.token_s * tokens
        if delay_s > 0:
            await self._settings.pause(delay_s)

    async def _paced(self, tokens: tuple[str, ...]) -> AsyncIterator[str]:
        delay_s = self._settings.first_token_s
        for token in tokens:
            if delay_s > 0:
                await self._settings.pause(delay_s)
            yield token
            delay_s = self._settings.token_s


async def _json_object(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise _RefusedError(400, "We could not parse the JSON body of your request.")
    return body


def _messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _RefusedError(400, "messages: at least one message is required", "messages")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _RefusedError(400, "messages: each needs a role and content", "messages")
    return messages


def _whole(body: dict[str, Any], name: str, least: int, most: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _RefusedError(400, f"{name}: expected an integer from {least} to {most}", name)
    return value


def _bound(body: dict[str, Any], name: str) -> int | None:
    return _whole(body, name, 1, 1_000_000)


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise _RefusedError(400, f"{name}: expected a boolean", name)
    return bool(value)


def _include_usage(body: dict[str, Any]) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict) or not body.get("stream"):
        raise _RefusedError(
            400, "stream_options: only allowed when stream is enabled", "stream_options"
        )
    return _flag(options, "include_usage")


def _answer(messages: list[dict[str, Any]], bound: int | None) -> _Answer:
    said = [_text_of(message.get("content")) for message in messages]
    question = " ".join(said[-1].split())
    shown = question if len(question) <= _LONGEST_ECHO else question[:_LONGEST_ECHO] + "..."
    sentence = f'This is the demo model. You said: "{shown}"'
    tokens = tuple(_WORD.findall(sentence))
    kept = tokens if bound is None else tokens[:bound]
    return _Answer(
        id=hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:24],
        tokens=kept,
        input_tokens=sum(4 + len(_WORD.findall(text)) for text in said) + 3,
        cut_short=len(kept) < len(tokens),
    )


def _text_of(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return " ".join(text for text in texts if isinstance(text, str))


def _data(value: dict[str, Any]) -> bytes:
    return f"data: {_compact(value)}\n\n".encode(errors="replace")


def _event(value: dict[str, Any]) -> bytes:
    return f"event: {value['type']}\ndata: {_compact(value)}\n\n".encode(errors="replace")


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


async def _stream(
    request: web.Request, events: AsyncIterator[bytes], ids: dict[str, str]
) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={"content-type": "text/event-stream", "cache-control": "no-cache", **ids}
    )
    await response.prepare(request)
    async for event in events:
        await response.write(event)
    await response.write_eof()
    return response


def _refusing(handler: _Handler, error: Callable[[_RefusedError], web.Response]) -> _Handler:
    async def refusing(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except _RefusedError as refused:
            return error(refused)

    return refusing


def _openai_error(refused: _RefusedError) -> web.Response:
    code = {401: "invalid_api_key", 404: "model_not_found"}.get(refused.status)
    error = {
        "message": refused.message,
        "type": "invalid_request_error",
        "param": refused.param,
        "code": code,
    }
    return web.json_response({"error": error}, status=refused.status)


def _anthropic_error(refused: _RefusedError) -> web.Response:
    kinds = {401: "authentication_error", 404: "not_found_error"}
    kind = kinds.get(refused.status, "invalid_request_error")
    error = {"type": kind, "message": refused.message}
    return web.json_response({"type": "error", "error": error}, status=refused.status)
