"""What all families of the demo endpoint share: the model that is none, and how HTTP is spoken."""

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

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_WORD: Final = re.compile(r"\s*(?:\w+|[^\w\s])")
_LONGEST_ECHO: Final = 400
MOST_CHOICES: Final = 128


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


class RefusedError(Exception):
    """A request is not as the real service wants it."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model that is none has to say."""

    id: str
    tokens: tuple[str, ...]
    input_tokens: int
    cut_short: bool

    @property
    def text(self) -> str:
        """All tokens together."""
        return "".join(self.tokens)

    @property
    def finish(self) -> str:
        """Return OpenAI's word for why it ended."""
        return "length" if self.cut_short else "stop"


class Demo:
    """Checks callers and keeps the pace; each family adds its routes."""

    def __init__(self, settings: DemoSettings) -> None:
        """Keep the settings."""
        self.settings = settings

    def check_key(self, request: web.Request) -> None:
        """Take either header in either family: ``anthropic`` sends Bearer since its version 2."""
        key = request.headers.get("x-api-key", "")
        key = key or request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.settings.keys and key not in self.settings.keys:
            raise RefusedError(401, "Incorrect API key provided.")

    def check_model(self, body: dict[str, Any]) -> str:
        """Return the model that is asked for."""
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise RefusedError(400, "you must provide a model parameter", "model")
        if self.settings.strict_models and model not in self.settings.models:
            raise RefusedError(404, "The model does not exist.", "model")
        return model

    async def think(self, tokens: int) -> None:
        """Wait as long as a whole answer takes."""
        delay_s = self.settings.first_token_s + self.settings.token_s * tokens
        if delay_s > 0:
            await self.settings.pause(delay_s)

    async def paced(self, tokens: tuple[str, ...]) -> AsyncIterator[str]:
        """Yield tokens at the pace of the settings."""
        delay_s = self.settings.first_token_s
        for token in tokens:
            if delay_s > 0:
                await self.settings.pause(delay_s)
            yield token
            delay_s = self.settings.token_s


async def json_object(request: web.Request) -> dict[str, Any]:
    """Read a body, which must be one JSON object."""
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise RefusedError(400, "We could not parse the JSON body of your request.")
    return body


def read_messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the messages of a chat, each with a role."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RefusedError(400, "messages: at least one message is required", "messages")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise RefusedError(400, "messages: each needs a role and content", "messages")
    return messages


def whole_number(body: dict[str, Any], name: str, least: int, most: int) -> int | None:
    """Return a whole number within its bounds, or ``None`` where there is none."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise RefusedError(400, f"{name}: expected an integer from {least} to {most}", name)
    return value


def read_bound(body: dict[str, Any], name: str) -> int | None:
    """Return a bound on the answer."""
    return whole_number(body, name, 1, 1_000_000)


def read_flag(body: dict[str, Any], name: str) -> bool:
    """Return a boolean field."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise RefusedError(400, f"{name}: expected a boolean", name)
    return bool(value)


def asks_usage(body: dict[str, Any]) -> bool:
    """Tell whether a stream is to report its usage."""
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict) or not body.get("stream"):
        raise RefusedError(
            400, "stream_options: only allowed when stream is enabled", "stream_options"
        )
    return read_flag(options, "include_usage")


def make_answer(messages: list[dict[str, Any]], bound: int | None) -> Answer:
    """Return what is said to these messages: always the same to the same."""
    said = [text_of(message.get("content")) for message in messages]
    question = " ".join(said[-1].split())
    shown = question if len(question) <= _LONGEST_ECHO else question[:_LONGEST_ECHO] + "..."
    sentence = f'This is the demo model. You said: "{shown}"'
    tokens = tuple(_WORD.findall(sentence))
    kept = tokens if bound is None else tokens[:bound]
    return Answer(
        id=hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:24],
        tokens=kept,
        input_tokens=sum(4 + count_tokens(text) for text in said) + 3,
        cut_short=len(kept) < len(tokens),
    )


def count_tokens(text: str) -> int:
    """Return the tokens of a text: its words and marks."""
    return len(_WORD.findall(text))


def text_of(content: object) -> str:
    """Return the text of some content."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return " ".join(text for text in texts if isinstance(text, str))


def data_event(value: dict[str, Any]) -> bytes:
    """Write an event without a name."""
    return f"data: {compact(value)}\n\n".encode(errors="replace")


def named_event(value: dict[str, Any]) -> bytes:
    """Write an event that is named as its type."""
    return f"event: {value['type']}\ndata: {compact(value)}\n\n".encode(errors="replace")


def compact(value: object) -> str:
    """Write JSON without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


async def send_stream(
    request: web.Request, events: AsyncIterator[bytes], ids: dict[str, str]
) -> web.StreamResponse:
    """Stream events to a caller."""
    response = web.StreamResponse(
        headers={"content-type": "text/event-stream", "cache-control": "no-cache", **ids}
    )
    await response.prepare(request)
    async for event in events:
        await response.write(event)
    await response.write_eof()
    return response


def refusing(handler: Handler, error: Callable[[RefusedError], web.Response]) -> Handler:
    """Return the handler with its refusals said as ``error`` says them."""

    async def refusing(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except RefusedError as refused:
            return error(refused)

    return refusing


def openai_error(refused: RefusedError) -> web.Response:
    """Return a refusal as OpenAI writes it."""
    code = {401: "invalid_api_key", 404: "model_not_found"}.get(refused.status)
    error = {
        "message": refused.message,
        "type": "invalid_request_error",
        "param": refused.param,
        "code": code,
    }
    return web.json_response({"error": error}, status=refused.status)


def anthropic_error(refused: RefusedError) -> web.Response:
    """Return a refusal as Anthropic writes it."""
    kinds = {401: "authentication_error", 404: "not_found_error"}
    kind = kinds.get(refused.status, "invalid_request_error")
    error = {"type": kind, "message": refused.message}
    return web.json_response({"type": "error", "error": error}, status=refused.status)
