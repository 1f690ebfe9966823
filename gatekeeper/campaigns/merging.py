"""Groups of several windows that are one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from gatekeeper.campaigns.bipartite import Ints
    from gatekeeper.campaigns.score import Evidence
    from gatekeeper.policy.campaigns import SharedTrait

_SAME: Final = 0.5
"""Part of the smaller group that must be in both."""
_AS_SURE: Final = 15.0
"""Points below the best, from which a group brings its members along; others were seen dimly."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A group as one window shows it."""

    members: Ints
    """Nodes, sorted."""
    evidence: Evidence
    shared: tuple[SharedTrait, ...]
    q_value: float = 1.0
    score: float = 0.0


def merged(candidates: list[Candidate], fewest: int) -> list[Candidate]:
    """Return disjoint groups, the highest score first.

    The surest of those that overlap stands for all of them; among equals the first, so that the
    longest window is to come first. Those about as sure add their members and what they share to
    the one that they overlap most with; what others saw apart stays apart.
    """
    ranked = sorted(candidates, key=lambda each: -each.score)
    result: list[Candidate] = []
    size = max((int(each.members[-1]) for each in ranked), default=-1) + 1
    owner = np.full(size, -1)
    for each in ranked:
        owners = owner[each.members]
        free = each.members[owners < 0]
        common = np.bincount(owners[owners >= 0], minlength=len(result))
        smaller = np.minimum([one.members.size for one in result] or [1], each.members.size)
        hosts = np.flatnonzero(common[: len(result)] >= _SAME * smaller[: len(result)])
        if hosts.size:
            host = int(hosts[np.argmax(common[hosts])])
            if each.score >= result[host].score - _AS_SURE:
                owner[free] = host
                result[host] = _joined(result[host], each, free)
        elif free.size >= fewest:
            owner[free] = len(result)
            result.append(replace(each, members=free))
    return result


def _joined(host: Candidate, guest: Candidate, members: Ints) -> Candidate:
    known = {(each.kind, each.digest) for each in host.shared}
    more = tuple(each for each in guest.shared if (each.kind, each.digest) not in known)
    return replace(host, members=np.union1d(host.members, members), shared=host.shared + more)
