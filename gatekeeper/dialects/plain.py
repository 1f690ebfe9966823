"""Everything else: bodies are not read, refusals are problem details (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import msgspec

from gatekeeper.dialects.openai import openai_error
from gatekeeper.dialects.refusal import machine_fields, refusal_headers
from gatekeeper.dialects.unread import Unread

if TYPE_CHECKING:
    from gatekeeper.dialects.base import RefusalText


class Plain(Unread):
    """Any call: the last resort."""

    __slots__ = ()
    name: Final = "plain"

    def matches(self, method: str, path: str) -> bool:  # noqa: ARG002 - the protocol's signature
        """Match every call."""
        return True

    def refusal_body(self, refusal: RefusalText) -> bytes:
        """Return problem details, with an ``error`` member for the SDKs.

        They call routes that are plain here too, and show no other text.
        """
        documentation = refusal.documentation_url
        return msgspec.json.encode(
            {
                "type": "about:blank" if documentation is None else documentation,
                "title": _phrase(refusal.status),
                "status": refusal.status,
                "detail": refusal.message,
                **machine_fields(refusal),
                "error": openai_error(refusal),
            }
        )

    def refusal_headers(self, refusal: RefusalText) -> dict[str, str]:
        """Return content type, request id and retry headers."""
        return refusal_headers(refusal, "application/problem+json", "x-request-id", "request-id")

    def stream_error(self) -> bytes:
        """Return nothing: an answer of unknown form is only cut off."""
        return b""


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
