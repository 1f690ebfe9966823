"""Reads requests strictly: what two parsers could read differently is refused."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from pydantic import ValidationError

from gatekeeper.listener.body import read_body
from gatekeeper.management.operation import PATH_PARAMETERS
from gatekeeper.management.problems import Code, FieldError, Problem, field_errors, invalid
from gatekeeper.policy.words import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.web import BaseRequest

    from gatekeeper.management.operation import Operation, Wire

MOST_JSON_BYTES: Final = 2_000_000
"""A JSON body above this is refused; files are bounded by ``admin.max_body_bytes``."""
_ETAG: Final = r'(W/)?"[!#-~]*"'
ETAGS: Final = rf"^(\*|{_ETAG}( *, *{_ETAG})*)$"
"""What conditions may hold (RFC 9110, 8.8.3)."""
_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_JSON: Final = re.compile(r"application/json(\s*;\s*charset=\"?utf-8\"?)?", re.IGNORECASE)
_MOST_DIGITS: Final = 40
_FORBIDDEN: Final = re.compile("[\x00\ud800-\udfff]")


def read_path(raw: Mapping[str, str]) -> dict[str, str] | Problem:
    """Decode and check the parameters of a path."""
    found: dict[str, str] = {}
    errors: list[FieldError] = []
    for name, text in raw.items():
        value = _decoded(text)
        if value is None or not re.fullmatch(PATH_PARAMETERS[name].pattern, value):
            errors.append(FieldError(f"path/{name}", "This cannot be one; check the id."))
        else:
            found[name] = value
    return invalid(errors) if errors else found


def read_query(operation: Operation, raw: str) -> Wire | Problem:
    """Parse a query string; unknown and repeated parameters are mistakes."""
    values: dict[str, str] = {}
    errors: list[FieldError] = []
    for pair in raw.split("&") if raw else ():
        name, value = (_decoded(part.replace("+", " ")) for part in pair.partition("=")[::2])
        if name is None or value is None:
            return Problem(Code.MALFORMED, "The query holds a percent-encoding that is not UTF-8.")
        if name not in operation.query.model_fields:
            known = ", ".join(operation.query.model_fields) or "none here"
            errors.append(
                FieldError("query", f"There is a parameter that is not known; known: {known}.")
            )
        elif name in values:
            errors.append(FieldError(f"query/{name}", "This stands more than once."))
        values.setdefault(name, value)
    if errors:
        return invalid(errors)
    try:
        return operation.query.model_validate_strings(values)
    except ValidationError as error:
        return invalid(field_errors(error.errors(include_url=False, include_input=False), "query"))


def read_conditions(request: BaseRequest) -> tuple[str | None, str | None] | Problem:
    """Return ``If-Match`` and ``If-None-Match``; one that is malformed must not count as absent."""
    found: list[str | None] = []
    for name in ("If-Match", "If-None-Match"):
        values = request.headers.getall(name, ())
        joined = ", ".join(values) if values else None
        if joined is not None and not re.fullmatch(ETAGS, joined):
            text = "This must be an ETag as it was given, in its quotes, or *."
            return invalid([FieldError(f"header/{name}", text)])
        found.append(joined)
    return found[0], found[1]


async def read_content(
    operation: Operation, request: BaseRequest, *, most_bytes: int, within_s: float
) -> Wire | bytes | Problem | None:
    """Read and check the body of a request."""
    wanted = operation.body is not None or operation.file_type is not None
    if not wanted:
        if request.body_exists:
            return Problem(Code.MALFORMED, "Send no body with this operation.")
        return None
    if wrong := _wrong_type(operation, request):
        return wrong
    most = most_bytes if operation.file_type else min(most_bytes, MOST_JSON_BYTES)
    if (request.content_length or 0) > most:
        return _too_large(most)
    body = await read_body(request.content, most_bytes=most, within_s=within_s)
    if body is Reason.BODY_TOO_LARGE:
        return _too_large(most)
    if body is Reason.REQUEST_TIMEOUT:
        return Problem(Code.REQUEST_TIMEOUT, "Send the body without pauses.")
    if isinstance(body, Reason):
        return Problem(Code.MALFORMED, "The body did not arrive whole: send it again.")
    return body if operation.body is None else _parsed(operation.body, body)


def _wrong_type(operation: Operation, request: BaseRequest) -> Problem | None:
    types = request.headers.getall("Content-Type", ())
    given = types[0].strip() if len(types) == 1 else ""
    if operation.file_type is None:
        fits = _JSON.fullmatch(given) is not None
        wanted = "application/json"
    else:
        wanted = operation.file_type
        fits = given.partition(";")[0].strip().lower() == wanted
    if not fits:
        return Problem(Code.UNSUPPORTED_MEDIA_TYPE, f"Send `Content-Type: {wanted}`.")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        return Problem(Code.UNSUPPORTED_MEDIA_TYPE, "Send the body without Content-Encoding.")
    return None


def _parsed(model: type[Wire], body: bytes) -> Wire | Problem:
    try:
        json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_once,
            parse_constant=_no_constant,
            parse_int=_bounded,
            parse_float=_bounded,
        )
    except UnicodeDecodeError:
        return Problem(Code.MALFORMED, "The body is not UTF-8.")
    except RecursionError:
        return Problem(Code.MALFORMED, "The body is nested too deeply.")
    except ValueError as error:
        return Problem(Code.MALFORMED, f"The body is not JSON that means one thing: {_say(error)}.")
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        return invalid(field_errors(error.errors(include_url=False, include_input=False)))


class _RefusedError(ValueError):
    """What the standard library would let pass."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _RefusedError("a field stands twice in an object")
        _refuse_unstorable([name, value])
        found[name] = value
    return found


def _refuse_unstorable(items: list[Any]) -> None:
    """Look into lists, but not into objects, which were looked at when they were made."""
    rest = list(items)
    while rest:
        item = rest.pop()
        if isinstance(item, list):
            rest.extend(item)
        elif isinstance(item, str) and _FORBIDDEN.search(item):
            raise _RefusedError("text holds U+0000 or half a surrogate pair")


def _no_constant(_: str) -> object:
    raise _RefusedError("NaN and Infinity are not JSON")


def _bounded(text: str) -> None:
    if len(text) > _MOST_DIGITS:
        raise _RefusedError("a number has too many digits")


def _say(error: ValueError) -> str:
    if isinstance(error, _RefusedError):
        return str(error)
    return f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "it is malformed"


def _too_large(most: int) -> Problem:
    return Problem(Code.TOO_LARGE, f"Send at most {most} bytes at once.")


def _decoded(text: str) -> str | None:
    if _ESCAPE.search(text):
        return None
    try:
        value = unquote_to_bytes(text).decode()
    except UnicodeError:
        return None
    return None if _FORBIDDEN.search(value) else value
