"""Every route that the real OpenAI SDK can call, found by calling all of its methods."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import openai
from openai._resource import SyncAPIResource

_GUESSES: tuple[Any, ...] = ("id_1", ["id_1"], b"x", {"a": "b"})
"""Arguments that one or the other method takes far enough to build its request."""


class _CapturedError(Exception):
    """A request is as far as it should go."""


def sdk_routes() -> set[tuple[str, str]]:
    """Return method and path of every request that the SDK builds, behind its base URL."""
    client = openai.OpenAI(api_key="k", admin_api_key="k")
    found: set[tuple[str, str]] = set()

    def capture(_: object, options: Any, **more: object) -> None:
        found.add((options.method.upper(), options.url.partition("?")[0]))
        raise _CapturedError

    client.request = capture  # type: ignore[assignment,method-assign]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for resource in _resources(client, set()):
            for name, method in inspect.getmembers(resource, inspect.ismethod):
                if not name.startswith(("_", "with_")):
                    _call(method)
    return found


def _resources(owner: object, seen: set[type]) -> list[SyncAPIResource]:
    children = [
        getattr(owner, name)
        for name in dir(type(owner))
        if not name.startswith(("_", "with_"))
        and type(inspect.getattr_static(type(owner), name)).__name__ == "cached_property"
    ]
    resources: list[SyncAPIResource] = []
    for child in children:
        if isinstance(child, SyncAPIResource) and type(child) not in seen:
            seen.add(type(child))
            resources += [child, *_resources(child, seen)]
    return resources


def _call(method: Any) -> None:
    required = [
        each.name
        for each in inspect.signature(method).parameters.values()
        if each.default is each.empty
        and each.kind in {each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY}
    ]
    for guess in _GUESSES:
        named = {each: "id_1" if each.endswith("_id") else guess for each in required}
        try:
            method(**named)
        except Exception as error:  # noqa: BLE001 - whatever it does not like, the next may do
            if isinstance(error, _CapturedError):
                return
