"""Accounts as they go over the wire."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from gatekeeper.management.operation import Wire
from gatekeeper.management.paging import PageQuery
from gatekeeper.management.wire import Name, Text, Time, Until, until
from gatekeeper.policy.words import Assurance, Tier
from gatekeeper.storage.notes import MAX_NOTE_CHARS

if TYPE_CHECKING:
    from gatekeeper.storage.records_schema import AccountRow

EmailDomain = Annotated[
    str, Field(max_length=253, pattern=r"^[^\s\x00-\x1f@/:.]+(\.[^\s\x00-\x1f@/:.]+)+$")
]


class AccountFields(Wire):
    """What the operator's own system knows of an account."""

    organization: Name | None = None
    assurance: Assurance = Assurance.NONE
    assurance_expires: Time | None = None
    """When the proof of identity lapses."""
    created_at: Time | None = None
    """When the account was made, Unix seconds: its signup."""
    email_domain: EmailDomain | None = None
    email_pattern: Annotated[str, Field(pattern=r"^[a9._+-]{1,64}$")] | None = None
    """Shape of the part before the @: `a` for a letter, `9` for a digit."""
    email_digest: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{16,126}={0,2}$")] | None = None
    """Keyed digest of the whole address, made by the operator: hex or base64url."""
    payment_fingerprint: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:+/=-]{6,128}$")] | None = None
    """What the payment provider calls the card or account; never a card number."""
    signup_address: (
        Annotated[
            str,
            Field(
                max_length=45,
                json_schema_extra={"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]},
            ),
        ]
        | None
    ) = None
    """IPv4 or IPv6 address from which the account was made."""
    owners: Annotated[
        list[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]], Field(max_length=64)
    ] = Field(default_factory=list)
    """Ids of those who own the organization, such as `bytedance`."""
    owner_countries: Annotated[
        list[Annotated[str, Field(pattern=r"^[A-Z]{2}$")]], Field(max_length=64)
    ] = Field(default_factory=list)
    """Home countries of those owners, ISO 3166-1 alpha-2."""


class AccountPut(AccountFields):
    """Fields to set; those that are not named keep their value, `null` clears one."""

    tier: Tier = Tier.STANDARD
    """Of a new account; later changes are better made with `setAccountTier`, which asks why."""


class Account(Wire):
    """One account. Times are Unix seconds; `null` means not known."""

    id: str
    organization: str | None
    tier: Tier
    assurance: Assurance
    assurance_expires: float | None
    created_at: float | None
    email_domain: str | None
    email_pattern: str | None
    email_digest: str | None
    payment_fingerprint: str | None
    signup_address: str | None
    banned_until: Until | None
    """`forever` for a ban without end."""
    ban_reason: str | None
    owners: list[str]
    owner_countries: list[str]
    opaque: bool
    """Whether an upstream key that once worked made it, rather than the operator."""
    updated_at: float


class AccountPage(Wire):
    """Accounts by id."""

    items: list[Account]
    next_cursor: str | None


class AccountSearch(PageQuery):
    """What to look for; all that is given must fit."""

    id_prefix: Annotated[str, Field(pattern=r"^[!-~]{1,255}$")] | None = None
    organization: Name | None = None
    tier: Tier | None = None
    assurance: Assurance | None = None
    """As recorded, expired or not."""
    email_domain: EmailDomain | None = None
    banned: bool | None = None
    opaque: bool | None = None
    created_from: Time | None = None
    created_before: Time | None = None


class TierChange(Wire):
    """A new risk tier, and why."""

    tier: Tier
    reason: Text


class Ban(Wire):
    """Why, and until when."""

    reason: Name
    """Kept with the account; never told to the caller."""
    until: Until = "forever"
    """Unix seconds, or `forever`."""


class Reason(Wire):
    """Why it is done; kept in the audit trail."""

    reason: Text


class Imported(Wire):
    """What an import did."""

    created: int
    updated: int


class NewNote(Wire):
    """A note for people."""

    text: Annotated[str, Field(min_length=1, max_length=MAX_NOTE_CHARS)]


class Note(Wire):
    """What somebody wrote about an account."""

    id: str
    at: float
    author: str
    """Name of the admin key that wrote it."""
    text: str


class NotePage(Wire):
    """Notes, the newest first."""

    items: list[Note]
    next_cursor: str | None


def account_of(row: AccountRow) -> Account:
    """Return an account as it is told."""
    values = asdict(row)
    del values["seq"]
    return Account(
        **values
        | {
            "banned_until": until(row.banned_until),
            "owners": list(row.owners),
            "owner_countries": list(row.owner_countries),
        }
    )
