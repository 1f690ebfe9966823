"""Updates: compared with the last good, swapped whole, and one failure stops no other."""

from __future__ import annotations

import asyncio
import fcntl
import gzip
import io
import json
import os
import tarfile
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.mmdb_files import MAXMIND, write_mmdb

from gatekeeper.facts.feed_files import FeedManifest, read_manifest
from gatekeeper.facts.network import NetworkData
from gatekeeper.feeds.fetch import Bounds
from gatekeeper.feeds.update import BusyError, State, Updater
from gatekeeper.settings import Feed, Geoip, SecretSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gatekeeper.feeds.update import Outcome

NOW = 1_795_000_000.0
"""In November 2026, after the test databases were built."""
DAY_S = 86_400.0


def addresses(count: int, first: int = 0) -> str:
    """Return a list of so many single addresses, no two of which can be merged."""
    return "".join(f"5.{n // 100}.{n % 100}.1\n" for n in range(first, first + count))


class Place:
    """A directory of feeds with a clock."""

    def __init__(self, folder: Path, feeds: Sequence[Feed]) -> None:
        self.geoip = Geoip(
            databases=(), networks=(), feeds=tuple(feeds), feeds_dir=folder / "feeds"
        )
        self.now = NOW

    async def update(self, *accept: str, **options: Any) -> dict[str, Outcome]:
        """Update all feeds; return what became of each."""
        environ = {"LICENSE": "1:key"}
        updater = Updater(self.geoip, environ, lambda: self.now, lambda *_: None, accept, **options)
        return {each.feed: each for each in await updater.update(self.geoip.feeds)}

    def manifest(self) -> FeedManifest:
        """Return the manifest, which must be sound."""
        found = read_manifest(self.geoip.feeds_dir)
        assert isinstance(found, FeedManifest)
        return found

    def files(self) -> set[str]:
        """Return all names in the directory, without the lock."""
        return {path.name for path in self.geoip.feeds_dir.iterdir()} - {".lock"}

    def load(self) -> NetworkData:
        """Load the network data as a gate does."""
        return NetworkData.load(self.geoip, secret=b"0123456789abcdef", now_unix_s=self.now)


def of_file(path: Path, **options: Any) -> Feed:
    """Return a feed that reads a file."""
    return Feed(**{"id": "exits", "file": path, "format": "prefixes", "kind": "tor"} | options)


async def test_a_list_is_fetched_and_put_in_force(tmp_path: Path) -> None:
    """The file, its description and nothing else are left; a gate loads it with its kind."""
    source = tmp_path / "exits"
    source.write_text(addresses(100))
    place = Place(tmp_path, [of_file(source)])
    (outcome,) = (await place.update()).values()
    assert outcome.state is State.UPDATED
    ((name, file),) = place.manifest().files.items()
    assert place.files() == {name, "manifest.json"}
    assert (file.feed, file.entries, file.left_out, file.host) == ("exits", 100, 0, "")
    assert (file.fetched_unix_s, file.confirmed_unix_s) == (NOW, NOW)
    data = place.load()
    assert data.problems == ()
    assert [(s.name, s.revision, s.entries) for s in data.sources] == [
        ("exits", file.revision, 100)
    ]


async def test_the_same_content_is_unchanged_and_confirmed(tmp_path: Path) -> None:
    """Its age starts anew, its revision and the time of fetching stay."""
    source = tmp_path / "exits"
    source.write_text(addresses(100))
    place = Place(tmp_path, [of_file(source)])
    await place.update()
    place.now += DAY_S
    source.write_text("# reordered\n" + "\n".join(reversed(addresses(100).split("\n"))))
    (outcome,) = (await place.update()).values()
    assert outcome.state is State.UNCHANGED
    (file,) = place.manifest().files.values()
    assert (file.fetched_unix_s, file.confirmed_unix_s) == (NOW, NOW + DAY_S)
    assert place.load().sources[0].as_of_unix_s == NOW + DAY_S


@pytest.mark.parametrize(("count", "word"), [(66, "shrink"), (201, "grow"), (0, "empty")])
async def test_h37_a_size_beyond_belief_is_refused(tmp_path: Path, count: int, word: str) -> None:
    """The last good list stays in force, until somebody says that the size is right."""
    source = tmp_path / "exits"
    source.write_text(addresses(100))
    place = Place(tmp_path, [of_file(source)])
    await place.update()
    before = place.manifest()
    source.write_text(addresses(count))
    (outcome,) = (await place.update()).values()
    assert outcome.state is State.REFUSED
    assert word in outcome.detail
    assert place.manifest() == before
    assert place.load().sources[0].entries == 100
    (accepted,) = (await place.update("exits")).values()
    if count:
        assert accepted.state is State.UPDATED
        (again,) = (await place.update()).values()
        assert again.state is State.UNCHANGED, "and then it is the measure"
    else:
        assert accepted.state is State.REFUSED, "an empty list is never right"


async def test_h37_within_belief_it_is_taken(tmp_path: Path) -> None:
    """Two thirds and the double are."""
    source = tmp_path / "exits"
    place = Place(tmp_path, [of_file(source)])
    for count in (100, 67, 134):
        source.write_text(addresses(count))
        assert (await place.update())["exits"].state is State.UPDATED


async def test_one_failure_stops_no_other(tmp_path: Path) -> None:
    """Each feed has its own outcome, and its own last good file."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text("AS9009 # M247\n")
    bad.write_text(addresses(10))
    feeds = [
        of_file(tmp_path / "absent", id="absent"),
        of_file(bad, id="bad"),
        of_file(good, id="good", format="asns", kind="vpn"),
    ]
    place = Place(tmp_path, feeds)
    first = await place.update()
    bad.write_text("<html>Service unavailable</html>")
    second = await place.update()
    assert [o.state for o in first.values()] == [State.FAILED, State.UPDATED, State.UPDATED]
    assert [o.state for o in second.values()] == [State.FAILED, State.REFUSED, State.UNCHANGED]
    assert second["absent"].file is None
    assert second["bad"].file == first["bad"].file
    data = place.load()
    assert [problem.file for problem in data.problems] == ["absent"]
    assert "never fetched" in data.problems[0].message
    assert {source.name for source in data.sources} == {"bad", "good"}


async def test_another_origin_is_not_compared(tmp_path: Path) -> None:
    """Who sets another source gets its content, whatever the size; until then the old one."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text(addresses(100))
    two.write_text(addresses(2))
    await Place(tmp_path, [of_file(one)]).update()
    place = Place(tmp_path, [of_file(two)])
    assert place.load().sources[0].entries == 100
    assert (await place.update())["exits"].state is State.UPDATED
    assert place.load().sources[0].entries == 2


async def test_what_is_no_longer_set_up_is_forgotten(tmp_path: Path) -> None:
    """The file of a feed that left the settings goes with the second update after."""
    source = tmp_path / "exits"
    source.write_text(addresses(10))
    await Place(tmp_path, [of_file(source, id="old")]).update()
    place = Place(tmp_path, [of_file(source, id="new")])
    await place.update()
    await place.update()
    assert {name.split(".")[0] for name in place.files()} == {"new", "manifest"}


async def test_h36_a_reader_sees_one_revision_or_the_other(tmp_path: Path) -> None:
    """While updates run, whoever loads gets a whole list, every time."""
    source = tmp_path / "exits"
    source.write_text(addresses(500))
    place = Place(tmp_path, [of_file(source)])
    await place.update()
    done = asyncio.Event()
    seen: list[int] = []

    async def read() -> None:
        while not done.is_set():
            data = await asyncio.to_thread(place.load)
            assert data.problems == ()
            seen.append(data.sources[0].entries)

    reader = asyncio.create_task(read())
    for turn in range(20):
        source.write_text(addresses(500 + turn % 2 * 100))
        assert (await place.update())["exits"].state is State.UPDATED or turn == 0
    done.set()
    await reader
    assert set(seen) <= {500, 600}
    assert len(seen) > 3


@pytest.mark.parametrize("step", [0, 1])
async def test_h36_an_update_that_dies_leaves_the_last_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Before either of its two renames: the old list serves, and the next update succeeds."""
    source = tmp_path / "exits"
    source.write_text(addresses(100))
    place = Place(tmp_path, [of_file(source)])
    await place.update()
    source.write_text(addresses(120))
    whole, renames = Path.replace, iter(range(10))

    def dies(self: Path, target: Path) -> Path:
        if next(renames) == step:
            raise OSError("killed")
        return whole(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", dies)
        with pytest.raises(OSError, match="killed"):
            await place.update()
    data = place.load()
    assert (data.problems, data.sources[0].entries) == ((), 100)
    await place.update()
    assert place.load().sources[0].entries == 120


@pytest.mark.parametrize("cut", [0, 10, 300, -1])
async def test_h16_a_damaged_file_is_told_and_fetched_again(tmp_path: Path, cut: int) -> None:
    """A file that is not what was fetched is not used; the next update replaces it."""
    source = tmp_path / "exits"
    source.write_text(addresses(100))
    place = Place(tmp_path, [of_file(source)])
    await place.update()
    (name,) = place.manifest().files
    path = place.geoip.feeds_dir / name
    path.write_bytes(path.read_bytes()[:cut])
    data = place.load()
    assert data.sources == ()
    assert "not the file that was fetched" in data.problems[0].message
    await place.update()
    assert place.load().problems == ()


@pytest.mark.parametrize(
    "content", ["", "{", '{"files": {"../x.txt": {}}}', '{"files": []}', "null"]
)
async def test_h16_a_damaged_manifest_is_told_and_made_again(tmp_path: Path, content: str) -> None:
    """Nothing of it is believed, least of all its paths."""
    source = tmp_path / "exits"
    source.write_text(addresses(100))
    place = Place(tmp_path, [of_file(source)])
    await place.update()
    (place.geoip.feeds_dir / "manifest.json").write_text(content)
    data = place.load()
    assert data.sources == ()
    assert "damaged" in data.problems[0].message
    assert (await place.update())["exits"].state is State.UPDATED
    assert place.load().problems == ()


async def test_a_manifest_out_of_reach_is_not_replaced(tmp_path: Path) -> None:
    """What cannot be read now may be whole: no update begins without it."""
    source = tmp_path / "exits"
    source.write_text(addresses(10))
    place = Place(tmp_path, [of_file(source)])
    (place.geoip.feeds_dir / "manifest.json").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        await place.update()
    assert place.files() == {"manifest.json"}


async def test_a_name_out_of_the_directory_is_no_manifest(tmp_path: Path) -> None:
    """A whole entry under a traversing name is refused as well."""
    source = tmp_path / "exits"
    source.write_text(addresses(10))
    place = Place(tmp_path, [of_file(source)])
    await place.update()
    path = place.geoip.feeds_dir / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["../../etc/passwd.txt"] = next(iter(manifest["files"].values()))
    path.write_text(json.dumps(manifest))
    assert "damaged" in place.load().problems[0].message


async def test_two_updates_at_once_are_one_too_many(tmp_path: Path) -> None:
    """The second is told; what a killed one left is swept away by the next."""
    source = tmp_path / "exits"
    source.write_text(addresses(10))
    place = Place(tmp_path, [of_file(source)])
    folder = place.geoip.feeds_dir
    (folder / ".work-killed").mkdir(parents=True)
    (folder / ".work-killed" / "fetched").write_text("half")
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(BusyError):
        await place.update()
    os.close(handle)
    await place.update()
    assert not list(folder.glob(".work-*"))


async def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """It is raised for the command to tell."""
    (tmp_path / "feeds").write_text("a file")
    with pytest.raises(OSError, match="exists"):
        await Place(tmp_path, []).update()


# --- over HTTP ---


async def test_a_source_is_asked_only_for_what_is_new(tmp_path: Path) -> None:
    """304 confirms what is here; without a sound file here, all is fetched again."""
    asked: list[str | None] = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.headers.get("If-None-Match"))
        if asked[-1] == '"v1"':
            return web.Response(status=304)
        return web.Response(text=addresses(50), headers={"ETag": '"v1"'})

    app = web.Application()
    app.router.add_get("/exits", handle)
    async with TestServer(app) as server:
        url = f"http://127.0.0.1:{server.port}/exits"
        place = Place(tmp_path, [Feed(id="exits", url=url, format="prefixes")])
        assert (await place.update())["exits"].state is State.UPDATED
        place.now += DAY_S
        assert (await place.update())["exits"].state is State.UNCHANGED
        (file,) = place.manifest().files.values()
        assert (file.confirmed_unix_s, file.host) == (NOW + DAY_S, "127.0.0.1")
        (name,) = place.manifest().files
        (place.geoip.feeds_dir / name).unlink()
        assert (await place.update())["exits"].state is State.UNCHANGED
        assert place.load().problems == ()
    assert asked == [None, '"v1"', None]
    assert (await place.update())["exits"].state is State.FAILED
    assert place.load().sources[0].entries == 50


async def test_a_missing_credential_is_told(tmp_path: Path) -> None:
    """Nothing is asked without it; the message names the variable's lack, not its value."""
    missing = Feed(
        id="city",
        url="https://127.0.0.1:1/x",
        format="mmdb",
        credential=SecretSource(env="NOT_SET"),
    )
    outcome = (await Place(tmp_path, [missing]).update())["city"]
    assert (outcome.state, outcome.detail) == (
        State.FAILED,
        "its credential cannot be read: This variable is not set.",
    )


# --- databases ---


def database(path: Path, networks: int) -> Path:
    """Write a database of so many networks."""
    rows = {
        f"{n // 256 + 20}.{n % 256}.0.0/16": {"country_code": "DE" if n % 2 else "FR"}
        for n in range(networks)
    }
    return write_mmdb(path, "x-country", rows)


def packed(path: Path, content: bytes, how: str) -> Path:
    """Write content as it is, as .gz, or as MaxMind's .tar.gz."""
    if how == "plain":
        path.write_bytes(content)
    elif how == "gz":
        path.write_bytes(gzip.compress(content))
    else:
        with tarfile.open(path, "w:gz") as archive:
            for name, data in (("X_20261124/LICENSE.txt", b"l"), ("X_20261124/X.mmdb", content)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def of_database(path: Path) -> Feed:
    """Return a feed that reads a database."""
    return Feed(id="city", file=path, format="mmdb")


@pytest.mark.parametrize("how", ["plain", "gz", "tar.gz"])
async def test_databases_come_as_vendors_pack_them(tmp_path: Path, how: str) -> None:
    """MaxMind's archive and DB-IP's .gz; a gate asks what was fetched before what is shipped."""
    content = (MAXMIND / "GeoIP2-City-Test.mmdb").read_bytes()
    place = Place(tmp_path, [of_database(packed(tmp_path / "source", content, how))])
    outcome = (await place.update())["city"]
    assert outcome.state is State.UPDATED, outcome.detail
    (name,) = place.manifest().files
    assert (place.geoip.feeds_dir / name).read_bytes() == content
    other = database(tmp_path / "other.mmdb", 10)
    geoip = place.geoip.model_copy(update={"databases": (other,)})
    data = NetworkData.load(geoip, secret=b"0123456789abcdef", now_unix_s=NOW)
    assert [source.name for source in data.sources] == ["city", "other.mmdb"]
    assert data.problems == ()
    facts = data.observe(ip_address("81.2.69.160"))
    assert facts.country == "GB"
    assert {lookup.source for lookup in facts.lookups} == {"city", "other.mmdb"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>quota exceeded</html>", "sound mmdb"),
        (b"", "sound mmdb"),
        ((MAXMIND / "GeoIP2-City-Test.mmdb").read_bytes()[:2_000], "sound mmdb"),
        ((MAXMIND / "MaxMind-DB-test-broken-search-tree-24.mmdb").read_bytes(), "mmdb|layout"),
        (gzip.compress(b"x" * 5_000, mtime=0)[:-6], "gzip is damaged"),
        (gzip.compress(b"\0" * 300_000, mtime=0), "larger than"),
    ],
)
async def test_h16_what_is_no_database_is_refused(
    tmp_path: Path, content: bytes, words: str
) -> None:
    """A damaged or foreign file never replaces a good one."""
    source = tmp_path / "source"
    source.write_bytes((MAXMIND / "GeoIP2-City-Test.mmdb").read_bytes())
    place = Place(tmp_path, [of_database(source)])
    await place.update()
    before = place.manifest()
    source.write_bytes(content)
    bounds = Bounds(max_bytes=100_000)
    outcome = (await place.update("city", database_bounds=bounds))["city"]
    assert outcome.state is State.REFUSED
    assert any(word in outcome.detail for word in words.split("|"))
    assert place.manifest() == before


async def test_h37_a_database_that_lost_networks_is_refused(tmp_path: Path) -> None:
    """Nodes count as entries do, unless accepted."""
    source = database(tmp_path / "source", 1_000)
    place = Place(tmp_path, [of_database(source)])
    place.now = 4_000_000_000.0  # written just now, by a clock of another time
    await place.update()
    database(source, 400)
    refused = (await place.update())["city"]
    assert refused.state is State.REFUSED
    assert "shrink" in refused.detail
    assert "--accept-size city" in refused.detail
    assert (await place.update("city"))["city"].state is State.UPDATED


async def test_h16_a_damaged_database_is_told_and_fetched_again(tmp_path: Path) -> None:
    """What was altered in place is not believed, though it may still be a sound file."""
    place = Place(tmp_path, [of_database(database(tmp_path / "source", 100))])
    place.now = 4_000_000_000.0  # written just now, by a clock of another time
    await place.update()
    (name,) = place.manifest().files
    database(place.geoip.feeds_dir / name, 90)
    data = place.load()
    assert data.sources == ()
    assert "gatekeeper geoip update" in data.problems[0].message
    await place.update()
    assert place.load().problems == ()
