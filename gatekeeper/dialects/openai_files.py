"""Files, uploads, vector stores and containers: they stream through, however large."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gatekeeper.dialects.answer import AnswerReader
from gatekeeper.dialects.base import UNCHANGED, Ask
from gatekeeper.dialects.family import Family
from gatekeeper.dialects.openai import OpenAIErrors
from gatekeeper.dialects.usage import text_pattern

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.dialects.base import AnswerPlan, Changes, Incoming

_NOTHING: Final = Family(text_pattern("text"), frozenset())
_PATH: Final = re.compile(r"/v1/(?:files|uploads|vector_stores|containers)(?:/|\Z)")


class OpenAIFiles(OpenAIErrors):
    """Everything at and under the routes of files: a request and its bytes, no tokens."""

    __slots__ = ()
    name: Final = "openai_files"
    reads_body: Final = False

    def matches(self, method: str, path: str) -> bool:  # noqa: ARG002 - the protocol's signature
        """Match by the path, whatever prefix an upstream has."""
        return _PATH.search(path.lower()) is not None

    def read(self, incoming: Incoming) -> Ask | str:  # noqa: ARG002 - the protocol's signature
        """Ask for nothing: the body is not looked at."""
        return Ask()

    def rewrite(self, incoming: Incoming, ask: Ask, changes: Changes) -> bytes:  # noqa: ARG002 - the protocol's signature
        """Return the body as it came."""
        return incoming.body

    def reader(
        self, ask: Ask, headers: Mapping[str, str], plan: AnswerPlan = UNCHANGED
    ) -> AnswerReader:
        """Return a reader that finds nothing to charge."""
        return AnswerReader(_NOTHING, ask, headers, plan)
