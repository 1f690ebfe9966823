"""An answer before it is sent: its events, and after which of them the usage is told."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from support.conservation.plan import WORDS, Family, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

_BOUNDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_BEYOND = 25
"""How many tokens too many an upstream writes that goes beyond its bound."""


@dataclass
class Script:
    """An answer: its events (one, for a document) and what they report."""

    events: list[bytes] = field(default_factory=list)
    kind: str = "application/json"
    given: int | None = None
    """Input tokens that are reported; ``None``: none are."""
    output: int | None = None
    cached: int = 0
    given_after: int = 0
    """How many events it takes until the input is reported."""
    output_after: int = 0
    """How many events it takes until the output is reported too."""


class Writer:
    """Writes the answer to one request; the texts are words of one token each."""

    def __init__(self, play: dict[str, Any], fields: dict[str, Any]) -> None:
        self.play = play
        self.fields = fields
        self.fault = Fault(play["fault"])
        self.family = Family(play["family"])
        self.chance = random.Random(play["seed"])
        self.choices = fields.get("n", 1)
        most = min((fields[name] for name in _BOUNDS if name in fields), default=play["words"])
        beyond = self.fault is Fault.OVERRUN
        words = most + _BEYOND if beyond else min(play["words"], most)
        self.texts = [
            [f" {self.chance.choice(WORDS)}" for _ in range(words)] for _ in range(self.choices)
        ]
        self.out = Script()
        self.given, self.cached = play["given"], min(play["cached"], play["given"])
        self.output = words * self.choices + play["hidden"]
        if self.fault is Fault.ZERO:
            self.given = self.cached = self.output = 0

    @property
    def streams(self) -> bool:
        """Whether a stream is asked for."""
        return bool(self.fields.get("stream"))

    @property
    def reports(self) -> bool:
        """Whether the usage is told."""
        return self.fault is not Fault.NO_USAGE

    @property
    def times(self) -> int:
        """How often it is told."""
        return 2 if self.fault is Fault.TWICE else 1

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return "".join(self.texts[0])

    def pieces(self) -> Iterator[tuple[int, str]]:
        """Yield choice and text by turns: any number of tokens each."""
        left = [(index, list(words)) for index, words in enumerate(self.texts)]
        while left:
            at = self.chance.randrange(len(left))
            index, words = left[at]
            size = self.chance.randint(1, 9)
            yield index, "".join(words[:size])
            del words[:size]
            if not words:
                del left[at]

    def event(self, data: dict[str, Any], *, named: bool = False) -> None:
        """Add an event; those of some families have their type as a name."""
        self.out.kind = "text/event-stream"
        head = f"event: {data['type']}\n" if named else ""
        self.out.events.append(f"{head}data: {_json(data)}\n\n".encode())

    def document(self, document: dict[str, Any], *, writes: bool = True) -> None:
        """Answer with one document."""
        self.out.events = [_json(document).encode()]
        if "usage" in document:
            self.told_input()
            self.told_output(self.output if writes else 0)

    def told_input(self) -> None:
        """Note that the last event reports the input."""
        out = self.out
        out.given, out.cached, out.given_after = self.given, self.cached, len(out.events)

    def told_output(self, output: int) -> None:
        """Note that the last event reports the output."""
        self.out.output, self.out.output_after = output, len(self.out.events)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))
