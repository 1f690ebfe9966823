"""Which gates are running: each one says so every few seconds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Final

from sqlalchemy import Column, Double, String, Table, delete, select

from gatekeeper.storage.schema import METADATA

if TYPE_CHECKING:
    from gatekeeper.storage.database import Database

NODES: Final = Table(
    "nodes",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False, index=True),
    Column("version", String(32), nullable=False),
    Column("rules_revision", String(64), nullable=False),
    Column("network_revision", String(64), nullable=False),
    Column("mode", String(16), nullable=False),
)
_KEPT_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Node:
    """A gate as it last told of itself. Times are Unix seconds."""

    id: str
    """Drawn anew at each start."""
    name: str
    started_at: float
    seen_at: float
    version: str
    rules_revision: str
    network_revision: str
    mode: str


_COLUMNS: Final = tuple(NODES.c[field.name] for field in fields(Node))


class Nodes:
    """The gates of a fleet. Methods raise :class:`RecordsError` when SQL could not."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def tell(self, node: Node) -> None:
        """Write that ``node`` runs; rows that nobody renewed for a day are dropped."""
        row = asdict(node)
        async with self._database.writing() as connection:
            await connection.execute(
                self._database.insert(NODES)
                .values(row)
                .on_conflict_do_update(index_elements=[NODES.c.id], set_=row)
            )
            await connection.execute(delete(NODES).where(NODES.c.seen_at < node.seen_at - _KEPT_S))

    async def leave(self, node_id: str) -> None:
        """Take a gate that stops off the list."""
        async with self._database.writing() as connection:
            await connection.execute(delete(NODES).where(NODES.c.id == node_id))

    async def running(self, *, since: float) -> tuple[Node, ...]:
        """Return the gates that told of themselves at or after ``since``, by name."""
        query = select(*_COLUMNS).where(NODES.c.seen_at >= since)
        async with self._database.reading() as connection:
            rows = await connection.execute(query.order_by(NODES.c.name, NODES.c.id))
            return tuple(Node(*row) for row in rows)
