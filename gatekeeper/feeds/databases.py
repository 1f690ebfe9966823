"""Whether a fetched database may replace the last good one."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Final

from gatekeeper.facts.network_database import Database, open_database
from gatekeeper.feeds.errors import FeedError
from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.words import LookupStatus

if TYPE_CHECKING:
    from pathlib import Path

_PROBES: Final = 4_096
_STEP: Final = 2**32 // _PROBES
_ENOUGH: Final = 50
"""Answers to the probes that a view must have given for their number to mean something."""
_DAY_S: Final = 86_400.0


def sound_database(path: Path, *, now_unix_s: float) -> Database:
    """Open a database that was fetched; raises :class:`FeedError` when it is of no use."""
    new = open_database(path, now_unix_s=now_unix_s, max_age_days=None)
    if isinstance(new, Mistake):
        raise FeedError(new.message)
    if new.built_unix_s > now_unix_s + _DAY_S:
        raise FeedError("it claims to be built in the future")
    return new


def no_step_back(new: Database, before: Path, *, any_size: bool) -> None:
    """Hold a database against the last good one; raises :class:`FeedError`.

    With ``any_size``, it may answer less than that.
    """
    last = open_database(before, now_unix_s=0.0, max_age_days=None)
    if isinstance(last, Mistake):  # damaged since: no measure
        return
    if new.database_type != last.database_type:
        raise FeedError("it is of another type than the last one: give its feed a new id if right")
    if new.built_unix_s < last.built_unix_s:
        raise FeedError("it was built before the last one")
    if any_size:
        return
    before_hits, after_hits = _answers(last), _answers(new)
    for view, hits in before_hits.items():
        if hits >= _ENOUGH and after_hits[view] * 3 < hits * 2:
            found = f"{after_hits[view]} of {_PROBES} probes, the last {hits}"
            raise FeedError(f"its view {view} answers {found}")


def _answers(database: Database) -> Counter[str]:
    """Count the hits of each view for addresses all over IPv4."""
    hits: Counter[str] = Counter()
    for probe in range(_PROBES):
        for lookup, _ in database.look_up(IPv4Address(probe * _STEP + _STEP // 2)):
            hits[lookup.view] += lookup.status is LookupStatus.HIT
    return hits
