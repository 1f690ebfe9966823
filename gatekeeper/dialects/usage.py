"""Adds up what an answer reports, and counts what it delivers where nothing is reported.

The families differ in the names of things; all are known here. Reports are cumulative, so one that
is seen twice counts once and the largest of each number is the last. Explicit zero is zero.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from gatekeeper.dialects.json_text import unescaped
from gatekeeper.policy.limits import MAX_UNITS
from gatekeeper.policy.model import NO_PARTS, Usage, UsageParts

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.dialects.base import Ask

_TEXT_BATCH: Final = 8_192
_SHORT: Final = (20, 19)
"""Counts of text may be up to 5 % below the truth; what is delivered must not be charged less."""
_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_UNITS)]
"""No answer takes more than any limit may allow: a larger number is a defect of the upstream."""
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=10**9)]


def text_pattern(*keys: str) -> re.Pattern[bytes]:
    """Return a pattern for the string values of ``keys``; group 1 is the inside of the string."""
    names = b"|".join(key.encode() for key in keys)
    return re.compile(rb'"(?:' + names + rb')"\s*:\s*"((?:[^"\\]++|\\.)*+)', re.DOTALL)


class _InputDetails(msgspec.Struct):
    cached_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None
    audio_tokens: _Count | None = None
    image_tokens: _Count | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: _Count | None = None
    audio_tokens: _Count | None = None
    image_tokens: _Count | None = None


class _CacheCreation(msgspec.Struct):
    ephemeral_1h_input_tokens: _Count | None = None


class Reported(msgspec.Struct):
    """Usage in the words of every family."""

    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    input_tokens: _Count | None = None
    output_tokens: _Count | None = None
    cache_creation_input_tokens: _Count | None = None
    cache_read_input_tokens: _Count | None = None
    cache_creation: _CacheCreation | None = None
    total_tokens: _Count | None = None
    prompt_cache_hit_tokens: _Count | None = None
    """DeepSeek: of the prompt, read from its cache."""
    cached_tokens: _Count | None = None
    """Moonshot and others: the same."""
    iterations: list[Reported] | None = None
    """Anthropic: what the single steps of an answer took, where the totals leave out some."""
    seconds: _Seconds | None = None
    """Length of audio that is billed by it."""
    prompt_tokens_details: _InputDetails | None = None
    input_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    output_tokens_details: _OutputDetails | None = None
    input_token_details: _InputDetails | None = None
    output_token_details: _OutputDetails | None = None


_NUMBERS: Final = (
    "prompt_tokens",
    "completion_tokens",
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "total_tokens",
    "seconds",
)
_CACHED: Final = ("prompt_cache_hit_tokens", "cached_tokens")
_PART_OF: Final = {
    "prompt_tokens_details": {
        "cached_tokens": "cached_input_tokens",
        "cache_write_tokens": "cache_write_tokens",
        "audio_tokens": "audio_input_tokens",
        "image_tokens": "image_input_tokens",
    },
    "completion_tokens_details": {
        "reasoning_tokens": "reasoning_tokens",
        "audio_tokens": "audio_output_tokens",
        "image_tokens": "image_output_tokens",
    },
}
_PART_OF["input_tokens_details"] = _PART_OF["prompt_tokens_details"]
_PART_OF["input_token_details"] = _PART_OF["prompt_tokens_details"]
_PART_OF["output_token_details"] = _PART_OF["completion_tokens_details"]
_PART_OF["output_tokens_details"] = _PART_OF["completion_tokens_details"]
_PARTS: Final = frozenset(UsageParts.__struct_fields__)
_OF_OUTPUT: Final = frozenset(_PART_OF["completion_tokens_details"].values())


class Counts:
    """What one answer has reported and delivered up to now."""

    __slots__ = ("_count", "_delivered", "_events", "_results", "_seen", "_text", "final")

    def __init__(self, count: Callable[[bytes], int]) -> None:
        self._count = count
        self._seen: dict[str, float] = {}
        self._results: dict[int, tuple[int, int]] | None = None
        self._delivered = 0
        self._events = 0
        self._text = bytearray()
        self.final = False
        """Whether the output was reported, rather than only what is known before it."""

    def report(self, reported: Reported, *, final: bool) -> None:
        """Take a report; ``final`` when it tells the output too."""
        seen = self._seen
        _add_up(reported)
        if final and seen:
            self._forget_guesses(reported)
        for name in _NUMBERS:
            number = getattr(reported, name)
            if number is not None:
                seen[name] = max(number, seen.get(name, 0))
                if final and name in {"completion_tokens", "output_tokens", "seconds"}:
                    self.final = True
                    self.forget_text()  # it covers what came before
        self._report_parts(reported)

    def _report_parts(self, reported: Reported) -> None:
        written = reported.cache_creation
        if written is not None:
            self._see("cache_write_1h_tokens", written.ephemeral_1h_input_tokens)
        for name in _CACHED:
            self._see("cached_input_tokens", getattr(reported, name))
        for name, names in _PART_OF.items():
            details = getattr(reported, name)
            if details is not None:
                for field, part in names.items():
                    self._see(part, getattr(details, field, None))

    def _see(self, part: str, number: int | None) -> None:
        if number:
            self._seen[part] = max(number, self._seen.get(part, 0))

    def report_result(self, index: int, given: int, written: int) -> None:
        """Take what one of several answers tells of itself alone, where nothing tells of all."""
        if self._results is None:
            self._results = {}
        self._results[index] = (given, written)

    def _forget_guesses(self, reported: Reported) -> None:
        """Let go of what Anthropic tells before the first token, where the end tells it too."""
        if not self.final:
            for name in _NUMBERS:
                if getattr(reported, name) is not None:
                    self._seen.pop(name, None)

    def deliver(self, text: bytes) -> None:
        """Take generated text, as it stands inside a JSON string."""
        if not text:
            return
        self._text += text
        self._events += 1
        if len(self._text) > _TEXT_BATCH:
            self._weigh()

    def forget_text(self) -> None:
        """Begin to count anew, as what was delivered is in a report, or is counted again."""
        self._text.clear()
        self._delivered = self._events = 0

    @property
    def delivered_tokens(self) -> int:
        """Output up to now: as reported, and counted on the text that no report covers."""
        reported, counted = self._written(), self._counted()
        return reported + counted if self.final else max(reported, counted)

    def exact(self, choices: int) -> bool:
        """Whether reports cover all output up to now of so many choices."""
        if self.final or self._results is None:
            return self.final and not self._events
        return len(self._results) >= choices

    def _written(self) -> int:
        """Return the output as it is reported."""
        seen = self._reported()
        return int(seen.get("completion_tokens", seen.get("output_tokens", 0)))

    def _counted(self) -> int:
        """Return no less than what was delivered since: a token for each piece, and for a word."""
        if not self._events:
            return 0
        more, less = _SHORT
        return max(-(-(self._delivered + self._weight()) * more // less), self._events)

    def _weigh(self) -> None:
        self._delivered += self._weight()
        self._text.clear()

    def _weight(self) -> int:
        """Return the tokens of the text at hand: all of it at once, as pieces round up.

        A word is a token at least, which very short ones do not weigh.
        """
        if not self._text:
            return 0
        text = unescaped(bytes(self._text))
        return max(self._count(text), len(text.split()))

    def _reported(self) -> dict[str, float]:
        """Return what was reported: of all choices, or of each that told of itself."""
        if self.final or not self._results:
            return self._seen
        results = self._results.values()
        given, written = sum(each[0] for each in results), sum(each[1] for each in results)
        return {**self._seen, "prompt_tokens": given, "completion_tokens": written}

    def usage(self, ask: Ask, most_output: int | None = None) -> Usage:
        """Return reported numbers; what is missing is what was asked, or counted, and marked so.

        What is counted never makes the output more than ``most_output``; a report may.
        """
        seen = self._reported()
        known = seen.get("prompt_tokens")
        parts = {name: number for name, number in seen.items() if name in _PARTS}
        if known is None and "input_tokens" in seen:
            known = seen["input_tokens"]
            for name, part in (
                ("cache_creation_input_tokens", "cache_write_tokens"),
                ("cache_read_input_tokens", "cached_input_tokens"),
            ):
                if name in seen:  # Anthropic counts these beside the input, not within it
                    known += seen[name]
                    parts[part] = seen[name]
            # Those for an hour are among all that are written, and cost more.
            longer = parts.get("cache_write_1h_tokens", 0)
            if longer:
                parts["cache_write_tokens"] = max(0, parts.get("cache_write_tokens", 0) - longer)
        output = seen.get("completion_tokens", seen.get("output_tokens", 0))
        exact = self.exact(ask.choices)
        total = seen.get("total_tokens")
        if total is not None and known is None and not output:
            known = total  # a reranker tells nothing else
        elif total is not None and known is not None and exact:
            output = max(output, total - known)  # some leave thoughts out of the completion alone
        exact = exact or ask.max_output_tokens == 0
        if not exact:
            most = self.delivered_tokens if most_output is None else most_output
            output = max(output if self.final else 0, min(self.delivered_tokens, most))
        if "seconds" in seen:
            parts["audio_s"] = seen["seconds"]
            known = known or 0  # billed by its length alone
        if ask.parts.images and not self.final:
            parts["images"] = ask.parts.images
        given = ask.input_tokens if known is None else int(known)
        return Usage(
            given,
            int(output),
            estimated=(known is None and ask.input_tokens > 0) or not exact,
            parts=_within(parts, given, int(output)) if parts else NO_PARTS,
        )


def _add_up(reported: Reported) -> None:
    """Let each total be no less than the sum of the steps that are billed, where any are told."""
    if not reported.iterations:
        return
    for name in _NUMBERS:
        steps = [getattr(step, name) or 0 for step in reported.iterations]
        if any(steps):
            setattr(reported, name, max(getattr(reported, name) or 0, sum(steps)))


def _within(parts: dict[str, float], given: int, output: int) -> UsageParts:
    """Return parts none of which is larger than its whole, whatever an upstream reports."""
    bounded = {
        name: number
        if name in {"audio_s", "images", "characters"}
        else min(int(number), output if name in _OF_OUTPUT else given)
        for name, number in parts.items()
    }
    return msgspec.convert(bounded, UsageParts)
