"""What can be wrong with a request: stable codes, told as problem details (RFC 9457)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic_core import ErrorDetails

PROBLEM_TYPE: Final = "application/problem+json"
_ALTERNATIVE: Final = re.compile(
    r"constrained-\w+|function-.*|(literal|dict|list|tagged-union|nullable)\[.*|float|str|int|bool"
)
"""What pydantic puts into a place to say which type of several it tried."""
_MOST_ERRORS: Final = 100


class Code(StrEnum):
    """Stable code of a problem; programs branch on it."""

    MALFORMED = "malformed"
    INVALID_CURSOR = "invalid_cursor"
    UNAUTHENTICATED = "unauthenticated"
    ROLE_REQUIRED = "role_required"
    CROSS_SITE = "cross_site"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    REQUEST_TIMEOUT = "request_timeout"
    CONFLICT = "conflict"
    PRECONDITION_FAILED = "precondition_failed"
    TOO_LARGE = "too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    HOST_NOT_SERVED = "host_not_served"
    INVALID_FIELDS = "invalid_fields"
    PRECONDITION_REQUIRED = "precondition_required"
    TOO_MANY_FAILURES = "too_many_failures"
    INTERNAL = "internal"
    RECORDS_UNAVAILABLE = "records_unavailable"


@dataclass(frozen=True, slots=True)
class Kind:
    """What all problems of one code share."""

    status: int
    title: str


KINDS: Final[Mapping[Code, Kind]] = {
    Code.MALFORMED: Kind(400, "The request is malformed"),
    Code.INVALID_CURSOR: Kind(400, "The cursor does not belong to this query"),
    Code.UNAUTHENTICATED: Kind(401, "An admin key is needed"),
    Code.ROLE_REQUIRED: Kind(403, "The admin key's role does not allow this"),
    Code.CROSS_SITE: Kind(403, "Other sites may not call this API"),
    Code.NOT_FOUND: Kind(404, "There is no such thing"),
    Code.METHOD_NOT_ALLOWED: Kind(405, "This path does not take that method"),
    Code.REQUEST_TIMEOUT: Kind(408, "The request did not arrive in time"),
    Code.CONFLICT: Kind(409, "The state does not allow this"),
    Code.PRECONDITION_FAILED: Kind(412, "It has changed since it was read"),
    Code.TOO_LARGE: Kind(413, "The body is too large"),
    Code.UNSUPPORTED_MEDIA_TYPE: Kind(415, "The body has the wrong type"),
    Code.HOST_NOT_SERVED: Kind(421, "This host is not served here"),
    Code.INVALID_FIELDS: Kind(422, "Some fields are not valid"),
    Code.PRECONDITION_REQUIRED: Kind(428, "If-Match is needed"),
    Code.TOO_MANY_FAILURES: Kind(429, "Too many failed attempts"),
    Code.INTERNAL: Kind(500, "A defect of Gatekeeper"),
    Code.RECORDS_UNAVAILABLE: Kind(503, "The records cannot be used at the moment"),
}


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field that is wrong."""

    pointer: str
    """JSON pointer (RFC 6901) into the body, or ``query/NAME``, ``path/NAME``, ``line/N/NAME``."""
    detail: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a request was not done, and what to do instead; nothing that was sent is repeated."""

    code: Code
    detail: str
    errors: tuple[FieldError, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """HTTP status."""
        return KINDS[self.code].status

    def document(self, request_id: str) -> dict[str, Any]:
        """Return the members of the problem document."""
        return {
            "type": "about:blank",
            "title": KINDS[self.code].title,
            "status": self.status,
            "code": self.code.value,
            "detail": self.detail,
            "request_id": request_id,
            **(
                {"errors": [{"pointer": e.pointer, "detail": e.detail} for e in self.errors]}
                if self.errors
                else {}
            ),
        }


def invalid(errors: Iterable[FieldError]) -> Problem:
    """Return the problem of fields that are wrong, all of them told (but bounded)."""
    every = tuple(errors)
    more = len(every) - _MOST_ERRORS
    note = f" {more} more are left out." if more > 0 else ""
    return Problem(
        Code.INVALID_FIELDS,
        f"Correct what `errors` names and send the request again.{note}",
        every[:_MOST_ERRORS],
    )


def field_errors(found: Iterable[ErrorDetails], prefix: str = "") -> tuple[FieldError, ...]:
    """Return what pydantic found, without the values it found."""
    return tuple(
        FieldError(
            prefix
            + "".join(
                f"/{_escaped(step)}"
                for number, step in enumerate(error["loc"])
                if not (number and isinstance(step, str) and _ALTERNATIVE.fullmatch(step))
            ),
            _sentence(error),
        )
        for error in found
    )


def missing(what: str) -> Problem:
    """Return the problem of a thing that does not exist."""
    return Problem(Code.NOT_FOUND, f"There is no such {what}: check the id.")


def _escaped(step: int | str) -> str:
    return str(step)[:60].replace("~", "~0").replace("/", "~1")


def _sentence(error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        return "There is no such field."
    if error["type"] == "missing":
        return "This is missing."
    text = error["msg"].removeprefix("Value error, ")
    return text if text.endswith(".") else f"{text}."
