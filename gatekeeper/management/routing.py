"""From a method and a path as it was sent to the operation that it names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gatekeeper.management.operation import Method
from gatekeeper.management.problems import Code, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gatekeeper.management.operation import Operation


@dataclass(frozen=True, slots=True)
class Route:
    """An operation, and what stands for its parameters in the path, as it was sent."""

    operation: Operation
    parameters: Mapping[str, str]


class Routes:
    """Paths by their parts; a part that is written out goes before one that is a parameter."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._operations = sorted(operations, key=lambda each: len(each.parameters))

    def find(self, method: str, path: str) -> Route | Problem:
        """Return the operation and its raw path parameters, or why there is none."""
        parts = path.split("/")
        allowed: set[Method] = set()
        for operation in self._operations:
            parameters = _match(operation.path.split("/"), parts)
            if parameters is None:
                continue
            if method == operation.method or (method == "HEAD" and operation.method == "GET"):
                return Route(operation, parameters)
            allowed.add(operation.method)
        if allowed:
            return not_allowed(allowed)
        return Problem(Code.NOT_FOUND, "There is no such path: `/v1/openapi.json` lists them all.")


def _match(template: Sequence[str], parts: Sequence[str]) -> dict[str, str] | None:
    if len(template) != len(parts):
        return None
    found: dict[str, str] = {}
    for wanted, part in zip(template, parts, strict=True):
        if wanted.startswith("{") and part:
            found[wanted[1:-1]] = part
        elif wanted != part:
            return None
    return found


def not_allowed(allowed: set[Method]) -> Problem:
    """Return the problem of a method that a path does not take."""
    names = {each.value for each in allowed} | ({"HEAD"} if Method.GET in allowed else set())
    listed = ", ".join(sorted(names))
    return Problem(Code.METHOD_NOT_ALLOWED, f"Use one of: {listed}.", headers={"Allow": listed})
