"""What the records keep of accounts and keys: rows as values, tables as SQLAlchemy sees them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Table,
    Text,
)

from gatekeeper.policy.words import Assurance, Tier
from gatekeeper.storage.schema import METADATA

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.storage.organizations import OrganizationRow

_MAX_NAME: Final = 200
_ACCOUNT_ID: Final = re.compile(r"[\x21-\x7e]{1,255}")


def is_account_id(text: str) -> bool:
    """Tell whether ``text`` can name an account: 1-255 visible ASCII characters (OIDC ``sub``)."""
    return _ACCOUNT_ID.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Tell whether ``text`` can name an organization: 1-200 printable characters."""
    return 0 < len(text) <= _MAX_NAME and text.isprintable() and text == text.strip()


@dataclass(frozen=True, slots=True)
class AccountRow:
    """One account as it is recorded. Times are Unix seconds; ``None`` means not known."""

    id: str
    organization: str | None = None
    tier: Tier = Tier.STANDARD
    assurance: Assurance = Assurance.NONE
    assurance_expires: float | None = None
    created_at: float | None = None
    """When the operator's own system made it: its signup."""
    email_domain: str | None = None
    email_pattern: str | None = None
    """Shape of the part before the ``@``: ``a`` for a letter, ``9`` for a digit."""
    email_digest: str | None = None
    """Keyed digest of the whole address, made by the operator."""
    payment_fingerprint: str | None = None
    """What the payment provider calls the card or account; equal for equal cards."""
    signup_address: str | None = None
    """IP address from which it was made, in its one spelling."""
    banned_until: float | None = None
    """``math.inf`` for a ban without end."""
    ban_reason: str | None = None
    owners: tuple[str, ...] = ()
    owner_countries: tuple[str, ...] = ()
    opaque: bool = False
    """Whether it came from an upstream key that once worked, not from an operator."""
    updated_at: float = 0.0
    seq: int = field(default=0, compare=False)
    """Number of the write that last touched it: its version, for conditional writes."""


@dataclass(frozen=True, slots=True)
class AccountConflict:
    """The account is not at the version that the writer had seen; nothing was written."""

    current: AccountRow | None


FieldValue: TypeAlias = "str | float | tuple[str, ...] | Tier | Assurance | None"


@dataclass(frozen=True, slots=True)
class AccountPatch:
    """What to set on an account; fields it does not name keep their value (new: the default)."""

    id: str
    fields: Mapping[str, FieldValue]
    """Names of :data:`PATCH_FIELDS` only."""


PATCH_FIELDS: Final = frozenset(
    {
        "organization",
        "tier",
        "assurance",
        "assurance_expires",
        "created_at",
        "email_domain",
        "email_pattern",
        "email_digest",
        "payment_fingerprint",
        "signup_address",
        "banned_until",
        "ban_reason",
        "owners",
        "owner_countries",
    }
)
"""What an operator may set on an account."""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One API key as it is recorded: its keyed digest, never the key."""

    key_id: str
    """Readable prefix of the key, such as ``gk_7f3a9c2e``; safe to show and log."""
    digest: bytes
    account_id: str
    label: str = ""
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """How far a reader has followed the records: the last number seen in each table."""

    accounts: int = 0
    keys: int = 0
    organizations: int = 0
    all_of: int = 0
    """Every write up to this number has been seen, so that one look tells that nothing is new."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Rows written after a position, oldest first, and the position after them."""

    accounts: tuple[AccountRow, ...]
    keys: tuple[KeyRow, ...]
    position: Position
    complete: bool
    """False when there may be more: ask again from ``position``."""
    organizations: tuple[OrganizationRow, ...] = ()


@dataclass(frozen=True, slots=True)
class ImportCount:
    """What an import did."""

    created: int
    updated: int


class KeyCreation(StrEnum):
    """How creating a key ended; an account that did not exist was created with it."""

    CREATED = "created"
    CREATED_WITH_ACCOUNT = "created_with_account"
    TAKEN = "taken"
    """Another key has this id or digest: draw again."""


class Revocation(StrEnum):
    """How revoking a key ended."""

    REVOKED = "revoked"
    ALREADY_REVOKED = "already_revoked"
    UNKNOWN_KEY = "unknown_key"


ACCOUNTS: Final = Table(
    "accounts",
    METADATA,
    Column("id", String(255), primary_key=True),
    Column("organization", String(200)),
    Column("tier", String(16), nullable=False),
    Column("assurance", String(16), nullable=False),
    Column("assurance_expires", Double),
    Column("created_at", Double),
    Column("email_domain", String(253)),
    Column("email_pattern", String(64)),
    Column("email_digest", String(128)),
    Column("payment_fingerprint", String(128)),
    Column("signup_address", String(45)),
    Column("banned_until", Double),
    Column("ban_reason", Text),
    Column("owners", JSON, nullable=False),
    Column("owner_countries", JSON, nullable=False),
    Column("opaque", Boolean, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("seq", BigInteger, nullable=False, index=True),
    Index("ix_accounts_organization", "organization", "id"),
    Index("ix_accounts_email_domain", "email_domain", "id"),
)

API_KEYS: Final = Table(
    "api_keys",
    METADATA,
    Column("key_id", String(32), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("account_id", String(255), ForeignKey("accounts.id"), nullable=False, index=True),
    Column("label", String(200), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    Column("seq", BigInteger, nullable=False, index=True),
)
