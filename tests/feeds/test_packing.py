"""Archives: one database comes out, nothing else, and never more than was allowed."""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import TYPE_CHECKING

import pytest

from gatekeeper.feeds.errors import FeedError
from gatekeeper.feeds.packing import database_in, inflate

if TYPE_CHECKING:
    from pathlib import Path

MANY = 10_000_000


def tarred(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    """Write an archive of these members."""
    with tarfile.open(path, "w") as archive:
        for info, content in members:
            info.size = len(content) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(content))
    return path


def member(name: str, content: bytes = b"data", kind: bytes = tarfile.REGTYPE) -> tuple:
    """Return one member of an archive."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = "/etc/passwd" if kind in {tarfile.SYMTYPE, tarfile.LNKTYPE} else ""
    return info, content


def test_gzip_is_undone_and_what_is_none_is_left(tmp_path: Path) -> None:
    """Plain files pass as they are; several gzip members are one file, as gzip says."""
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    plain.write_bytes(b"1.2.3.4\n")
    packed.write_bytes(gzip.compress(b"1.2.3.4\n") + gzip.compress(b"5.6.7.8\n"))
    assert inflate(plain, tmp_path / "out", max_bytes=MANY) == plain
    out = inflate(packed, tmp_path / "out", max_bytes=MANY)
    assert out.read_bytes() == b"1.2.3.4\n5.6.7.8\n"


def test_a_bomb_ends_at_the_bound(tmp_path: Path) -> None:
    """Ten kilobytes that inflate to ten megabytes are given up, and little was written."""
    bomb = tmp_path / "bomb"
    bomb.write_bytes(gzip.compress(b"\0" * MANY))
    assert bomb.stat().st_size < 20_000
    with pytest.raises(FeedError, match="larger than 100000 bytes"):
        inflate(bomb, tmp_path / "out", max_bytes=100_000)
    assert (tmp_path / "out").stat().st_size <= 100_000


@pytest.mark.parametrize("cut", [3, 12, 40, -1])
def test_gzip_that_was_cut_off_is_refused(tmp_path: Path, cut: int) -> None:
    """Each truncation is told, also that of the checksum."""
    path = tmp_path / "cut"
    path.write_bytes(gzip.compress(bytes(range(256)) * 9)[:cut])
    with pytest.raises(FeedError, match="damaged or was cut off"):
        inflate(path, tmp_path / "out", max_bytes=MANY)


def test_maxminds_archive_gives_its_database(tmp_path: Path) -> None:
    """The one .mmdb comes out, beside licence and README, whatever its path in there."""
    archive = tarred(
        tmp_path / "a.tar",
        member("GeoLite2-City_20261124/", kind=tarfile.DIRTYPE),
        member("GeoLite2-City_20261124/COPYRIGHT.txt"),
        member("GeoLite2-City_20261124/GeoLite2-City.mmdb", b"the database"),
    )
    out = database_in(archive, tmp_path / "out", max_bytes=MANY)
    assert out.read_bytes() == b"the database"
    plain = tmp_path / "plain"
    plain.write_bytes(b"no archive" * 100)
    assert database_in(plain, tmp_path / "out2", max_bytes=MANY) == plain


@pytest.mark.parametrize("name", ["../evil.mmdb", "/tmp/evil.mmdb", "a/../../evil.mmdb"])  # noqa: S108
def test_names_in_an_archive_lead_nowhere(tmp_path: Path, name: str) -> None:
    """A traversing name is only a name: the content goes where we say."""
    folder = tmp_path / "inner"
    folder.mkdir()
    archive = tarred(folder / "a.tar", member(name, b"content"))
    out = database_in(archive, folder / "out", max_bytes=MANY)
    assert out.read_bytes() == b"content"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.tar", "inner", "out"]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([member("README")], "no .mmdb"),
        ([member("a.mmdb", kind=tarfile.SYMTYPE)], "no .mmdb"),
        ([member("a.mmdb", kind=tarfile.LNKTYPE)], "no .mmdb"),
        ([member("a.mmdb", kind=tarfile.FIFOTYPE)], "no .mmdb"),
        ([member("a.mmdb"), member("b.mmdb")], "more than one"),
        ([member("a.mmdb", b"x" * 2_000)], "larger than 1000 bytes"),
        ([member(f"{n}.txt") for n in range(200)], "more than 100 members"),
    ],
)
def test_odd_archives_are_refused(tmp_path: Path, members: list, words: str) -> None:
    """Links, devices, several databases, too much of anything."""
    archive = tarred(tmp_path / "a.tar", *members)
    with pytest.raises(FeedError, match=words):
        database_in(archive, tmp_path / "out", max_bytes=1_000)


def test_a_header_that_asks_for_memory_is_refused(tmp_path: Path) -> None:
    """An extended header names its own size, which would be read in one piece."""
    path = tmp_path / "a.tar"
    info = tarfile.TarInfo("x")
    info.type = tarfile.XHDTYPE
    info.size = 2_000_000_000
    path.write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + b"\0" * 4096)
    with pytest.raises(FeedError, match="oversized header"):
        database_in(path, tmp_path / "out", max_bytes=MANY)


@pytest.mark.parametrize("cut", [600, 1_000, 2_000])
def test_an_archive_that_was_cut_off_is_refused(tmp_path: Path, cut: int) -> None:
    """The end is missing: no database comes out of it."""
    whole = tarred(tmp_path / "a.tar", member("a.mmdb", b"x" * 5_000)).read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:cut])
    with pytest.raises(FeedError):
        database_in(tmp_path / "a.tar", tmp_path / "out", max_bytes=MANY)
