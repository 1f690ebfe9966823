"""What a body of the OpenAI families asks: its worst case, from every field that bills (H23).

The words of vLLM, llama.cpp, DeepSeek and others are read on every route: each of these servers
speaks more families than its own, and a field that an upstream does not know costs nothing to read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from gatekeeper.dialects.base import Ask
from gatekeeper.dialects.body import (
    BOUNDS,
    choices_of,
    flag,
    prompts_of,
    stream_options,
)
from gatekeeper.dialects.json_text import SLICE_BYTES
from gatekeeper.dialects.output_bounds import Bound, bound_of
from gatekeeper.dialects.prompt import input_tokens
from gatekeeper.policy.model import NO_PARTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.dialects.body import Fields
    from gatekeeper.policy.model import UsageParts

_LOGPROBS: Final = ("logprobs", "prompt_logprobs", "top_logprobs", "n_probs")
_AT_ZERO: Final = frozenset({"logprobs", "prompt_logprobs"})
"""Where 0 alternatives still give the token's own log probability."""
_LOGIT_BIAS: Final = ("logit_bias", "allowed_token_ids", "logits_processors", "bad_words")
_ASKED: Final = frozenset((*_LOGPROBS, *_LOGIT_BIAS))
_UNSET: Final = frozenset({b"null", b"false", b"{}", b"[]", b'""', b"0"})
_LONGEST_UNSET: Final = 16
_SPACE: Final = b" \t\n\r"
_OF_TOKEN_IDS: Final = b"[]0123456789, \t\n\r"
_TOKEN_ID: Final = re.compile(rb"\d")
_TOKENS_OF: Final = ("prompt", "input", "token_ids")
_NULL: Final = b"null"
_ROLE: Final = b"assistant"


class _Said(msgspec.Struct):
    role: str | None = None


_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_SAID: Final = msgspec.json.Decoder(_Said)


def ask_of(
    fields: Fields,
    model: str | None,
    count: Callable[[bytes], int],
    *,
    prompts: int = 1,
    prefill: bool = False,
    parts: UsageParts = NO_PARTS,
    held_unless_reported: bool = False,
    bound: Bound | None = None,
    obeyed: tuple[str, ...] = BOUNDS,
    usage_on_request: bool = True,
) -> Ask | str:
    """Return the ask of a route that generates, or say what is wrong with a field.

    ``bound`` where the route knows better than the fields; ``usage_on_request`` where its streams
    report only when ``stream_options`` ask.
    """
    stream = flag(fields, "stream")
    if isinstance(stream, str):
        return stream
    found = bound_of(fields, obeyed=obeyed) if bound is None else bound
    if isinstance(found, str):
        return found
    choices = choices_of(fields)
    if isinstance(choices, str):
        return choices
    wants_usage = stream_options(fields)
    if isinstance(wants_usage, str):
        return wants_usage
    answers = choices * prompts
    plain = _ASKED.isdisjoint(fields)
    return Ask(
        model,
        stream,
        given_tokens(fields, count),
        None if found.most is None else found.most * answers,
        answers,
        prompts,
        parts,
        wants_usage=wants_usage if stream and usage_on_request else None,
        endless=found.endless,
        held_unless_reported=held_unless_reported,
        logit_bias=not plain and _asks_for(fields, _LOGIT_BIAS),
        prefill=prefill,
        logprobs=not plain and _asks_for(fields, _LOGPROBS),
    )


def given_tokens(fields: Fields, count: Callable[[bytes], int]) -> int:
    """Return the tokens of the input; where it is given as token ids, exactly."""
    ids = 0
    rest = fields
    for name in _TOKENS_OF:
        value = fields.get(name)
        if value is not None and value.startswith(b"[") and _are_token_ids(value):
            ids += value.count(b",") + (_TOKEN_ID.search(value) is not None)
            rest = {other: each for other, each in rest.items() if other != name}
    return ids + input_tokens(rest, count)


def _are_token_ids(value: bytes) -> bool:
    """Tell whether an array holds nothing but numbers, looking at a slice at a time (H12)."""
    return not any(
        value[start : start + SLICE_BYTES].translate(None, _OF_TOKEN_IDS)
        for start in range(0, len(value), SLICE_BYTES)
    )


def prompts_in(fields: Fields) -> int:
    """Return how many prompts there are, as text, tokens or embeddings."""
    prompts = prompts_of(fields) if fields.get("prompt", _NULL) != _NULL else 0
    embedded = fields.get("prompt_embeds", _NULL)
    if embedded.startswith(b"["):
        prompts += len(_ITEMS.decode(embedded))
    elif embedded != _NULL:
        prompts += 1
    return max(1, prompts)


def last_speaks_the_model(value: bytes | None) -> bool:
    """Tell whether the last of some messages is the assistant's, which begins its answer."""
    if value is None or not value.startswith(b"["):
        return False
    if _ROLE not in value and b"\\u" not in value:
        return False
    items = _ITEMS.decode(value)
    if not items:
        return False
    try:
        return _SAID.decode(items[-1]).role == "assistant"
    except (msgspec.DecodeError, UnicodeError):
        return False


def is_set(fields: Fields, name: str) -> bool:
    """Tell whether a field has a value that asks for something."""
    value = fields.get(name)
    if value is None:
        return False
    if len(value) > _LONGEST_UNSET:
        return True
    value = value.translate(None, _SPACE)
    return value not in _UNSET or (value == b"0" and name in _AT_ZERO)


def _asks_for(fields: Fields, names: tuple[str, ...]) -> bool:
    return any(name in fields and is_set(fields, name) for name in names)
