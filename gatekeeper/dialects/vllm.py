"""vLLM's own routes: pooling, scoring, tokens in and out; several are llama.cpp's and Cohere's too.

What it adds to chat and completions is read there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from gatekeeper.dialects.base import Ask
from gatekeeper.dialects.body import in_place, read_fields
from gatekeeper.dialects.family import Family
from gatekeeper.dialects.json_spans import Edit, applied
from gatekeeper.dialects.openai import NO_MODEL, FreeRoutes, JsonRoute
from gatekeeper.dialects.openai_ask import ask_of, given_tokens, prompts_in
from gatekeeper.dialects.openai_chat import CHAT, OpenAIChat, chat_ask
from gatekeeper.dialects.openai_stream import hide_usage
from gatekeeper.dialects.shaping.chat import ChatShaper
from gatekeeper.dialects.unread import NOTHING
from gatekeeper.dialects.usage import text_pattern

if TYPE_CHECKING:
    from gatekeeper.dialects.base import Changes, Incoming
    from gatekeeper.dialects.body import Fields

_ONCE_EACH: Final = ("query", "text_1", "data_1", "queries")
"""What is read anew with each of the other texts."""
_OTHERS: Final = ("documents", "text_2", "data_2", "items")
_SAMPLING: Final = "sampling_params"
_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ANY: Final = Family(
    text_pattern("content", "reasoning_content", "reasoning", "refusal", "arguments", "text"),
    frozenset(),
    hide_usage,
    shaper=ChatShaper,
)


class VllmBatchChat(OpenAIChat):
    """``POST .../chat/completions/batch``: several conversations at once."""

    __slots__ = ()
    name = "vllm"
    tails = ("/chat/completions/batch",)
    family = CHAT

    def asked(self, fields: Fields, model: str | None, incoming: Incoming) -> Ask | str:
        """Return the worst case over all conversations."""
        if model is None:
            return NO_MODEL
        messages = fields.get("messages", b"")
        found = _ITEMS.decode(messages) if messages.startswith(b"[") else []
        return chat_ask(fields, model, incoming, tuple(bytes(each) for each in found))


class VllmPooling(JsonRoute):
    """Routes that read and write nothing: pooling, classes, scores, ranks, embeddings."""

    __slots__ = ()
    name = "vllm"
    tails = ("/pooling", "/classify", "/score", "/rerank", "/reranking", "/v2/embed",
             "/generative_scoring")  # fmt: skip
    family = NOTHING

    def asked(self, fields: Fields, model: str | None, incoming: Incoming) -> Ask | str:
        """Return the input; a query is read once with each text that it is held against (H23)."""
        if model is None:
            return NO_MODEL
        given = given_tokens(fields, incoming.count)
        times = max(_length(fields.get(name)) for name in _OTHERS)
        if times > 1:
            query: Fields = {name: fields[name] for name in _ONCE_EACH if name in fields}
            given += (times - 1) * given_tokens(query, incoming.count)
        return Ask(model, input_tokens=given)


class VllmGenerate(JsonRoute):
    """``POST .../inference/v1/generate``: tokens in, tokens out, told by nothing else."""

    __slots__ = ()
    name = "vllm"
    tails = ("/inference/v1/generate",)
    family = _ANY

    def asked(self, fields: Fields, model: str | None, incoming: Incoming) -> Ask | str:
        """Return the worst case, whose bound stands among the sampling parameters."""
        if model is None:
            return NO_MODEL
        inner = read_fields(fields.get(_SAMPLING, b"{}"))
        if isinstance(inner, str):
            return f"The field `{_SAMPLING}` must be an object that names nothing twice."
        return ask_of(
            {**fields, **inner, "stream": fields.get("stream", b"false")},
            model,
            incoming.count,
            held_unless_reported=True,
            usage_on_request=False,
        )

    def rewrite(self, incoming: Incoming, ask: Ask, changes: Changes) -> bytes:  # noqa: ARG002 - the protocol's signature
        """Return the body with ``changes`` made among the sampling parameters."""
        body = incoming.body
        for each in in_place(body):
            if each.name.decode() == _SAMPLING and body.startswith(b"{", each.value):
                inner = self.changed(body[each.value : each.end], changes, "max_tokens")
                return applied(body, [Edit(each.value, each.end, inner)])
        return body


class VllmInvocations(JsonRoute):
    """``POST /invocations``: any of the other bodies, as SageMaker sends them."""

    __slots__ = ()
    name = "vllm"
    family = _ANY
    bound_field = "max_tokens"
    obeyed = ("max_tokens",)

    def matches(self, method: str, path: str) -> bool:
        """Match the whole path: other APIs have invocations of their own."""
        return method == "POST" and path == "/invocations"

    def asked(self, fields: Fields, model: str | None, incoming: Incoming) -> Ask | str:
        """Return what a chat or a completion asks, or else the input."""
        if model is None:
            return NO_MODEL
        if "messages" in fields:
            return chat_ask(fields, model, incoming)
        if "prompt" in fields or "prompt_embeds" in fields:
            return ask_of(
                fields, model, incoming.count, prompts=prompts_in(fields), obeyed=self.obeyed
            )
        return VllmPooling().asked(fields, model, incoming)


class Tokenizing(JsonRoute):
    """Counting and templates, of vLLM and llama.cpp: a model may be named, nothing is generated."""

    __slots__ = ()
    name = "vllm"
    tails = (
        "/tokenize",
        "/detokenize",
        "/apply-template",
        "/completions/render",
    )


PROBES: Final = FreeRoutes(
    "vllm", "/", re.compile(r"(?:GET|HEAD) (?:/.*)?/(?:health|ping|version|props)")
)
"""Whether a server is up, and what it is."""


def _length(value: bytes | None) -> int:
    """Return how many items a list has; anything else is one."""
    if value is None or not value.startswith(b"["):
        return 1
    return max(1, len(_ITEMS.decode(value)))
