"""Building the shipped databases: right answers, the same bytes, nothing half replaced."""

import gzip
import hashlib
import json
from ipaddress import ip_address
from pathlib import Path

import pytest
from support.mmdb_files import write_mmdb

from gatekeeper.facts.geoip_build import BuildError, build
from gatekeeper.facts.network import NetworkData
from gatekeeper.settings import Geoip

V4 = '1.0.0.0,1.0.0.255,13335,"Cloudflare, Inc."\n1.0.4.0,1.0.6.255,38803,Gtelecom\n'
V6 = "2001:200::,2001:200:ffff:ffff:ffff:ffff:ffff:ffff,2500,WIDE Project\n"
GEOIP = Path(__file__).parents[2] / "geoip"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Make a small copy of the packages, each in its folder."""
    folder = tmp_path / "sources"
    for name in ("a", "b", "c"):
        (folder / name).mkdir(parents=True)
    write_mmdb(folder / "a/dbip-country.mmdb", "country", {"1.0.0.0/8": {"country_code": "AU"}})
    write_mmdb(
        folder / "b/geo-whois-asn-country.mmdb", "country", {"1.0.0.0/8": {"country_code": "US"}}
    )
    (folder / "c/asn-ipv4.csv").write_text(V4)
    (folder / "c/asn-ipv6.csv").write_text(V6)
    return folder


def no_progress(name: str, rows: int) -> None:
    """Take progress and say nothing."""


def test_builds_databases_that_answer(sources: Path, tmp_path: Path) -> None:
    """Each database fills its own view, ranges included that are no single prefix."""
    out = tmp_path / "out"
    calls: list[tuple[str, int]] = []
    built = build(sources, out, lambda name, rows: calls.append((name, rows)))
    assert [each.name for each in built] == ["country.mmdb", "registration.mmdb", "asn.mmdb"]
    assert ("asn.mmdb", 3) in calls
    geoip = Geoip(databases=tuple(out / each.name for each in built), networks=())
    data = NetworkData.load(geoip, secret=b"s", now_unix_s=0)
    assert data.problems == ()
    facts = data.observe(ip_address("1.0.6.1"))
    assert (facts.country, facts.registered_country) == ("AU", "US")
    assert (facts.asn, facts.as_organization) == (38803, "Gtelecom")
    assert data.observe(ip_address("1.0.0.1")).as_organization == "Cloudflare, Inc."
    assert data.observe(ip_address("1.0.7.1")).asn is None
    assert data.observe(ip_address("2001:200::1")).asn == 2500
    assert not list(out.glob(".build-*"))


def test_the_same_input_gives_the_same_bytes(sources: Path, tmp_path: Path) -> None:
    """Two builds differ in nothing, compressed CSV or not."""
    first = build(sources, tmp_path / "one", no_progress)
    for name in ("asn-ipv4.csv", "asn-ipv6.csv"):
        path = sources / "c" / name
        (sources / "c" / f"{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert build(sources, tmp_path / "two", no_progress) == first
    for each in (*first,):
        assert (tmp_path / "one" / each.name).read_bytes() == (
            tmp_path / "two" / each.name
        ).read_bytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c/asn-ipv4.csv", "1.0.0.0,1.0.0.255\n"),
        ("c/asn-ipv4.csv", "1.0.0.9,1.0.0.0,1,x\n"),
        ("c/asn-ipv4.csv", "1.0.0.0,::1,1,x\n"),
        ("c/asn-ipv4.csv", "1.0.0.0,1.0.0.255,one,x\n"),
        ("a/dbip-country.mmdb", "nonsense"),
        ("a/dbip-country.mmdb", None),
        ("c/asn-ipv6.csv", None),
    ],
)
def test_bad_input_replaces_nothing(
    sources: Path, tmp_path: Path, name: str, content: str | None
) -> None:
    """A missing or malformed source stops the build before anything is put in place."""
    out = tmp_path / "out"
    build(sources, out, no_progress)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    if content is None:
        (sources / name).unlink()
    else:
        (sources / name).write_text(content)
    with pytest.raises(BuildError):
        build(sources, out, no_progress)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_h37_a_database_that_collapses_is_refused(sources: Path, tmp_path: Path) -> None:
    """A build that lost more than a third of the present file is refused."""
    out = tmp_path / "out"
    build(sources, out, no_progress)
    (out / "asn.mmdb").write_bytes(bytes(100_000))
    with pytest.raises(BuildError, match="shrink"):
        build(sources, out, no_progress)


def test_the_shipped_files_are_those_of_the_manifest() -> None:
    """What is committed is whole, and its README names licences and dates."""
    manifest = json.loads((GEOIP / "manifest.json").read_text())
    readme = (GEOIP / "README.md").read_text()
    assert set(manifest["files"]) == {"country.mmdb", "registration.mmdb", "asn.mmdb"}
    for name, entry in manifest["files"].items():
        content = (GEOIP / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        assert len(content) == entry["bytes"]
        assert f"`{name}`" in readme
    assert readme.count("CC BY 4.0") == 3
    assert "https://db-ip.com" in readme
