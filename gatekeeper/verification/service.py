"""Step-up as one part of a gate: pages for callers, a desk for admins, and a look after cases."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Final

import structlog

from gatekeeper.storage.database import RecordsError
from gatekeeper.verification.desk import CaseDesk
from gatekeeper.verification.flow import CaseFlow
from gatekeeper.verification.pages import VerificationPages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gatekeeper.storage.cases import Cases
    from gatekeeper.storage.cases_schema import TryRules
    from gatekeeper.telemetry import Metrics
    from gatekeeper.verification.links import LinkSigner
    from gatekeeper.verification.vendor import Vendor

_RECONCILE_S: Final = 10.0
"""Longest pause between two looks for cases whose time has come."""
_FORGET_S: Final = 3_600.0


def new_case_id() -> str:
    """Return the id of a case, too long to guess."""
    return f"case_{secrets.token_hex(13)}"


class Verification:
    """What a gate does about identities; ``run`` goes on until it is cancelled."""

    def __init__(
        self,
        cases: Cases,
        vendor: Vendor | None,
        rules: TryRules,
        *,
        links: LinkSigner,
        support: str,
        refresh: Callable[[float], Awaitable[object]],
        metrics: Metrics,
    ) -> None:
        self.flow = CaseFlow(
            cases, vendor, rules, new_case_id=new_case_id, refresh=refresh, metrics=metrics
        )
        self.desk = CaseDesk(cases, valid_s=rules.valid_s, moved=self.flow.moved)
        self.pages = VerificationPages(links, self.flow, metrics, support=support)
        self._log = structlog.get_logger("gatekeeper.verification")
        if vendor is not None and vendor.name == "sandbox":
            self._log.warning(
                "sandbox_vendor",
                hint="step_up.vendor is sandbox: no identity is checked, whoever opens the link "
                "of a refusal chooses the result. Never use it where it matters",
            )

    async def run(self, clock: Callable[[], float], chance: Callable[[], float]) -> None:
        """Look after cases whose webhook does not come; ``clock`` tells Unix seconds."""
        forgotten_at = 0.0
        while True:
            await asyncio.sleep(_RECONCILE_S * (0.5 + 0.5 * chance()))
            at = clock()
            try:
                await self.flow.reconcile(at)
                if at - forgotten_at > _FORGET_S:
                    forgotten_at = at
                    await self.flow.forget(at)
            except RecordsError as error:
                self._log.warning("verification_cases", problem=str(error))
