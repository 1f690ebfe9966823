"""Steps that bring the tables of an older release up to date, one module for each version.

Steps only add: tables, indexes, and columns that may be null. So gates of the release before work
on beside a database that a newer one has brought up to date, and an upgrade can roll.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from alembic.migration import MigrationContext
from alembic.operations import Operations

from gatekeeper.storage.migrations import v0002, v0003

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection

STEPS: Final[Mapping[int, Callable[[Operations], None]]] = {
    2: v0002.upgrade,
    3: v0003.upgrade,
}
"""What to do to reach each version from the one before."""


def upgrade(connection: Connection, *, version: int, to: int) -> None:
    """Take every step from ``version`` to ``to``; the caller owns the transaction."""
    operations = Operations(MigrationContext.configure(connection))
    for reached in range(version + 1, to + 1):
        STEPS[reached](operations)
