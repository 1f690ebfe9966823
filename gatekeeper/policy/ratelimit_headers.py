"""What a caller is told of its own quotas: ``RateLimit`` fields, when to retry, a list for JSON.

The fields follow draft-ietf-httpapi-ratelimit-headers-11 (structured fields, RFC 9651). Only
enforced quotas of the caller's own account or key are told, under names made of their unit and
window: never rule ids, shared budgets, campaigns or shadow rules (H34).
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct

from gatekeeper.policy.model import FOREVER
from gatekeeper.policy.words import Mode, OnFailure, Unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gatekeeper.policy.limits import Claim
    from gatekeeper.policy.model import LimitStatus

_NAMES: Final = {
    Unit.REQUESTS: "requests",
    Unit.INPUT_TOKENS: "input-tokens",
    Unit.OUTPUT_TOKENS: "output-tokens",
    Unit.COST: "cost",
    Unit.BYTES: "bytes",
    Unit.CONCURRENCY: "concurrency",
}

_QUOTA_UNITS: Final = {
    Unit.REQUESTS: "",
    Unit.INPUT_TOKENS: ';qu="tokens"',
    Unit.OUTPUT_TOKENS: ';qu="tokens"',
    Unit.COST: ';qu="us-cents"',
    Unit.BYTES: ';qu="content-bytes"',
    Unit.CONCURRENCY: ';qu="concurrent-requests"',
}
"""The draft registers no unit for tokens or money; left out, they would pass for requests."""

_WINDOWS: Final = {
    1.0: "second",
    60.0: "minute",
    3_600.0: "hour",
    86_400.0: "day",
    604_800.0: "week",
    2_592_000.0: "month",
}

_LARGEST_INTEGER: Final = 999_999_999_999_999
"""Largest integer of structured fields (RFC 9651, section 3.3.1)."""

_Quota: TypeAlias = tuple[Unit, float, float]
"""Unit, amount per period, period in seconds."""

_ENFORCE: Final = Mode.ENFORCE
_UNKNOWN: Final = frozenset({OnFailure.OPEN, OnFailure.CLOSED})
"""Where a quota stands is not known when its rule did one of these instead of counting."""
_CONCURRENCY: Final = Unit.CONCURRENCY


def rate_limit_headers(statuses: Sequence[LimitStatus]) -> tuple[tuple[str, str], ...]:
    """Return the fields that say where the caller's own quotas stand; nothing when it has none.

    ``q`` units flow back in ``w`` seconds, ``r`` are left, and ``t`` is when the quota is whole
    again; when it had no room, when the same call fits. ``t`` never lies beyond the wait of
    :func:`retry_after_s`, which refusals tell as ``Retry-After``.
    """
    own = [status for status in statuses if is_told(status)]
    if not own:
        return ()
    wait_s = retry_after_s(statuses)
    policies, starts = _announced(
        tuple([(status.unit, status.limit_per_period, status.period_s) for status in own])
    )
    limits = []
    for start, status in zip(starts, own, strict=True):
        until_s = _effective_window_s(status)
        if wait_s is not None and until_s > wait_s:
            until_s = wait_s
        remaining = int(status.remaining)
        limits.append(f"{start}{remaining};t={until_s}" if until_s else f"{start}{remaining}")
    return (("RateLimit-Policy", policies), ("RateLimit", ", ".join(limits)))


class OwnLimit(Struct, frozen=True, gc=False):
    """One of a caller's own quotas, as it reads it. Slots have no window and no time of reset."""

    name: str
    """As in the ``RateLimit`` fields."""
    unit: Unit
    limit: float
    """The most that can be taken at once."""
    remaining: float
    """Whole units, rounded down; cost has fractions."""
    per_window: float | None
    """How much flows back in ``window_s`` seconds."""
    window_s: int | None
    resets_at: str | None
    """When the quota is whole again if nothing is taken (RFC 3339)."""
    resets_in_s: int | None


def own_limits(statuses: Sequence[LimitStatus], at: float) -> tuple[OwnLimit, ...]:
    """Return the caller's own quotas among ``statuses``, by the names of the fields.

    ``at`` is when they stood so, Unix seconds.
    """
    own = [status for status in statuses if is_told(status)]
    names = _names([(status.unit, status.limit_per_period, status.period_s) for status in own])
    return tuple(_own_limit(name, status, at) for name, status in zip(names, own, strict=True))


def own_claims(claims: Sequence[Claim]) -> tuple[Claim, ...]:
    """Return the claims on quotas that the caller may be told of: others are not even looked at."""
    return tuple(claim for claim in claims if is_told(claim.status(0, 0.0)))


def _own_limit(name: str, status: LimitStatus, at: float) -> OwnLimit:
    unit = status.unit
    limit, remaining, per_window = (
        amount if unit is Unit.COST else int(amount)
        for amount in (status.limit, status.remaining, status.limit_per_period)
    )
    if unit is _CONCURRENCY:
        return OwnLimit(name, unit, limit, remaining, None, None, None, None)
    until_s = _effective_window_s(status)
    reset = datetime.fromtimestamp(min(at + until_s, FOREVER), UTC)
    return OwnLimit(
        name,
        unit,
        limit,
        remaining,
        per_window,
        int(status.period_s),
        reset.isoformat(timespec="milliseconds"),
        until_s,
    )


@lru_cache(maxsize=1_024)
def _announced(quotas: tuple[_Quota, ...]) -> tuple[str, tuple[str, ...]]:
    """Return the policy field, and how each item of the other begins: both say nothing of use."""
    names = _names(quotas)
    policies = [
        f'"{name}";q={int(amount)}{_QUOTA_UNITS[unit]}'
        + ("" if unit is _CONCURRENCY else f";w={int(period_s)}")
        for name, (unit, amount, period_s) in zip(names, quotas, strict=True)
    ]
    return ", ".join(policies), tuple(f'"{name}";r=' for name in names)


def retry_after_s(statuses: Sequence[LimitStatus]) -> int | None:
    """Return whole seconds to wait, at least 1; ``None`` without a refusal or if waiting is vain.

    The wait for a shared quota is rounded up to a power of two: exact, it would tell how full it
    is.
    """
    longest = 0
    for status in statuses:
        wait_s = status.retry_after_s
        if not wait_s or status.mode is not _ENFORCE:
            continue
        if math.isinf(wait_s):
            return None
        whole_s = math.ceil(wait_s)
        if not is_told(status):
            whole_s = 1 << (whole_s - 1).bit_length()
        longest = max(longest, whole_s)
    return longest or None


def is_told(status: LimitStatus) -> bool:
    """Tell whether a caller may learn of this quota: it is its own, in force, and known."""
    per = status.per
    mine = ("account" in per or "key" in per) and status.failed not in _UNKNOWN
    return mine and "campaign" not in per and status.mode is _ENFORCE


def _effective_window_s(status: LimitStatus) -> int:
    """Return seconds, rounded up; 0 for a quota that is whole, or of which that is unknown."""
    if status.retry_after_s:
        return 0 if math.isinf(status.retry_after_s) else math.ceil(status.retry_after_s)
    missing = status.limit - status.remaining
    if status.unit is _CONCURRENCY or missing <= 0:
        return 0
    until_s = math.ceil(missing * status.period_s / status.limit_per_period)
    return min(until_s, _LARGEST_INTEGER)


def _names(quotas: Sequence[_Quota]) -> list[str]:
    """Name each quota by its unit; by its window, then by a number, where that is not enough."""
    names = [_NAMES[unit] for unit, _, _ in quotas]
    if len(set(names)) == len(names):
        return names
    unique: list[str] = []
    for name, (_, _, period_s) in zip(names, quotas, strict=True):
        if names.count(name) == 1:
            unique.append(name)
            continue
        windowed = f"{name}-{_WINDOWS.get(period_s) or f'{int(period_s)}s'}"
        number, candidate = 1, windowed
        while candidate in unique:
            number += 1
            candidate = f"{windowed}-{number}"
        unique.append(candidate)
    return unique
