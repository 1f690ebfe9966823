"""llama.cpp's own routes: completion and infill, which know no end unless they are given one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from gatekeeper.dialects.base import Ask
from gatekeeper.dialects.family import Family
from gatekeeper.dialects.openai import NO_MODEL, JsonRoute
from gatekeeper.dialects.openai_ask import ask_of, given_tokens, prompts_in
from gatekeeper.dialects.output_bounds import bound_of
from gatekeeper.dialects.shaping.chat import ChatShaper
from gatekeeper.dialects.usage import text_pattern
from gatekeeper.policy.limits import MAX_UNITS

if TYPE_CHECKING:
    from gatekeeper.dialects.base import Incoming
    from gatekeeper.dialects.body import Fields
    from gatekeeper.dialects.usage import Counts

_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_UNITS)]


class _Result(msgspec.Struct):
    """One answer, or a piece of it: both numbers are those up to now."""

    index: int = 0
    tokens_evaluated: _Count | None = None
    tokens_predicted: _Count | None = None
    stop: Any = None


_RESULT: Final = msgspec.json.Decoder(_Result)
_RESULTS: Final = msgspec.json.Decoder(list[_Result])


def read_result(data: bytes, counts: Counts) -> int | None:
    """Take what an event or a document reports; return the index of the answer that it ends."""
    ended = None
    try:
        results = _RESULTS.decode(data) if data[:1] == b"[" else [_RESULT.decode(data)]
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    for result in results:
        if result.tokens_predicted is not None:
            counts.report_result(
                result.index, result.tokens_evaluated or 0, result.tokens_predicted
            )
        if result.stop is True:
            ended = result.index
    return ended


NATIVE: Final = Family(text_pattern("content"), frozenset(), own=read_result, shaper=ChatShaper)


class LlamaCompletion(JsonRoute):
    """``POST /completion``, ``/completions`` (without ``/v1``) and ``/infill``.

    An OpenAI client whose base URL lacks ``/v1`` gets here too; its answers are read as well.
    """

    __slots__ = ()
    name = "llama_cpp"
    tails = ("/completion", "/completions", "/infill")
    family = NATIVE
    bound_field = "n_predict"
    obeyed = ("n_predict", "max_tokens")

    def asked(self, fields: Fields, model: str | None, incoming: Incoming) -> Ask | str:
        """Return the worst case; without a bound in the body one is put in."""
        if model is None:
            return NO_MODEL
        bound = bound_of(fields, endless=True, obeyed=self.obeyed)
        if isinstance(bound, str):
            return bound
        return ask_of(
            fields,
            model,
            incoming.count,
            prompts=prompts_in(fields),
            bound=bound,
            usage_on_request=False,
        )


class LlamaEmbedding(JsonRoute):
    """``POST /embedding``, which reports nothing: its input is charged as estimated."""

    __slots__ = ()
    name = "llama_cpp"
    tails = ("/embedding",)

    def asked(self, fields: Fields, model: str | None, incoming: Incoming) -> Ask | str:
        """Return the input."""
        if model is None:
            return NO_MODEL
        return Ask(model, input_tokens=given_tokens(fields, incoming.count))
