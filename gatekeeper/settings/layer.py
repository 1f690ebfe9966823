"""A tree of settings that remembers where each value was written."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.strict_yaml import place
from gatekeeper.policy.validation import did_you_mean
from gatekeeper.settings import Settings
from gatekeeper.settings.shape import leaves, type_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic_core import ErrorDetails

    from gatekeeper.policy.strict_yaml import Document
    from gatekeeper.settings.shape import Place


@dataclass(slots=True)
class Layer:
    """A tree of settings, and where its values came from."""

    tree: dict[str, Any] = field(default_factory=dict)
    document: Document | None = None
    file: str = ""
    origins: dict[Place, Mistake] = field(default_factory=dict)
    """Places set by a variable or flag, each with a mistake that lacks its message."""
    whole: bool = True
    """False when the file could not be read: then much that it says seems to be missing."""

    def copy(self) -> Layer:
        """Return a layer that can be added to without touching this one."""
        return replace(self, tree=deepcopy(self.tree), origins=dict(self.origins))

    def json(self) -> str:
        """Return the tree as JSON, in which form lists and paths are validated strictly."""
        return json.dumps(self.tree, default=str)

    def put(self, at: Place, value: object, origin: Mistake) -> Mistake | None:
        """Set one value, making room for it; a list grows by one at most."""
        if at[:2] == ("listeners", 0) and "listeners" not in self.tree:
            self.tree["listeners"] = [{}]  # the default one, so that a field of it can be set
        node: Any = self.tree
        for step, following in zip(at, (*at[1:], None), strict=True):
            last = following is None
            if isinstance(step, int):
                if step > len(node):
                    return say(origin, f"There is no item {step}: the list has {len(node)}.")
                node.extend([None] * (step == len(node)))
            child = value if last else ([] if isinstance(following, int) else {})
            held = node[step] if isinstance(step, int) else node.get(step)
            if last or not isinstance(held, type(child)):
                node[step] = child
            node = node[step]
        for covered in [each for each in self.origins if each[: len(at)] == at]:
            del self.origins[covered]
        self.origins[at] = origin
        return None

    def mistake(self, at: Place, message: str) -> Mistake:
        """Say ``message`` where the value ``at`` this place was written."""
        for length in range(len(at), 0, -1):
            if (origin := self.origins.get(at[:length])) is not None:
                return say(origin, message, place((origin.path, *at[length:])))
        if self.document is None:
            return Mistake("settings", None, place(at), message)
        return Mistake(self.file, self.document.line(at), place(at), message)

    def mistakes(self) -> Iterator[tuple[Mistake, str]]:
        """Validate the tree by itself; yield each mistake with pydantic's name for its kind."""
        try:
            Settings.model_validate_json(self.json(), strict=True)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                yield self.mistake(detail["loc"], _message(detail)), detail["type"]


def say(origin: Mistake, message: str, path: str | None = None) -> Mistake:
    """Return the mistake that ``origin`` made, with its message."""
    return Mistake(origin.file, origin.line, origin.path if path is None else path, message)


def _message(detail: ErrorDetails) -> str:
    # Text is never repeated: it may be a key that was written in the wrong place.
    kind, at, given = detail["type"], detail["loc"], detail["input"]
    if kind == "missing":
        return f"`{at[-1]}` is missing."
    if kind == "extra_forbidden":
        return _unknown_key(at)
    if kind in _WANTED:
        return f"This must be {_WANTED[kind]}."
    text = detail["msg"].replace("Input should", "This must").replace("String should", "This must")
    return f"{text}, not {given}." if type(given) in {int, float} else f"{text}."


_WANTED: Final = {
    "model_type": "a mapping",
    "tuple_type": "a list",
    "bool_type": "true or false",
    "string_type": "text; put it in quotes",
}


def _unknown_key(at: Place) -> str:
    *above, name = at
    siblings = list(getattr(type_at(tuple(above)), "model_fields", ()))
    hint = did_you_mean(str(name), siblings)
    elsewhere = [place(each) for each in leaves() if each[-1] == name]
    if hint == "." and elsewhere:
        hint = f"; did you mean `{elsewhere[0]}`?"
    return f"This is not a setting{hint}"
