"""A small, strict YAML: what reads one way to people must not read another way to us (H35).

YAML 1.2 core scalars (https://yaml.org/spec/1.2.2/#103-core-schema) over libyaml's events, so
``NO`` is Norway and ``12:30`` is text. Refused: duplicate keys, anchors, aliases, tags,
directives, several documents, tabs and control characters, deep nesting, large documents.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import yaml

from gatekeeper.policy.mistake import Mistake

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Path: TypeAlias = "tuple[str | int, ...]"
Plain: TypeAlias = "dict[str, Plain] | list[Plain] | str | int | float | bool | None"

MAX_CHARACTERS: Final = 1_000_000
MAX_DEPTH: Final = 20
_INT_BOUND: Final = 2**63

# Tabs, control characters, line breaks of YAML 1.1 alone, and what reorders text on a screen.
_UNSAFE: Final = re.compile(
    "[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
    "\ufeff\ufffe\uffff]|\r(?!\n)"
)
_WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# Leading zeros are octal to YAML 1.1 and decimal to 1.2: such numbers stay text.
_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*)", re.ASCII)
_FLOAT: Final = re.compile(
    r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII
)
_END: Final = re.compile(r"^\.\.\.(?:\s|$)", re.MULTILINE)
_NOT_FINITE: Final = re.compile(r"[-+]?\.(?:inf|nan)", re.ASCII | re.IGNORECASE)


_CUT_OFF: Final = "The last line must be `...`: the file looks cut off."


@dataclass(frozen=True, slots=True)
class Document:
    """The value of a document, and the line on which each part of it stands."""

    value: Plain
    _lines: Mapping[Path, int]

    def line(self, path: Path) -> int | None:
        """Return the 1-based line of ``path``, or of the nearest part that contains it."""
        for length in range(len(path), -1, -1):
            found = self._lines.get(path[:length])
            if found is not None:
                return found
        return None


def read_yaml(text: str, file: str, *, require_end: bool = True) -> Document | list[Mistake]:
    """Read one YAML document; ``file`` only names it in mistakes. Raises for no text at all.

    ``require_end`` asks for the document end marker ``...`` as the last line, without which a
    file that was cut off while being written can read as a shorter, valid one.
    """
    if len(text) > MAX_CHARACTERS:
        return [Mistake(file, None, "", f"The file is longer than {MAX_CHARACTERS} characters.")]
    unsafe = _UNSAFE.search(text)
    if unsafe is not None:
        line = text.count("\n", 0, unsafe.start()) + 1
        return [Mistake(file, line, "", f"{_unsafe_name(unsafe[0])} is not allowed here.")]
    cut_off = Mistake(file, text.count("\n") + 1, "", _CUT_OFF)
    if require_end and not _END.search(text):
        # Whatever else is wrong at the end of half a file would only distract.
        return [cut_off]
    reader = _Reader(file)
    try:
        # yaml.parse is lazy: nothing past the first refusal is even looked at.
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if not reader.take(event):
                return reader.mistakes
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = (error.problem or "not YAML").rstrip(".")
        reader.refuse(mark, f"This is not valid YAML: {problem}.")
    if require_end and not reader.mistakes and not reader.ended:
        return [cut_off]
    return reader.mistakes or Document(reader.value, reader.lines)


def place(path: Path) -> str:
    """Write ``path`` the way people do: ``signals[3].points``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _unsafe_name(character: str) -> str:
    names = {"\t": "A tab (use spaces)", "\ufeff": "A byte order mark (save as plain UTF-8)"}
    return names.get(character, f"The character U+{ord(character):04X}")


@dataclass(slots=True)
class _Open:
    """A collection whose end has not been reached."""

    value: dict[str, Plain] | list[Plain]
    path: Path
    key: str | None = None
    """The key that waits for its value."""
    broken_keys: int = 0


@dataclass(slots=True)
class _Reader:
    file: str
    mistakes: list[Mistake] = field(default_factory=list)
    value: Plain = None
    lines: dict[Path, int] = field(default_factory=dict)
    ended: bool = False
    documents: int = 0
    stack: list[_Open] = field(default_factory=list)

    def take(self, event: yaml.Event) -> bool:
        """Take the next event; ``False`` when going on makes no sense."""
        match event:
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    return self.refuse(event.start_mark, "A file holds only one document.")
                if event.version is not None or event.tags:
                    self.refuse(event.start_mark, "Directives (lines with `%`) are not allowed.")
            case yaml.DocumentEndEvent():
                self.ended = bool(event.explicit)
            case yaml.AliasEvent():
                self.refuse(event.start_mark, "Aliases (`*name`) are not allowed; repeat the text.")
                self._put(None, event)
            case yaml.ScalarEvent():
                self._refuse_properties(event)
                self._put(self._scalar(event), event)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._refuse_properties(event)
                return self._open(event)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self.stack.pop()
        return True

    def refuse(self, mark: Any, message: str) -> bool:
        """Note a mistake at ``mark``; returns ``False`` for the caller to hand on."""
        line = None if mark is None else mark.line + 1
        path = self._here() if self.stack else ()
        self.mistakes.append(Mistake(self.file, line, place(path), message))
        return False

    def _here(self) -> Path:
        top = self.stack[-1]
        if isinstance(top.value, list):
            return (*top.path, len(top.value))
        return top.path if top.key is None else (*top.path, top.key)

    def _refuse_properties(self, event: Any) -> None:
        if event.anchor is not None:
            self.refuse(event.start_mark, "Anchors (`&name`) are not allowed; repeat the text.")
        if event.tag is not None:
            self.refuse(event.start_mark, "Tags (`!name`) are not allowed.")

    def _open(self, event: yaml.CollectionStartEvent) -> bool:
        if len(self.stack) >= MAX_DEPTH:
            message = f"More than {MAX_DEPTH} levels of nesting are not allowed."
            return self.refuse(event.start_mark, message)
        value: dict[str, Plain] | list[Plain]
        value = {} if isinstance(event, yaml.MappingStartEvent) else []
        path = self._here() if self.stack else ()
        if not self._put(value, event):
            return self.refuse(event.start_mark, "A key must be text, not a list or a mapping.")
        self.stack.append(_Open(value, path))
        return True

    def _put(self, value: Plain, event: Any) -> bool:
        """Put ``value`` where the reader stands; ``False`` when a key cannot be like that."""
        line = event.start_mark.line + 1
        if not self.stack:
            self.value = value
            self.lines[()] = line
            return True
        top = self.stack[-1]
        if isinstance(top.value, list):
            self.lines[self._here()] = line
            top.value.append(value)
        elif top.key is None:
            if isinstance(value, (dict, list)):
                return False
            top.key = self._key(value, top, event)
            self.lines.setdefault((*top.path, top.key), line)
        else:
            top.value[top.key] = value
            top.key = None
        return True

    def _key(self, key: Plain, top: _Open, event: Any) -> str:
        if not isinstance(key, str) or not key:
            self.refuse(event.start_mark, "A key must be text; put it in quotes.")
        elif key in top.value:
            self.refuse(event.start_mark, f"The key `{key}` stands twice; the second would win.")
        else:
            return key
        # A placeholder keeps the reader in step, so that later mistakes are told as well.
        top.broken_keys += 1
        return f"?{top.broken_keys}"

    def _scalar(self, event: yaml.ScalarEvent) -> Plain:
        text = event.value
        if _UNSAFE.search(text):
            self.refuse(event.start_mark, "Text must not contain control characters.")
            return ""
        if not event.implicit[0]:
            return str(text)
        if text in _WORDS:
            return _WORDS[text]
        number = _number(text)
        if number is None:
            return str(text)
        if not math.isfinite(number) or abs(number) >= _INT_BOUND:
            self.refuse(event.start_mark, "A number must be finite and below 2**63.")
            return 0
        return number


def _number(text: str) -> float | None:
    if _INT.fullmatch(text):
        # Python refuses to convert thousands of digits; anything that long is out of bounds.
        return int(text) if len(text) < len(str(_INT_BOUND)) + 2 else math.inf
    if _FLOAT.fullmatch(text):
        return float(text)
    return math.nan if _NOT_FINITE.fullmatch(text) else None


def walk(value: Plain, path: Path = ()) -> Iterator[tuple[Path, Plain]]:
    """Yield every part of ``value`` with its path, containers before what they contain."""
    yield path, value
    items: Iterator[tuple[str | int, Plain]] = iter(())
    if isinstance(value, dict):
        items = iter(value.items())
    elif isinstance(value, list):
        items = iter(enumerate(value))
    for part, inner in items:
        yield from walk(inner, (*path, part))
