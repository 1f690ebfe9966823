"""What a dialect is: how one family of APIs asks, answers, counts and refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.policy.model import Usage
    from gatekeeper.policy.words import Reason


class Ask(Struct, frozen=True, gc=False):
    """What a request body asks for, as far as it bears on limits; never the prompt."""

    model: str | None = None
    stream: bool = False
    input_tokens: int = 0
    """Estimated; see :mod:`gatekeeper.dialects.estimate`."""
    max_output_tokens: int | None = 0
    """Worst case over all choices; ``None`` when the caller names no bound."""
    choices: int = 1


@dataclass(frozen=True, slots=True)
class RefusalText:
    """A refusal before it is written in a dialect."""

    status: int
    reason: Reason
    message: str
    """Whole text for the caller; names the verification URL, as SDKs may show nothing else."""
    decision_id: str
    verification_url: str | None = None
    verification_expires_at: float | None = None
    """Unix seconds."""
    retry_after_s: float | None = None
    """``math.inf`` when waiting never helps."""
    documentation_url: str | None = None
    """Where the reason is explained (``docs/reasons.md`` has a heading for each)."""


class UsageReader(Protocol):
    """Reads along an answer and tells what it consumed. Never changes what is passed on."""

    @property
    def complete(self) -> bool:
        """Whether the answer's own end was seen; true where only the framing can tell."""
        ...

    @property
    def mid_event(self) -> bool:
        """Whether a streamed answer stands inside an event, where no other event can be put."""
        ...

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body, cut anywhere, content coding included."""
        ...

    def result(self) -> Usage | None:
        """Return the usage up to now, or ``None`` when the answer cannot be read at all.

        Reported numbers win; what is missing is estimated from what was delivered and marked so.
        """
        ...


class Dialect(Protocol):
    """One family of routes."""

    @property
    def name(self) -> str:
        """The word in records, rules and metrics."""
        ...

    def matches(self, method: str, path: str) -> bool:
        """Tell whether a call to the canonical ``path`` speaks this dialect."""
        ...

    def read(self, body: bytes) -> Ask | str:
        """Read a whole, decoded body; a string is a sentence on what is wrong with it."""
        ...

    def usage_reader(self, ask: Ask, headers: Mapping[str, str]) -> UsageReader:
        """Return a reader for a 2xx answer with these (case-insensitive) headers."""
        ...

    def refusal_body(self, refusal: RefusalText) -> bytes:
        """Return the body from which the family's SDK raises its right exception."""
        ...

    def refusal_headers(self, refusal: RefusalText) -> dict[str, str]:
        """Return content type, request id and retry headers that go with the body."""
        ...

    def stream_error(self) -> bytes:
        """Return the event that ends a stream whose upstream died; empty where there is none.

        Only to be sent between events (:attr:`UsageReader.mid_event`).
        """
        ...
