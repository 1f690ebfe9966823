"""Small databases for tests: made here in any layout, or MaxMind's with known answers."""

from pathlib import Path
from typing import Any

from mmdb_writer import MMDBWriter
from netaddr import IPSet

MAXMIND = Path(__file__).parents[1] / "data" / "mmdb"


def write_mmdb(
    path: Path, database_type: str, rows: dict[str, Any], *, ip_version: int = 6
) -> Path:
    """Write a database of ``rows`` (prefix to record) and return its path."""
    writer = MMDBWriter(
        ip_version=ip_version,
        ipv4_compatible=ip_version == 6,
        database_type=database_type,
        languages=["en"],
        description="for tests",
    )
    for prefix, record in rows.items():
        writer.insert_network(IPSet([prefix]), record)
    writer.to_db_file(str(path))
    return path
