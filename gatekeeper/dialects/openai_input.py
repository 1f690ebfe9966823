"""OpenAI routes that only read: embeddings, moderations and the list of models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gatekeeper.dialects.base import Ask
from gatekeeper.dialects.openai import NO_MODEL, JsonRoute, free
from gatekeeper.dialects.openai_ask import given_tokens

if TYPE_CHECKING:
    from gatekeeper.dialects.base import Incoming
    from gatekeeper.dialects.body import Fields


class OpenAIEmbeddings(JsonRoute):
    """``POST .../embeddings``."""

    __slots__ = ()
    name = "openai_embeddings"
    tails = ("/embeddings",)

    def asked(self, fields: Fields, model: str | None, incoming: Incoming) -> Ask | str:
        """Return the input, which is all that there is."""
        if model is None:
            return NO_MODEL
        return Ask(model, input_tokens=given_tokens(fields, incoming.count))


class OpenAIModerations(JsonRoute):
    """``POST .../v1/moderations``, which report no usage: their input is charged as estimated."""

    __slots__ = ()
    name = "openai_moderations"
    tails = ("/v1/moderations",)

    def asked(self, fields: Fields, model: str | None, incoming: Incoming) -> Ask | str:
        """Return the input; a call that names no model gets one that has no price."""
        if model is None and "model" in fields:
            return NO_MODEL
        given = given_tokens(fields, incoming.count)
        return Ask(model, input_tokens=given, price_factor=1.0 if model else 0.0)


MODELS: Final = free("openai_models", "/models", "GET|HEAD ", "GET|HEAD /{path}")
