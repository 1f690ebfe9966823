"""What a new database is held against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import time_machine
from support.mmdb_files import write_mmdb

from gatekeeper.feeds.databases import no_step_back, sound_database
from gatekeeper.feeds.errors import FeedError

if TYPE_CHECKING:
    from pathlib import Path

BUILT = 1_790_000_000
DAY_S = 86_400


def made(path: Path, at: int, *, kind: str = "x-country", step: int = 1, **record: Any) -> Path:
    """Write a database built at ``at``, with every ``step``-th /8 in it."""
    rows = {f"{n}.0.0.0/8": record or {"country_code": "DE"} for n in range(1, 224, step)}
    with time_machine.travel(at, tick=False):
        return write_mmdb(path, kind, rows)


def check(new: Path, last: Path, now: float = BUILT + DAY_S, *, any_size: bool = False) -> None:
    """Do what an update does."""
    no_step_back(sound_database(new, now_unix_s=now), last, any_size=any_size)


def test_a_newer_database_like_the_last_is_taken(tmp_path: Path) -> None:
    """So is one that is the same, and one that answers more."""
    last = made(tmp_path / "last", BUILT, step=2)
    check(last, last)
    check(made(tmp_path / "new", BUILT + DAY_S), last)


@pytest.mark.parametrize(
    ("options", "at", "words"),
    [
        ({}, BUILT - 1, "built before the last"),
        ({}, BUILT + 4 * DAY_S, "in the future"),
        ({"kind": "x-city"}, BUILT, "another type"),
        ({"kind": "who-knows", "what": "ever"}, BUILT, "not a layout"),
        ({"step": 2}, BUILT, "view country answers"),
        ({"country_code": "ZZ"}, BUILT, "view country answers 0 of"),
    ],
)
def test_h37_a_step_back_is_refused(
    tmp_path: Path, options: dict[str, Any], at: int, words: str
) -> None:
    """Older, of another type, gutted: each is told, whatever its size."""
    last = made(tmp_path / "last", BUILT)
    with pytest.raises(FeedError, match=words):
        check(made(tmp_path / "new", at, **options), last)


def test_whose_size_is_accepted_may_answer_less(tmp_path: Path) -> None:
    """The same decision of a person covers both; age and type are no matter of size."""
    last, half = made(tmp_path / "last", BUILT), made(tmp_path / "new", BUILT, step=2)
    check(half, last, any_size=True)
    with pytest.raises(FeedError, match="built before"):
        check(made(tmp_path / "old", BUILT - 1), last, any_size=True)


def test_a_damaged_last_one_is_no_measure(tmp_path: Path) -> None:
    """After it, a database must only be sound."""
    new = made(tmp_path / "new", BUILT, step=20)
    (tmp_path / "last").write_bytes(b"damaged")
    check(new, tmp_path / "last")
    check(new, tmp_path / "gone")
