"""Anthropic messages, and the free counting of their tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from gatekeeper.dialects.answer import AnswerReader
from gatekeeper.dialects.anthropic import AnthropicErrors
from gatekeeper.dialects.anthropic_stop import MessageStopper
from gatekeeper.dialects.base import UNCHANGED, Ask
from gatekeeper.dialects.body import (
    MOST_TOKENS,
    flag,
    in_place,
    model_of,
    names_fallbacks,
    output_bound,
    read_fields,
    rewritten,
)
from gatekeeper.dialects.family import Family
from gatekeeper.dialects.json_spans import Edit, applied
from gatekeeper.dialects.openai import NO_MODEL
from gatekeeper.dialects.prompt import input_tokens
from gatekeeper.dialects.shaping.messages import shaper_of_messages
from gatekeeper.dialects.usage import text_pattern
from gatekeeper.policy.model import NO_PARTS, UsageParts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.dialects.base import AnswerPlan, Changes, Incoming
    from gatekeeper.dialects.body import Fields

_FAMILY: Final = Family(
    text_pattern("text", "thinking", "partial_json"),
    frozenset({"message_stop", "error"}),  # either is the upstream's own last word
    shaper=shaper_of_messages,
    stopper=MessageStopper,
)
_LEAST_BUDGET: Final = 1_024
"""Fewest tokens that the API takes as a thinking budget; it must be below ``max_tokens``."""
_HOUR: Final = b'"1h"'


class _Thinking(msgspec.Struct):
    type: str = ""
    budget_tokens: int | None = None


class _Message(msgspec.Struct):
    role: str = ""


_THINKING: Final = msgspec.json.Decoder(_Thinking | None)
_MESSAGES: Final = msgspec.json.Decoder(list[msgspec.Raw])
_MESSAGE: Final = msgspec.json.Decoder(_Message)


class AnthropicMessages(AnthropicErrors):
    """``POST .../v1/messages``."""

    __slots__ = ()
    name: Final = "anthropic_messages"
    reads_body: Final = True

    def matches(self, method: str, path: str) -> bool:
        """Match by the end of the path, whatever prefix an upstream has."""
        return method == "POST" and path.lower().rstrip("/").endswith("/v1/messages")

    def read(self, incoming: Incoming) -> Ask | str:
        """Read a body; ``max_tokens`` is required, as the API has it."""
        return read_message(incoming)

    def rewrite(self, incoming: Incoming, ask: Ask, changes: Changes) -> bytes:  # noqa: ARG002 - the protocol's signature
        """Return the body with ``changes`` made in place; a thinking budget stays below its bound.

        Where no budget is small enough, thinking is switched off.
        """
        body = rewritten(incoming.body, changes, "max_tokens")
        bound = changes.max_output_tokens
        if bound is None:
            return body
        place = next((each for each in in_place(body) if each.name == b"thinking"), None)
        if place is None:
            return body
        thinking = _THINKING.decode(body[place.value : place.end])
        budget = 0 if thinking is None else thinking.budget_tokens or 0
        if budget < bound:
            return body
        lower = (
            b'{"type":"enabled","budget_tokens":%d}' % (bound - 1)
            if bound > _LEAST_BUDGET
            else b'{"type":"disabled"}'
        )
        return applied(body, [Edit(place.value, place.end, lower)])

    def reader(
        self, ask: Ask, headers: Mapping[str, str], plan: AnswerPlan = UNCHANGED
    ) -> AnswerReader:
        """Return a reader for a 2xx answer with these headers."""
        return AnswerReader(_FAMILY, ask, headers, plan)


class AnthropicTokenCount(AnthropicErrors):
    """``POST .../v1/messages/count_tokens``: names a model, costs nothing."""

    __slots__ = ()
    name: Final = "anthropic_count_tokens"
    reads_body: Final = True

    def matches(self, method: str, path: str) -> bool:
        """Match by the end of the path, whatever prefix an upstream has."""
        path = path.lower().rstrip("/")
        return method == "POST" and path.endswith("/v1/messages/count_tokens")

    def read(self, incoming: Incoming) -> Ask | str:
        """Read the model, which the account must be allowed to use."""
        fields = read_fields(incoming.body)
        if isinstance(fields, str):
            return fields
        model = model_of(fields)
        return NO_MODEL if model is None else Ask(model)

    def rewrite(self, incoming: Incoming, ask: Ask, changes: Changes) -> bytes:  # noqa: ARG002 - the protocol's signature
        """Return the body as it came: nothing is written that could be bounded."""
        return incoming.body

    def reader(
        self, ask: Ask, headers: Mapping[str, str], plan: AnswerPlan = UNCHANGED
    ) -> AnswerReader:
        """Return a reader that finds nothing to charge."""
        return AnswerReader(_FAMILY, ask, headers, plan)


def read_message(incoming: Incoming) -> Ask | str:
    """Read the parameters of one message."""
    fields = read_fields(incoming.body)
    if isinstance(fields, str):
        return fields
    if (wrong := names_fallbacks(fields)) is not None:
        return wrong
    model = model_of(fields)
    if model is None:
        return NO_MODEL
    stream = flag(fields, "stream")
    if isinstance(stream, str):
        return stream
    bound = output_bound(fields)
    if bound is None or fields.get("max_tokens", b"null") == b"null":
        return "The field `max_tokens` is missing: name the most tokens to write."
    if isinstance(bound, str):
        return bound
    budget = _thinking_budget(fields)
    if isinstance(budget, str):
        return budget
    prefill = _prefilled(fields)
    if isinstance(prefill, str):
        return prefill
    given = input_tokens(fields, incoming.count)
    # A budget beyond the bound spans several calls (interleaved thinking); held to be safe.
    ask = Ask(model, stream, given, max(bound, budget), parts=_cached(incoming.body, given))
    return incoming.with_evidence(replace(ask, prefill=prefill) if prefill else ask, fields)


def _thinking_budget(fields: Fields) -> int | str:
    value = fields.get("thinking")
    if value is None:
        return 0
    try:
        thinking = _THINKING.decode(value)
    except (msgspec.DecodeError, UnicodeError):
        return "The field `thinking` must be an object with a `type`."
    budget = 0 if thinking is None else thinking.budget_tokens or 0
    if not 0 <= budget <= MOST_TOKENS:
        return f"The field `thinking.budget_tokens` must be a whole number up to {MOST_TOKENS}."
    return budget


def _prefilled(fields: Fields) -> bool | str:
    """Tell whether the last message is the beginning of the answer."""
    try:
        messages = _MESSAGES.decode(fields.get("messages", b"[]"))
        return bool(messages) and _MESSAGE.decode(messages[-1]).role == "assistant"
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return "The field `messages` must be a list of objects with a `role`."


def _cached(body: bytes, given: int) -> UsageParts:
    """Return what may be written to the upstream's cache: in the worst case, the whole input."""
    if b'"cache_control"' not in body:
        return NO_PARTS
    if _HOUR in body:
        return UsageParts(cache_write_1h_tokens=given)
    return UsageParts(cache_write_tokens=given)
