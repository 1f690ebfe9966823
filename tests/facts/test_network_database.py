"""One database: known answers, damage in every form, and independence from its file."""

import json
import os
import random
from ipaddress import ip_address
from pathlib import Path

import pytest
from support.mmdb_files import MAXMIND, write_mmdb

from gatekeeper.facts import network_database
from gatekeeper.facts.network_database import MANIFEST, Database, open_database
from gatekeeper.policy.countries import COUNTRIES
from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.words import LookupStatus, NetworkKind

HIT, MISS, UNKNOWN = LookupStatus.HIT, LookupStatus.MISS, LookupStatus.UNKNOWN
ROWS = {f"{octet}.0.0.0/8": {"country_code": code} for octet, code in ((8, "US"), (9, "CN"))}


def loaded(path: Path) -> Database:
    """Open a database that must be sound."""
    database = open_database(path, now_unix_s=0.0, max_age_days=None)
    assert isinstance(database, Database)
    return database


def asked(database: Database, address: str) -> dict[str, tuple[LookupStatus, object]]:
    """Look an address up and return status and answer by view."""
    return {
        lookup.view: (lookup.status, answer)
        for lookup, answer in database.look_up(ip_address(address))
    }


@pytest.mark.parametrize(
    ("file", "address", "expected"),
    [
        ("GeoIP2-Country", "2.125.160.216", {"country": "GB", "registration": "FR"}),
        ("GeoIP2-Country", "2001:220::1", {"country": "KR", "registration": "KR"}),
        ("GeoIP2-Country", "9.9.9.9", {"country": None, "registration": None}),
        (
            "GeoIP2-City",
            "81.2.69.142",
            {"country": "GB", "registration": "US", "subdivision": "GB-ENG"},
        ),
        ("GeoLite2-ASN", "1.128.0.0", {"asn": (1221, "Telstra Pty Ltd")}),
        (
            "GeoIP2-Enterprise",
            "1.231.232.0",
            {
                "country": "UA",
                "registration": "UA",
                "subdivision": "UA-43",
                "asn": (28761, "CrimeaCom South LLC"),
                "kind": NetworkKind.RESIDENTIAL,
            },
        ),
        ("GeoIP2-Anonymous-IP", "1.2.0.1", {"kind": NetworkKind.VPN}),
        ("GeoIP2-Anonymous-IP", "71.160.223.1", {"kind": NetworkKind.HOSTING}),
        ("GeoIP2-Anonymous-IP", "65.0.0.1", {"kind": NetworkKind.TOR}),
        ("GeoIP2-Anonymous-IP", "1.0.0.1", {"kind": None}),
        ("GeoIP-Anonymous-Plus", "81.2.69.1", {"kind": NetworkKind.TOR}),
        ("GeoIP-Anonymous-Plus", "6.1.0.4", {"kind": NetworkKind.RESIDENTIAL_PROXY}),
        ("GeoIP-Residential-Proxy", "1.2.0.4", {"kind": NetworkKind.RESIDENTIAL_PROXY}),
        ("GeoIP-Residential-Proxy", "1.2.0.5", {"kind": None}),
        ("GeoIP2-Connection-Type", "1.0.0.1", {"kind": None}),
    ],
)
def test_known_answers_of_maxmind_layouts(
    file: str, address: str, expected: dict[str, object]
) -> None:
    """MaxMind's own test databases are read as they are."""
    found = asked(loaded(MAXMIND / f"{file}-Test.mmdb"), address)
    assert found == {
        view: (MISS if answer is None else HIT, answer) for view, answer in expected.items()
    }


@pytest.mark.parametrize(
    "file",
    [
        "GeoIP2-City-Test-Broken-Double-Format.mmdb",
        "GeoIP2-City-Test-Invalid-Node-Count.mmdb",
        "MaxMind-DB-test-broken-search-tree-24.mmdb",
        "MaxMind-DB-test-pointer-decoder-dos-ipv6.mmdb",
        "MaxMind-DB-string-value-entries.mmdb",
        "README.md",
        "absent.mmdb",
        ".",
    ],
)
def test_h16_a_damaged_file_is_a_mistake(file: str) -> None:
    """Broken, hostile, foreign and missing files are told, never raised."""
    assert isinstance(open_database(MAXMIND / file, now_unix_s=0, max_age_days=None), Mistake)


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    """What only looks like a file does not stop the gate from starting."""
    os.mkfifo(tmp_path / "pipe.mmdb")
    found = open_database(tmp_path / "pipe.mmdb", now_unix_s=0, max_age_days=None)
    assert isinstance(found, Mistake)
    assert "regular file" in found.message


def check_answers_are_sound(path: Path) -> None:
    """Open what may be damaged; if it opens, every answer must have its own type."""
    database = open_database(path, now_unix_s=0, max_age_days=None)
    if isinstance(database, Mistake):
        return
    for address in ("1.2.3.4", "8.8.8.8", "9.1.1.1", "255.255.255.255", "2001:db8::1", "::8.8.8.8"):
        for lookup, answer in database.look_up(ip_address(address)):
            assert (lookup.status is HIT) == (answer in COUNTRIES)


def test_h16_truncation_never_crashes(tmp_path: Path) -> None:
    """A file cut at any length is refused or answers in its own types."""
    content = write_mmdb(tmp_path / "whole.mmdb", "country", ROWS).read_bytes()
    cut = tmp_path / "cut.mmdb"
    for length in range(0, len(content), 7):
        cut.write_bytes(content[:length])
        check_answers_are_sound(cut)


def test_h16_flipped_bits_never_crash(tmp_path: Path) -> None:
    """A file with flipped bits is refused or answers in its own types."""
    content = write_mmdb(tmp_path / "whole.mmdb", "country", ROWS).read_bytes()
    chance = random.Random(16)
    flipped = tmp_path / "flipped.mmdb"
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(chance.choice((1, 1, 3))):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        flipped.write_bytes(damaged)
        check_answers_are_sound(flipped)


@pytest.mark.parametrize("sealed", [True, False])
def test_h16_a_loaded_database_outlives_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, sealed: bool
) -> None:
    """Truncating and overwriting the file in place changes no answer and kills nobody."""
    monkeypatch.setattr(network_database, "_HAS_SEALED_MEMORY", sealed)
    path = write_mmdb(tmp_path / "c.mmdb", "country", ROWS)
    database = loaded(path)
    with path.open("r+b") as file:
        file.write(b"\xff" * 64)
        file.truncate(64)
    assert asked(database, "8.8.8.8") == {"country": (HIT, "US")}
    path.unlink()
    assert asked(database, "9.8.8.8") == {"country": (HIT, "CN")}


def test_h16_a_file_that_differs_from_its_manifest_is_refused(tmp_path: Path) -> None:
    """One changed letter in a record is found when a manifest stands beside the file."""
    path = write_mmdb(tmp_path / "c.mmdb", "country", ROWS)
    good = path.read_bytes()
    manifest = {"files": {"c.mmdb": {"sha256": network_database.hashlib.sha256(good).hexdigest()}}}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    assert asked(loaded(path), "9.1.1.1") == {"country": (HIT, "CN")}
    path.write_bytes(good.replace(b"CN", b"CH"))
    found = open_database(path, now_unix_s=0, max_age_days=None)
    assert isinstance(found, Mistake)
    assert MANIFEST in found.message


@pytest.mark.parametrize("content", ["", "[]", '{"files": {"c.mmdb": 3}}', '{"files": {}}'])
def test_a_manifest_that_says_nothing_is_no_obstacle(tmp_path: Path, content: str) -> None:
    """A manifest without a usable entry checks nothing."""
    path = write_mmdb(tmp_path / "c.mmdb", "country", ROWS)
    (tmp_path / MANIFEST).write_text(content)
    assert loaded(path).views == ("country",)


def test_an_ipv4_database_does_not_know_ipv6(tmp_path: Path) -> None:
    """A database without IPv6 was not asked: unknown, not a miss."""
    path = write_mmdb(tmp_path / "4.mmdb", "country", ROWS, ip_version=4)
    assert asked(loaded(path), "2001:4860::1") == {"country": (UNKNOWN, None)}
    assert asked(loaded(path), "10.0.0.1") == {"country": (MISS, None)}


def test_an_old_database_answers_unknown(tmp_path: Path) -> None:
    """Beyond the allowed age a database keeps its place in the record, but is not believed."""
    path = write_mmdb(tmp_path / "c.mmdb", "country", ROWS)
    built = loaded(path).built_unix_s
    old = open_database(path, now_unix_s=built + 86_401, max_age_days=1)
    fresh = open_database(path, now_unix_s=built + 86_399, max_age_days=1)
    assert isinstance(old, Database)
    assert isinstance(fresh, Database)
    assert (old.stale, fresh.stale) == (True, False)
    assert asked(old, "8.8.8.8") == {"country": (UNKNOWN, None)}


def test_a_look_up_tells_its_source_and_revision(tmp_path: Path) -> None:
    """The record shows which file, built when, with which content."""
    database = loaded(write_mmdb(tmp_path / "c.mmdb", "country", ROWS))
    ((lookup, _),) = database.look_up(ip_address("8.8.8.8"))
    assert lookup.source == "c.mmdb"
    assert lookup.revision == database.revision
    assert len(database.revision) == len("2026-06-01.01234567")


def test_h16_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an old file and half a new one is neither."""
    path = write_mmdb(tmp_path / "c.mmdb", "country", ROWS)
    read, fstat = [], os.fstat

    def fstat_of_a_growing_file(descriptor: int) -> os.stat_result:
        read.append(descriptor)
        if len(read) == 2:
            path.write_bytes(path.read_bytes() + b"more")
        return fstat(descriptor)

    monkeypatch.setattr(os, "fstat", fstat_of_a_growing_file)
    found = open_database(path, now_unix_s=0, max_age_days=None)
    assert isinstance(found, Mistake)
    assert "being written" in found.message


def test_h16_metadata_of_another_type_is_refused(tmp_path: Path) -> None:
    """A type that is no text, and a date beyond the calendar, are seen."""
    path = write_mmdb(tmp_path / "c.mmdb", 7, ROWS)  # type: ignore[arg-type]
    found = open_database(path, now_unix_s=0, max_age_days=None)
    assert isinstance(found, Mistake)
    assert network_database._date(2**63) == "undated"


def test_unexpected_records_are_unknown(tmp_path: Path) -> None:
    """A record that is no map leaves its address unknown, and no other."""
    path = write_mmdb(tmp_path / "c.mmdb", "country", {**ROWS, "10.0.0.0/8": "text"})
    assert asked(loaded(path), "10.1.1.1") == {"country": (UNKNOWN, None)}
    assert asked(loaded(path), "8.1.1.1") == {"country": (HIT, "US")}
