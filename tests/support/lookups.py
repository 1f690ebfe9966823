"""How look-ups ended, summed up over all sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekeeper.policy.words import LookupStatus

if TYPE_CHECKING:
    from gatekeeper.policy.model import NetworkFacts


def status(facts: NetworkFacts, view: str) -> LookupStatus:
    """Return the best status any source gave for ``view``: hit, then miss, then unknown."""
    given = {lookup.status for lookup in facts.lookups if lookup.view == view}
    for best in (LookupStatus.HIT, LookupStatus.MISS):
        if best in given:
            return best
    return LookupStatus.UNKNOWN
