"""What becomes of a call when a quota has no room for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from gatekeeper.policy.model import Finding, Obligation
from gatekeeper.policy.ratelimit_headers import is_told
from gatekeeper.policy.words import OnFailure, Reason, Unit, Verdict

if TYPE_CHECKING:
    from gatekeeper.policy.model import LimitStatus

_LIMIT_REASONS: Final = {
    Unit.REQUESTS: Reason.RATE_LIMIT_EXCEEDED,
    Unit.INPUT_TOKENS: Reason.TOKEN_LIMIT_EXCEEDED,
    Unit.OUTPUT_TOKENS: Reason.TOKEN_LIMIT_EXCEEDED,
    Unit.COST: Reason.SPENDING_LIMIT_EXCEEDED,
    Unit.BYTES: Reason.RATE_LIMIT_EXCEEDED,
    Unit.CONCURRENCY: Reason.CONCURRENCY_LIMIT_EXCEEDED,
}


def shortage(status: LimitStatus) -> Finding:
    """Return the finding on a quota that had no room, or could not be asked."""
    verdict, detail = Verdict.RATE_LIMITED, ""
    if status.failed is not None:
        detail = f"store failed: {status.failed.value}"
    if status.failed is OnFailure.CLOSED:
        verdict = Verdict.UNAVAILABLE
    elif status.used_up is not None:
        verdict, detail = Verdict.STEP_UP, status.used_up.value
    return Finding(status.rule, status.mode, verdict, limit_reason(status), detail)


def limit_reason(status: LimitStatus) -> Reason:
    """Return what a caller is told of a quota that had no room.

    A way out is told before a bound that the call can never meet: the bound is not the caller's.
    """
    if status.failed is OnFailure.CLOSED:
        return Reason.SERVICE_UNAVAILABLE
    if status.used_up is not None:
        return Reason.IDENTITY_VERIFICATION_REQUIRED
    if math.isinf(status.retry_after_s):
        return Reason.REQUEST_EXCEEDS_LIMIT
    return _LIMIT_REASONS[status.unit]


def told_of(short: list[LimitStatus]) -> tuple[Reason, str | None, Obligation | None]:
    """Return what a caller is told of quotas that give one verdict: reason, sentence, way out."""
    ways_out = [(status.used_up, status.rule) for status in short if status.used_up is not None]
    longest = max(short, key=lambda status: status.retry_after_s)
    reason = limit_reason(longest)
    if reason is Reason.IDENTITY_VERIFICATION_REQUIRED:
        assurance, rule = max(ways_out, key=lambda way: way[0].rank)
        return reason, None, Obligation(assurance, rule)
    return reason, _lever(longest) if reason is Reason.REQUEST_EXCEEDS_LIMIT else None, None


_LEVERS: Final = {
    Unit.INPUT_TOKENS: ("input tokens", "Shorten the prompt."),
    Unit.OUTPUT_TOKENS: (
        "output tokens",
        "Lower max_tokens (or max_completion_tokens, max_output_tokens) or n.",
    ),
    Unit.COST: ("US cents", "Shorten the prompt, lower max_tokens or n, or use a cheaper model."),
    Unit.BYTES: ("bytes", "Send less at once."),
}


def _lever(status: LimitStatus) -> str | None:
    """Say which field makes a call fit that never can; numbers only of the caller's own quota."""
    lever = _LEVERS.get(status.unit)
    if lever is None:
        return None
    words, fix = lever
    if not is_told(status):
        return fix
    asked, most = math.ceil(status.requested), math.floor(status.limit)
    return f"It may take up to {asked} {words}, and at most {most} are given at once. {fix}"
