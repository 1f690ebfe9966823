"""OpenAI chat completions, as spoken by most model servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from gatekeeper.dialects.body import MOST_TOKENS
from gatekeeper.dialects.family import Family
from gatekeeper.dialects.openai import NO_MODEL, JsonRoute, free
from gatekeeper.dialects.openai_ask import (
    ask_of,
    given_tokens,
    is_set,
    last_speaks_the_model,
)
from gatekeeper.dialects.openai_stop import chat_stopper
from gatekeeper.dialects.openai_stream import hide_usage
from gatekeeper.dialects.output_bounds import bound_of
from gatekeeper.dialects.shaping.chat import ChatShaper
from gatekeeper.dialects.usage import text_pattern
from gatekeeper.policy.model import NO_PARTS, UsageParts

if TYPE_CHECKING:
    from gatekeeper.dialects.base import Ask, Changes, Incoming
    from gatekeeper.dialects.body import Fields

CHAT: Final = Family(
    text_pattern("content", "reasoning_content", "reasoning", "refusal", "arguments", "transcript"),
    frozenset(),
    hide_usage,
    shaper=ChatShaper,
    stopper=chat_stopper,
)
CHAT_BOUNDS: Final = ("max_tokens", "max_completion_tokens")
_FALSE: Final = b"false"
_SPOKEN: Final = frozenset({"modalities", "audio"})
_CONTINUED: Final = frozenset({"continue_final_message", "add_generation_prompt"})


class OpenAIChat(JsonRoute):
    """``POST .../chat/completions``."""

    __slots__ = ()
    name = "openai_chat"
    tails = ("/chat/completions",)
    family = CHAT
    bound_field = "max_completion_tokens"
    obeyed = CHAT_BOUNDS

    def asked(self, fields: Fields, model: str | None, incoming: Incoming) -> Ask | str:
        """Return the worst case; the largest of all bounds counts, over all choices (H23)."""
        if model is None:
            return NO_MODEL
        return chat_ask(fields, model, incoming)

    def rewrite(self, incoming: Incoming, ask: Ask, changes: Changes) -> bytes:  # noqa: ARG002 - the protocol's signature
        """Return the body with ``changes`` made in place; servers differ in the bound's name."""
        return self.changed(incoming.body, changes, changes.bound_field or self.bound_field)


def chat_ask(
    fields: Fields, model: str, incoming: Incoming, conversations: tuple[bytes, ...] = ()
) -> Ask | str:
    """Return what a chat asks, or several at once (``conversations``).

    Speech is held whole, since a piece of it tells no tokens. What is stored can be fetched later,
    by a caller that has left.
    """
    bound = bound_of(fields, obeyed=CHAT_BOUNDS)
    if isinstance(bound, str):
        return bound
    if bound.most is not None and "prediction" in fields:  # what is not used of it bills as output
        predicted = given_tokens({"prediction": fields["prediction"]}, incoming.count)
        bound = bound._replace(most=bound.most + predicted)
    speaks = not _SPOKEN.isdisjoint(fields) and _speaks(fields)
    messages = fields.get("messages")
    hears = messages is not None and b'"input_audio"' in messages
    parts = NO_PARTS
    if speaks or hears:
        parts = UsageParts(
            audio_input_tokens=given_tokens(fields, incoming.count) if hears else 0,
            audio_output_tokens=MOST_TOKENS if speaks else 0,
        )
    ask = ask_of(
        fields,
        model,
        incoming.count,
        prompts=max(1, len(conversations)),
        prefill=any(_prefilled(fields, each) for each in conversations or (messages,)),
        parts=parts,
        held_unless_reported=speaks,
        bound=bound,
    )
    if isinstance(ask, str) or not is_set(fields, "store"):
        return ask
    # A stream ends with its caller; a document is whole when its first byte comes.
    return replace(ask, outlasts=True, held_unless_reported=speaks or not ask.stream)


def _speaks(fields: Fields) -> bool:
    modalities = fields.get("modalities", b"")  # an escape in it may spell anything
    return b"audio" in modalities or b"\\" in modalities or is_set(fields, "audio")


def _prefilled(fields: Fields, messages: bytes | None) -> bool:
    """Tell whether the caller begins the answer; vLLM has fields of its own for that."""
    if last_speaks_the_model(messages):
        return True
    return not _CONTINUED.isdisjoint(fields) and (
        is_set(fields, "continue_final_message") or fields.get("add_generation_prompt") == _FALSE
    )


STORED_CHATS: Final = free(
    "openai_chat",
    "/chat/completions",
    "GET|HEAD ",
    "GET|HEAD|DELETE /{id}",
    "POST /chatcmpl-{id}",  # no other word: it might generate
    "GET|HEAD /{id}/messages",
    shows=CHAT,
)
