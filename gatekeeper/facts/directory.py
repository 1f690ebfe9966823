"""Accounts and keys in memory, as the request path reads them: no I/O, a fraction of a second old.

A background task calls :meth:`Directory.refresh`; while the records fail, the last state serves on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Self

import structlog

from gatekeeper.facts.replica import Replica
from gatekeeper.storage.database import RecordsError
from gatekeeper.storage.records_schema import Position

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.facts.traits import AccountTraits
    from gatekeeper.storage.records import Records

_REFRESH_S: Final = 0.5
"""How soon this process sees what another one wrote into the records."""
_STEP_TIMEOUT_S: Final = 10.0
_FLUSH_ROWS: Final = 500
_LOAD_ROWS: Final = 1_000
_REFRESH_ROWS: Final = 100
"""Few, so that applying a page holds up requests for some two milliseconds at most."""


class Directory(Replica):
    """The replica that follows the records.

    ``mail_listed_by`` names the lists a mail domain is on; it is asked once per change.
    """

    def __init__(
        self,
        records: Records,
        *,
        mail_listed_by: Callable[[str | None], tuple[str, ...]],
        max_pending: int = 10_000,
        traits: AccountTraits | None = None,
    ) -> None:
        super().__init__(mail_listed_by, traits)
        self._records = records
        self._max_pending = max_pending
        self._position = Position()
        self._pending: dict[str, float] = {}
        self._fresh_at: float | None = None
        self._failing = True
        self._refreshing = asyncio.Lock()
        self.failures = 0
        """Refreshes that failed, ever."""
        self.dropped = 0
        """Successes of opaque keys not noted because too many were waiting."""
        self.last_error = ""
        """What the records said when they last failed; holds no secret."""

    @classmethod
    async def load(
        cls,
        records: Records,
        *,
        mail_listed_by: Callable[[str | None], tuple[str, ...]],
        at: float,
        max_pending: int = 10_000,
        traits: AccountTraits | None = None,
    ) -> Self:
        """Read all records; raises :class:`RecordsError` or :class:`TimeoutError` if it cannot."""
        directory = cls(
            records, mail_listed_by=mail_listed_by, max_pending=max_pending, traits=traits
        )
        await directory._follow(page_rows=_LOAD_ROWS)
        directory._fresh_at = at
        directory._failing = False
        return directory

    async def refresh(self, at: float) -> bool:
        """Read what changed, write what waits; return whether the records did both."""
        try:
            async with self._refreshing:  # two at once could lay an older row over a newer one
                await self._follow(page_rows=_REFRESH_ROWS)
        except (RecordsError, TimeoutError) as error:
            self._failing = True
            return self._failed(error)
        self._fresh_at = at
        self._failing = False
        try:
            # Last: whoever holds up writers, such as a large import, must not keep us from reading.
            async with self._refreshing:
                await self._flush()
        except (RecordsError, TimeoutError) as error:
            return self._failed(error)
        return True

    def _failed(self, error: Exception) -> bool:
        self.failures += 1
        self.last_error = str(error) or "the records did not answer in time"
        return False

    async def run(self, clock: Callable[[], float]) -> None:
        """Follow the records until cancelled; ``clock`` tells Unix seconds."""
        log, told = structlog.get_logger("gatekeeper"), False
        while True:
            await asyncio.sleep(_REFRESH_S)
            await self.refresh(clock())
            if self._failing is not told:
                told = self._failing
                log.warning("records", failing=told, error=self.last_error if told else "")

    @property
    def failing(self) -> bool:
        """Whether the records could not be read, so that what is not found may still exist."""
        return self._failing

    @property
    def sizes(self) -> tuple[int, int, int]:
        """How many accounts, usable keys and waiting opaque accounts are held."""
        return len(self._accounts), len(self._keys), len(self._pending)

    def staleness_s(self, at: float) -> float:
        """Return the age of what is served: seconds since the records last answered."""
        return float("inf") if self._fresh_at is None else max(0.0, at - self._fresh_at)

    def note_opaque_success(self, account_id: str, at: float) -> None:
        """Make an opaque account known from ``at`` on: the upstream has accepted its key."""
        if account_id in self._accounts:
            return
        if len(self._pending) >= self._max_pending:
            self.dropped += 1
            return
        self._pending[account_id] = at
        super().note_opaque_success(account_id, at)

    async def _flush(self) -> None:
        while self._pending:
            batch = dict(list(self._pending.items())[:_FLUSH_ROWS])
            async with asyncio.timeout(_STEP_TIMEOUT_S):
                await self._records.keep_opaque(batch)
            for account_id in batch:
                del self._pending[account_id]

    async def _follow(self, *, page_rows: int) -> None:
        """Apply all changes; the loop is free between pages, so that requests keep flowing."""
        complete = False
        while not complete:
            async with asyncio.timeout(_STEP_TIMEOUT_S):
                changes = await self._records.changes_since(self._position, limit=page_rows)
            for row in changes.accounts:
                self.apply_account(row)
            for key in changes.keys:
                self.apply_key(key)
            for organization in changes.organizations:
                self.apply_organization(organization)
            self._position = changes.position
            complete = changes.complete
