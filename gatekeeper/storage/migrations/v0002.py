"""Version 2: what a fleet needs, from fields of accounts to verification cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Text,
    UniqueConstraint,
)

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

    op.create_table(
        "admin_keys",
        Column("key_id", String(32), primary_key=True),
        Column("digest", LargeBinary(32), nullable=False, unique=True),
        Column("name", String(200), nullable=False),
        Column("role", String(16), nullable=False),
        Column("created_at", Double, nullable=False),
        Column("expires_at", Double),
        Column("revoked_at", Double),
    )

    op.create_table(
        "audit",
        Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
        Column("at", Double, nullable=False, index=True),
        Column("actor", String(255), nullable=False, index=True),
        Column("actor_name", String(200), nullable=False),
        Column("role", String(16), nullable=False),
        Column("action", String(64), nullable=False),
        Column("target_kind", String(32), nullable=False),
        Column("target_id", String(255), nullable=False, index=True),
        Column("outcome", String(16), nullable=False),
        Column("status", Integer, nullable=False),
        Column("request_id", String(40), nullable=False),
        Column("peer", String(64), nullable=False),
        Column("detail", JSON, nullable=False),
    )

    op.create_table(
        "usage_daily",
        Column("account_id", String(255), nullable=False),
        Column("day", Integer, nullable=False),
        Column("model", String(200), nullable=False),
        Column("requests", BigInteger, nullable=False),
        Column("refused", BigInteger, nullable=False),
        Column("estimated_requests", BigInteger, nullable=False),
        Column("input_tokens", BigInteger, nullable=False),
        Column("output_tokens", BigInteger, nullable=False),
        Column("cost_microcents", BigInteger, nullable=False),
        PrimaryKeyConstraint("day", "account_id", "model"),
    )

    op.create_table(
        "usage_flushes",
        Column("process", String(40), primary_key=True),
        Column("number", BigInteger, nullable=False),
        Column("at", Double, nullable=False),
    )

    op.create_table(
        "rule_revisions",
        Column("revision", String(64), primary_key=True),
        Column("texts", JSON, nullable=False),
        Column("created_at", Double, nullable=False),
        Column("created_by", String(200), nullable=False),
    )
    op.create_table(
        "rule_activations",
        Column("seq", BigInteger, primary_key=True, autoincrement=False),
        Column("revision", String(64), ForeignKey("rule_revisions.revision"), nullable=False),
        Column("at", Double, nullable=False),
        Column("by", String(200), nullable=False),
        Column("source", String(16), nullable=False),
        Column("comment", Text, nullable=False),
    )
    op.create_table(
        "controls",
        Column("name", String(32), primary_key=True),
        Column("value", JSON(none_as_null=True)),
        Column("at", Double, nullable=False),
        Column("by", String(200), nullable=False),
        Column("reason", Text, nullable=False),
        Column("expires_at", Double),
        Column("seq", BigInteger, nullable=False, index=True),
    )
    op.create_table(
        "nodes",
        Column("id", String(64), primary_key=True),
        Column("name", String(64), nullable=False),
        Column("started_at", Double, nullable=False),
        Column("seen_at", Double, nullable=False, index=True),
        Column("version", String(32), nullable=False),
        Column("rules_revision", String(64), nullable=False),
        Column("network_revision", String(64), nullable=False),
        Column("mode", String(16), nullable=False),
    )

    op.create_table(
        "verification_cases",
        Column("id", String(64), primary_key=True),
        Column("account_id", String(255), ForeignKey("accounts.id"), nullable=False),
        Column("assurance", String(16), nullable=False),
        Column("state", String(16), nullable=False),
        Column("link_id", String(64), nullable=False),
        Column("vendor", String(32), nullable=False),
        Column("reference", String(200)),
        Column("attempt", Integer, nullable=False),
        Column("tries", Integer, nullable=False),
        Column("tries_since", Double, nullable=False),
        Column("started_at", Double),
        Column("expires_at", Double),
        Column("next_check_at", Double, index=True),
        Column("decided_at", Double),
        Column("reason", String(200), nullable=False),
        Column("actor", String(100), nullable=False),
        Column("created_at", Double, nullable=False),
        Column("updated_at", Double, nullable=False),
        Column("seq", BigInteger, nullable=False, index=True),
        UniqueConstraint("account_id", "assurance"),
        UniqueConstraint("vendor", "reference"),
    )
    op.create_table(
        "verification_steps",
        Column("seq", BigInteger, primary_key=True, autoincrement=False),
        Column("case_id", String(64), ForeignKey("verification_cases.id"), nullable=False),
        Column("at", Double, nullable=False),
        Column("event", String(16), nullable=False),
        Column("state", String(16), nullable=False),
        Column("actor", String(100), nullable=False),
        Column("reason", String(200), nullable=False),
        Index("ix_verification_steps_case", "case_id", "seq"),
    )
    op.create_table(
        "vendor_events",
        Column("vendor", String(32), primary_key=True),
        Column("id", String(200), primary_key=True),
        Column("received_at", Double, nullable=False, index=True),
    )
