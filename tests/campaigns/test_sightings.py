"""Which rows a window shows, and under which key."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest

from gatekeeper.campaigns.options import DAY_S, DetectionOptions
from gatekeeper.campaigns.sightings import Sightings, Window

COLUMNS = """
at DOUBLE, account VARCHAR, organization VARCHAR, assurance VARCHAR, created_at DOUBLE,
payment BIGINT, signup BIGINT, mail BIGINT, model VARCHAR, input_tokens BIGINT,
output_tokens BIGINT, address BIGINT, prefix BIGINT, kind VARCHAR, egress BOOLEAN, client BIGINT,
system BIGINT, tools BIGINT, scaffold BIGINT, shape BIGINT, asks VARCHAR[], capabilities VARCHAR[],
blocks BIGINT[], epoch VARCHAR
"""


def shown(rows: list[tuple[float, str]], window: Window) -> Any:
    """Return the moments that the window shows of rows of (moment, epoch)."""
    connection = duckdb.connect()
    names = [each.split()[0] for each in COLUMNS.replace("\n", " ").split(",")]
    quoted = COLUMNS.replace("\nat ", '"at" ')
    connection.execute(f"CREATE TABLE sightings ({quoted})")
    for at, epoch in rows:
        values = [at, "a"] + [None] * (len(names) - 3) + [epoch]
        marks = ", ".join("?" * len(values))
        connection.execute(f"INSERT INTO sightings VALUES ({marks})", values)  # noqa: S608
    sightings = Sightings(connection, DetectionOptions())
    if not sightings.look(window):
        return None
    return sightings.columns("SELECT seen_at FROM calls ORDER BY seen_at")["seen_at"].tolist()


def test_the_epoch_that_covers_the_window_is_read() -> None:
    """The old key has more rows, but ends before the window does: only the new one is read."""
    old = [(float(at), "old") for at in range(1, 60)]
    new = [(float(at), "new") for at in range(2, 101, 4)]
    assert shown(old + new, Window(0, 100)) == [at for at, _ in new]


def test_without_such_an_epoch_the_fullest_is_read() -> None:
    """Where no key covers the window, the one with most rows stands in."""
    old, new = [(float(at), "old") for at in range(1, 60)], [(90.0, "new"), (99.0, "new")]
    assert shown(old + new, Window(0, 100)) == [at for at, _ in old]


def test_a_window_is_open_at_its_start_and_closed_at_its_end() -> None:
    """A call at the moment of the run is seen, one at the start was seen by the run before."""
    assert shown([(0.0, "e"), (1.0, "e"), (100.0, "e"), (101.0, "e")], Window(0, 100)) == [1, 100]
    assert shown([(101.0, "e")], Window(0, 100)) is None


@pytest.mark.parametrize(("length", "start"), [(DAY_S, 4.5), (3 * DAY_S, 2.0), (14 * DAY_S, -9.0)])
def test_long_windows_begin_with_a_day(length: int, start: float) -> None:
    """From three days on, a window starts at midnight (UTC)."""
    assert Window.before(5.5 * DAY_S, length) == Window(start * DAY_S, 5.5 * DAY_S)


def test_a_quote_in_an_epoch_is_text() -> None:
    """An epoch is data, whatever it holds."""
    assert shown([(1.0, "it's"), (99.0, "it's")], Window(0, 100)) == [1, 99]
