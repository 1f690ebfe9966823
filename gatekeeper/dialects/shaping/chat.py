"""Shapes chat completions and completions, as OpenAI, vLLM, llama.cpp and others answer them.

Without having been asked these APIs answer ``"logprobs": null`` and leave reasoning out, and
llama.cpp leaves out ``completion_probabilities`` on its own routes. So does what comes out here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gatekeeper.dialects.json_spans import Edit, cuts, items_within, members_within, without
from gatekeeper.dialects.shaping.base import (
    NULL,
    DroppedError,
    Shaper,
    has_type,
    index_of,
    is_array,
    is_object,
    value_of,
    without_types,
)

if TYPE_CHECKING:
    from gatekeeper.dialects.base import AnswerPlan
    from gatekeeper.dialects.json_spans import Member

REASONING: Final = frozenset(
    {
        b"reasoning",
        b"reasoning_content",
        b"reasoning_details",
        b"reasoning_opaque",
        b"reasoning_signature",
        b"reasoning_text",
        b"thinking",
        b"thinking_blocks",
    }
)
"""What servers call the member of a message that holds a model's reasoning."""
_PARTS: Final = frozenset({b"thinking", b"redacted_thinking", b"reasoning"})
"""Types of content parts that are reasoning, where ``content`` is a list."""
_SPEECH: Final = frozenset({b"message", b"delta"})
_CHANCES: Final = frozenset({b"logprobs", b"prompt_logprobs"})
_PROVIDER: Final = b"provider_specific_fields"
"""Where LiteLLM says again what its upstream said of a message or choice."""
_NATIVE: Final = frozenset({b"completion_probabilities", b"probs"})
"""Log probabilities of llama.cpp's own routes."""
_VERBOSE: Final = b"__verbose"
"""A dump of the raw answer that llama.cpp adds when it is told to; it holds everything again."""
_EMPTY: Final = frozenset({NULL, b'""', b"[]"})
_BESIDE: Final = _SPEECH | {b"index", b"logprobs", b"token_ids"}
"""Members of a choice that say nothing by themselves."""

_LOGPROBS: Final = (
    rb'"(?:logprobs|prompt_logprobs|completion_probabilities|probs)"\s*+:(?!\s*+null)'
)
_THOUGHT: Final = rb'"(?:%b|redacted_thinking)"' % b"|".join(sorted(REASONING))


class ChatShaper(Shaper):
    """Changes ``choices`` and what servers put beside them."""

    def __init__(self, plan: AnswerPlan) -> None:
        super().__init__(plan)
        marks = [b'"%b"' % _VERBOSE]
        marks += [_LOGPROBS] if self.removes or self.blur is not None else []
        marks += [_THOUGHT] if self.drops_reasoning else []
        self._marks = re.compile(b"|".join(marks))
        self._begun: set[int] = set()
        self._thought = False
        """Whether reasoning was taken out of the answer (or event) at hand."""
        self._said = False
        """Whether there is more to it than reasoning."""

    def concerns(self, text: bytes) -> bool:
        """Look for the names of what may be changed."""
        return self._marks.search(text) is not None

    def event(self, event: bytes) -> bytes:
        """Change one event; one that held nothing but reasoning is left out."""
        self._thought = self._said = False
        return super().event(event)

    def edits(self, text: bytes, start: int, end: int, *, whole: bool) -> list[Edit]:
        """Change an answer, or each of a list of them."""
        if is_array(text, start):  # llama.cpp answers several prompts so
            return self._answers(text, start, end)
        edits = self._answer(text, start, end)
        if self._thought and not self._said and not whole:
            raise DroppedError
        return edits

    def _answers(self, text: bytes, start: int, end: int) -> list[Edit]:
        found = (self._answer(text, *span) for span in items_within(text, start, end))
        return [edit for edits in found for edit in edits]

    def _answer(self, text: bytes, start: int, end: int) -> list[Edit]:
        if not is_object(text, start):
            return []
        found = members_within(text, start, end)
        gone = _NATIVE if self.removes else frozenset()
        if not any(each.name == b"choices" for each in found):  # a stored message, an error
            self._said = True
            gone |= REASONING if self.drops_reasoning else frozenset()
        edits = cuts(
            (
                each.start,
                each.end,
                each.name == _VERBOSE or (each.name in gone and value_of(text, each) != NULL),
            )
            for each in found
        )
        for each in found:
            if each.name == b"choices" and is_array(text, each.value):
                for place, span in enumerate(items_within(text, each.value, each.end)):
                    edits += self._choice(text, place, *span)
            elif each.name == b"data" and is_array(text, each.value):
                edits += self._answers(text, each.value, each.end)  # what was stored
            elif each.name == b"usage":
                self._said = self._said or value_of(text, each) != NULL
            elif each.name not in gone:
                edits += self._chances(text, each, b"")
        return edits

    def _choice(self, text: bytes, place: int, start: int, end: int) -> list[Edit]:
        if not is_object(text, start):
            return []
        found = members_within(text, start, end)
        index = index_of(text, found, b"index", place)
        edits: list[Edit] = []
        thought = False
        if self.drops_reasoning:
            edits = self._without_reasoning(text, found, index)
            for each in found:
                if each.name in _SPEECH and is_object(text, each.value):
                    speech = members_within(text, each.value, each.end)
                    edits += self._without_reasoning(text, speech, index)
            thought = bool(edits)
            self._thought = self._thought or thought
        for each in found:
            if self.drops_reasoning and each.name in {b"logprobs", b"token_ids"}:
                edits += self._of_the_answer(text, each, index, thought=thought)
            elif each.name not in REASONING:
                edits += self._chances(text, each, b"%d/" % index)
        return edits

    def _without_reasoning(self, text: bytes, found: list[Member], index: int) -> list[Edit]:
        """Return the edits that take reasoning out of a choice, a message or a delta."""
        edits: list[Edit] = []
        spans: list[tuple[int, int, bool]] = []
        for each in found:
            value = value_of(text, each)
            thinks = each.name in REASONING and value != NULL
            spans.append((each.start, each.end, thinks))
            if thinks or value in _EMPTY or each.name in _BESIDE:
                continue
            if each.name == b"content" and is_array(text, each.value):
                parts = items_within(text, each.value, each.end)
                self._said = self._said or not all(has_type(text, *at, _PARTS) for at in parts)
                edits += without_types(text, each, _PARTS)
            elif each.name == _PROVIDER and is_object(text, each.value):
                again = members_within(text, each.value, each.end)
                edits += self._without_reasoning(text, again, index)
            elif each.name == b"role":
                self._said = self._said or index not in self._begun
                self._begun.add(index)
            else:
                self._said = True
        return edits + cuts(spans)

    def _of_the_answer(
        self, text: bytes, member: Member, index: int, *, thought: bool
    ) -> list[Edit]:
        """Take what tells the tokens of reasoning out of a choice, which held some if ``thought``.

        DeepSeek lists them apart; elsewhere they stand among the tokens of the answer.
        """
        if is_object(text, member.value) and not self.removes:
            found = members_within(text, member.value, member.end)
            if any(each.name in REASONING for each in found):
                return without(found, REASONING) + self._chances(text, member, b"%d/" % index)
        if not thought:
            return self._chances(text, member, b"%d/" % index)
        return [] if value_of(text, member) == NULL else [Edit(member.value, member.end, NULL)]

    def _chances(self, text: bytes, member: Member, place: bytes) -> list[Edit]:
        """Return the edits in a member that may hold log probabilities."""
        name, start = member.name, member.value
        if name not in _CHANCES | _NATIVE:
            return []
        if self.removes:
            return [] if value_of(text, member) == NULL else [Edit(start, member.end, NULL)]
        if self.blur is None:
            return []
        if name == b"prompt_logprobs":
            return self.blur.prompt(text, start, member.end, place + name)
        skipped = REASONING if self.drops_reasoning else frozenset()
        return self.blur.logprobs(text, start, member.end, place + name, skipped=skipped)
