"""Searching accounts: every field narrows, pages meet, and SQL agrees with plain comparison."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from gatekeeper.policy.words import Assurance, Tier
from gatekeeper.storage.account_search import AccountQuery
from gatekeeper.storage.records import Records
from gatekeeper.storage.records_schema import AccountPatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

AT = 1_790_000_000.0
ACCOUNTS: dict[str, dict[str, Any]] = {
    "acme-1": {"organization": "Acme AG", "tier": Tier.TRUSTED, "created_at": AT - 10},
    "acme-2": {"organization": "Acme AG", "assurance": Assurance.IAL2, "created_at": AT - 5},
    "acme_2": {"email_domain": "acme.example", "created_at": AT},
    "ACME-3": {"email_domain": "acme.example", "banned_until": math.inf},
    "beta": {"banned_until": AT + 1, "tier": Tier.RESTRICTED},
    "gamma": {"banned_until": AT},
}


@pytest.fixture(params=["sqlite", "postgresql"])
async def records(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Records]:
    """Open records with some accounts, on SQLite and on a real PostgreSQL."""
    url = f"sqlite:///{tmp_path / 'records.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").new_url()
    opened = await Records.open(url)
    await opened.import_accounts(
        [AccountPatch(name, fields) for name, fields in ACCOUNTS.items()], at=AT
    )
    await opened.keep_opaque({"opaque-1": AT})
    yield opened
    await opened.close()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (AccountQuery(), {*ACCOUNTS, "opaque-1"}),
        (AccountQuery(id_prefix="acme-"), {"acme-1", "acme-2"}),
        (AccountQuery(id_prefix="acme_"), {"acme_2"}),
        (AccountQuery(id_prefix="%"), set()),
        (AccountQuery(organization="Acme AG"), {"acme-1", "acme-2"}),
        (AccountQuery(organization="Acme AG", tier=Tier.TRUSTED), {"acme-1"}),
        (AccountQuery(assurance=Assurance.IAL2), {"acme-2"}),
        (AccountQuery(email_domain="acme.example"), {"acme_2", "ACME-3"}),
        (AccountQuery(banned=True), {"ACME-3", "beta"}),
        (AccountQuery(banned=False), {"acme-1", "acme-2", "acme_2", "gamma", "opaque-1"}),
        (AccountQuery(opaque=True), {"opaque-1"}),
        (AccountQuery(opaque=False, banned=True, tier=Tier.RESTRICTED), {"beta"}),
        (AccountQuery(created_from=AT - 5), {"acme-2", "acme_2", "opaque-1"}),
        (AccountQuery(created_from=AT - 10, created_before=AT), {"acme-1", "acme-2"}),
        (AccountQuery(organization="' OR 1=1 --"), set()),
    ],
)
async def test_every_field_narrows(records: Records, query: AccountQuery, found: set[str]) -> None:
    """What is found fits every field, and nothing that fits is left out."""
    assert {row.id for row in await records.search(query, at=AT)} == found


async def test_pages_of_a_search_meet_without_gap(records: Records) -> None:
    """Following the last id gives every row that fits once."""
    query = AccountQuery(banned=False)
    seen: list[str] = []
    while page := await records.search(query, at=AT, after=seen[-1] if seen else "", limit=2):
        seen += [row.id for row in page]
    assert len(seen) == len(set(seen)) == 5
