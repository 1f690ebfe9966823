"""What an admin does with identity checks, with a vendor or without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekeeper.policy.lifecycles import CaseEvent, CaseState
from gatekeeper.storage.cases_schema import Change, Finding

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gatekeeper.storage.cases import Cases
    from gatekeeper.storage.cases_schema import CaseRow, CaseStep


class CaseDesk:
    """Finds and decides cases. Every method raises RecordsError when SQL could not.

    ``valid_s`` is how long an approval is good, ``None`` for ever. ``moved`` is told of each
    step that was taken.
    """

    def __init__(
        self,
        cases: Cases,
        *,
        valid_s: float | None,
        moved: Callable[[CaseEvent, CaseRow, float], Awaitable[None]] | None = None,
    ) -> None:
        self._cases = cases
        self._valid_s = valid_s
        self._moved = moved

    async def page(
        self,
        *,
        after: str = "",
        limit: int = 100,
        state: CaseState | None = None,
        account_id: str | None = None,
        text: str = "",
    ) -> tuple[CaseRow, ...]:
        """Return a page of cases by id, greater than ``after``.

        ``text`` is the whole id of a case, account, decision or vendor's session.
        """
        return await self._cases.page(
            after=after, limit=limit, state=state, account_id=account_id, text=text
        )

    async def get(self, case_id: str) -> CaseRow | None:
        """Return one case."""
        return await self._cases.get(case_id)

    async def history(self, case_id: str) -> tuple[CaseStep, ...]:
        """Return what happened to a case, the latest first."""
        return await self._cases.history(case_id)

    async def approve(
        self, case_id: str, *, actor: str, reason: str, at: float
    ) -> tuple[Change, CaseRow | None]:
        """Find an identity proven to the level that the case asks for."""
        case = await self._cases.get(case_id)
        if case is None:
            return Change.NO_CASE, None
        finding = Finding(CaseEvent.APPROVED, actor, reason, case.assurance)
        return await self._decide(case_id, finding, at)

    async def decline(
        self, case_id: str, *, actor: str, reason: str, at: float
    ) -> tuple[Change, CaseRow | None]:
        """Find an identity not proven."""
        return await self._decide(case_id, Finding(CaseEvent.DECLINED, actor, reason), at)

    async def restart(
        self, case_id: str, *, actor: str, reason: str, at: float
    ) -> tuple[Change, CaseRow | None]:
        """Let the account try again, as if it had never tried; it may then be approved too."""
        return await self._decide(case_id, Finding(CaseEvent.RESTARTED, actor, reason), at)

    async def _decide(
        self, case_id: str, finding: Finding, at: float
    ) -> tuple[Change, CaseRow | None]:
        change, case = await self._cases.apply(case_id, finding, at=at, valid_s=self._valid_s)
        if change is Change.DONE and case is not None and self._moved is not None:
            await self._moved(finding.event, case, at)
        return change, case
