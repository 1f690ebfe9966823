"""Single events of OpenAI realtime: the upstream's, taken for true; the caller's, read strictly.

A caller's event that two parsers could read differently is refused, as a body is.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Struct

from gatekeeper.dialects.body import MOST_TOKENS, read_fields
from gatekeeper.policy.model import Usage, UsageParts

BOUNDS: Final = ("max_output_tokens", "max_response_output_tokens")
_READ: Final = frozenset({"type", "session", "response", "audio", "model", *BOUNDS})
"""Fields that limits rest on: a name in another case could pass for one of them upstream."""
_LONGEST_ID: Final = 128

_Count = Annotated[int, msgspec.Meta(ge=0, le=10**12)]


# --- of the upstream ----------------------------------------------------------------------------


class _Media(Struct):
    audio_tokens: _Count = 0
    image_tokens: _Count = 0


class _Details(_Media):
    cached_tokens: _Count = 0
    reasoning_tokens: _Count = 0
    cached_tokens_details: _Media | None = None


_NO_DETAILS: Final = _Details()


class Reported(Struct):
    """Usage as the API words it."""

    input_tokens: _Count | None = None
    output_tokens: _Count | None = None
    seconds: Annotated[float, msgspec.Meta(ge=0, le=10**9)] | None = None
    input_token_details: _Details | None = None
    output_token_details: _Details | None = None


class UpstreamResponse(Struct):
    """A response inside an event."""

    id: str | None = None
    usage: Reported | None = None


class _Named(Struct):
    id: str | None = None


class _Bare(Struct):
    """An event whose numbers cannot be: only what it is still counts."""

    type: str
    response: _Named | None = None


class UpstreamEvent(Struct):
    """What is read of an event."""

    type: str
    response: UpstreamResponse | None = None
    response_id: str | None = None
    item_id: str | None = None
    delta: msgspec.Raw = msgspec.Raw(b"")
    usage: Reported | None = None


_EVENT: Final = msgspec.json.Decoder(UpstreamEvent)
_BARE: Final = msgspec.json.Decoder(_Bare)
_TEXT: Final = msgspec.json.Decoder(str)
_BOUND: Final = msgspec.json.Decoder(int | str | None)
_NOTHING: Final[dict[str, bytes]] = {}


def event_of(event: bytes) -> UpstreamEvent | None:
    """Read an event of the upstream; one whose numbers cannot be keeps its type alone."""
    try:
        return _EVENT.decode(event)
    except msgspec.ValidationError:
        pass
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    try:
        bare = _BARE.decode(event)
    except msgspec.DecodeError:
        return None
    response_id = None if bare.response is None else bare.response.id
    return UpstreamEvent(bare.type, UpstreamResponse(response_id))


def usage_of(reported: Reported) -> Usage:
    """Return usage in our words; audio that is billed by its length has no tokens."""
    if reported.seconds is not None and reported.input_tokens is None:
        return Usage(parts=UsageParts(audio_s=reported.seconds))
    read = reported.input_token_details or _NO_DETAILS
    cached = read.cached_tokens_details or _NO_DETAILS  # has the price of cached input alone
    written = reported.output_token_details or _NO_DETAILS
    return Usage(
        reported.input_tokens or 0,
        reported.output_tokens or 0,
        parts=UsageParts(
            cached_input_tokens=read.cached_tokens,
            audio_input_tokens=max(0, read.audio_tokens - cached.audio_tokens),
            image_input_tokens=max(0, read.image_tokens - cached.image_tokens),
            reasoning_tokens=written.reasoning_tokens,
            audio_output_tokens=written.audio_tokens,
        ),
    )


# --- of the caller ------------------------------------------------------------------------------


def misspelt(fields: dict[str, bytes]) -> str | None:
    """Say which field has a name that only another case tells from one that is read."""
    for name in fields:
        if name not in _READ and name.casefold() in _READ:
            return f"The field `{name.casefold()}` must be written in lower case."
    return None


def object_in(fields: dict[str, bytes], name: str) -> dict[str, bytes] | str:
    """Return the fields of an object inside an event; none when it is missing or null."""
    value = fields.get(name, b"null")
    if value == b"null":
        return _NOTHING
    found = read_fields(value)
    if isinstance(found, str):
        return f"The field `{name}` must be one JSON object that names no field twice."
    return misspelt(found) or found


def bound_of(fields: dict[str, bytes]) -> int | str | None:
    """Return the larger bound that an object names; ``None`` for none, and for ``"inf"``."""
    most: int | None = None
    for name in BOUNDS:
        if name not in fields:
            continue
        try:
            value = _BOUND.decode(fields[name])
        except (msgspec.DecodeError, UnicodeError):
            value = -1
        if value is None or value == "inf":
            return None
        if isinstance(value, str) or not 0 <= value <= MOST_TOKENS:
            return f'The field `{name}` must be "inf" or a whole number up to {MOST_TOKENS}.'
        most = value if most is None else max(most, value)
    return most


def text_of(value: bytes | None) -> str | None:
    """Return a JSON string, ``None`` when it is none."""
    try:
        return _TEXT.decode(value or b"null")
    except (msgspec.DecodeError, UnicodeError):
        return None


def event_id_of(event: bytes) -> str | None:
    """Return the id that a caller gave its event, if it is one that can be told back."""
    fields = read_fields(event)
    found = None if isinstance(fields, str) else text_of(fields.get("event_id"))
    fine = found is not None and found.isascii() and found.isprintable()
    return found if fine and len(found or "") <= _LONGEST_ID else None


def models_in(value: Any) -> list[str]:
    """Return every string that stands under ``model``, however deep; depth is the parser's."""
    if isinstance(value, list):
        return [model for each in value for model in models_in(each)]
    if not isinstance(value, dict):
        return []
    own = value.get("model")
    below = [model for each in value.values() for model in models_in(each)]
    return [own, *below] if isinstance(own, str) else below


def without_media(value: Any) -> tuple[int, int, Any]:
    """Cut recordings and images out of content parts; return characters, images and the rest."""
    if isinstance(value, list):
        found = [without_media(each) for each in value]
        return sum(each[0] for each in found), sum(each[1] for each in found), [e[2] for e in found]
    if not isinstance(value, dict):
        return 0, 0, value
    kind = value.get("type")
    if kind in {"input_audio", "audio", "output_audio"} and isinstance(value.get("audio"), str):
        return len(value["audio"]), 0, {**value, "audio": ""}
    if kind == "input_image":
        return 0, 1, None
    below = {name: without_media(each) for name, each in value.items()}
    return (
        sum(each[0] for each in below.values()),
        sum(each[1] for each in below.values()),
        {name: each[2] for name, each in below.items()},
    )
