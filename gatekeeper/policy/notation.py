"""How rates, durations and dates are written; a ``ValueError`` says what would be right."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

import limits

from gatekeeper.policy.limits import MAX_UNITS

_MONTH_S: Final = 31 * 86_400
RATE: Final = re.compile(r"([0-9]{1,10}) ?(?:/|per) ?(?:([1-9][0-9]{0,7}) )?([a-z]{3,7})", re.ASCII)
_DURATION: Final = re.compile(r"([1-9][0-9]{0,7}) ([a-z]{3,7})", re.ASCII)
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d)?(?:Z|\+00:00))?", re.ASCII)


def rate_of(text: str) -> tuple[int, int]:
    """Read ``600/minute`` (the notation of the ``limits`` library) as amount and seconds."""
    match = RATE.fullmatch(text)
    if match is None:
        raise ValueError(f"`{text[:40]}` is not a rate; write one like `600/minute`.")
    amount = int(match[1])
    if not 1 <= amount <= MAX_UNITS:
        raise ValueError(f"A rate's amount must be from 1 to {MAX_UNITS}.")
    return amount, _seconds(f"1/{match[2] or 1} {match[3]}")


def duration_s(text: str) -> int:
    """Read ``10 minutes`` as seconds."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"`{text[:40]}` is not a duration; write one like `10 minutes`.")
    return _seconds(f"1/{match[1]} {match[2]}")


def _seconds(text: str) -> int:
    unit = text.rpartition(" ")[2]
    if unit.removesuffix("s") not in {"second", "minute", "hour", "day", "month"}:
        raise ValueError(f"`{unit}` is not a unit of time; use second, minute, hour, day or month.")
    seconds = limits.parse(text).get_expiry()
    if seconds > _MONTH_S:
        raise ValueError("A time must not be longer than a month.")
    return seconds


def instant_s(text: str) -> float:
    """Read ``2026-01-31`` (the start of that day, UTC) or ``2026-01-31T12:00Z`` as Unix seconds."""
    if _INSTANT.fullmatch(text) is None:
        raise ValueError(f"`{text[:40]}` is not a date; write `2026-01-31` or `2026-01-31T12:00Z`.")
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"`{text}` is not a date of the calendar.") from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
