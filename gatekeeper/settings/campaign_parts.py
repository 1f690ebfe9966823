"""Settings of what campaigns are found by."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - read at run time
from typing import Annotated, Self

from pydantic import Field, model_validator

from gatekeeper.settings.parts import Part, SecretSource

LONGEST_WINDOW_DAYS = 14
"""The longest that the watcher looks back at once."""


class WatchSettings(Part):
    """The watcher, ``gatekeeper watch``: a process of its own that finds campaigns."""

    run: bool = True
    """Whether ``gatekeeper serve`` runs one beside it where limits stand in memory and records in
    SQLite, and the extra ``watcher`` is installed. A fleet runs one itself."""
    every_s: Annotated[float, Field(ge=1, le=86_400)] = 300.0
    """From the beginning of one run to that of the next."""
    directory: Path | None = None
    """Where the watcher keeps sightings; ``campaigns`` in ``data_dir`` when absent."""
    sources: tuple[Path, ...] = ()
    """Directories of decision logs, one for each gate; the gate's own when none is named."""
    stream: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""
    """Name of a stream in the ``store`` by which gates send their decisions to the watcher, beside
    writing them to the log. Gates and watcher name the same one. Empty: files alone."""
    stream_records: Annotated[int, Field(ge=1_000, le=100_000_000)] = 100_000
    """How many records the stream keeps, some more or less: what gates decide in several runs of
    the watcher. Each takes 1 to 3 KB of the store's memory."""
    retention_days: Annotated[int, Field(ge=LONGEST_WINDOW_DAYS + 1, le=366)] = 15
    """How long sightings are kept."""
    memory_mib: Annotated[int, Field(ge=256, le=1_048_576)] = 2_048
    """Bound of the SQL engine; what does not fit is spilled to disk."""


class TraitSettings(Part):
    """Keyed digests of what accounts can share; docs/traits.md says of what."""

    enabled: bool = True
    """Off: no call has traits, and no campaign is found by what calls share."""
    secret: SecretSource | None = None
    """Keys the evidence in calls; the same on all gates of one watcher. Absent: made from the
    gate's own ``secret``."""
    previous_secret: SecretSource | None = None
    """The one that ``secret`` replaces: traits are written by both while it is set. Remove it
    after ``overlap_days``."""
    epoch_days: Annotated[int, Field(ge=1, le=366)] = 30
    """How long evidence is keyed alike; what is older cannot be compared with what is new."""
    overlap_days: Annotated[int, Field(ge=LONGEST_WINDOW_DAYS + 1, le=183)] = 15
    """How long after the beginning of an epoch the one before is written as well; longer than the
    longest window of the watcher."""
    ja4_header: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")] | None = None
    """Header, in lower case, in which a trusted proxy tells the caller's JA4 fingerprint; believed
    from ``trusted_proxies`` alone."""

    @model_validator(mode="after")
    def _overlaps_once(self) -> Self:
        if self.overlap_days > self.epoch_days:
            raise ValueError("`overlap_days` must not be more than `epoch_days`.")
        return self
