"""OpenAI realtime: a conversation over WebSocket, of which each response is a turn to be paid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_plus

import msgspec

from gatekeeper.dialects.answer import AnswerReader
from gatekeeper.dialects.base import UNCHANGED, Ask
from gatekeeper.dialects.family import Family
from gatekeeper.dialects.openai import OpenAIErrors, openai_error
from gatekeeper.dialects.usage import text_pattern

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.dialects.base import AnswerPlan, Changes, Incoming, RefusalText

_PATH: Final = "/v1/realtime"
_LONGEST_MODEL: Final = 256
_NO_STREAM: Final = Family(text_pattern("text"), frozenset())


class OpenAIRealtime(OpenAIErrors):
    """``GET .../v1/realtime`` as WebSocket."""

    __slots__ = ()
    name: Final = "openai_realtime"
    reads_body: Final = True

    def matches(self, method: str, path: str) -> bool:
        """Match by the end of the path, whatever prefix an upstream has."""
        return method == "GET" and path.lower().rstrip("/").endswith(_PATH)

    def read(self, incoming: Incoming) -> Ask | str:
        """Read the model from the query; a session that only transcribes names it later."""
        found: dict[str, str] = {}
        for pair in incoming.query.split("&"):
            name, _, value = pair.partition("=")
            name = unquote_plus(name, errors="replace")
            if name.casefold() not in {"model", "intent"}:
                continue
            if name in found or name != name.casefold():
                return "The query names the model or the intent twice, or not in lower case."
            found[name] = unquote_plus(value, errors="replace")
        model = found.get("model")
        if model is None and found.get("intent") == "transcription":
            return Ask(None, stream=True, max_output_tokens=None)
        if model is None or not _is_name(model):
            return "The query must name the model: `?model=...`."
        return Ask(model, stream=True, max_output_tokens=None)

    def rewrite(self, incoming: Incoming, ask: Ask, changes: Changes) -> bytes:  # noqa: ARG002 - the protocol's signature
        """Return the body as it came: a handshake has none."""
        return incoming.body

    def reader(
        self,
        ask: Ask,  # noqa: ARG002 - the protocol's signature
        headers: Mapping[str, str],
        plan: AnswerPlan = UNCHANGED,
    ) -> AnswerReader:
        """Return a reader for an answer in place of a conversation: it costs nothing."""
        return AnswerReader(_NO_STREAM, Ask(), headers, plan)

    def error_event(self, refusal: RefusalText, event_id: str | None) -> bytes:
        """Return the event that tells a refusal; ``event_id`` is that of the caller's event."""
        error = {**openai_error(refusal), "event_id": event_id}
        return msgspec.json.encode(
            {"type": "error", "event_id": f"event_{refusal.decision_id}", "error": error}
        )


def _is_name(model: str) -> bool:
    return model.isprintable() and 0 < len(model) <= _LONGEST_MODEL
