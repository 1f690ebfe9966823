"""A model endpoint without a model: OpenAI's text families and Anthropic messages, for trying out.

``gatekeeper demo`` serves it. Answers are the same for the same question and usage is
plausible, so that everything in front of it can be seen to work. It checks requests as the real
services do where SDKs and gateways depend on it.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from gatekeeper.demo.chat import ChatDemo
from gatekeeper.demo.messages import MessagesDemo
from gatekeeper.demo.model import DemoSettings, anthropic_error, openai_error, refusing
from gatekeeper.demo.responses import ResponsesDemo
from gatekeeper.demo.text import TextDemo

__all__ = ["DemoSettings", "build_demo_app"]

_MOST_BODY_BYTES: Final = 64 * 1024 * 1024


def build_demo_app(settings: DemoSettings | None = None) -> web.Application:
    """Return the demo endpoint as an application."""
    settings = settings or DemoSettings()
    chat, text, responses = ChatDemo(settings), TextDemo(settings), ResponsesDemo(settings)
    app = web.Application(client_max_size=_MOST_BODY_BYTES)
    app.add_routes(
        [
            web.get("/health", _health),
            web.get("/v1/models", chat.models),
            web.get("/v1/models/{model}", chat.model),
            web.post("/v1/chat/completions", refusing(chat.chat, openai_error)),
            web.post("/v1/completions", refusing(text.completions, openai_error)),
            web.post("/v1/embeddings", refusing(text.embeddings, openai_error)),
            web.post("/v1/moderations", refusing(text.moderations, openai_error)),
            web.post("/v1/responses", refusing(responses.responses, openai_error)),
            web.post("/v1/messages", refusing(MessagesDemo(settings).messages, anthropic_error)),
        ]
    )
    return app


async def _health(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})
