"""Looks at a prompt for what accounts may share: keyed digests, its shape, what it asks for.

Nothing of the text leaves this module: a call keeps the numbers alone. Each part costs a bounded
amount of work, however large it is: its beginning, its end and its length are looked at.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import msgspec
import re2
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gatekeeper.dialects.body import Fields

_HEAD_BYTES: Final = 1_536
_TAIL_BYTES: Final = 512
"""Of one part: what lies between is told by its length alone."""
_BLOCK_BYTES: Final = 384
"""Of one message at its beginning, and a third of that at its end."""
_MOST_MESSAGES: Final = 24
"""Of a conversation, from its beginning."""
_BLOCKS: Final = 3
"""Prefixes of a conversation that have a digest: of its first messages, so many each."""
_MOST_LIST_BYTES: Final = 262_144
"""Of a list of messages; a longer one is told by beginning, end and length."""
_ASKED_BYTES: Final = 400
"""At each end of what the caller said last, and of the system prompt, that is searched."""
_DIGEST: Final = 8
_MASK: Final = 2**63 - 1
_BITS: Final = 63
_MOST_CACHED: Final = 4_096

_SYSTEM: Final = ("system", "instructions")
_TOOLS: Final = ("tools", "functions")
_FORMAT: Final = ("response_format", "text", "output_format", "output_config", "grammar")
_MESSAGES: Final = ("messages", "input", "prompt")
_PARAMETERS: Final = (
    "frequency_penalty",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "n",
    "presence_penalty",
    "reasoning",
    "reasoning_effort",
    "seed",
    "stop",
    "stop_sequences",
    "stream",
    "temperature",
    "thinking",
    "tool_choice",
    "top_k",
    "top_p",
)
"""Fields that are part of the shape of a call, by name and value."""
_MOST_VALUE: Final = 32
_SYSTEM_ROLES: Final = frozenset({"system", "developer"})
_TOOL_ROLES: Final = frozenset({"tool", "function"})
_TOOL_TYPES: Final = frozenset({"function_call", "function_call_output"})
_TOOL_PART: Final = re.compile(rb'"(?:tool_result|tool_use)"')
_TYPE_BYTES: Final = 256
_SYSTEMS: Final = 3
"""Messages of the system that are part of its prompt, and the field of its own."""
_MOST_ROLE: Final = 16
_UNSET: Final = frozenset({b"null", b"[]", b"{}", b'""'})

_WORDS: Final[dict[str, str]] = {
    "code": r"```|\b(?:refactor|unit tests?|pytest|traceback|stack trace|compil(?:e|er) error"
    r"|pull request|git diff|bug ?fix|def \w+\(|class \w+|function \w+\(|import \w+|SELECT .{1,80}"
    r" FROM)\b",
    "grading": r"\b(?:rubrics?|grade (?:the|this|each)|grading|scor(?:e|ing) (?:from|between|on"
    r"|each|the)|on a scale of|pairwise|which (?:response|answer) is better|as (?:a|an) "
    r"(?:impartial )?judge|preference (?:data|pair))\b",
    "reasoning": r"\b(?:step[- ]by[- ]step|chain[- ]of[- ]thought|show (?:all )?your (?:work|"
    r"reasoning|thinking)|think (?:aloud|out loud|through|carefully)|full reasoning|reason(?:ing)? "
    r"(?:trace|process|steps)|<think(?:ing)?>|scratchpad)",
    "synthetic": r"\b(?:training (?:data|set|example)s?|fine[- ]?tun(?:e|ing)|synthetic (?:data|"
    r"example)s?|dataset|generate \d+ (?:\w+ ){0,4}(?:examples?|questions?|pairs?|variations?|"
    r"prompts?|tasks?)|question[- ]answer pairs?|jsonl|instruction[- ]following)\b",
}
"""What a prompt is seen to ask for, by words; ``tools`` and ``agentic`` go by the fields."""


class _Message(msgspec.Struct):
    role: str = ""
    type: str = ""
    content: msgspec.Raw = msgspec.Raw()


_READ: Final = msgspec.json.Decoder(list[_Message])
_HALVES: Final = bytes(48 + (byte >> 7) for byte in range(256))
"""From the upper bit of a byte to a binary digit."""
_LANES: Final = int.from_bytes(b"\x01" * _BITS)
_MIDDLE: Final = 127


class Evidence(Struct, frozen=True, gc=False):
    """What was seen in one prompt; digests are 0 where there is nothing."""

    system: int = 0
    tools: int = 0
    format: int = 0
    scaffold: int = 0
    blocks: tuple[int, ...] = ()
    shape: int = 0
    asks: tuple[str, ...] = ()


class Look:
    """Looks at prompts with one key, from any thread: its cache is bounded, and never differs."""

    def __init__(self, key: bytes) -> None:
        """``key``: at most 64 bytes, the same on all gates whose traits are to be compared."""
        self._bases = {
            kind: blake2b(digest_size=_DIGEST, key=key, person=kind)
            for kind in (b"system", b"tools", b"format", b"scaffold", b"block", b"feature")
        }
        self._lanes: dict[tuple[str | int | bytes, ...], int] = {}
        self._words = re2.Set.SearchSet(_options())
        for pattern in _WORDS.values():
            self._words.Add(pattern.encode())
        self._words.Compile()
        self._names = tuple(_WORDS)

    def at(self, fields: Fields) -> Evidence:
        """Return the evidence in the fields of a body that was read; never fails."""
        messages = _first(fields, _MESSAGES)
        said = _messages(messages)
        systems = [memoryview(_first(fields, _SYSTEM))]
        spoken: list[_Message] = []
        for each in said:
            if each.role in _SYSTEM_ROLES:
                systems.append(memoryview(each.content))
            else:
                spoken.append(each)
        system = b"\0".join(_bounded(each) for each in systems[:_SYSTEMS] if each)
        tools, shaped = _first(fields, _TOOLS), _first(fields, _FORMAT)
        parts = (
            self.digest(b"system", system),
            self.digest(b"tools", _bounded(memoryview(tools))),
            self.digest(b"format", _bounded(memoryview(shaped))),
        )
        return Evidence(
            *parts,
            self.digest(b"scaffold", repr(parts).encode()) if any(parts) else 0,
            self._blocks(messages, spoken),
            self._shape(fields, said, len(system), len(tools)),
            self._asks(fields, system, messages, spoken),
        )

    def digest(self, kind: bytes, text: bytes) -> int:
        """Return the digest of a part, 1 to 2^63 - 1; 0 for an empty one."""
        if not text:
            return 0
        drawn = self._bases[kind].copy()  # keyed already
        drawn.update(text)
        return int.from_bytes(drawn.digest()) & _MASK or 1

    def _blocks(self, messages: bytes, spoken: list[_Message]) -> tuple[int, ...]:
        if not spoken:
            only = self.digest(b"block", _bounded(memoryview(messages)))
            return (only,) if only else ()
        chained: list[int] = []
        before = 0
        for each in spoken[:_BLOCKS]:
            content = _bounded(memoryview(each.content), _BLOCK_BYTES, _BLOCK_BYTES // 3)
            text = b"%d\0%b\0%b" % (before, each.role.encode(errors="replace"), content)
            before = self.digest(b"block", text)
            chained.append(before)
        return tuple(chained)

    def _shape(self, fields: Fields, said: list[_Message], system: int, tools: int) -> int:
        """Return the SimHash of what is alike in calls of one program, whatever they say."""
        features = self._features(fields, said, system, tools)
        total = sum(map(self._lane, features)) + _LANES * (_MIDDLE - len(features) // 2)
        return int(total.to_bytes(_BITS).translate(_HALVES), 2) or 1

    @staticmethod
    def _features(
        fields: Fields, said: list[_Message], system: int, tools: int
    ) -> list[tuple[str | int | bytes, ...]]:
        """Return at most 140 features, so that their lanes cannot overflow."""
        found: list[tuple[str | int | bytes, ...]] = [
            ("system", system.bit_length()),
            ("tools", tools.bit_length()),
        ]
        before = ""
        for place, each in enumerate(said):
            role = each.role[:_MOST_ROLE]
            length = len(memoryview(each.content)).bit_length()
            found.append(("turn", before, role, length))
            if place < _BLOCKS:
                found.append(("place", place, role, length))
            before = role
        for name in _PARAMETERS:
            if name in fields:
                found.append(("parameter", name))
                found.append(("value", name, fields[name][:_MOST_VALUE]))
        return found

    def _lane(self, feature: tuple[str | int | bytes, ...]) -> int:
        """Return a feature's 63 random bits, a byte apart, so that they can be added at once."""
        found = self._lanes.get(feature)
        if found is None:
            drawn = self.digest(b"feature", repr(feature).encode(errors="replace"))
            found = sum(1 << 8 * place for place in range(_BITS) if drawn >> place & 1)
            if len(self._lanes) >= _MOST_CACHED:
                self._lanes.clear()
            self._lanes[feature] = found
        return found

    def _asks(
        self, fields: Fields, system: bytes, messages: bytes, spoken: list[_Message]
    ) -> tuple[str, ...]:
        last = next((each for each in reversed(spoken) if each.role == "user"), None)
        text = memoryview(messages if last is None else last.content)
        ends = (bytes(text[:_ASKED_BYTES]), bytes(text[-_ASKED_BYTES:]), system[:_ASKED_BYTES])
        found = {self._names[index] for index in self._words.Match(b"\n".join(ends)) or ()}
        if _first(fields, _TOOLS):
            found.add("tools")
        if any(map(_of_tool, spoken)):
            found.add("agentic")
        if _thinks(fields):
            found.add("reasoning")
        return tuple(sorted(found))


def _options() -> re2.Options:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.case_sensitive = False
    options.dot_nl = True
    return options


def _first(fields: Fields, names: Iterable[str]) -> bytes:
    for name in names:
        value = fields.get(name)
        if value is not None and value not in _UNSET:
            return value
    return b""


def _bounded(part: memoryview, head: int = _HEAD_BYTES, tail: int = _TAIL_BYTES) -> bytes:
    """Return a part as it is told: whole where it is short, else both ends and its length."""
    if len(part) <= head + tail:
        return bytes(part)
    return b"".join((part[:head], b"\0", part[-tail:], b"\0%d" % len(part)))


def _messages(value: bytes) -> list[_Message]:
    """Read the first messages; of what cannot be read as a list of them there are none."""
    if not value.startswith(b"[") or len(value) > _MOST_LIST_BYTES:
        return []
    try:
        return _READ.decode(value)[:_MOST_MESSAGES]
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return []


def _of_tool(message: _Message) -> bool:
    """Tell whether a message says what came of a tool; its first part has the type."""
    if message.role in _TOOL_ROLES or message.type in _TOOL_TYPES:
        return True
    content = bytes(memoryview(message.content)[:_TYPE_BYTES])
    return content.startswith(b"[") and _TOOL_PART.search(content) is not None


def _thinks(fields: Fields) -> bool:
    thinking = fields.get("thinking", b"")
    return "reasoning_effort" in fields or "reasoning" in fields or b'"enabled"' in thinking
