"""How the Anthropic API refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from gatekeeper.dialects.refusal import BROKEN_OFF, machine_fields, refusal_headers

if TYPE_CHECKING:
    from gatekeeper.dialects.base import RefusalText

_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
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


def anthropic_type(status: int) -> str:
    """Return the family's error type for an HTTP status."""
    fallback = "api_error" if status >= _SERVER_ERRORS else "invalid_request_error"
    return _TYPES.get(status, fallback)
