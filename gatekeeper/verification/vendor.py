"""What the gate asks of a vendor of identity checks; each vendor is one file beside this one.

A webhook is a doorbell: it names a session, and what happened is then asked of the vendor. So a
forged, repeated or late one can at most cause a question, and order does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.policy.words import Assurance


class VendorState(StrEnum):
    """Where a session stands at the vendor."""

    WAITING = "waiting"
    """The caller has to do something."""
    PROCESSING = "processing"
    """The vendor has to do something, be it a person's review."""
    APPROVED = "approved"
    DECLINED = "declined"
    LAPSED = "lapsed"
    """Ended without a result: expired, cancelled or abandoned."""


class WebhookRefusal(StrEnum):
    """Why a webhook is not believed."""

    MALFORMED = "malformed"
    FORGED = "forged"
    """No signature in it is one of ours."""
    STALE = "stale"
    """Signed too long ago, or in the future."""


class VendorError(Exception):
    """The vendor could not be asked, or answered nonsense; the text holds no secret."""


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What a vendor is told of a case: nothing of the account but a name for the case."""

    case_id: str
    attempt: int
    assurance: Assurance
    return_url: str
    """Where the vendor's page leads back to."""

    @property
    def idempotency_key(self) -> str:
        """The same for both of two that start one try at once."""
        return f"{self.case_id}-{self.attempt}"


@dataclass(frozen=True, slots=True)
class VendorSession:
    """A session as the vendor tells it, at its beginning and at any later time."""

    reference: str
    """The vendor's name for it, 1-200 visible ASCII characters."""
    state: VendorState
    assurance: Assurance
    """The level it reached, or would reach."""
    url: str | None = None
    """The hosted page, while the caller has something to do there; some are good once only."""
    reason: str = ""
    """The vendor's code for a result that is not approval; shown to admins, never to callers."""


@dataclass(frozen=True, slots=True)
class VendorEvent:
    """A webhook that checks out."""

    id: str
    """The same each time the vendor sends it, 1-200 visible ASCII characters."""
    reference: str


class Vendor(Protocol):
    """A vendor of identity checks; none of the methods waits longer than the vendor's deadline."""

    @property
    def name(self) -> str:
        """The vendor in paths, records and metrics: a word of ours."""

    @property
    def page_origin(self) -> str:
        """Origin of the hosted pages; callers are sent nowhere else."""

    async def start(self, request: StartRequest) -> VendorSession:
        """Begin a session, or return the one begun with this key; raises VendorError."""

    async def fetch(self, reference: str) -> VendorSession | None:
        """Ask how a session stands, ``None`` if there is none; raises VendorError."""

    def read_webhook(
        self, headers: Mapping[str, str], body: bytes, now_s: float
    ) -> VendorEvent | WebhookRefusal:
        """Check the signature over the bytes as they came, then read what they say.

        ``headers`` are looked up without regard to case. A vendor that signs no time has no
        ``STALE``; a replay then only asks once more.
        """
