"""The OpenAI API: errors of the family, and the JSON routes beside chat completions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from gatekeeper.dialects.answer import AnswerReader, Family
from gatekeeper.dialects.base import UNCHANGED, Ask
from gatekeeper.dialects.body import (
    choices_of,
    flag,
    model_of,
    output_bound,
    prompts_of,
    read_fields,
    rewritten,
    stream_options,
)
from gatekeeper.dialects.json_spans import NotJsonError, applied, members, without
from gatekeeper.dialects.prompt import input_tokens
from gatekeeper.dialects.refusal import BROKEN_OFF, machine_fields, refusal_headers
from gatekeeper.dialects.usage import text_pattern
from gatekeeper.policy.words import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gatekeeper.dialects.base import AnswerPlan, Changes, Incoming, RefusalText

NO_MODEL: Final = "The field `model` must be the name of a model."

_USAGE: Final = frozenset({b"usage"})
_NO_CHOICES: Final = re.compile(rb"\[[ \t\n\r]*\]")
_DATA: Final = b"data:"


def hide_usage(event: bytes) -> bytes:
    """Take out of a chunk what is there only because usage was asked for.

    With ``stream_options.include_usage`` every chunk has ``usage``, ``null`` until a last one that
    has no choices and would not be sent otherwise.
    """
    if b'"usage"' not in event or not event.startswith(_DATA):
        return event
    try:
        found = list(members(event, len(_DATA)))
    except NotJsonError:
        return event
    named = {each.name: event[each.value : each.end] for each in found}
    if named.get(b"usage", b"null") != b"null" and _NO_CHOICES.fullmatch(
        named.get(b"choices", b"")
    ):
        return b""
    return applied(event, without(found, _USAGE))


_COMPLETIONS: Final = Family(text_pattern("text"), frozenset(), hide_usage)
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
    bound_field: str = "max_tokens"

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

    @property
    def reads_body(self) -> bool:
        """Whether the body is read."""
        return True

    def read(self, incoming: Incoming) -> Ask | str:
        """Read a body; nothing at all is asked by routes that have none."""
        body = incoming.body
        if not body and not self.needs_model and not self.generates:
            return Ask()
        fields = read_fields(body)
        if isinstance(fields, str):
            return fields
        model = model_of(fields)
        if model is None and (self.needs_model or "model" in fields):
            return NO_MODEL
        ask = ask_of(fields, model, incoming.count)
        if isinstance(ask, str) or self.generates:
            return ask
        return Ask(model, ask.stream, ask.input_tokens)

    def rewrite(self, incoming: Incoming, ask: Ask, changes: Changes) -> bytes:  # noqa: ARG002 - the protocol's signature
        """Return the body with ``changes`` made in place."""
        return rewritten(incoming.body, changes, self.bound_field)

    def reader(
        self, ask: Ask, headers: Mapping[str, str], plan: AnswerPlan = UNCHANGED
    ) -> AnswerReader:
        """Return a reader for a 2xx answer with these headers."""
        return AnswerReader(self.family, ask, headers, plan)


def ask_of(fields: dict[str, bytes], model: str | None, count: Callable[[bytes], int]) -> Ask | str:
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
    wants_usage = stream_options(fields)
    if isinstance(wants_usage, str):
        return wants_usage
    prompts = prompts_of(fields)
    most = None if bound is None else bound * choices * prompts
    return Ask(
        model,
        stream,
        input_tokens(fields, count),
        most,
        choices * prompts,
        prompts,
        wants_usage=wants_usage if stream else None,
    )


_POST: Final = frozenset({"POST"})
_READ: Final = frozenset({"GET", "HEAD"})

OPENAI_ROUTES: Final = (
    OpenAIRoute("/v1/completions", _POST, generates=True),
    OpenAIRoute(
        "/v1/responses",
        _POST,
        generates=True,
        family=_RESPONSES,
        bound_field="max_output_tokens",
    ),
    OpenAIRoute("/v1/embeddings", _POST),
    OpenAIRoute("/v1/moderations", _POST, needs_model=False),
    OpenAIRoute("/v1/models", _READ, needs_model=False, under_it=True),
)
