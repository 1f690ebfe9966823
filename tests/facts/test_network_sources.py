"""Loading again under way: what is damaged, gone or out of proportion keeps its last good state."""

from __future__ import annotations

import gc
import hashlib
import weakref
from typing import TYPE_CHECKING

import msgspec
from support.mmdb_files import write_mmdb

from gatekeeper.facts.address import parse_address
from gatekeeper.facts.feed_files import FeedFile, FeedManifest
from gatekeeper.facts.network import NetworkData
from gatekeeper.settings import Feed, Geoip

if TYPE_CHECKING:
    from pathlib import Path

SECRET = b"0123456789abcdef"
DAY_S = 86_400.0


def write_list(folder: Path, entries: int) -> Path:
    """Write a text list of so many addresses."""
    path = folder / "exits.txt"
    path.write_text("".join(f"198.51.{n // 256}.{n % 256}\n" for n in range(entries)))
    return path


def write_database(folder: Path, networks: int) -> Path:
    """Write a database of countries with so many networks."""
    rows = {f"20.{n}.0.0/16": {"country_code": "DE" if n % 2 else "FR"} for n in range(networks)}
    return write_mmdb(folder / "country.mmdb", "x-country", rows)


def load(geoip: Geoip, previous: NetworkData | None = None, at: float = 0.0) -> NetworkData:
    """Load, as a gate that runs does when there is ``previous`` data."""
    return NetworkData.load(geoip, secret=SECRET, now_unix_s=at, previous=previous)


def test_h37_a_list_that_collapses_or_doubles_keeps_its_last_state(tmp_path: Path) -> None:
    """The last good list serves on, its source is told, and a believable change is taken."""
    geoip = Geoip(databases=(), networks=(write_list(tmp_path, 900),))
    whole = load(geoip)
    write_list(tmp_path, 700)
    fewer = load(geoip, whole)
    assert (fewer.sources[0].entries, fewer.problems, fewer.parts.kept) == (700, (), [])
    for entries in (450, 1_500):
        write_list(tmp_path, entries)
        kept = load(geoip, fewer)
        assert (kept.sources[0].entries, kept.parts.kept) == (700, ["exits.txt"])
        (problem,) = kept.problems
        assert f"700 to {entries}" in problem.message
        assert "serves on" in problem.message
    write_list(tmp_path, 0)
    empty = load(geoip, fewer)
    assert (empty.sources[0].entries, empty.parts.kept) == (700, ["exits.txt"])
    assert "empty" in empty.problems[0].message


def test_h37_who_accepts_changes_of_size_gets_them(tmp_path: Path) -> None:
    """The setting is the way to say that a list is meant to have shrunk; a restart is another."""
    geoip = Geoip(databases=(), networks=(write_list(tmp_path, 900),), accept_size_changes=True)
    whole = load(geoip)
    write_list(tmp_path, 300)
    assert load(geoip, whole).sources[0].entries == 300
    assert load(geoip.model_copy(update={"accept_size_changes": False})).sources[0].entries == 300


def test_h37_databases_are_compared_by_the_nodes_of_their_tree(tmp_path: Path) -> None:
    """A database that lost most of its networks is not taken."""
    geoip = Geoip(databases=(write_database(tmp_path, 200),), networks=())
    before = load(geoip)
    write_database(tmp_path, 20)
    after = load(geoip, before)
    assert after.parts.kept == ["country.mmdb"]
    assert after.revision == before.revision
    assert [problem.file for problem in after.problems] == ["country.mmdb"]


def test_h16_a_database_that_is_damaged_or_gone_serves_on_from_memory(tmp_path: Path) -> None:
    """Truncated, replaced by nonsense, deleted: the answer stays, and the problem is told."""
    path = write_database(tmp_path, 50)
    geoip = Geoip(databases=(path,), networks=())
    before = load(geoip)
    address = parse_address("20.1.2.3")
    assert address is not None
    content = path.read_bytes()
    for damage in (
        lambda: path.write_bytes(content[: len(content) // 2]),
        lambda: path.write_bytes(b"nonsense"),
        path.unlink,
    ):
        damage()
        after = load(geoip, before)
        assert after.observe(address).country == "DE"
        assert after.parts.kept == ["country.mmdb"]
        assert "serves on" in after.problems[0].message
    assert load(geoip).observe(address).country is None  # a start has nothing to fall back on
    path.write_bytes(content)
    healed = load(geoip, after)
    assert (healed.problems, healed.parts.kept) == ((), [])


def test_one_bad_source_does_not_hold_back_the_others(tmp_path: Path) -> None:
    """Each source is judged for itself."""
    path = write_database(tmp_path, 50)
    geoip = Geoip(databases=(path,), networks=(write_list(tmp_path, 10),))
    before = load(geoip)
    path.write_bytes(b"nonsense")
    write_list(tmp_path, 12)
    after = load(geoip, before)
    assert after.parts.kept == ["country.mmdb"]
    assert [source.entries for source in after.sources][1] == 12


def test_what_is_kept_grows_old_all_the_same(tmp_path: Path) -> None:
    """A database that is gone answers unknown once it is older than the settings allow."""
    path = write_database(tmp_path, 50)
    geoip = Geoip(databases=(path,), networks=(), max_age_days=30)
    built = load(geoip).sources[0].built_unix_s
    assert built is not None
    before = load(geoip, at=built + DAY_S)
    assert before.stale_at == built + 30 * DAY_S
    path.unlink()
    kept = load(geoip, before, at=built + 29 * DAY_S)
    assert not kept.sources[0].stale
    old = load(geoip, kept, at=built + 31 * DAY_S)
    assert old.sources[0].stale
    assert len(old.problems) == 2


def test_files_beside_a_list_are_known(tmp_path: Path) -> None:
    """Whoever watches must know the text files that a list names."""
    (tmp_path / "more").mkdir()
    write_list(tmp_path / "more", 3)
    path = tmp_path / "networks.yaml"
    path.write_text("lists:\n  - {description: D., kind: tor, file: more/exits.txt}\n...\n")
    data = load(Geoip(databases=(), networks=(path,)))
    assert data.problems == ()
    assert data.parts.lists[path].files == (tmp_path / "more" / "exits.txt",)


def write_feed(folder: Path, entries: int) -> Path:
    """Put a fetched list in place, as the update command does; return its file."""
    content = "".join(f"198.51.{n // 256}.{n % 256}/32\n" for n in range(entries)).encode()
    digest = hashlib.sha256(content).hexdigest()
    path = folder / f"exits.{digest[:12]}.txt"
    folder.mkdir(exist_ok=True)
    path.write_bytes(content)
    file = FeedFile(
        feed="exits",
        sha256=digest,
        bytes=len(content),
        entries=entries,
        origin="o",
        fetched_unix_s=0.0,
        confirmed_unix_s=0.0,
    )
    (folder / "manifest.json").write_bytes(
        msgspec.json.encode(FeedManifest(files={path.name: file}))
    )
    return path


def test_h16_a_feed_that_is_damaged_keeps_its_last_state_until_it_is_too_old(
    tmp_path: Path,
) -> None:
    """Its own check of size came before; here it is for damage, and for its age."""
    feed = Feed(
        id="exits", url="https://example.com/x", format="prefixes", kind="tor", max_age_days=30
    )
    geoip = Geoip(databases=(), networks=(), feeds=(feed,), feeds_dir=tmp_path / "feeds")
    path = write_feed(tmp_path / "feeds", 5)
    before = load(geoip)
    address = parse_address("198.51.0.3")
    assert address is not None
    assert before.observe(address).listed_by == ("exits",)
    path.write_bytes(b"damaged")
    kept = load(geoip, before, at=29 * DAY_S)
    assert kept.observe(address).listed_by == ("exits",)
    assert (kept.parts.kept, kept.stale_at) == (["exits"], 30 * DAY_S)
    assert kept.problems
    old = load(geoip, kept, at=31 * DAY_S)
    assert (old.observe(address).listed_by, old.parts.kept) == ((), [])
    write_feed(tmp_path / "feeds", 50)
    assert load(geoip, kept).parts.kept == []


def test_h41_data_that_was_replaced_is_gone_at_once(tmp_path: Path) -> None:
    """No cycle keeps tens of megabytes until the next full collection, answers given or not."""
    data = load(Geoip(databases=(write_database(tmp_path, 5),), networks=()))
    address = parse_address("20.1.2.3")
    assert address is not None
    assert data.observe(address).country == "DE"
    gone = weakref.ref(data)
    gc.disable()
    try:
        del data
        assert gone() is None
    finally:
        gc.enable()
