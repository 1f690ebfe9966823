"""Sizes that no machine-made list takes over night (H37)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.mmdb_files import write_mmdb

from gatekeeper.facts.list_sizes import collapsed, out_of_proportion
from gatekeeper.facts.network import NetworkData
from gatekeeper.settings import Geoip

if TYPE_CHECKING:
    from pathlib import Path

COUNT = st.integers(min_value=1, max_value=10**7)


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        (900, 600, None),
        (900, 599, "shrink"),
        (900, 0, "shrink"),
        (900, 1800, None),
        (900, 1801, "grow"),
        (3, 2, None),
        (0, 0, None),
        (0, 1, "grow"),
    ],
)
def test_h37_where_belief_ends(before: int, after: int, word: str | None) -> None:
    """Two thirds and the double are believed, one entry beyond is not."""
    told = collapsed(before, after)
    assert (told is None) if word is None else (told is not None and word in told)


@settings(deadline=None)
@given(COUNT, COUNT)
def test_h37_agrees_with_fractions(before: int, after: int) -> None:
    """Whole numbers decide as exact fractions do, at any size."""
    believed = 2 * before <= 3 * after and after <= 2 * before
    assert (collapsed(before, after) is None) is believed


def test_h37_lists_kept_by_hand_may_do_as_they_like() -> None:
    """A handful may double; a long list may not vanish; a new one is nobody's collapse."""
    assert out_of_proportion({"mine": 3}, {"mine": 40}) == []
    assert out_of_proportion({}, {"new": 5_000}) == []
    (mistake,) = out_of_proportion({"feed": 5_000, "mine": 3}, {"mine": 2})
    assert mistake.file == "feed"


def lists(folder: Path, entries: int) -> NetworkData:
    """Load one text list of so many addresses."""
    path = folder / "exits.txt"
    path.write_text("".join(f"198.51.{n // 256}.{n % 256}\n" for n in range(entries)))
    geoip = Geoip(databases=(), networks=(path,))
    return NetworkData.load(geoip, secret=b"0123456789abcdef", now_unix_s=0.0)


def test_h37_data_is_compared_with_what_it_replaces(tmp_path: Path) -> None:
    """A list that lost a third is told by its id; one that cannot be read is another problem."""
    whole, fewer, half = lists(tmp_path, 900), lists(tmp_path, 700), lists(tmp_path, 450)
    assert whole.sources[0].entries == 900
    assert fewer.out_of_proportion(whole) == []
    (mistake,) = half.out_of_proportion(whole)
    assert mistake.file == "exits.txt: exits"
    assert "900 to 450" in mistake.message
    assert len(whole.out_of_proportion(fewer)) == 0
    assert len(whole.out_of_proportion(lists(tmp_path, 300))) == 1
    empty = lists(tmp_path, 0)
    assert empty.problems
    assert empty.out_of_proportion(whole) == []


def test_h37_databases_are_compared_by_the_nodes_of_their_tree(tmp_path: Path) -> None:
    """A database that lost most of its networks is told by its name."""
    path = tmp_path / "country.mmdb"

    def load(networks: int) -> NetworkData:
        rows = {
            f"20.{n}.0.0/16": {"country_code": "DE" if n % 2 else "FR"} for n in range(networks)
        }
        write_mmdb(path, "x-country", rows)
        geoip = Geoip(databases=(path,), networks=())
        return NetworkData.load(geoip, secret=b"0123456789abcdef", now_unix_s=0.0)

    before, after = load(200), load(20)
    assert before.problems == after.problems == ()
    assert [mistake.file for mistake in after.out_of_proportion(before)] == ["country.mmdb"]
