"""The document of the API (OpenAPI 3.1), made from the operations."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from pydantic.json_schema import models_json_schema

from gatekeeper import __version__
from gatekeeper.management.operation import PATH_PARAMETERS, Audit, Method, Operation, Tag, Wire
from gatekeeper.management.problems import KINDS, PROBLEM_TYPE, Code
from gatekeeper.management.reading import ETAGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_REF: Final = "#/components/schemas/{model}"
_ABOUT: Final = """\
Every request carries an admin key: `Authorization: Bearer gka_...`. There is no default key; \
make the first one with `gatekeeper admin-keys create NAME --role admin`. Each operation names the \
least role that may use it (`x-required-role`); viewer < operator < admin. Whatever changes \
something is kept in the audit trail. Times are Unix seconds, UTC. Lists come in pages: go on with \
`next_cursor`.\
"""
_ALWAYS: Final = (
    Code.MALFORMED,
    Code.UNAUTHENTICATED,
    Code.ROLE_REQUIRED,
    Code.METHOD_NOT_ALLOWED,
    Code.HOST_NOT_SERVED,
    Code.INVALID_FIELDS,
    Code.TOO_MANY_FAILURES,
    Code.INTERNAL,
    Code.RECORDS_UNAVAILABLE,
)
_WITH_BODY: Final = (Code.REQUEST_TIMEOUT, Code.TOO_LARGE, Code.UNSUPPORTED_MEDIA_TYPE)


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the OpenAPI document of ``operations``."""
    schemas = _schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    used = {operation.tag for operation in operations}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Gatekeeper management API",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag.value} for tag in Tag if tag in used],
        "security": [{"adminKey": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "adminKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An admin key, `gka_...`.",
                }
            },
            "schemas": {name: schemas[name] for name in sorted(schemas)},
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    told: dict[str, Any] = {
        "operationId": operation.id,
        "tags": [operation.tag.value],
        "summary": operation.summary,
        **({"description": operation.description} if operation.description else {}),
        "x-required-role": operation.role.value,
        "x-audited": operation.audit is not Audit.NO,
        "parameters": [*_path_parameters(operation), *_queries(operation), *_headers(operation)],
        "responses": {**_successes(operation), **_problems(operation)},
    }
    if operation.body is not None:
        told["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _ref(operation.body)}},
        }
    elif operation.file_type is not None:
        told["requestBody"] = {
            "required": True,
            "content": {operation.file_type: {"schema": {"type": "string"}}},
        }
    if not told["parameters"]:
        del told["parameters"]
    return told


def _path_parameters(operation: Operation) -> Iterable[dict[str, Any]]:
    for name in operation.parameters:
        known = PATH_PARAMETERS[name]
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": known.description,
            "schema": {"type": "string", "pattern": known.pattern},
        }


def _queries(operation: Operation) -> Iterable[dict[str, Any]]:
    schema = operation.query.model_json_schema(ref_template=_REF)
    shared = schema.get("$defs", {})
    for name, found in schema.get("properties", {}).items():
        plain = _without_null(_inlined(found, shared))
        description = _plain(plain.pop("description", ""))
        plain.pop("title", None)
        if plain.get("default", ...) is None:
            del plain["default"]
        yield {
            "name": name,
            "in": "query",
            "required": False,
            **({"description": description} if description else {}),
            "schema": plain,
        }


def _headers(operation: Operation) -> Iterable[dict[str, Any]]:
    if operation.tagged and operation.method is Method.GET:
        yield _header("If-None-Match", "An ETag: 304 if nothing has changed since.", required=False)
    if operation.matched:
        must = Code.PRECONDITION_REQUIRED in operation.problems
        text = "The ETag that was read: the change is made only if it is still current."
        yield _header("If-Match", text, required=must)


def _header(name: str, description: str, *, required: bool) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": required,
        "description": description,
        "schema": {"type": "string", "pattern": ETAGS},
    }


def _successes(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.answer is not None:
        content = {"application/json": {"schema": _ref(operation.answer)}}
    elif operation.answer_type != "application/json":
        content = {operation.answer_type: {"schema": {"type": "string"}}}
    headers: dict[str, Any] = {"X-Request-Id": {"schema": {"type": "string"}}}
    if operation.tagged:
        headers["ETag"] = {"schema": {"type": "string"}}
    told = {"headers": headers, **({"content": content} if content else {})}
    found = {str(operation.status): {"description": "Done.", **told}}
    if operation.matched and operation.method is Method.PUT and operation.status == 200:  # noqa: PLR2004
        found["201"] = {"description": "Created.", **told}
    if operation.tagged and operation.method is Method.GET:
        found["304"] = {"description": "Not modified."}
    return found


def _problems(operation: Operation) -> dict[str, Any]:
    codes = [*_ALWAYS, *operation.problems]
    if operation.body is not None or operation.file_type is not None:
        codes += _WITH_BODY
    if operation.parameters:
        codes.append(Code.NOT_FOUND)  # a part that is empty names no path
    by_status: dict[int, list[Code]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(KINDS[code].status, []).append(code)
    return {
        str(status): {
            "description": "; ".join(f"`{code}`: {KINDS[code].title}" for code in found) + ".",
            "content": {PROBLEM_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}},
        }
        for status, found in sorted(by_status.items())
    }


def _schemas(operations: Sequence[Operation]) -> dict[str, Any]:
    bodies = {each.body for each in operations if each.body is not None}
    answers = {each.answer for each in operations if each.answer is not None}
    _, bundle = models_json_schema(
        [
            *((model, "validation") for model in sorted(bodies, key=lambda m: m.__name__)),
            *((model, "serialization") for model in sorted(answers, key=lambda m: m.__name__)),
        ],
        ref_template=_REF,
    )
    found: dict[str, Any] = bundle["$defs"]
    for schema in found.values():
        _tidy(schema)
    return found | {"Problem": _problem_schema()}


def _problem_schema() -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "type": "object",
        "description": "Problem details (RFC 9457). Branch on `code`; `detail` says what to do.",
        "required": ["type", "title", "status", "code", "detail", "request_id"],
        "properties": {
            "type": text,
            "title": text,
            "status": {"type": "integer"},
            "code": {"type": "string", "enum": [code.value for code in Code]},
            "detail": text,
            "request_id": text,
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["pointer", "detail"],
                    "properties": {"pointer": text, "detail": text},
                },
            },
        },
    }


def _tidy(schema: Any) -> None:
    """Drop titles, which pydantic makes of names; descriptions are docstrings."""
    if isinstance(schema, dict):
        if isinstance(schema.get("title"), str):
            del schema["title"]
        if isinstance(schema.get("description"), str):
            schema["description"] = _plain(schema["description"])
        for value in schema.values():
            _tidy(value)
    elif isinstance(schema, list):
        for value in schema:
            _tidy(value)


def _plain(text: str) -> str:
    """Return a docstring as CommonMark."""
    return " ".join(text.split()).replace("``", "`")


def _inlined(schema: Any, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema of a query parameter on its own, with what it refers to put in."""
    if "$ref" in schema:
        target = shared[schema["$ref"].rpartition("/")[2]]
        rest = {name: value for name, value in schema.items() if name != "$ref"}
        return {**_inlined(target, shared), **rest}
    found = dict(schema)
    if "anyOf" in found:
        found["anyOf"] = [_inlined(each, shared) for each in found["anyOf"]]
    return found


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Take ``null`` out: a parameter is given or left out."""
    choices = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    if len(choices) != 1:
        return schema
    return {**choices[0], **{name: value for name, value in schema.items() if name != "anyOf"}}


def _ref(model: type[Wire]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}


def encoded(operations: Sequence[Operation]) -> bytes:
    """Return the document as it is served."""
    return json.dumps(document(operations), indent=1, ensure_ascii=False).encode()
