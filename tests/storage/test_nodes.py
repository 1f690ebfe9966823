"""Which gates run: a row each, renewed, and dropped in time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gatekeeper.storage.database import Database
from gatekeeper.storage.nodes import Node, Nodes

if TYPE_CHECKING:
    from pathlib import Path

DAY_S = 86_400.0
NODE = Node("n1", "gate", 100.0, 100.0, "0.1.0", "r1", "d1", "enforce")


async def test_rows_are_renewed_and_dropped(tmp_path: Path) -> None:
    """What a gate tells replaces what it told; those that stopped saying so go after a day."""
    database = await Database.open(f"sqlite:///{tmp_path / 'records.db'}")
    nodes = Nodes(database)
    await nodes.tell(NODE)
    renewed = replace(NODE, seen_at=105.0, rules_revision="r2", mode="closed")
    await nodes.tell(renewed)
    other = replace(NODE, id="n2", name="another", seen_at=107.0)
    await nodes.tell(other)
    assert await nodes.running(since=0.0) == (other, renewed)
    assert await nodes.running(since=106.0) == (other,)
    late = replace(NODE, id="n3", seen_at=106.0 + DAY_S)
    await nodes.tell(late)
    assert await nodes.running(since=0.0) == (other, late)
    await nodes.leave("n3")
    await nodes.leave("n3")
    assert await nodes.running(since=0.0) == (other,)
    await database.close()
