"""A database that fails on demand."""

from __future__ import annotations

from typing import Any

from gatekeeper.storage.database import Database, RecordsError


class FlakyDatabase(Database):
    """A database that stops answering when told to."""

    broken = False

    def reading(self) -> Any:
        """Read, or fail."""
        if self.broken:
            raise RecordsError("gone")
        return super().reading()

    def writing(self, **options: Any) -> Any:
        """Write, or fail."""
        if self.broken:
            raise RecordsError("gone")
        return super().writing(**options)
