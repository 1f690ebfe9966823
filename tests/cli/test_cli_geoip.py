"""`gatekeeper geoip show`: what is known of an address, and from where."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    Run = Callable[..., Any]


def test_an_address_is_shown_with_its_sources(run: Run) -> None:
    """Every fact and every look-up of the data that ships."""
    told = run("geoip", "show", "47.74.0.1").stdout
    for word in ("JP", "45102", "alibaba", "CN", "hosting", "country.mmdb", "47.74.0.0/24"):
        assert word in told


def test_spellings_of_one_address_agree(run: Run) -> None:
    """IPv4 in IPv6 is the IPv4 address (H14); no digest is shown."""
    plain = json.loads(run("geoip", "show", "8.8.8.8", "--json").stdout)
    mapped = json.loads(run("geoip", "show", "::ffff:808:808", "--json").stdout)
    assert plain == mapped
    assert "address_key" not in plain
    assert json.loads(run("geoip", "show", "2001:4860:4860::8888", "--json").stdout)["asn"] == 15169


def test_what_is_no_address(run: Run) -> None:
    """Anything else ends with 2."""
    assert "is not an IPv4 or IPv6 address" in run("geoip", "show", "999.1.1.1", code=2).stderr


def test_without_data_there_is_no_answer(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that is missing is named, and with none at all the command fails."""
    monkeypatch.setenv("GATEKEEPER_GEOIP__DATABASES", json.dumps([str(tmp_path / "no.mmdb")]))
    monkeypatch.setenv("GATEKEEPER_GEOIP__NETWORKS", "[]")
    assert "no.mmdb" in run("geoip", "show", "8.8.8.8", code=1).stderr


def test_build_says_what_is_missing(run: Run, tmp_path: Path) -> None:
    """A folder without the packages ends with 2 and changes nothing."""
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    told = run("geoip", "build", str(tmp_path / "empty"), "--out", str(out), code=2)
    assert told.stderr
    assert not list(out.glob("*.mmdb"))
