"""OpenAI chat completions, as spoken by most model servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gatekeeper.dialects.body import model_of, read_fields
from gatekeeper.dialects.openai import NO_MODEL, OpenAIErrors, ask_of
from gatekeeper.dialects.usage import AnswerReader, Family, text_pattern

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.dialects.base import Ask

_FAMILY: Final = Family(
    text_pattern("content", "reasoning_content", "reasoning", "refusal", "arguments"),
    frozenset(),
)


class OpenAIChat(OpenAIErrors):
    """``POST .../chat/completions``."""

    __slots__ = ()
    name: Final = "openai_chat"

    def matches(self, method: str, path: str) -> bool:
        """Match by the end of the path, whatever prefix an upstream has."""
        return method == "POST" and path.lower().rstrip("/").endswith("/chat/completions")

    def read(self, body: bytes) -> Ask | str:
        """Read a body; the largest of all bounds on output counts, over all choices (H23)."""
        fields = read_fields(body)
        if isinstance(fields, str):
            return fields
        model = model_of(fields)
        return NO_MODEL if model is None else ask_of(fields, model)

    def usage_reader(self, ask: Ask, headers: Mapping[str, str]) -> AnswerReader:
        """Return a reader for a 2xx answer with these headers."""
        return AnswerReader(_FAMILY, ask, headers)
