"""Reads JSON request bodies as every upstream would: one meaning, or a refusal.

Limits rest on fields that the upstream reads too. A body that two JSON parsers read differently
(a field twice, in another case, a number as text) would be held for one meaning and billed for the
other, so it is refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, TypeVar, cast

import msgspec

from gatekeeper.dialects.json_spans import (
    Edit,
    Member,
    applied,
    members,
    members_within,
)
from gatekeeper.dialects.json_text import MOST_PARTS, has_too_many_parts

if TYPE_CHECKING:
    from gatekeeper.dialects.base import Changes

T = TypeVar("T")
Fields: TypeAlias = "dict[str, bytes]"
"""Top-level fields of a body: name to JSON text."""

MOST_TOKENS: Final = 10_000_000
MOST_CHOICES: Final = 1_024
_LONGEST_NUMBER: Final = 20
_LONGEST_MODEL: Final = 256
_LONGEST_OPTIONS: Final = 4_096

BOUNDS: Final = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "max_new_tokens",
    "max_tokens_to_sample",
    "n_predict",
)
"""Every spelling of the bound on output that some upstream obeys; the largest one counts (H23)."""
CHOICES: Final = ("n", "best_of", "n_cmpl")
BILLING: Final = frozenset({"model", "stream", "stream_options", "thinking", *BOUNDS, *CHOICES})

_FALLBACKS: Final = frozenset({"models", "fallbacks"})
"""OpenRouter's and LiteLLM's words."""
_SPACE: Final = b" \t\n\r"

_RAW_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TOKENS: Final = msgspec.json.Decoder(Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)] | None)
_COUNT: Final = msgspec.json.Decoder(Annotated[int, msgspec.Meta(ge=1, le=MOST_CHOICES)] | None)
_FLAG: Final = msgspec.json.Decoder(bool | None)
_TEXT: Final = msgspec.json.Decoder(str)
_ANY: Final = msgspec.json.Decoder()
_NUMBER: Final = msgspec.json.Decoder(int | None)
_OPTIONS: Final = msgspec.json.Decoder(dict[str, Any] | None)
_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_REPORTING: Final = (b"include_usage", b"continuous_usage_stats")
"""Stream options that ask for usage: at the end, and with every chunk."""
_REPORTS: Final = frozenset(name.decode() for name in _REPORTING)
_TOKEN_IDS: Final = re.compile(rb"\[[ \t\n\r]*\d")
_BEFORE_VALUE: Final = re.compile(
    rb'[ \t\n\r]*[{,][ \t\n\r]*"(?:[^"\\]++|\\.)*+"[ \t\n\r]*:[ \t\n\r]*'
)
_END: Final = re.compile(rb"[ \t\n\r]*\{?[ \t\n\r]*\}[ \t\n\r]*\Z")


def read_fields(body: bytes) -> Fields | str:
    """Split a body into its top-level fields, or say what is wrong with it."""
    if has_too_many_parts(body):
        return f"The body has more than {MOST_PARTS} brackets and quotation marks."
    try:
        found = _RAW_FIELDS.decode(body)
    except RecursionError:
        return "The body is nested too deeply."
    except (msgspec.DecodeError, UnicodeError):
        return "The body must be one JSON object (RFC 8259) in UTF-8."
    if _repeats(body, found):
        return "The body names a field twice at its top level."
    for name in found:
        if name not in BILLING and name.casefold() in BILLING:
            return f"The field `{name.casefold()}` must be written in lower case."
    return {name: bytes(value) for name, value in found.items()}


def _repeats(body: bytes, found: dict[str, msgspec.Raw]) -> bool:
    """Tell whether ``body`` has more fields than the parser, for which the last of equals wins.

    Each value is looked for right behind its name, in order. A repeated name keeps its first place
    and its last value, so either a value is not where it should be or a field is left at the end.
    """
    place = 0
    for value in found.values():
        head = _BEFORE_VALUE.match(body, place)
        if head is None or not body.startswith(value, head.end()):
            return True
        place = head.end() + len(memoryview(value))
    return _END.match(body, place) is None


def in_place(body: bytes) -> list[Member]:
    """Return where the top-level fields of a body stand that :func:`read_fields` has taken."""
    return members_within(body, 0, len(body))


def rewritten(
    body: bytes, changes: Changes, bound_field: str, obeyed: tuple[str, ...] = BOUNDS
) -> bytes:
    """Return the body with ``changes`` made in place.

    ``bound_field`` is how a bound is called that has to be put in where none is that is ``obeyed``;
    empty where none can be.
    """
    found = in_place(body)
    edits: list[Edit] = []
    added: list[bytes] = []
    if changes.max_output_tokens is not None:
        most = str(changes.max_output_tokens).encode()
        edits += _lowered(body, found, BOUNDS, changes.max_output_tokens) or ()
        named = _lowered(body, found, obeyed, changes.max_output_tokens)
        if named is None and bound_field:
            empty = next((each for each in found if each.name == bound_field.encode()), None)
            if empty is None:
                added.append(b'"%b":%b' % (bound_field.encode(), most))
            else:  # it is there, as null
                edits.append(Edit(empty.value, empty.end, most))
    if changes.max_choices is not None:
        edits += _lowered(body, found, CHOICES, changes.max_choices) or ()
    if changes.report_usage:
        options = next((each for each in found if each.name == b"stream_options"), None)
        names = _REPORTING if changes.report_continuously else _REPORTING[:1]
        if options is None:
            added.append(b'"stream_options":{%b}' % _said(names))
        else:
            edits += _reporting(body, options, names)
    if added:
        text = b",".join(added)
        if found:
            edits.append(Edit(found[-1].end, found[-1].end, b"," + text))
        else:
            inside = body.index(b"{") + 1
            edits.append(Edit(inside, inside, text))
    return applied(body, edits)


def _lowered(
    body: bytes, found: list[Member], names: tuple[str, ...], most: int
) -> list[Edit] | None:
    """Return the edits that bring numbers down to ``most``; ``None`` when there is no number."""
    numbers = [
        (each, _scalar(_NUMBER, body[each.value : each.end]))
        for each in found
        if each.name.decode() in names
    ]
    present = [(each, number) for each, number in numbers if isinstance(number, int)]
    if not present:
        return None
    text = str(most).encode()
    return [
        Edit(each.value, each.end, text)
        for each, number in present
        if number > most or number < 0  # below 0 is "without bound" to some servers
    ]


def _reporting(body: bytes, options: Member, names: tuple[bytes, ...]) -> list[Edit]:
    """Return the edits that set these options, whatever else is asked for."""
    if not body.startswith(b"{", options.value):
        return [Edit(options.value, options.end, b"{%b}" % _said(names))]
    inside = {each.name: each for each in members(body, options.value)}
    there = [inside[name] for name in names if name in inside]
    edits = [Edit(each.value, each.end, b"true") for each in there]
    missing = tuple(name for name in names if name not in inside)
    if missing:
        start = options.value + 1
        edits.append(Edit(start, start, _said(missing) + (b"," if inside else b"")))
    return edits


def _said(names: tuple[bytes, ...]) -> bytes:
    return b",".join(b'"%b":true' % name for name in names)


def stream_options(fields: Fields) -> bool | str | None:
    """Return whether usage is asked for in a stream, or say what is wrong with the options.

    ``None`` where it is asked for with every chunk: there is nothing to add.
    """
    value = fields.get("stream_options")
    if value is None:
        return False
    if len(value) > _LONGEST_OPTIONS:
        return "The field `stream_options` is too long."
    try:
        options = _OPTIONS.decode(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return "The field `stream_options` must be an object."
    for name in options or ():
        if name not in _REPORTS and name.casefold() in _REPORTS:
            return f"The field `stream_options.{name.casefold()}` must be written in lower case."
    include = None if options is None else options.get("include_usage")
    if include is not None and not isinstance(include, bool):
        return "The field `stream_options.include_usage` must be true or false."
    if include and options is not None and options.get("continuous_usage_stats") is True:
        return None
    return include is True


def model_of(fields: Fields) -> str | None:
    """Return the model's name; ``None`` when it is missing or cannot be a name."""
    try:
        name = _TEXT.decode(fields["model"])
    except (KeyError, msgspec.DecodeError, UnicodeError):
        return None
    return name if is_model(name) else None


def names_fallbacks(fields: Fields) -> str | None:
    """Say which field names models beside ``model``, any of which some routers may take instead.

    An account is allowed, limited and charged by one.
    """
    if _FALLBACKS.isdisjoint(fields):
        return None
    own = b"[%b]" % fields.get("model", b"").translate(None, _SPACE)
    for name in _FALLBACKS & fields.keys():
        if fields[name].translate(None, _SPACE) not in {b"null", b"[]", own}:
            return f"The field `{name}` names other models: ask for one by `model` alone."
    return None


def is_model(name: str | None) -> bool:
    """Tell whether a text can be the name of a model.

    Spaces around it would be other names to rules and prices, and none to some servers.
    """
    if name is None or not 0 < len(name) <= _LONGEST_MODEL:
        return False
    return name.isprintable() and name == name.strip()


def flag(fields: Fields, name: str) -> bool | str:
    """Return a boolean field, false when it is missing or null, or say what is wrong with it."""
    if name not in fields:
        return False
    value = _scalar(_FLAG, fields[name])
    return f"The field `{name}` must be true or false." if value is _WRONG else bool(value)


def output_bound(fields: Fields) -> int | str | None:
    """Return the largest bound on output that the body names, per choice."""
    return _largest(fields, BOUNDS, _TOKENS, f"a whole number from 0 to {MOST_TOKENS}")


def choices_of(fields: Fields) -> int | str:
    """Return how many answers are to be generated per prompt."""
    if fields.get("best_of") == b"0":  # the API takes it, and means what it means by leaving it out
        fields = {name: value for name, value in fields.items() if name != "best_of"}
    most = _largest(fields, CHOICES, _COUNT, f"a whole number from 1 to {MOST_CHOICES}")
    return 1 if most is None else most


def prompts_of(fields: Fields) -> int:
    """Return how many prompts ``prompt`` holds (OpenAI completions take a list of them)."""
    value = fields.get("prompt", b"")
    if not value.startswith(b"["):
        return 1
    if _TOKEN_IDS.match(value):  # of which there may be millions
        return 1
    return max(1, len(_ITEMS.decode(value)))


def whole_number(value: bytes) -> int | None:
    """Return a JSON number or ``None`` for null; raises :class:`ValueError` for anything else."""
    number = _scalar(_NUMBER, value)
    if number is _WRONG:
        raise ValueError
    return cast("int | None", number)


def _largest(
    fields: Fields, names: tuple[str, ...], decoder: msgspec.json.Decoder[int | None], wanted: str
) -> int | str | None:
    most: int | None = None
    for name in names:
        value = fields.get(name)
        if value is None:
            continue
        number = _scalar(decoder, value)
        if number is _WRONG:
            return f"The field `{name}` must be {wanted}."
        if number is not None and (most is None or number > most):
            most = number
    return most


_WRONG: Final = object()


def _scalar(decoder: msgspec.json.Decoder[T], value: bytes) -> Any:
    if len(value) > _LONGEST_NUMBER:  # a number with a million digits is slow to convert
        return _WRONG
    try:
        return decoder.decode(value)
    except (msgspec.DecodeError, UnicodeError):
        return _WRONG
