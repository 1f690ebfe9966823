"""What the families of the OpenAI API have in common: refusals, models, routes."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import unquote

import msgspec

from gatekeeper.dialects.answer import AnswerReader
from gatekeeper.dialects.base import UNCHANGED, Ask
from gatekeeper.dialects.body import (
    BOUNDS,
    in_place,
    model_of,
    names_fallbacks,
    read_fields,
    rewritten,
)
from gatekeeper.dialects.json_spans import applied
from gatekeeper.dialects.openai_stream import hide_running_usage
from gatekeeper.dialects.output_bounds import lowered_budgets
from gatekeeper.dialects.refusal import BROKEN_OFF, machine_fields, refusal_headers
from gatekeeper.dialects.unread import NOTHING, Unread
from gatekeeper.policy.model import Usage
from gatekeeper.policy.words import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.dialects.base import AnswerPlan, Changes, Incoming, RefusalText
    from gatekeeper.dialects.body import Fields
    from gatekeeper.dialects.family import Family

NO_MODEL: Final = "The field `model` must be the name of a model."
UNNAMED: Final = ""
"""Model of a call that leaves it to the upstream: of all patterns, only ``*`` matches it."""
_NAMING: Final = ("/deployments/", "/engines/")
"""What stands before a model in a path: of Azure, and of the first API (LiteLLM serves it)."""
_DEPLOYMENT: Final = re.compile(r".*/(?:deployments|engines)/([^/]+)/", re.IGNORECASE)
_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    451: "permission_error",
}
_SERVER_ERRORS: Final = 500
_ABOUT_MODEL: Final = frozenset({Reason.MODEL_NOT_PERMITTED, Reason.MODEL_NOT_SERVED})
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
"""Answers that generate nothing."""


class OpenAIErrors:
    """How the family refuses: ``error.{message,type,param,code}`` and ``x-request-id`` (H33)."""

    __slots__ = ()

    def refusal_body(self, refusal: RefusalText) -> bytes:
        """Return the error that ``openai`` turns into its exception."""
        return msgspec.json.encode({"error": openai_error(refusal)})

    def refusal_headers(self, refusal: RefusalText) -> dict[str, str]:
        """Return content type, request id and retry headers."""
        return refusal_headers(refusal, "application/json", "x-request-id")

    def stream_error(self) -> bytes:
        """Return the event on which ``openai`` raises ``APIError`` in the middle of a stream."""
        return _STREAM_ERROR


def openai_error(refusal: RefusalText) -> dict[str, str | None]:
    """Return the ``error`` object of the family."""
    fallback = "server_error" if refusal.status >= _SERVER_ERRORS else "invalid_request_error"
    return {
        "message": refusal.message,
        "type": _TYPES.get(refusal.status, fallback),
        "param": "model" if refusal.reason in _ABOUT_MODEL else None,
        **machine_fields(refusal),
    }


class JsonRoute(OpenAIErrors):
    """A JSON route that takes input: each family says what else it takes."""

    __slots__ = ()
    name: ClassVar[str]
    tails: ClassVar[tuple[str, ...]]
    """How its paths end, in lower case, whatever prefix an upstream has."""
    family: ClassVar[Family] = NOTHING
    bound_field: ClassVar[str] = ""
    """How the bound on output is called; empty where there is none to put in."""
    obeyed: ClassVar[tuple[str, ...]] = BOUNDS
    """Which bounds every server of the route obeys."""
    reads_body: Final = True

    def matches(self, method: str, path: str) -> bool:
        """Match by the end of the path."""
        return method == "POST" and path.endswith(self.tails)

    def read(self, incoming: Incoming) -> Ask | str:
        """Read a body, and the model that it, or an Azure path, names."""
        fields = read_fields(incoming.body)
        if isinstance(fields, str):
            return fields
        if (wrong := names_fallbacks(fields)) is not None:
            return wrong
        model = model_of(fields)
        if "model" not in fields:
            model = deployment_of(incoming.path)
        ask = self.asked(fields, model, incoming)
        return ask if isinstance(ask, str) else incoming.with_evidence(ask, fields)

    def asked(self, fields: Fields, model: str | None, incoming: Incoming) -> Ask | str:  # noqa: ARG002 - others look at it
        """Return what the fields ask for: of this one, a model and nothing that costs."""
        if model is None and "model" in fields:
            return NO_MODEL
        return Ask(model)

    def rewrite(self, incoming: Incoming, ask: Ask, changes: Changes) -> bytes:  # noqa: ARG002 - the protocol's signature
        """Return the body with ``changes`` made in place."""
        return self.changed(incoming.body, changes, self.bound_field)

    def changed(self, body: bytes, changes: Changes, bound_field: str) -> bytes:
        """Return a body with its bounds lowered and what is missing put in."""
        body = rewritten(body, changes, bound_field, self.obeyed)
        most = changes.max_output_tokens
        return body if most is None else applied(body, lowered_budgets(body, in_place(body), most))

    def reader(
        self, ask: Ask, headers: Mapping[str, str], plan: AnswerPlan = UNCHANGED
    ) -> AnswerReader:
        """Return a reader for a 2xx answer with these headers."""
        family = self.family
        if plan.leave_last_usage:
            family = replace(family, hide_usage=hide_running_usage)
        return AnswerReader(family, ask, headers, plan)


def names_deployment(path: str) -> bool:
    """Tell whether a path names a model, which at the upstream may count more than the body's."""
    path = path.lower()
    return any(each in path for each in _NAMING)


def deployment_of(path: str) -> str | None:
    """Return the model that a path names, whatever the body says."""
    found = _DEPLOYMENT.match(path)
    if found is None:
        return None
    return model_of({"model": msgspec.json.encode(unquote(found[1]))})


class _Unbilled(AnswerReader):
    """Reads an answer only to change it: what it shows was charged when it was made."""

    __slots__ = ()

    def result(self, most_output: int | None = None) -> Usage:  # noqa: ARG002 - as the others
        """Return nothing, whatever is reported."""
        return Usage()


@dataclass(frozen=True, slots=True)
class FreeRoutes(Unread, OpenAIErrors):
    """Routes of a family on which nothing is generated: no token is charged.

    They count as requests and bytes, as everything does that reaches an upstream (H26).
    """

    name: str
    stem: str
    """What all its paths hold."""
    routes: re.Pattern[str]
    """What ``METHOD path`` looks like, as a whole."""
    shows: Family | None = None
    """What a model has written before, which is shaped as it was then; ``None``: nothing of it."""

    @property
    def reads_body(self) -> bool:
        """Only where the answer may have to be changed; nothing in a body matters."""
        return self.shows is not None

    def matches(self, method: str, path: str) -> bool:
        """Match method and path together."""
        return self.stem in path and self.routes.fullmatch(f"{method} {path}") is not None

    def reader(
        self, ask: Ask, headers: Mapping[str, str], plan: AnswerPlan = UNCHANGED
    ) -> AnswerReader:
        """Return a reader that finds nothing to charge."""
        if self.shows is None or plan.shaping is None:
            return Unread.reader(self, ask, headers, plan)
        return _Unbilled(self.shows, ask, headers, plan)


def free(name: str, stem: str, *routes: str, shows: Family | None = None) -> FreeRoutes:
    """Return routes written as ``GET|DELETE {id}``, all under ``stem``, whatever is before that.

    A name in braces is one segment, ``{path}`` is any number of them.
    """
    patterns = []
    for route in routes:
        methods, _, rest = route.partition(" ")
        named = re.escape(rest).replace(r"\{path\}", ".+")
        named = re.sub(r"\\\{\w+\\\}", "[^/]+", named)
        patterns.append(f"(?:{methods}) (?:/.*)?{re.escape(stem)}{named}")
    return FreeRoutes(name, stem, re.compile("|".join(patterns)), shows)
