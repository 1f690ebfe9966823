"""Everything else: bodies are not read, refusals are problem details (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import msgspec

from gatekeeper.dialects.answer import AnswerReader
from gatekeeper.dialects.base import UNCHANGED, Ask
from gatekeeper.dialects.family import Family
from gatekeeper.dialects.openai import openai_error
from gatekeeper.dialects.refusal import machine_fields, refusal_headers
from gatekeeper.dialects.usage import text_pattern

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.dialects.base import AnswerPlan, Changes, Incoming, RefusalText

_NOTHING: Final = Family(text_pattern("text"), frozenset())


class Plain:
    """Any call: the last resort."""

    __slots__ = ()
    name: Final = "plain"
    reads_body: Final = False

    def matches(self, method: str, path: str) -> bool:  # noqa: ARG002 - the protocol's signature
        """Match every call."""
        return True

    def read(self, incoming: Incoming) -> Ask | str:  # noqa: ARG002 - the protocol's signature
        """Ask for nothing: the body is not looked at."""
        return Ask()

    def rewrite(self, incoming: Incoming, ask: Ask, changes: Changes) -> bytes:  # noqa: ARG002 - the protocol's signature
        """Return the body as it came: nothing of it is understood."""
        return incoming.body

    def reader(
        self, ask: Ask, headers: Mapping[str, str], plan: AnswerPlan = UNCHANGED
    ) -> AnswerReader:
        """Return a reader that finds nothing to charge."""
        return AnswerReader(
            _NOTHING, ask, {"content-encoding": headers.get("content-encoding", "")}, plan
        )

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
