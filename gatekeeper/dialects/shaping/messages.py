"""Shapes Anthropic messages: thinking blocks are left out, in answers and streams.

In a stream the ``index`` of later blocks closes up, because clients append each block that starts
and find it by its index. The API has no log probabilities.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gatekeeper.dialects.json_spans import Edit, members_within
from gatekeeper.dialects.shaping.base import (
    Shaper,
    has_type,
    index_of,
    is_array,
    is_object,
    without_types,
)

if TYPE_CHECKING:
    from gatekeeper.dialects.base import AnswerPlan

_BLOCKS: Final = frozenset({b"thinking", b"redacted_thinking"})
_DELTAS: Final = frozenset({b"thinking_delta", b"signature_delta"})
_AROUND: Final = frozenset({b"message", b"result"})
"""What a message stands in: the first event of a stream, a line of a batch's results."""
_INDEX: Final = b'"index"'
_MARKS: Final = re.compile(rb'"(?:thinking|redacted_thinking|thinking_delta|signature_delta)"')


def shaper_of_messages(plan: AnswerPlan) -> MessagesShaper | None:
    """Return a shaper where reasoning is to be dropped; there is nothing else to change."""
    drops = plan.shaping is not None and plan.shaping.drop_reasoning
    return MessagesShaper(plan) if drops else None


class MessagesShaper(Shaper):
    """Changes ``content``, in whole messages and in the events that build one."""

    def concerns(self, text: bytes) -> bool:
        """Look for thinking, and after it for indexes that must close up."""
        return _MARKS.search(text) is not None or (self.has_dropped and _INDEX in text)

    def edits(self, text: bytes, start: int, end: int, *, whole: bool) -> list[Edit]:
        """Change a message, or an event of one."""
        if not is_object(text, start):
            return []
        found = members_within(text, start, end)
        edits: list[Edit] = []
        if not whole:
            index = index_of(text, found, b"index")
            if any(
                (each.name == b"content_block" and has_type(text, each.value, each.end, _BLOCKS))
                or (each.name == b"delta" and has_type(text, each.value, each.end, _DELTAS))
                for each in found
            ):
                self.drop(index)
            edits = self.closed_up(text, found, b"index")
        for each in found:
            if each.name == b"content" and is_array(text, each.value):
                edits += without_types(text, each, _BLOCKS)
            elif each.name in _AROUND and is_object(text, each.value):
                edits += self.edits(text, each.value, each.end, whole=True)
        return edits
