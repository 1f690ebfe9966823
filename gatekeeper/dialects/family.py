"""What answers of one API family look like, and how they are changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gatekeeper.dialects.sse import MOST_EVENT_BYTES

if TYPE_CHECKING:
    import re
    from collections.abc import Callable

    from gatekeeper.dialects.base import AnswerPlan, Ask
    from gatekeeper.dialects.usage import Counts
    from gatekeeper.policy.model import Usage


class Shaper(Protocol):
    """Takes out of one answer what its shaping asks for; keeps count from event to event."""

    def event(self, event: bytes) -> bytes:
        """Return an event, changed; empty to leave it out. Raises :class:`AnswerError`."""
        ...

    def document(self, body: bytes) -> bytes:
        """Return a whole answer, changed. Raises :class:`AnswerError`."""
        ...


class Stopper(Protocol):
    """Knows how to end a stream early, from what it has seen of it."""

    def see(self, event: bytes) -> None:
        """Look at an event that is passed on, as the caller gets it."""
        ...

    def last_events(self, usage: Usage) -> bytes:
        """Return the events that end the stream as if its bound on output had been reached."""
        ...


@dataclass(frozen=True, slots=True)
class Family:
    """What answers of one API family look like, and how they are changed."""

    text: re.Pattern[bytes]
    """Finds generated text in an event; group 1 is the inside of the JSON string."""
    last_types: frozenset[str]
    """Values of ``type`` on the event that ends a stream; empty: ``[DONE]`` or finish reasons."""
    hide_usage: Callable[[bytes], bytes] | None = None
    """Takes out of an event the report that only we asked for; ``None``: reports come unasked."""
    document_text: re.Pattern[bytes] | None = None
    """As ``text``, in a whole document, where streams say things twice; ``None``: the same."""
    own: Callable[[bytes, Counts], int | None] | None = None
    """Reads each event (or document) in the family's own way; returns what it ends, by index."""
    shaper: Callable[[AnswerPlan], Shaper | None] | None = None
    """Returns what changes an answer that is shaped, or ``None`` where the plan asks for nothing
    that answers of the family hold."""
    stopper: Callable[[Ask], Stopper] | None = None
    most_event_bytes: int = MOST_EVENT_BYTES
