"""The OpenAI API: errors of the family, and the JSON routes beside chat completions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from gatekeeper.dialects.base import Ask
from gatekeeper.dialects.body import (
    choices_of,
    flag,
    input_tokens,
    model_of,
    output_bound,
    prompts_of,
    read_fields,
)
from gatekeeper.dialects.refusal import BROKEN_OFF, machine_fields, refusal_headers
from gatekeeper.dialects.usage import AnswerReader, Family, text_pattern
from gatekeeper.policy.words import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.dialects.base import RefusalText

NO_MODEL: Final = "The field `model` must be the name of a model."

_COMPLETIONS: Final = Family(text_pattern("text"), frozenset())
_RESPONSES: Final = Family(
    text_pattern("delta"),
    frozenset({"response.completed", "response.incomplete", "response.failed"}),
)
_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    451: "permission_error",
}
_SERVER_ERRORS: Final = 500
_ABOUT_MODEL: Final = frozenset({Reason.MODEL_NOT_PERMITTED, Reason.MODEL_NOT_SERVED})


class OpenAIErrors:
    """How the family refuses: ``error.{message,type,param,code}`` and ``x-request-id`` (H33)."""

    def refusal_body(self, refusal: RefusalText) -> bytes:
        """Return the error that ``openai`` turns into its exception."""
        return msgspec.json.encode({"error": openai_error(refusal)})

    def refusal_headers(self, refusal: RefusalText) -> dict[str, str]:
        """Return content type, request id and retry headers."""
        return refusal_headers(refusal, "application/json", "x-request-id")

    def stream_error(self) -> bytes:
        """Return the event on which ``openai`` raises ``APIError`` in the middle of a stream."""
        return _STREAM_ERROR


_STREAM_ERROR: Final = b"data: %b\n\n" % msgspec.json.encode(
    {
        "error": {
            "message": BROKEN_OFF,
            "type": "server_error",
            "param": None,
            "code": Reason.UPSTREAM_INVALID.value,
        }
    }
)


def openai_error(refusal: RefusalText) -> dict[str, str | None]:
    """Return the ``error`` object of the family."""
    fallback = "server_error" if refusal.status >= _SERVER_ERRORS else "invalid_request_error"
    return {
        "message": refusal.message,
        "type": _TYPES.get(refusal.status, fallback),
        "param": "model" if refusal.reason in _ABOUT_MODEL else None,
        **machine_fields(refusal),
    }


@dataclass(frozen=True, slots=True)
class OpenAIRoute(OpenAIErrors):
    """One JSON route (or the models under it) beside chat completions.

    Batches, files, images, audio, assistants and other routes whose cost the body does not show are
    deliberately none of these: they are plain (H26).
    """

    path: str
    methods: frozenset[str]
    generates: bool = False
    needs_model: bool = True
    under_it: bool = False
    family: Family = _COMPLETIONS

    @property
    def name(self) -> str:
        """The word in records, rules and metrics."""
        return "openai"

    def matches(self, method: str, path: str) -> bool:
        """Match by the end of the path, in any case, with or without a closing slash."""
        if method not in self.methods:
            return False
        path = path.lower().rstrip("/")
        return path.endswith(self.path) or (self.under_it and f"{self.path}/" in path)

    def read(self, body: bytes) -> Ask | str:
        """Read a body; nothing at all is asked by routes that have none."""
        if not body and not self.needs_model and not self.generates:
            return Ask()
        fields = read_fields(body)
        if isinstance(fields, str):
            return fields
        model = model_of(fields)
        if model is None and (self.needs_model or "model" in fields):
            return NO_MODEL
        ask = ask_of(fields, model)
        if isinstance(ask, str) or self.generates:
            return ask
        return Ask(model, ask.stream, ask.input_tokens)

    def usage_reader(self, ask: Ask, headers: Mapping[str, str]) -> AnswerReader:
        """Return a reader for a 2xx answer with these headers."""
        return AnswerReader(self.family, ask, headers)


def ask_of(fields: dict[str, bytes], model: str | None) -> Ask | str:
    """Read what generating routes of the family have in common."""
    stream = flag(fields, "stream")
    if isinstance(stream, str):
        return stream
    bound = output_bound(fields)
    if isinstance(bound, str):
        return bound
    choices = choices_of(fields)
    if isinstance(choices, str):
        return choices
    choices *= prompts_of(fields)
    most = None if bound is None else bound * choices
    return Ask(model, stream, input_tokens(fields), most, choices)


_POST: Final = frozenset({"POST"})
_READ: Final = frozenset({"GET", "HEAD"})

OPENAI_ROUTES: Final = (
    OpenAIRoute("/v1/completions", _POST, generates=True),
    OpenAIRoute("/v1/responses", _POST, generates=True, family=_RESPONSES),
    OpenAIRoute("/v1/embeddings", _POST),
    OpenAIRoute("/v1/moderations", _POST, needs_model=False),
    OpenAIRoute("/v1/models", _READ, needs_model=False, under_it=True),
)
