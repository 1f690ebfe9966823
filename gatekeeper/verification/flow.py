"""The loop of step-up: open a case, ask the vendor, move the case, tell the directory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

import structlog

from gatekeeper.policy.lifecycles import CaseEvent, CaseState
from gatekeeper.storage.cases_schema import Change, Finding, Opening
from gatekeeper.storage.database import RecordsError
from gatekeeper.verification.vendor import (
    StartRequest,
    VendorError,
    VendorState,
    WebhookRefusal,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from gatekeeper.storage.cases import Cases
    from gatekeeper.storage.cases_schema import CaseRow, TryRules
    from gatekeeper.telemetry import Metrics
    from gatekeeper.verification.links import LinkClaims
    from gatekeeper.verification.vendor import Vendor, VendorSession

_MOST_QUESTIONS: Final = 8
"""Questions to the vendor under way at once."""
_AGAIN_S: Final = 2.0
"""How often one case's page may make the gate ask the vendor."""
_REMEMBERED: Final = 4_096
_CHECK_S: Final = (60.0, 3_600.0)
"""Shortest and longest pause between two looks at a case whose webhook has not come."""
_GRACE_S: Final = 86_400.0
"""How long after its end a try waits for a vendor that does not answer."""
_MOST_DUE: Final = 20
"""Cases that one round of reconciling looks at."""
_KEEP_DELIVERIES_S: Final = 30 * 86_400.0

_OVER: Final = frozenset({CaseState.REJECTED, CaseState.EXPIRED})
_FINDINGS: Final = {
    VendorState.DECLINED: CaseEvent.DECLINED,
    VendorState.LAPSED: CaseEvent.LAPSED,
}


class WebhookOutcome(StrEnum):
    """What became of a webhook."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    """Believed, but it moves no case: still under way, or over already."""
    DUPLICATE = "duplicate"
    UNKNOWN = "unknown"
    """Believed, but no case of ours has this reference."""
    MALFORMED = "malformed"
    FORGED = "forged"
    STALE = "stale"
    UNAVAILABLE = "unavailable"
    """Vendor or records could not be asked: the vendor has to send it again."""


@dataclass(frozen=True, slots=True)
class Opened:
    """How opening a link ended, and where the caller goes on."""

    outcome: Opening
    case: CaseRow | None
    url: str | None = None
    """The vendor's hosted page; ``None`` when there is nothing to do there."""


class CaseFlow:
    """Drives identity checks. Methods raise RecordsError and VendorError when these could not.

    ``refresh`` makes this node see the records at once; the others follow by themselves.
    """

    def __init__(
        self,
        cases: Cases,
        vendor: Vendor | None,
        rules: TryRules,
        *,
        new_case_id: Callable[[], str],
        refresh: Callable[[float], Awaitable[object]],
        metrics: Metrics,
    ) -> None:
        self.cases = cases
        self.vendor = vendor
        self.rules = rules
        self._new_case_id = new_case_id
        self._refresh = refresh
        self._metrics = metrics
        self._log = structlog.get_logger("gatekeeper.verification")
        self._questions = asyncio.Semaphore(_MOST_QUESTIONS)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._asked_at: dict[str, float] = {}

    async def open(self, claims: LinkClaims, return_url: Callable[[str], str], at: float) -> Opened:
        """Begin or continue the check that a link asks for.

        ``return_url`` says where the vendor's page leads back to, by the id of the case.
        """
        found = await self._open(claims, return_url, at)
        over = found.case is not None and found.case.state in _OVER
        if found.outcome is Opening.UNDER_WAY and over:
            # The try of an earlier link turned out to have ended: this one may begin the next.
            return await self._open(claims, return_url, at)
        return found

    async def _open(
        self, claims: LinkClaims, return_url: Callable[[str], str], at: float
    ) -> Opened:
        outcome, case = await self.cases.open(
            claims.account_id,
            claims.assurance,
            claims.decision_id,
            case_id=self._new_case_id(),
            vendor="" if self.vendor is None else self.vendor.name,
            rules=self.rules,
            at=at,
        )
        if case is None or outcome not in {Opening.STARTED, Opening.UNDER_WAY}:
            return Opened(outcome, case)
        if outcome is Opening.STARTED:
            if case.attempt > 1:
                self._tell(CaseEvent.RESTARTED, case)
            self._tell(CaseEvent.OPENED, case)
        if self.vendor is None or case.vendor != self.vendor.name:
            return Opened(outcome, case)
        case, session = await self._session(self.vendor, case, return_url(case.id), at)
        moved, change = await self._apply(case, session, at)
        if moved is None and change is Change.NOT_NOW and session is not None and session.url:
            return Opened(outcome, case, session.url)
        return Opened(outcome, moved or await self.cases.get(case.id))

    async def look(self, case: CaseRow, at: float) -> CaseRow:
        """Return a case as it stands now; the vendor is asked, so that no webhook is needed.

        When it is told to be verified, this node lets its account through already.
        """
        moved: CaseRow | None = None
        if self._may_ask(case, at):
            try:
                moved, _ = await self._settle(case, at)
            except VendorError as error:
                self._log.warning("vendor", problem=str(error))
                return case
            case = moved or await self.cases.get(case.id) or case
        if moved is None and case.state is CaseState.VERIFIED:
            # A webhook was faster, and this node may not have seen what it wrote.
            await self._refresh(at)
        return case

    async def take_webhook(
        self, headers: Mapping[str, str], body: bytes, at: float
    ) -> WebhookOutcome:
        """Deal with a delivery; all is committed when this returns."""
        if self.vendor is None:
            return WebhookOutcome.UNKNOWN
        event = self.vendor.read_webhook(headers, body, at)
        if isinstance(event, WebhookRefusal):
            return WebhookOutcome(event.value)
        lock = self._locks.setdefault(event.reference, asyncio.Lock())
        try:
            async with lock:  # so that the same one tenfold asks the vendor once
                if await self.cases.noted(self.vendor.name, event.id):
                    return WebhookOutcome.DUPLICATE
                case = await self.cases.by_reference(self.vendor.name, event.reference)
                if case is None:
                    return WebhookOutcome.UNKNOWN
                _, change = await self._settle(case, at, (self.vendor.name, event.id))
        except (RecordsError, VendorError) as error:
            self._log.warning("webhook", problem=str(error))
            return WebhookOutcome.UNAVAILABLE
        if change is Change.DUPLICATE:
            return WebhookOutcome.DUPLICATE
        return WebhookOutcome.APPLIED if change is Change.DONE else WebhookOutcome.UNCHANGED

    async def reconcile(self, at: float) -> int:
        """Look at cases whose time has come; return how many. One node looks at each."""
        due = await self.cases.due(at=at, limit=_MOST_DUE)
        for case in due:
            if await self.cases.claim(case, until=self._next_check_at(case, at)):
                await self._look_again(case, at)
        return len(due)

    async def forget(self, at: float) -> None:
        """Drop deliveries that were noted long ago."""
        await self.cases.forget_deliveries(before=at - _KEEP_DELIVERIES_S)

    async def moved(self, event: CaseEvent, case: CaseRow, at: float) -> None:
        """Count and log a step that was taken, and let this node see it at once."""
        self._tell(event, case)
        await self._refresh(at)

    def _next_check_at(self, case: CaseRow, at: float) -> float:
        """Return when to look again: ever more rarely, but once at the end."""
        shortest, longest = _CHECK_S
        if case.state is not CaseState.PENDING or not self._is_askable(case):
            return max(case.expires_at or at + longest, at + shortest)
        pause = min(max(at - (case.started_at or at), shortest), longest)
        return at + pause

    async def _look_again(self, case: CaseRow, at: float) -> None:
        over = case.expires_at is not None and at >= case.expires_at
        if case.state is CaseState.VERIFIED:
            if over:
                await self._lapse(case, "proof_expired", at)
            return
        if case.state is not CaseState.PENDING:
            return
        if self._is_askable(case):
            try:
                moved, _ = await self._settle(case, at)
            except VendorError as error:
                self._log.warning("vendor", problem=str(error))
                over = over and at >= (case.expires_at or at) + _GRACE_S
                moved = None
            if moved is not None:
                return
        if over:
            await self._lapse(case, "no_result", at)

    async def _lapse(self, case: CaseRow, reason: str, at: float) -> None:
        finding = Finding(CaseEvent.LAPSED, "gatekeeper", reason)
        change, moved = await self.cases.apply(
            case.id, finding, at=at, valid_s=None, reference=case.reference
        )
        if change is Change.DONE and moved is not None:
            await self.moved(CaseEvent.LAPSED, moved, at)

    async def _session(
        self, vendor: Vendor, case: CaseRow, return_url: str, at: float
    ) -> tuple[CaseRow, VendorSession | None]:
        """Return a try with its one session, begun if need be; ``None`` if the vendor lost it."""
        async with self._questions:
            if case.reference is not None:
                return case, await vendor.fetch(case.reference)
            request = StartRequest(case.id, case.attempt, case.assurance, return_url)
            session = await vendor.start(request)
            kept = await self.cases.attach(case, session.reference, at=at)
            if kept is None or kept.reference is None or kept.attempt != case.attempt:
                raise VendorError("another try was begun meanwhile")
            if kept.reference != session.reference:
                return kept, await vendor.fetch(kept.reference)
            return kept, session

    async def _settle(
        self, case: CaseRow, at: float, delivery: tuple[str, str] | None = None
    ) -> tuple[CaseRow | None, Change]:
        """Ask the vendor how a case stands, and move it; the webhook's own word is not enough."""
        if self.vendor is None or case.reference is None:
            return None, Change.NOT_NOW
        async with self._questions:
            session = await self.vendor.fetch(case.reference)
        return await self._apply(case, session, at, delivery)

    async def _apply(
        self,
        case: CaseRow,
        session: VendorSession | None,
        at: float,
        delivery: tuple[str, str] | None = None,
    ) -> tuple[CaseRow | None, Change]:
        """Move a case to where its session stands; ``None`` for the case if it did not move."""
        finding = self._finding(case, session)
        if finding is None:
            if delivery is not None:
                await self.cases.note(*delivery, at=at)
            return None, Change.NOT_NOW
        change, moved = await self.cases.apply(
            case.id,
            finding,
            at=at,
            valid_s=self.rules.valid_s,
            reference=case.reference,
            delivery=delivery,
        )
        if change is not Change.DONE or moved is None:
            return None, change
        await self.moved(finding.event, moved, at)
        return moved, change

    def _finding(self, case: CaseRow, session: VendorSession | None) -> Finding | None:
        actor = f"vendor:{case.vendor}"
        if session is None:
            return Finding(CaseEvent.LAPSED, actor, "unknown_to_vendor")
        if session.state is VendorState.APPROVED:
            if session.assurance.meets(case.assurance):
                return Finding(CaseEvent.APPROVED, actor, session.reason, session.assurance)
            return Finding(CaseEvent.DECLINED, actor, "assurance_too_low")
        event = _FINDINGS.get(session.state)
        return None if event is None else Finding(event, actor, session.reason)

    def _is_askable(self, case: CaseRow) -> bool:
        return (
            self.vendor is not None
            and case.vendor == self.vendor.name
            and case.reference is not None
        )

    def _may_ask(self, case: CaseRow, at: float) -> bool:
        if case.state is not CaseState.PENDING or not self._is_askable(case):
            return False
        try_key = f"{case.id}-{case.attempt}"
        if at - self._asked_at.get(try_key, 0.0) < _AGAIN_S:
            return False
        if len(self._asked_at) >= _REMEMBERED:
            self._asked_at.clear()
        self._asked_at[try_key] = at
        return True

    def _tell(self, event: CaseEvent, case: CaseRow) -> None:
        self._metrics.count("gatekeeper_verification_cases", event.value)
        self._log.info("verification_case", case=case.id, step=event.value, state=case.state.value)
