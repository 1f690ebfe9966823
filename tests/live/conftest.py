"""Records that several gates share, and may lose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.flaky import FlakyDatabase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return the URL of fresh records."""
    return f"sqlite:///{tmp_path / 'records.db'}"


@pytest.fixture
async def database(url: str) -> AsyncIterator[FlakyDatabase]:
    """Open the records."""
    opened = await FlakyDatabase.open(url)
    yield opened
    await opened.close()
