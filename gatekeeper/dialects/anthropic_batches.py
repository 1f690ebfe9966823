"""Anthropic message batches: held and charged at the worst case of all calls in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from gatekeeper.dialects.answer import AnswerReader
from gatekeeper.dialects.anthropic import AnthropicErrors
from gatekeeper.dialects.anthropic_messages import read_message
from gatekeeper.dialects.base import UNCHANGED, Ask, Incoming
from gatekeeper.dialects.batch import summed
from gatekeeper.dialects.body import read_fields
from gatekeeper.dialects.family import Family
from gatekeeper.dialects.usage import text_pattern

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gatekeeper.dialects.base import AnswerPlan, Changes

_BATCHES: Final = "/v1/messages/batches"
_NOTHING: Final = Family(text_pattern("text"), frozenset())


_CALLS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_NO_PARAMS: Final = "The call must be an object with `params`."


class _AnthropicBatches(AnthropicErrors):
    __slots__ = ()
    name: Final = "anthropic_batches"

    def rewrite(self, incoming: Incoming, ask: Ask, changes: Changes) -> bytes:  # noqa: ARG002 - the protocol's signature
        """Return the body as it came: no single bound holds for a batch."""
        return incoming.body

    def reader(
        self, ask: Ask, headers: Mapping[str, str], plan: AnswerPlan = UNCHANGED
    ) -> AnswerReader:
        """Return a reader that finds nothing to charge: usage comes with the results."""
        return AnswerReader(_NOTHING, ask, headers, plan)


class AnthropicBatchCreate(_AnthropicBatches):
    """``POST .../v1/messages/batches``: the calls stand in the body."""

    __slots__ = ()
    reads_body: Final = True

    def matches(self, method: str, path: str) -> bool:
        """Match by the end of the path, whatever prefix an upstream has."""
        return method == "POST" and path.lower().rstrip("/").endswith(_BATCHES)

    def read(self, incoming: Incoming) -> Ask | str:
        """Add up the worst cases of all calls."""
        fields = read_fields(incoming.body)
        if isinstance(fields, str):
            return fields
        try:
            calls = _CALLS.decode(fields.get("requests", b"[]"))
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return "The field `requests` must be a list."
        return summed(_asks(calls, incoming))


class AnthropicBatches(_AnthropicBatches):
    """Everything else of batches: what is listed, awaited, cancelled or read costs no tokens."""

    __slots__ = ()
    reads_body: Final = False

    def matches(self, method: str, path: str) -> bool:  # noqa: ARG002 - the protocol's signature
        """Match the batches and all that is under them."""
        return f"{_BATCHES}/" in f"{path.lower()}/"

    def read(self, incoming: Incoming) -> Ask | str:  # noqa: ARG002 - the protocol's signature
        """Ask for nothing."""
        return Ask()


def _asks(calls: list[msgspec.Raw], incoming: Incoming) -> Iterator[Ask | str]:
    for call in calls:
        fields = read_fields(bytes(call))
        if isinstance(fields, str):
            yield fields.replace("body", "call")
        elif "params" not in fields:
            yield _NO_PARAMS
        else:
            yield read_message(Incoming(fields["params"], incoming.path, count=incoming.count))
