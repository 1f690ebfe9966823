"""A running gate with an admin key of each role."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.admin import Admins
from support.gates import Gates

from gatekeeper.settings import Geoip

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NO_GEOIP = Geoip(databases=(), networks=())


@pytest.fixture
async def gates(tmp_path: Path) -> AsyncIterator[Gates]:
    """Return a factory of running gates without network data."""
    factory = Gates(tmp_path, NO_GEOIP)
    try:
        yield factory
    finally:
        await factory.stop()


@pytest.fixture
async def admins(gates: Gates) -> AsyncIterator[Admins]:
    """Return a gate of open rules behind its management API, with a key of each role."""
    async with Admins.of(gates) as made:
        yield made
