"""The Anthropic API: messages, and the free counting of their tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from gatekeeper.dialects.answer import AnswerReader, Family
from gatekeeper.dialects.base import UNCHANGED, Ask
from gatekeeper.dialects.body import (
    flag,
    input_tokens,
    model_of,
    output_bound,
    read_fields,
    rewritten,
)
from gatekeeper.dialects.openai import NO_MODEL
from gatekeeper.dialects.refusal import BROKEN_OFF, machine_fields, refusal_headers
from gatekeeper.dialects.usage import text_pattern

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.dialects.base import AnswerPlan, Changes, Incoming, RefusalText

_FAMILY: Final = Family(
    text_pattern("text", "thinking", "partial_json"), frozenset({"message_stop"})
)
_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    451: "permission_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_SERVER_ERRORS: Final = 500
_STREAM_ERROR: Final = b"event: error\ndata: %b\n\n" % msgspec.json.encode(
    {"type": "error", "error": {"type": "api_error", "message": BROKEN_OFF}}
)


class AnthropicErrors:
    """How the family refuses: ``error.{type,message}`` and ``request-id`` (H33)."""

    __slots__ = ()

    def refusal_body(self, refusal: RefusalText) -> bytes:
        """Return the error that ``anthropic`` turns into its exception.

        ``error.details.error_code`` is what its exceptions offer as ``error_code``.
        """
        fields = machine_fields(refusal)
        error = {
            "type": anthropic_type(refusal.status),
            "message": refusal.message,
            **fields,
            "details": {"error_code": refusal.reason.value},
        }
        return msgspec.json.encode(
            {"type": "error", "error": error, "request_id": refusal.decision_id}
        )

    def refusal_headers(self, refusal: RefusalText) -> dict[str, str]:
        """Return content type, request id and retry headers."""
        return refusal_headers(refusal, "application/json", "request-id")

    def stream_error(self) -> bytes:
        """Return the event on which ``anthropic`` raises in the middle of a stream."""
        return _STREAM_ERROR


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
        fields = read_fields(incoming.body)
        if isinstance(fields, str):
            return fields
        model = model_of(fields)
        if model is None:
            return NO_MODEL
        stream = flag(fields, "stream")
        if isinstance(stream, str):
            return stream
        bound = output_bound(fields)
        if bound is None:
            return "The field `max_tokens` is missing: name the most tokens to write."
        if isinstance(bound, str):
            return bound
        return Ask(model, stream, input_tokens(fields), bound)

    def rewrite(self, incoming: Incoming, ask: Ask, changes: Changes) -> bytes:  # noqa: ARG002 - the protocol's signature
        """Return the body with ``changes`` made in place."""
        return rewritten(incoming.body, changes, "max_tokens")

    def reader(
        self, ask: Ask, headers: Mapping[str, str], plan: AnswerPlan = UNCHANGED
    ) -> AnswerReader:
        """Return a reader for a 2xx answer with these headers."""
        return AnswerReader(_FAMILY, ask, headers, plan)


class AnthropicTokenCount(AnthropicErrors):
    """``POST .../v1/messages/count_tokens``: names a model, costs nothing."""

    __slots__ = ()
    name: Final = "anthropic"
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
        """Return the body with ``changes`` made in place."""
        return rewritten(incoming.body, changes, "max_tokens")

    def reader(
        self, ask: Ask, headers: Mapping[str, str], plan: AnswerPlan = UNCHANGED
    ) -> AnswerReader:
        """Return a reader that finds nothing to charge."""
        return AnswerReader(_FAMILY, ask, headers, plan)


def anthropic_type(status: int) -> str:
    """Return the family's error type for an HTTP status."""
    fallback = "api_error" if status >= _SERVER_ERRORS else "invalid_request_error"
    return _TYPES.get(status, fallback)
