"""Anthropic message batches: held and charged at the worst case of all calls in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from gatekeeper.dialects.anthropic import AnthropicErrors
from gatekeeper.dialects.anthropic_messages import read_message
from gatekeeper.dialects.base import Ask, Incoming
from gatekeeper.dialects.batch import summed
from gatekeeper.dialects.body import read_fields
from gatekeeper.dialects.unread import Unread

if TYPE_CHECKING:
    from collections.abc import Iterator

_BATCHES: Final = "/v1/messages/batches"
_CALLS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_NO_PARAMS: Final = "The call must be an object with `params`."


class AnthropicBatchCreate(Unread, AnthropicErrors):
    """``POST .../v1/messages/batches``: the calls stand in the body."""

    __slots__ = ()
    name: Final = "anthropic_batches"
    reads_body = True

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


class AnthropicBatches(Unread, AnthropicErrors):
    """Everything else of batches: what is listed, awaited, cancelled or read costs no tokens."""

    __slots__ = ()
    name: Final = "anthropic_batches"

    def matches(self, method: str, path: str) -> bool:  # noqa: ARG002 - the protocol's signature
        """Match the batches and all that is under them."""
        return f"{_BATCHES}/" in f"{path.lower()}/"


def _asks(calls: list[msgspec.Raw], incoming: Incoming) -> Iterator[Ask | str]:
    for call in calls:
        fields = read_fields(bytes(call))
        if isinstance(fields, str):
            yield fields.replace("body", "call")
        elif "params" not in fields:
            yield _NO_PARAMS
        else:
            yield read_message(Incoming(fields["params"], incoming.path, count=incoming.count))
