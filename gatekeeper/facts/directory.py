"""Accounts and keys in memory, as the request path reads them: no I/O, a fraction of a second old.

A background task calls :meth:`Directory.refresh`; while the records fail, the last state serves on.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import structlog
from msgspec.structs import replace

from gatekeeper.facts.address import AddressSource
from gatekeeper.facts.prefixes import PrefixMap, parse_prefix
from gatekeeper.policy.model import FOREVER, Account
from gatekeeper.policy.words import Assurance, LookupStatus
from gatekeeper.storage.database import RecordsError
from gatekeeper.storage.records_schema import Position

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.facts.address import ClientAddress
    from gatekeeper.facts.traits import AccountTraits
    from gatekeeper.policy.model import NetworkFacts
    from gatekeeper.storage.organizations import OrganizationRow
    from gatekeeper.storage.records import Records
    from gatekeeper.storage.records_schema import AccountRow, KeyRow

_REFRESH_S: Final = 0.5
"""How soon this process sees what another one wrote into the records."""
_STEP_TIMEOUT_S: Final = 10.0
_FLUSH_ROWS: Final = 500
_LOAD_ROWS: Final = 1_000
_REFRESH_ROWS: Final = 100
"""Few, so that applying a page holds up requests for some two milliseconds at most."""


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key that is not revoked."""

    key_id: str
    account_id: str
    expires_at: float | None
    """Unix seconds."""


class Directory:
    """The replica of the records that answers at once.

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
        self._records = records
        self._traits = traits
        self._mail_listed_by = mail_listed_by
        self._max_pending = max_pending
        self._position = Position()
        self._accounts: dict[str, Account] = {}
        self._assurance_ends: dict[str, float] = {}
        self._keys: dict[bytes, KeyEntry] = {}
        self._egress: dict[str, PrefixMap[bool]] = {}
        self._pending: dict[str, float] = {}
        self._shared: dict[tuple[str, ...], tuple[str, ...]] = {}
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

    def key(self, digest: bytes) -> KeyEntry | None:
        """Return the key with this keyed digest; its expiry is the caller's to judge."""
        return self._keys.get(digest)

    def account(self, account_id: str, at: float) -> Account:
        """Return the account as of ``at``; one that has no record is not ``known``."""
        account = self._accounts.get(account_id)
        if account is None:
            status = LookupStatus.UNKNOWN if self._failing else LookupStatus.MISS
            return Account(account_id, status=status)
        if account_id in self._assurance_ends and self._assurance_ends[account_id] <= at:
            return replace(account, assurance=Assurance.NONE)
        return account

    def placed(
        self, network: NetworkFacts, client: ClientAddress, account: Account
    ) -> NetworkFacts:
        """Return ``network`` with whether ``client`` calls from where its organization does."""
        if account.organization is None:
            return network
        registered = self._egress.get(account.organization)
        if registered is None or client.source is AddressSource.UNKNOWN:
            return network
        return replace(network, registered_egress=client.address in registered)

    def note_opaque_success(self, account_id: str, at: float) -> None:
        """Make an opaque account known from ``at`` on: the upstream has accepted its key."""
        if account_id in self._accounts:
            return
        if len(self._pending) >= self._max_pending:
            self.dropped += 1
            return
        self._pending[account_id] = at
        self._accounts[account_id] = Account(account_id, known=True, created_at=at)

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
                self._apply_account(row)
            for key in changes.keys:
                self._apply_key(key)
            for organization in changes.organizations:
                self._apply_organization(organization)
            self._position = changes.position
            complete = changes.complete

    def _apply_account(self, row: AccountRow) -> None:
        traits = self._traits
        self._accounts[row.id] = Account(
            id=row.id,
            known=True,
            organization=None if row.organization is None else sys.intern(row.organization),
            tier=row.tier,
            assurance=row.assurance,
            created_at=row.created_at,
            banned_until=None if row.banned_until is None else min(row.banned_until, FOREVER),
            ban_reason=None if row.ban_reason is None else sys.intern(row.ban_reason),
            email_domain=None if row.email_domain is None else sys.intern(row.email_domain),
            email_listed_by=self._share(self._mail_listed_by(row.email_domain)),
            owners=self._share(row.owners),
            owner_countries=self._share(row.owner_countries),
            payment=0 if traits is None else traits.payment(row),
            signup=0 if traits is None else traits.signup(row),
            mail=0 if traits is None else traits.mail(row),
        )
        if row.assurance_expires is None:
            self._assurance_ends.pop(row.id, None)
        else:
            self._assurance_ends[row.id] = row.assurance_expires

    def _apply_key(self, row: KeyRow) -> None:
        if row.revoked_at is not None:
            self._keys.pop(row.digest, None)
            return
        # The account's own string, so that a hundred thousand keys do not hold a second copy.
        known = self._accounts.get(row.account_id)
        account_id = row.account_id if known is None else known.id
        self._keys[row.digest] = KeyEntry(row.key_id, account_id, row.expires_at)

    def _apply_organization(self, row: OrganizationRow) -> None:
        # Checked when they were written: one that cannot be read was changed by hand, and is void.
        parsed = (parse_prefix(text) for text in row.egress)
        prefixes = [(prefix, True) for prefix in parsed if not isinstance(prefix, str)]
        if prefixes:
            self._egress[row.id] = PrefixMap(prefixes)
        else:
            self._egress.pop(row.id, None)

    def _share(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        return self._shared.setdefault(texts, texts)
