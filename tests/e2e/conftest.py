"""Gates of real parts on free ports: the app, its stores and files, and the demo endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.gates import Gates
from support.mmdb_files import write_mmdb

from gatekeeper.settings import Geoip

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NETWORKS = {
    "8.8.0.0/16": ("US", "US", 7018),
    "152.206.0.0/16": ("CU", "CU", 27725),
    "5.1.0.0/16": ("DE", "DE", 3320),
}
"""Prefix to country of use, country of registration, AS number."""


@pytest.fixture(scope="session")
def small_geoip(tmp_path_factory: pytest.TempPathFactory) -> Geoip:
    """Return databases of three prefixes: at home in the US, embargoed (CU), and abroad (DE)."""
    folder: Path = tmp_path_factory.mktemp("geoip")
    used = {prefix: {"country_code": row[0]} for prefix, row in NETWORKS.items()}
    registered = {prefix: {"country_code": row[1]} for prefix, row in NETWORKS.items()}
    asn = {
        prefix: {"autonomous_system_number": row[2], "autonomous_system_organization": "Example"}
        for prefix, row in NETWORKS.items()
    }
    return Geoip(
        databases=(
            write_mmdb(folder / "country.mmdb", "gatekeeper-country", used),
            write_mmdb(folder / "registration.mmdb", "gatekeeper-registration", registered),
            write_mmdb(folder / "asn.mmdb", "gatekeeper-ASN", asn),
        ),
        networks=(),
    )


@pytest.fixture
async def gates(tmp_path: Path, small_geoip: Geoip) -> AsyncIterator[Gates]:
    """Return a factory of running gates; everything it starts is stopped after the test."""
    factory = Gates(tmp_path, small_geoip)
    try:
        yield factory
    finally:
        await factory.stop()
