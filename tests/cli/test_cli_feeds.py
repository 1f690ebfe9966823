"""`gatekeeper lists` and `gatekeeper geoip update`: what people and scripts are told."""

from __future__ import annotations

import asyncio
import fcntl
import json
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.mmdb_files import MAXMIND

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., Any]

CITY = MAXMIND / "GeoIP2-City-Test.mmdb"


@pytest.fixture
def feeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set up two lists and a database from files; return the folder of the lists."""
    for name, count in (("exits", 100), ("clouds", 10)):
        lines = [f"5.{n}.0.1" for n in range(count)]
        (tmp_path / name).write_text("\n".join(lines))
    told = [
        {"id": "exits", "file": str(tmp_path / "exits"), "format": "prefixes", "kind": "tor"},
        {"id": "clouds", "file": str(tmp_path / "clouds"), "format": "prefixes"},
        {"id": "city", "file": str(CITY), "format": "mmdb"},
    ]
    monkeypatch.setenv("GATEKEEPER_GEOIP__FEEDS", json.dumps(told))
    monkeypatch.setenv("GATEKEEPER_GEOIP__DATABASES", "[]")
    monkeypatch.setenv("GATEKEEPER_GEOIP__NETWORKS", "[]")
    return tmp_path


def test_each_command_updates_its_own(run: Run, feeds: Path) -> None:
    """Lists by one, databases by the other; afterwards a gate and `geoip show` use them."""
    assert "never fetched" in run("lists", "show", code=1).stderr
    told = run("lists", "update").stdout
    assert "exits" in told
    assert "city" not in told
    databases = json.loads(run("geoip", "update", "--json").stdout)
    assert [(each["feed"], each["state"]) for each in databases] == [("city", "updated")]
    shown = json.loads(run("lists", "show", "--json").stdout)
    assert shown["problems"] == []
    by_name = {each["source"]: each for each in shown["sources"]}
    assert by_name["exits"]["entries"] == 100
    assert by_name["exits"]["age_s"] < 3_600
    assert by_name["city"]["layout"] == "GeoIP2-City"
    assert "exits" in run("lists", "show").stdout
    facts = json.loads(run("geoip", "show", "5.7.0.1", "--json").stdout)
    assert (facts["kind"], facts["listed_by"]) == ("tor", ["clouds", "exits"])
    assert json.loads(run("geoip", "show", "81.2.69.160", "--json").stdout)["country"] == "GB"


def test_h37_a_refusal_is_told_with_the_way_around(run: Run, feeds: Path) -> None:
    """Exit 1, the other list updated all the same, and the option that the message names works."""
    run("lists", "update")
    (feeds / "exits").write_text("5.0.0.1\n")
    told = json.loads(run("lists", "update", "--json", code=1).stdout)
    assert [each["state"] for each in told] == ["refused", "unchanged"]
    assert "--accept-size exits" in told[0]["detail"]
    assert told[0]["entries"] == 100, "what is in force"
    shown = run("lists", "update", code=1).stdout
    assert "stays" in shown
    run("lists", "update", "exits", "--accept-size", "exits")
    assert json.loads(run("lists", "update", "exits", "--json").stdout)[0]["entries"] == 1


def test_only_what_is_asked_for_is_updated(run: Run, feeds: Path) -> None:
    """Ids choose; one that is none of this command's feeds is a mistake."""
    told = json.loads(run("lists", "update", "clouds", "--json").stdout)
    assert [each["feed"] for each in told] == ["clouds"]
    assert "did you mean `clouds`" in run("lists", "update", "cluods", code=2).stderr
    assert run("lists", "update", "city", code=2).stderr
    assert run("geoip", "update", "--accept-size", "exits", code=2).stderr


def test_nothing_to_update_is_said(run: Run) -> None:
    """Without feeds there is nothing to do, and a hint where they are set up."""
    assert "docs/geoip.md" in run("lists", "update").stderr


def test_a_directory_that_cannot_be_written_is_told(run: Run, feeds: Path) -> None:
    """Exit 1 and a sentence, no traceback."""
    (feeds / "data").mkdir()
    (feeds / "data" / "feeds").write_text("a file")
    assert "cannot be used" in run("lists", "update", code=1).stderr


def test_a_second_update_at_once_is_told(run: Run, feeds: Path) -> None:
    """Exit 1: the timer's next run will do."""
    run("lists", "update")
    with (feeds / "data" / "feeds" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "is running" in run("lists", "update", code=1).stderr


def test_mistakes_in_the_settings_end_with_two(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A feed by http from another machine is refused before anything is asked."""
    told = [{"id": "x", "url": "http://lists.example/x", "format": "prefixes"}]
    monkeypatch.setenv("GATEKEEPER_GEOIP__FEEDS", json.dumps(told))
    assert "https" in run("lists", "update", code=2).stderr


async def test_a_secret_never_shows(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a refusal of the publisher nor --json nor the manifest repeats it."""
    seen: list[str] = []

    async def refuse(request: web.Request) -> web.Response:
        seen.append(request.query_string)
        return web.Response(status=403, text=request.query_string)

    app = web.Application()
    app.router.add_get("/city", refuse)
    async with TestServer(app) as server:
        told = [
            {
                "id": "city",
                "url": f"http://127.0.0.1:{server.port}/city",
                "format": "mmdb",
                "credential": {"env": "TOKEN"},
                "credential_as": "token",
            }
        ]
        monkeypatch.setenv("GATEKEEPER_GEOIP__FEEDS", json.dumps(told))
        monkeypatch.setenv("TOKEN", "s3cr3t")
        result = await asyncio.to_thread(run, "geoip", "update", code=1)
    assert seen == ["token=s3cr3t"]
    assert "credential" in result.stdout
    assert "s3cr3t" not in result.output
