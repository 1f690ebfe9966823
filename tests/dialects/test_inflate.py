"""Undoing content codings on a copy of an answer."""

from __future__ import annotations

import gzip
import zlib

import pytest

from gatekeeper.dialects.inflate import Inflater

TEXT = b"some text that is long enough to be compressed " * 50


def raw_deflate(data: bytes) -> bytes:
    """Compress without any wrapper, as some servers take ``deflate`` to mean."""
    squeezer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return squeezer.compress(data) + squeezer.flush()


@pytest.mark.parametrize("size", [1_000_000, 7])
@pytest.mark.parametrize(
    "coded",
    [gzip.compress(TEXT, mtime=0), zlib.compress(TEXT), raw_deflate(TEXT)],
    ids=["gzip", "zlib", "raw"],
)
def test_every_form_in_any_chunks(coded: bytes, size: int) -> None:
    """gzip, zlib and bare deflate come out whole, however they are cut."""
    inflater = Inflater()
    chunks = [coded[i : i + size] for i in range(0, len(coded), size)]
    assert b"".join(piece for chunk in chunks for piece in inflater.feed(chunk)) == TEXT
    assert not inflater.gave_up


def test_members_may_follow_each_other() -> None:
    """A gzip body of several members is read to its end (RFC 1952)."""
    inflater = Inflater()
    assert b"".join(inflater.feed(gzip.compress(b"one ") + gzip.compress(b"two"))) == b"one two"


def test_h07_a_bomb_is_given_up_in_small_pieces() -> None:
    """A bomb never is in memory as a whole and ends at the cap."""
    inflater = Inflater(most_bytes=1_000_000)
    bomb = gzip.compress(b"\0" * 50_000_000)
    sizes = [len(piece) for piece in inflater.feed(bomb)]
    assert inflater.gave_up
    assert max(sizes) <= 65_536
    assert sum(sizes) <= 1_000_000
    assert list(inflater.feed(bomb)) == []


def test_damage_is_given_up() -> None:
    """Bytes that are no coding at all end in giving up, not in an exception."""
    inflater = Inflater()
    assert list(inflater.feed(b"\xff\xff\xff this is not compressed")) == []
    assert inflater.gave_up
