"""What a schema says of a document, told as mistakes with their place."""

from __future__ import annotations

import difflib
import json
import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.strict_yaml import place, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gatekeeper.policy.strict_yaml import Document, Path, Plain

T = TypeVar("T")

_WANTED: Final = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "`true` or `false`",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
"""What is wanted, by pydantic's error type."""


def validate(
    schema: TypeAdapter[T],
    document: Document,
    file: str,
    *,
    null_allowed: Callable[[Path], bool] = lambda _: False,
) -> T | list[Mistake]:
    """Check ``document`` against ``schema``, strictly: no text for numbers, no unknown keys.

    A key without a value is a mistake wherever ``null_allowed`` does not say otherwise, so that
    a lost value is never read as the default (H35).
    """
    nulls = {p for p, v in walk(document.value) if v is None and not null_allowed(p)}
    found = dict.fromkeys(nulls, "There is no value; write one.")
    try:
        valid = schema.validate_json(json.dumps(document.value), strict=True)
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            found.setdefault(problem["loc"], _sentence(problem, schema))
    mistakes = [
        Mistake(file, document.line(path), place(path), text) for path, text in found.items()
    ]
    return sorted(mistakes) or valid


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that names the nearest of ``known``, or just a full stop."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean `{near[0]}`?" if near else "."


def _keys_at(whole: dict[str, Any], loc: Path) -> list[str]:
    """Return the keys that the mapping around ``loc`` may have, by the JSON Schema ``whole``."""
    node = _resolved(whole, whole)
    for part in loc[:-1]:
        inner = node["items"] if isinstance(part, int) else node["properties"][part]
        node = _resolved(inner, whole)
    return list(node["properties"])


def _resolved(node: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    # What may be left out is a choice between itself and null.
    node = node.get("anyOf", [node])[0]
    if "$ref" in node:
        node = whole["$defs"][node["$ref"].rpartition("/")[2]]
    return node


def _sentence(found: Any, schema: TypeAdapter[T]) -> str:
    value, last = found["input"], found["loc"][-1] if found["loc"] else ""
    match found["type"]:
        case "missing":
            text = f"`{last}` is missing."
        case "extra_forbidden":
            keys = _keys_at(schema.json_schema(), found["loc"])
            hint = did_you_mean(str(last), keys)
            listed = f" Keys: {', '.join(keys)}." if hint == "." else ""
            text = f"`{str(last)[:40]}` is not a key here{hint}{listed}"
        case "enum" | "literal_error":
            expected = found["ctx"]["expected"]
            known = re.findall(r"'([^']*)'", expected) or [expected]
            hint = did_you_mean(value, known) if isinstance(value, str) else "."
            text = f"This must be {_one_of(known)}, not {_shown(value)}{hint}"
        case "value_error":
            text = str(found["ctx"]["error"])
        case "too_short":
            text = "This list must not be empty."
        case "string_type":
            quotes = "" if isinstance(value, (dict, list)) else "; put it in quotes"
            text = f"This must be text, not {_shown(value)}{quotes}."
        case kind if kind in _WANTED:
            text = f"This must be {_WANTED[kind]}, not {_shown(value)}."
        case _:
            text = f"{found['msg'].replace('Input should', 'This must')}, not {_shown(value)}."
    return text


def _one_of(words: list[str]) -> str:
    return f"`{words[0]}`" if len(words) == 1 else "one of " + ", ".join(f"`{w}`" for w in words)


def _shown(value: Plain) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return f"`{json.dumps(value) if not isinstance(value, str) else value[:40]}`"
