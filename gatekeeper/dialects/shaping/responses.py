"""Shapes the responses API: events, whole responses, and lists of their items.

Without having been asked it answers ``"logprobs": []``. Items of type ``reasoning`` are left out
with all their events; the ``output_index`` of later items closes up, because clients put items
together by it. ``sequence_number`` keeps its gaps: a client resumes a stream by it.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Final

from gatekeeper.dialects.json_spans import Edit, items_within, members_within, without
from gatekeeper.dialects.shaping.base import (
    NULL,
    Shaper,
    has_type,
    index_of,
    is_array,
    is_object,
    string_of,
    value_of,
    without_types,
)

if TYPE_CHECKING:
    from gatekeeper.dialects.base import AnswerPlan
    from gatekeeper.dialects.json_spans import Member

_THOUGHT: Final = frozenset({b"reasoning"})
_THOUGHT_EVENT: Final = b"response.reasoning"
_LOGPROBS: Final = rb'"logprobs"\s*+:(?!\s*+(?:null|\[\s*+\]))'
_REASONING: Final = rb'"(?:response\.)?reasoning[^"]*+"'
_INDEX: Final = b'"output_index"'
_SAYS_AGAIN: Final = b".done"
_NONE: Final = b"[]"


class ResponsesShaper(Shaper):
    """Changes what stands under ``output``, in whole responses and in the events that build one."""

    def __init__(self, plan: AnswerPlan) -> None:
        super().__init__(plan)
        marks = [_LOGPROBS] if self.removes or self.blur is not None else []
        marks += [_REASONING] if self.drops_reasoning else []
        self._marks = re.compile(b"|".join(marks))

    def concerns(self, text: bytes) -> bool:
        """Look for the names of what may be changed, and of indexes that must be."""
        if self._marks.search(text) is not None:
            return True
        return self.has_dropped and _INDEX in text

    def edits(self, text: bytes, start: int, end: int, *, whole: bool) -> list[Edit]:
        """Change an event, a response, or a list of items."""
        if not is_object(text, start):
            return []
        found = members_within(text, start, end)
        index = index_of(text, found, b"output_index")
        edits: list[Edit] = []
        if self.drops_reasoning and not whole:
            if any(_is_thought(text, each) for each in found):
                self.drop(index)
            edits = self.closed_up(text, found, b"output_index")
        part = index_of(text, found, b"content_index")
        again = any(
            each.name == b"type" and string_of(text, each).endswith(_SAYS_AGAIN) for each in found
        )
        for each in found:
            if each.name == b"logprobs":
                edits += self._chances(text, each, index, part, again=again)
            elif each.name == b"item":
                edits += self._item(text, index, each.value, each.end)
            elif each.name == b"part":
                edits += self._part(text, index, part, each.value, each.end)
            elif each.name == b"response" and is_object(text, each.value):
                for inner in members_within(text, each.value, each.end):
                    edits += self._output(text, inner)
            else:
                edits += self._output(text, each)
        return edits + (self._alone(text, start, end) if whole else [])

    def _alone(self, text: bytes, start: int, end: int) -> list[Edit]:
        """Return the edits in an item that is the whole answer: of reasoning a shell is left."""
        if not (self.drops_reasoning and has_type(text, start, end, _THOUGHT)):
            return self._item(text, 0, start, end)
        found = members_within(text, start, end)
        lists = [each for each in found if each.name in {b"summary", b"content"}]
        emptied = [Edit(each.value, each.end, _NONE) for each in lists]
        return emptied + without(found, frozenset({b"encrypted_content"}))

    def _output(self, text: bytes, member: Member) -> list[Edit]:
        """Return the edits in the list of items of a response, or in a page of items."""
        if member.name not in {b"output", b"data"} or not is_array(text, member.value):
            return []
        if self.drops_reasoning:
            return without_types(text, member, _THOUGHT, partial(self._item, text))
        found = enumerate(items_within(text, member.value, member.end))
        return [edit for index, span in found for edit in self._item(text, index, *span)]

    def _item(self, text: bytes, index: int, start: int, end: int) -> list[Edit]:
        edits: list[Edit] = []
        for each in members_within(text, start, end) if is_object(text, start) else ():
            if each.name == b"content" and is_array(text, each.value):
                for part, span in enumerate(items_within(text, each.value, each.end)):
                    edits += self._part(text, index, part, *span)
        return edits

    def _part(self, text: bytes, index: int, part: int, start: int, end: int) -> list[Edit]:
        edits: list[Edit] = []
        for each in members_within(text, start, end) if is_object(text, start) else ():
            if each.name == b"logprobs":
                edits += self._chances(text, each, index, part, again=True)
        return edits

    def _chances(
        self, text: bytes, member: Member, index: int, part: int, *, again: bool
    ) -> list[Edit]:
        """Return the edits in the log probabilities of one part of one item."""
        if value_of(text, member) in {NULL, _NONE}:
            return []
        if self.removes:
            return [Edit(member.value, member.end, _NONE)]
        if self.blur is None or not is_array(text, member.value):
            return []
        return self.blur.positions(
            text, member.value, member.end, b"%d/%d" % (index, part), again=again
        )


def _is_thought(text: bytes, member: Member) -> bool:
    """Tell whether a member shows that its event is about reasoning."""
    if member.name == b"type":
        return string_of(text, member).startswith(_THOUGHT_EVENT)
    return member.name == b"item" and has_type(text, member.value, member.end, _THOUGHT)
