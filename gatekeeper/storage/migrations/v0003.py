"""Version 3: campaigns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Column, Double, Integer, LargeBinary, String

if TYPE_CHECKING:
    from alembic.operations import Operations


def upgrade(op: Operations) -> None:
    """Add them; written out, because a step must not change when the tables later do."""
    op.create_table(
        "campaigns",
        Column("id", String(64), primary_key=True),
        Column("state", String(16), nullable=False, index=True),
        Column("stage", String(16), nullable=False),
        Column("score", Double, nullable=False),
        Column("members", Integer, nullable=False),
        Column("since", Double, nullable=False),
        Column("last_seen", Double, nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("updated_at", Double, nullable=False),
        Column("seq", BigInteger, nullable=False, index=True),
    )
