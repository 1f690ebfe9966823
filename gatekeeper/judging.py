"""Judges a call that was read, and holds of its limits what it may take at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from gatekeeper.policy.capabilities import classified
from gatekeeper.policy.decide import assess, stops
from gatekeeper.policy.view import view_of
from gatekeeper.policy.words import GateMode, Unit
from gatekeeper.terms import Terms, fitted, granted, shaped

if TYPE_CHECKING:
    from gatekeeper.listener.intake import Taken
    from gatekeeper.policy.model import Facts, LimitStatus, Moment, Standing, View
    from gatekeeper.snapshot import Snapshot
    from gatekeeper.storage.limiter import Limiter, Reservation, Reserved


def classed(facts: Facts, now: Snapshot) -> Facts:
    """Return the facts of a call that was read with its capability classes and its campaign."""
    return now.containment.placed(classified(facts, now.rules))


_OF_A_CONNECTION: Final = frozenset({Unit.CONCURRENCY})
"""What a WebSocket takes as long as it lasts, beside what each of its turns does."""


class Case(Struct, frozen=True, gc=False):
    """One call under judgement."""

    id: str
    at: Moment
    now: Snapshot


class Judged(Struct, frozen=True, gc=False):
    """What rules and limits say of a call, and what is held for it."""

    standing: Standing
    terms: Terms
    statuses: tuple[LimitStatus, ...] = ()
    held: Reservation | None = None
    slot: Reservation | None = None
    """What a WebSocket holds as long as it lasts."""


@dataclass(frozen=True, slots=True)
class Judging:
    """What it takes to judge."""

    limiter: Limiter
    hold_s: float

    async def judge(
        self,
        case: Case,
        facts: Facts,
        standing: Standing,
        taken: Taken,
        units: frozenset[Unit] | None = None,
    ) -> Judged:
        """Judge what was screened, and hold its worst case: of all units, or of some."""
        now = case.now
        if now.mode is GateMode.BYPASS:
            return Judged(standing, Terms(facts.call))
        view = view_of(facts)
        standing = assess(facts, view, now.rules, standing)
        if stops(standing, mode=now.mode):
            return Judged(standing, Terms(facts.call))
        terms, reserved = await self._reserve(case, facts, standing, taken, view=view, units=units)
        return Judged(standing, terms, reserved.statuses, reserved.held)

    async def with_slot(self, case: Case, facts: Facts, taken: Taken, judged: Judged) -> Judged:
        """Hold besides what a connection takes as long as it lasts; both, or nothing (H22)."""
        if judged.held is None:
            return judged
        apart = replace(case, id=f"{case.id}.slot")
        try:
            _, reserved = await self._reserve(
                apart, facts, judged.standing, taken, view=view_of(facts), units=_OF_A_CONNECTION
            )
        except BaseException:  # a caller that hangs up meanwhile leaves nothing held
            await self.limiter.cancel(judged.held, case.at)
            raise
        if reserved.held is None:
            await self.limiter.cancel(judged.held, case.at)
            judged = replace(judged, held=None)
        return replace(judged, statuses=judged.statuses + reserved.statuses, slot=reserved.held)

    async def give_back(self, judged: Judged, at: Moment) -> None:
        """Give back all that is held."""
        for held in (judged.held, judged.slot):
            if held is not None:
                await self.limiter.cancel(held, at)

    async def _reserve(
        self,
        case: Case,
        facts: Facts,
        standing: Standing,
        taken: Taken,
        *,
        view: View,
        units: frozenset[Unit] | None,
    ) -> tuple[Terms, Reserved]:
        """Hold the worst case that shaping and the quotas leave of what is asked."""
        now = case.now
        ask = taken.ask if now.mode is GateMode.ENFORCE else None  # else nothing is changed
        terms = shaped(facts.call, ask, standing.shaping, now.prices)
        claims = now.planner.claims(_held(facts, terms), standing, view)
        fitting = fitted(terms, ask, claims, now.prices)
        if fitting is not terms:
            terms = fitting
            claims = now.planner.claims(_held(facts, terms), standing, view)
        if taken.ask is not None and taken.ask.fixed_output:
            claims = tuple(claim.unyielding() for claim in claims)
        if units is not None:
            claims = tuple(claim for claim in claims if claim.quota.unit in units)
        reserved = await self.limiter.reserve(claims, case.at, self.hold_s, case.id)
        return granted(terms, ask, reserved.held, now.prices), reserved


def _held(facts: Facts, terms: Terms) -> Facts:
    """Return the facts with the call as it is held, which is what its limits count."""
    return facts if terms.call is facts.call else replace(facts, call=terms.call)
