"""Accounts, keys and registered networks in memory, as the request path reads them: no I/O."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gatekeeper.facts.address import AddressSource
from gatekeeper.facts.prefixes import PrefixMap, parse_prefix
from gatekeeper.policy.model import FOREVER, Account
from gatekeeper.policy.words import Assurance, LookupStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.facts.address import ClientAddress
    from gatekeeper.facts.traits import AccountTraits
    from gatekeeper.policy.model import NetworkFacts
    from gatekeeper.storage.organizations import OrganizationRow
    from gatekeeper.storage.records_schema import AccountRow, KeyRow


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key that is not revoked."""

    key_id: str
    account_id: str
    expires_at: float | None
    """Unix seconds."""


class Replica:
    """What rows of the records say, answered at once.

    ``mail_listed_by`` names the lists a mail domain is on; it is asked once per change.
    """

    def __init__(
        self,
        mail_listed_by: Callable[[str | None], tuple[str, ...]],
        traits: AccountTraits | None = None,
    ) -> None:
        """Know nobody yet."""
        self._traits = traits
        self._mail_listed_by = mail_listed_by
        self._accounts: dict[str, Account] = {}
        self._assurance_ends: dict[str, float] = {}
        self._keys: dict[bytes, KeyEntry] = {}
        self._egress: dict[str, PrefixMap[bool]] = {}
        self._verified: set[str] = set()
        self._shared: dict[tuple[str, ...], tuple[str, ...]] = {}

    @property
    def failing(self) -> bool:
        """Whether the records could not be read, so that what is not found may still exist."""
        return False

    def key(self, digest: bytes) -> KeyEntry | None:
        """Return the key with this keyed digest; its expiry is the caller's to judge."""
        return self._keys.get(digest)

    def account(self, account_id: str, at: float) -> Account:
        """Return the account as of ``at``; one that has no record is not ``known``."""
        account = self._accounts.get(account_id)
        if account is None:
            status = LookupStatus.UNKNOWN if self.failing else LookupStatus.MISS
            return Account(account_id, status=status)
        if account_id in self._assurance_ends and self._assurance_ends[account_id] <= at:
            account = replace(account, assurance=Assurance.NONE)
        return self.vouched(account)

    def vouched(self, account: Account) -> Account:
        """Return the account with whether its organization is verified."""
        if account.organization in self._verified and not account.organization_verified:
            return replace(account, organization_verified=True)
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
        if account_id not in self._accounts:
            self._accounts[account_id] = Account(account_id, known=True, created_at=at)

    def apply_account(self, row: AccountRow) -> None:
        """Take in an account, or what changed of it."""
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

    def apply_key(self, row: KeyRow) -> None:
        """Take in a key, or that it was revoked."""
        if row.revoked_at is not None:
            self._keys.pop(row.digest, None)
            return
        # The account's own string, so that a hundred thousand keys do not hold a second copy.
        known = self._accounts.get(row.account_id)
        account_id = row.account_id if known is None else known.id
        self._keys[row.digest] = KeyEntry(row.key_id, account_id, row.expires_at)

    def apply_organization(self, row: OrganizationRow) -> None:
        """Take in whether an organization is verified, and from where it calls."""
        if row.verified:
            self._verified.add(row.id)
        else:
            self._verified.discard(row.id)
        # Checked when they were written: one that cannot be read was changed by hand, and is void.
        parsed = (parse_prefix(text) for text in row.egress)
        prefixes = [(prefix, True) for prefix in parsed if not isinstance(prefix, str)]
        if prefixes:
            self._egress[row.id] = PrefixMap(prefixes)
        else:
            self._egress.pop(row.id, None)

    def _share(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        return self._shared.setdefault(texts, texts)
