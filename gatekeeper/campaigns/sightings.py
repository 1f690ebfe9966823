"""Sightings: calls as gates saw them, read from Parquet for one window at a time.

All that knows how the files lie, and all SQL that not every engine speaks, is here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import duckdb
import numpy as np

from gatekeeper.campaigns.options import DAY_S

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb import DuckDBPyConnection
    from numpy.typing import NDArray

    from gatekeeper.campaigns.options import DetectionOptions

_HELD_ROWS: Final = 3_000_000
"""Most sightings that are held in memory; of more, each statement reads the files again."""
_SLACK: Final = 0.05
"""Part of a window at its ends in which an epoch that covers it may be silent."""
_WHOLE_DAYS: Final = 3
"""Windows of so many days begin with a whole one."""

# What the portable statements know as `calls`: the sightings of one window, with the two blocks
# that matter taken out of their array.
_VIEW: Final = """
CREATE OR REPLACE TEMP VIEW calls AS
SELECT "at" AS seen_at, account, organization, assurance, created_at, payment, signup, mail, model,
       input_tokens, output_tokens, address, prefix, kind, egress, client, system, tools, scaffold,
       shape, asks, capabilities,
       CASE WHEN len(blocks) > 1 THEN blocks[1] ELSE 0 END AS first_block,
       CASE WHEN len(blocks) > 1 THEN blocks[len(blocks)] ELSE 0 END AS last_block
FROM {source} WHERE "at" > {start} AND "at" <= {end} AND epoch = '{epoch}'
"""
_EPOCHS: Final = """
SELECT epoch, MIN("at") AS first_at, MAX("at") AS last_at, COUNT(*) AS calls
FROM {source} WHERE "at" > {start} AND "at" <= {end} GROUP BY epoch
"""
_COUNT: Final = """SELECT COUNT(*) FROM {source} WHERE "at" > {start} AND "at" <= {end}"""
_HOLD: Final = """
CREATE OR REPLACE TEMP TABLE held AS
SELECT "at", account, organization, assurance, created_at, payment, signup, mail, model,
       input_tokens, output_tokens, address, prefix, kind, egress, epoch, client, system, tools,
       scaffold, shape, asks, capabilities, blocks
FROM {source} WHERE "at" > {start} AND "at" <= {end}
"""
_CAPABILITIES: Final = """
CREATE OR REPLACE TEMP VIEW classes AS
SELECT account, UNNEST(CASE WHEN len(capabilities) > 0 THEN capabilities ELSE asks END) AS class
FROM calls
"""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time that ends where the run does; seconds since 1970."""

    start: float
    end: float

    @classmethod
    def before(cls, at: float, length_s: int) -> Window:
        """Return the window of a length that ends at a moment."""
        start = at - length_s
        if length_s >= _WHOLE_DAYS * DAY_S:
            start = start // DAY_S * DAY_S
        return cls(start, at)

    @property
    def days(self) -> float:
        """Length in days."""
        return (self.end - self.start) / DAY_S


class Sightings:
    """A connection of the SQL engine, and the view ``calls`` on the sightings of one window."""

    def __init__(self, origin: Path | DuckDBPyConnection, options: DetectionOptions) -> None:
        """Read the directory, or, of a connection, its table or view ``sightings``."""
        self._held: Window | None = None
        self._directory = None if isinstance(origin, duckdb.DuckDBPyConnection) else origin
        if isinstance(origin, duckdb.DuckDBPyConnection):
            self._connection = origin.cursor()
        else:
            self._connection = duckdb.connect(
                config={"threads": options.threads, "memory_limit": f"{options.memory_mib}MiB"}
            )

    def hold(self, window: Window) -> None:
        """Keep a window in memory, if it is not too large, for the looks at it and its parts."""
        self._held = None
        source = self._source(window)
        if source is None:
            return
        bounds = {"source": source, "start": repr(window.start), "end": repr(window.end)}
        counted = self._connection.execute(_COUNT.format(**bounds)).fetchone()
        if counted is not None and counted[0] <= _HELD_ROWS:
            self._connection.execute(_HOLD.format(**bounds))
            self._held = window

    def close(self) -> None:
        """Let go of the engine."""
        self._connection.close()

    def look(self, window: Window) -> bool:
        """Point ``calls`` at a window, in the epoch of keys that covers it; tell if any are in it.

        Digests of two epochs cannot be compared, and a call of their overlap has a row in each.
        """
        source = self._source(window)
        if source is None:
            return False
        bounds = {"source": source, "start": repr(window.start), "end": repr(window.end)}
        rows = self._connection.execute(_EPOCHS.format(**bounds)).fetchall()
        if not rows:
            return False
        slack = _SLACK * (window.end - window.start)
        covering = [
            row for row in rows if row[1] <= window.start + slack and row[2] >= window.end - slack
        ]
        epoch = max(covering or rows, key=lambda row: (row[3], row[0]))[0]
        self._connection.execute(_VIEW.format(epoch=_quoted(epoch), **bounds))
        self._connection.execute(_CAPABILITIES)
        return True

    def run(self, statement: str) -> None:
        """Run a statement that answers nothing."""
        self._connection.execute(statement)

    def columns(self, query: str) -> dict[str, NDArray[Any]]:
        """Return the columns of an answer, NULL as NaN in those of fractions."""
        found = self._connection.execute(query).fetchnumpy()
        return {name: _plain(column) for name, column in found.items()}

    def lend(self, name: str, columns: dict[str, NDArray[Any]]) -> None:
        """Let statements read arrays as a table."""
        self._connection.register(name, columns)

    def _source(self, window: Window) -> str | None:
        held = self._held
        if held is not None and held.start <= window.start and window.end <= held.end:
            return "held"
        if self._directory is None:
            return "sightings"
        first, last = _day(window.start), _day(window.end)
        files = sorted(
            str(path)
            for path in (self._directory / "sightings").glob("day=*/*.parquet")
            if first <= path.parent.name.removeprefix("day=") <= last
        )
        if not files:
            return None
        listed = ", ".join(f"'{_quoted(each)}'" for each in files)
        return f"read_parquet([{listed}], hive_partitioning = false)"


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def _plain(column: NDArray[Any]) -> NDArray[Any]:
    if isinstance(column, np.ma.MaskedArray):
        empty = np.nan if column.dtype.kind == "f" else None
        if empty is None and column.dtype.kind in "iub":
            empty = 0
        return column.filled(empty)
    return column
