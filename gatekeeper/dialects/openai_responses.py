"""OpenAI responses: bounded, perhaps in the background, with input that only the upstream has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from gatekeeper.dialects.answer_document import MOST_SHAPED_BYTES
from gatekeeper.dialects.body import flag
from gatekeeper.dialects.family import Family
from gatekeeper.dialects.openai import NO_MODEL, UNNAMED, JsonRoute, free
from gatekeeper.dialects.openai_ask import ask_of, last_speaks_the_model
from gatekeeper.dialects.output_bounds import Bound
from gatekeeper.dialects.response_stop import ResponseStopper
from gatekeeper.dialects.shaping.responses import ResponsesShaper
from gatekeeper.dialects.usage import text_pattern

if TYPE_CHECKING:
    from gatekeeper.dialects.base import Ask, Incoming
    from gatekeeper.dialects.body import Fields

RESPONSES: Final = Family(
    text_pattern("delta"),
    frozenset({"response.completed", "response.incomplete", "response.failed", "error"}),
    shaper=ResponsesShaper,
    most_event_bytes=MOST_SHAPED_BYTES,  # the last event holds all that was made, images too
    document_text=text_pattern("text", "refusal", "arguments", "code", "input"),
    stopper=ResponseStopper,
)
_WITH_LOGPROBS: Final = b"message.output_text.logprobs"


class OpenAIResponses(JsonRoute):
    """``POST .../responses``."""

    __slots__ = ()
    name = "openai_responses"
    tails = ("/responses",)
    family = RESPONSES
    bound_field = "max_output_tokens"
    obeyed = ("max_output_tokens",)

    def asked(self, fields: Fields, model: str | None, incoming: Incoming) -> Ask | str:
        """Return the worst case of what the body shows.

        A conversation, an earlier response or a stored prompt adds input that the settlement tells.
        Work in the background goes on without its caller. The API takes a call that names no model:
        a stored prompt may name it.
        """
        if model is None:
            if "model" in fields:
                return NO_MODEL
            model = UNNAMED
        background = flag(fields, "background")
        if isinstance(background, str):
            return background
        ask = ask_of(
            fields,
            model,
            incoming.count,
            prefill=last_speaks_the_model(fields.get("input")),
            held_unless_reported=background,
            obeyed=self.obeyed,
            usage_on_request=False,
        )
        if isinstance(ask, str):
            return ask
        if background:
            ask = replace(ask, outlasts=True)
        include = fields.get("include", b"")  # an escape in it may spell anything
        asks = _WITH_LOGPROBS in include or b"\\" in include
        return replace(ask, logprobs=True) if asks else ask


class OpenAIUnbounded(JsonRoute):
    """Routes that write a little and take no bound: compaction, decisions.

    The model's longest answer is held, and what is reported is charged.
    """

    __slots__ = ()
    name = "openai_responses"
    tails = ("/responses/compact", "/v1/decisions")
    family = RESPONSES

    def asked(self, fields: Fields, model: str | None, incoming: Incoming) -> Ask | str:
        """Return the input, and no bound."""
        if model is None:
            return NO_MODEL
        ask = ask_of(fields, model, incoming.count, bound=Bound(None), usage_on_request=False)
        return ask if isinstance(ask, str) else replace(ask, fixed_output=True)


class OpenAITokenCount(JsonRoute):
    """``POST .../input_tokens``: names a model, costs nothing."""

    __slots__ = ()
    name = "openai_responses"
    tails = ("/responses/input_tokens", "/chat/completions/input_tokens")


STORED_RESPONSES: Final = free(
    "openai_responses",
    "/responses/",
    "GET|HEAD|DELETE {id}",
    "POST {id}/cancel",
    "GET|HEAD {id}/input_items",
    shows=RESPONSES,
)
CONVERSATIONS: Final = free(
    "openai_responses",
    "/v1/conversations",
    "POST ",
    "GET|HEAD|POST|DELETE /{id}",
    "GET|HEAD|POST /{id}/items",
    "GET|HEAD|DELETE /{id}/items/{item}",
    shows=RESPONSES,
)
