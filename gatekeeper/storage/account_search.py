"""Which accounts a search finds: every field that is given must fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, or_

from gatekeeper.storage.records_schema import ACCOUNTS

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from gatekeeper.policy.words import Assurance, Tier


@dataclass(frozen=True, slots=True)
class AccountQuery:
    """What to look for; ``None`` leaves a field open. Times are Unix seconds."""

    id_prefix: str | None = None
    """Case counts."""
    organization: str | None = None
    tier: Tier | None = None
    assurance: Assurance | None = None
    """As recorded, expired or not."""
    email_domain: str | None = None
    banned: bool | None = None
    opaque: bool | None = None
    """Whether an upstream key that once worked made it, rather than an operator."""
    created_from: float | None = None
    created_before: float | None = None


def conditions(query: AccountQuery, *, at: float) -> list[ColumnElement[bool]]:
    """Return what a row must fulfil; organization and mail domain are found by an index."""
    table = ACCOUNTS.c
    found: list[ColumnElement[bool]] = [
        column == value
        for column, value in (
            (table.organization, query.organization),
            (table.tier, query.tier),
            (table.assurance, query.assurance),
            (table.email_domain, query.email_domain),
            (table.opaque, query.opaque),
        )
        if value is not None
    ]
    if query.id_prefix:
        # Not LIKE: SQLite's ignores case, and an id may hold its wildcards.
        found.append(func.substr(table.id, 1, len(query.id_prefix)) == query.id_prefix)
    if query.banned is True:
        found.append(table.banned_until > at)
    elif query.banned is False:
        found.append(or_(table.banned_until.is_(None), table.banned_until <= at))
    if query.created_from is not None:
        found.append(table.created_at >= query.created_from)
    if query.created_before is not None:
        found.append(table.created_at < query.created_before)
    return found
