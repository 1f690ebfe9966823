"""What all tables share: one metadata, one schema version, and the number of the last write.

Every row that gates follow carries ``seq``, the number of the write that last touched it. Writers
take their numbers from the one row of ``records_meta`` inside the same transaction, which makes
them queue: numbers become visible in order, so a reader that asks for ``seq > last`` never misses
a row.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table

SCHEMA_VERSION: Final = 3
"""Raised by one when the tables change; a step of ``migrations`` leads there."""

METADATA: Final = MetaData()

META: Final = Table(
    "records_meta",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
)
"""One row, id 1: version of the schema and number of the last write."""
