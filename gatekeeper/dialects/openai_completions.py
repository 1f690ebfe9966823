"""OpenAI completions: one or several prompts, each answered ``n`` times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gatekeeper.dialects.family import Family
from gatekeeper.dialects.openai import NO_MODEL, JsonRoute, names_deployment
from gatekeeper.dialects.openai_ask import ask_of, prompts_in
from gatekeeper.dialects.openai_stop import completion_stopper
from gatekeeper.dialects.openai_stream import hide_usage
from gatekeeper.dialects.shaping.chat import ChatShaper
from gatekeeper.dialects.usage import text_pattern

if TYPE_CHECKING:
    from gatekeeper.dialects.base import Ask, Incoming
    from gatekeeper.dialects.body import Fields

COMPLETIONS: Final = Family(
    text_pattern("text", "reasoning"),
    frozenset(),
    hide_usage,
    shaper=ChatShaper,
    stopper=completion_stopper,
)


class OpenAICompletions(JsonRoute):
    """``POST .../v1/completions``."""

    __slots__ = ()
    name = "openai_completions"
    tails = ("/v1/completions", "/beta/completions")
    family = COMPLETIONS
    bound_field = "max_tokens"
    obeyed = ("max_tokens",)

    def matches(self, method: str, path: str) -> bool:
        """Match by the end of the path, which may name the model (Azure)."""
        if method != "POST" or not path.endswith("/completions"):
            return False
        named = names_deployment(path) and not path.endswith("/chat/completions")
        return named or path.endswith(self.tails)

    def asked(self, fields: Fields, model: str | None, incoming: Incoming) -> Ask | str:
        """Return the worst case over all choices of all prompts (H23)."""
        if model is None:
            return NO_MODEL
        return ask_of(fields, model, incoming.count, prompts=prompts_in(fields), obeyed=self.obeyed)
