"""What refusals have in common in every dialect."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from gatekeeper.policy.reasons import REASONS

if TYPE_CHECKING:
    from gatekeeper.dialects.base import RefusalText

LONGEST_SDK_WAIT_S: Final = 60
"""Waits beyond this are not kept by the SDKs: they would come back too early, so they must not."""

BROKEN_OFF: Final = "The model endpoint broke off its answer; what has arrived is incomplete."
"""Message of the event that ends a stream whose upstream died."""


def refusal_headers(refusal: RefusalText, content_type: str, *id_headers: str) -> dict[str, str]:
    """Return the headers that go with a refusal; ``id_headers`` carry the decision id."""
    headers = {"Content-Type": content_type, "Cache-Control": "no-store"}
    for name in id_headers:
        headers[name] = refusal.decision_id
    wait_s = refusal.retry_after_s
    if wait_s is not None and math.isfinite(wait_s):
        headers["Retry-After"] = str(max(1, math.ceil(wait_s)))
    again = REASONS[refusal.reason].retryable and (wait_s is None or wait_s <= LONGEST_SDK_WAIT_S)
    headers["x-should-retry"] = "true" if again else "false"
    return headers


def machine_fields(refusal: RefusalText) -> dict[str, str]:
    """Return what a program needs to act on a refusal: codes and links beyond the text."""
    fields = {"code": refusal.reason.value, "decision_id": refusal.decision_id}
    if refusal.verification_url is not None:
        fields["verification_url"] = refusal.verification_url
    if refusal.verification_expires_at is not None:
        expires = datetime.fromtimestamp(refusal.verification_expires_at, UTC)
        fields["verification_expires_at"] = expires.isoformat(timespec="seconds")
    if refusal.documentation_url is not None:
        fields["documentation_url"] = refusal.documentation_url
    return fields
