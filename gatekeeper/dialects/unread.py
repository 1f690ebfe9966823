"""What dialects have in common of which no token is read: a request and its bytes count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gatekeeper.dialects.answer import AnswerReader
from gatekeeper.dialects.base import UNCHANGED, Ask
from gatekeeper.dialects.family import Family
from gatekeeper.dialects.usage import text_pattern

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.dialects.base import AnswerPlan, Changes, Incoming

NOTHING: Final = Family(text_pattern("text"), frozenset())


class Unread:
    """Bodies stream through both ways, as they are; what differs is overridden."""

    __slots__ = ()

    @property
    def reads_body(self) -> bool:
        """Whether the body is read."""
        return False

    def read(self, incoming: Incoming) -> Ask | str:  # noqa: ARG002 - the protocol's signature
        """Ask for nothing: the body is not looked at."""
        return Ask()

    def rewrite(self, incoming: Incoming, ask: Ask, changes: Changes) -> bytes:  # noqa: ARG002 - the protocol's signature
        """Return the body as it came."""
        return incoming.body

    def reader(
        self,
        ask: Ask,
        headers: Mapping[str, str],  # noqa: ARG002 - the protocol's signature
        plan: AnswerPlan = UNCHANGED,  # noqa: ARG002 - the protocol's signature
    ) -> AnswerReader:
        """Return a reader that looks at nothing: only the framing tells whether all came."""
        return AnswerReader(NOTHING, ask, {})
