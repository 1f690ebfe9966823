"""What each reason means to a caller: HTTP status, the sentence to read, whether to try again.

The sentences say what to do and nothing of why it was decided: no rule, signal, point, campaign,
shared budget or state of our own parts is named (H34). ``docs/reasons.md`` is held to this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gatekeeper.policy.words import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Explanation:
    """How one reason is told to a caller."""

    status: int
    """HTTP status code (RFC 9110, RFC 7725 for 451)."""
    message: str
    """What happened and what to do, in plain sentences."""
    retryable: bool
    """Whether the same request may pass later; goes out as ``x-should-retry``."""
    person: bool = False
    """Whether only a person can resolve it, so that a contact helps."""


_RETRY: Final = True
_FINAL: Final = False

REASONS: Final[Mapping[Reason, Explanation]] = {
    # policy
    Reason.REGION_NOT_SUPPORTED: Explanation(
        451,
        "This service is not available from your region or network, or to your organization. "
        "Repeating the request will not help.",
        _FINAL,
        person=True,
    ),
    Reason.ACCOUNT_SUSPENDED: Explanation(
        403,
        "This account is suspended. Contact the operator of this service and name the decision id.",
        _FINAL,
        person=True,
    ),
    Reason.REQUEST_DENIED: Explanation(
        403,
        "This request is not permitted. "
        "If you think that is wrong, contact the operator and name the decision id.",
        _FINAL,
        person=True,
    ),
    Reason.PARAMETER_NOT_PERMITTED: Explanation(
        403,
        "This account may not use a parameter of this request. "
        "Leave it out and send the request again.",
        _FINAL,
        person=True,
    ),
    Reason.MODEL_NOT_PERMITTED: Explanation(
        403,
        "This account may not use the requested model. "
        "Choose another model or ask the operator for access.",
        _FINAL,
        person=True,
    ),
    Reason.IDENTITY_VERIFICATION_REQUIRED: Explanation(
        403,
        "Identity verification is required before this request can be served. "
        "Complete it once, then send the request again.",
        _FINAL,
        person=True,
    ),
    Reason.RATE_LIMIT_EXCEEDED: Explanation(
        429, "Too many requests. Wait, then send the request again.", _RETRY
    ),
    Reason.TOKEN_LIMIT_EXCEEDED: Explanation(
        429,
        "Too many tokens in too short a time. "
        "Wait, or send less input or a smaller bound on the output.",
        _RETRY,
    ),
    Reason.SPENDING_LIMIT_EXCEEDED: Explanation(
        429, "The spending limit is reached. Wait until part of it is free again.", _RETRY
    ),
    Reason.CONCURRENCY_LIMIT_EXCEEDED: Explanation(
        429, "Too many requests at the same time. Wait until earlier ones have finished.", _RETRY
    ),
    Reason.REQUEST_EXCEEDS_LIMIT: Explanation(
        429,
        "This one request asks for more than the limit ever allows at once. "
        "Send less input or a smaller bound on the output; waiting will not help.",
        _FINAL,
    ),
    # credentials
    Reason.CREDENTIALS_MISSING: Explanation(
        401,
        "No credentials were sent. "
        "Send a key or token as `Authorization: Bearer ...` or `x-api-key: ...`.",
        _FINAL,
    ),
    Reason.CREDENTIALS_INVALID: Explanation(
        401, "The credentials are not valid here. Check the key or token that you send.", _FINAL
    ),
    Reason.CREDENTIALS_EXPIRED: Explanation(
        401, "The credentials have expired. Get a new key or token and send it instead.", _FINAL
    ),
    # the request itself
    Reason.INVALID_REQUEST: Explanation(
        400, "The request is malformed. Correct it and send it again.", _FINAL
    ),
    Reason.INVALID_PATH: Explanation(
        400,
        "The path of the request is malformed or ambiguous. "
        "Send it in its plain form, without dot segments or encoded separators.",
        _FINAL,
    ),
    Reason.INVALID_HEADERS: Explanation(
        400,
        "The headers of the request are malformed or contradict each other. Correct them.",
        _FINAL,
    ),
    Reason.INVALID_BODY: Explanation(
        400, "The body of the request cannot be understood. Correct it.", _FINAL
    ),
    Reason.BODY_TOO_LARGE: Explanation(
        413, "The body of the request is too large. Send less at once.", _FINAL
    ),
    Reason.REQUEST_TIMEOUT: Explanation(
        408, "The request did not arrive in time. Send it again without pauses.", _RETRY
    ),
    Reason.ROUTE_NOT_SERVED: Explanation(
        404, "This route is not served here. Check the base URL and the path.", _FINAL
    ),
    Reason.MODEL_NOT_SERVED: Explanation(
        404, "The requested model is not served here. Check its name.", _FINAL
    ),
    Reason.UPGRADE_NOT_SUPPORTED: Explanation(
        400,
        "The connection cannot be upgraded so. WebSocket (RFC 6455) is the only protocol taken.",
        _FINAL,
    ),
    Reason.LOOP_DETECTED: Explanation(
        508,
        "The request has passed through this gateway before. "
        "The operator must correct the upstream's address.",
        _FINAL,
    ),
    # could not
    Reason.UPSTREAM_UNREACHABLE: Explanation(
        502, "The model endpoint cannot be reached. Try again shortly.", _RETRY
    ),
    Reason.UPSTREAM_TIMEOUT: Explanation(
        504, "The model endpoint did not answer in time. Try again shortly.", _RETRY
    ),
    Reason.UPSTREAM_INVALID: Explanation(
        502, "The model endpoint gave an answer that cannot be used. Try again shortly.", _RETRY
    ),
    Reason.SERVICE_UNAVAILABLE: Explanation(
        503, "The service cannot take this request at the moment. Try again shortly.", _RETRY
    ),
}
"""One explanation for every :class:`~gatekeeper.policy.words.Reason`."""
