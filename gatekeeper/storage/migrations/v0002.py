"""Version 2: what operators push of their accounts, organizations, notes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, ForeignKey, String, Text

if TYPE_CHECKING:
    from alembic.operations import Operations


def upgrade(op: Operations) -> None:
    """Add them; written out, because a step must not change when the tables later do."""
    for column in (
        Column("email_pattern", String(64)),
        Column("email_digest", String(128)),
        Column("payment_fingerprint", String(128)),
        Column("signup_address", String(45)),
    ):
        op.add_column("accounts", column)
    op.create_index("ix_accounts_organization", "accounts", ["organization", "id"])
    op.create_index("ix_accounts_email_domain", "accounts", ["email_domain", "id"])

    op.create_table(
        "organizations",
        Column("id", String(200), primary_key=True),
        Column("name", String(200), nullable=False),
        Column("verified", Boolean, nullable=False),
        Column("egress", JSON, nullable=False),
        Column("updated_at", Double, nullable=False),
        Column("seq", BigInteger, nullable=False, index=True),
    )

    op.create_table(
        "account_notes",
        Column("id", String(64), primary_key=True),
        Column("account_id", String(255), ForeignKey("accounts.id"), nullable=False),
        Column("at", Double, nullable=False),
        Column("author", String(200), nullable=False),
        Column("text", Text, nullable=False),
    )
    op.create_index("ix_account_notes_account_id", "account_notes", ["account_id", "id"])
