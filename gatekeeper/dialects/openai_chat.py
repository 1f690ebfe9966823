"""OpenAI chat completions, as spoken by most model servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gatekeeper.dialects.answer import AnswerReader, Family
from gatekeeper.dialects.base import UNCHANGED
from gatekeeper.dialects.body import model_of, read_fields, rewritten
from gatekeeper.dialects.openai import NO_MODEL, OpenAIErrors, ask_of, hide_usage
from gatekeeper.dialects.usage import text_pattern

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.dialects.base import AnswerPlan, Ask, Changes, Incoming

_FAMILY: Final = Family(
    text_pattern("content", "reasoning_content", "reasoning", "refusal", "arguments"),
    frozenset(),
    hide_usage,
)


class OpenAIChat(OpenAIErrors):
    """``POST .../chat/completions``."""

    __slots__ = ()
    name: Final = "openai_chat"
    reads_body: Final = True

    def matches(self, method: str, path: str) -> bool:
        """Match by the end of the path, whatever prefix an upstream has."""
        return method == "POST" and path.lower().rstrip("/").endswith("/chat/completions")

    def read(self, incoming: Incoming) -> Ask | str:
        """Read a body; the largest of all bounds on output counts, over all choices (H23)."""
        fields = read_fields(incoming.body)
        if isinstance(fields, str):
            return fields
        model = model_of(fields)
        return NO_MODEL if model is None else ask_of(fields, model, incoming.count)

    def rewrite(self, incoming: Incoming, ask: Ask, changes: Changes) -> bytes:  # noqa: ARG002 - the protocol's signature
        """Return the body with ``changes`` made in place."""
        return rewritten(incoming.body, changes, "max_completion_tokens")

    def reader(
        self, ask: Ask, headers: Mapping[str, str], plan: AnswerPlan = UNCHANGED
    ) -> AnswerReader:
        """Return a reader for a 2xx answer with these headers."""
        return AnswerReader(_FAMILY, ask, headers, plan)
