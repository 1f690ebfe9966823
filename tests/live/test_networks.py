"""Network data under way: loaded off the loop, swapped whole, never worse than what there was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from support.changes import replace
from support.live import AT, NETWORK_SECRET, Judge, limited
from support.mmdb_files import write_mmdb

from gatekeeper.facts.network import NetworkData
from gatekeeper.live.files import Cause
from gatekeeper.live.networks import NetworkKeeper, network_files, network_folders, watch_networks
from gatekeeper.live.outcome import Outcome, What
from gatekeeper.live.rule_files import RuleFiles
from gatekeeper.policy.words import GateMode
from gatekeeper.settings import Feed, Geoip
from gatekeeper.telemetry import Metrics

if TYPE_CHECKING:
    from pathlib import Path

DAY_S = 86_400.0


def write_list(folder: Path, entries: int) -> Path:
    """Write a text list of so many addresses."""
    path = folder / "exits.txt"
    path.write_text("".join(f"198.51.{n // 256}.{n % 256}\n" for n in range(entries)))
    return path


class Kept:
    """A keeper with its gate, on a clock of its own."""

    def __init__(self, geoip: Geoip, at: float = AT) -> None:
        """Load what the settings name."""
        files = RuleFiles.parse({"rules.yaml": limited(1)})
        assert isinstance(files, RuleFiles)
        self.at = at
        watch = watch_networks(geoip)
        data = NetworkData.load(geoip, secret=NETWORK_SECRET, now_unix_s=at)
        self.gate = Judge(files.rules, data)
        self.metrics = Metrics()
        self.keeper = NetworkKeeper(
            self.gate,
            geoip,
            secret=NETWORK_SECRET,
            clock=lambda: self.at,
            metrics=self.metrics,
            watch=watch,
        )

    def count(self, outcome: Outcome) -> float:
        """Return how often a reload ended so."""
        return self.metrics.value("gatekeeper_reloads", What.NETWORKS, outcome)

    @property
    def entries(self) -> list[int]:
        """Sizes of the sources in force."""
        return [source.entries for source in self.gate.snapshot.network.sources]


async def test_a_changed_list_is_in_force_and_rules_and_mode_stay(tmp_path: Path) -> None:
    """Only the network data of the snapshot is another."""
    kept = Kept(Geoip(databases=(), networks=(write_list(tmp_path, 10),)))
    kept.gate.snapshot = replace(kept.gate.snapshot, mode=GateMode.OBSERVE)
    before = kept.gate.snapshot
    write_list(tmp_path, 12)
    await kept.keeper.watch.look(kept.keeper.reload)
    after = kept.gate.snapshot
    assert kept.entries == [12]
    assert (after.rules, after.mode) == (before.rules, GateMode.OBSERVE)
    assert kept.count(Outcome.APPLIED) == 1


async def test_the_same_again_keeps_the_data_and_its_cache(tmp_path: Path) -> None:
    """A touch is no change."""
    kept = Kept(Geoip(databases=(), networks=(write_list(tmp_path, 10),)))
    before = kept.gate.snapshot
    await kept.keeper.reload(Cause.ASKED)
    assert kept.gate.snapshot is before
    assert kept.count(Outcome.UNCHANGED) == 1


async def test_h37_a_collapse_is_refused_and_said_once(tmp_path: Path) -> None:
    """The last good list serves on, for as long as the bad one lies there."""
    kept = Kept(Geoip(databases=(), networks=(write_list(tmp_path, 900),)))
    write_list(tmp_path, 100)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            await kept.keeper.reload(Cause.CHANGED)
    assert kept.entries == [900]
    assert kept.count(Outcome.REFUSED) == 3
    assert [line["event"] for line in logs].count("network_data") == 1
    assert "900 to 100" in str(kept.keeper.last_refused)
    write_list(tmp_path, 950)
    await kept.keeper.reload(Cause.CHANGED)
    assert (kept.entries, kept.keeper.last_refused) == ([950], None)
    assert kept.gate.snapshot.network.problems == ()


async def test_h36_deleted_and_back(tmp_path: Path) -> None:
    """A file that is gone serves from memory and is told; it comes back by itself."""
    kept = Kept(Geoip(databases=(), networks=(write_list(tmp_path, 10),)))
    (tmp_path / "exits.txt").unlink()
    await kept.keeper.watch.look(kept.keeper.reload)
    assert kept.entries == [10]
    assert "cannot be read" in str(kept.keeper.last_refused)
    write_list(tmp_path, 11)
    await kept.keeper.watch.look(kept.keeper.reload)
    assert (kept.entries, kept.keeper.last_refused) == ([11], None)


async def test_data_that_grows_too_old_is_loaded_by_then(tmp_path: Path) -> None:
    """At ``stale_at`` the database answers unknown, and no reload follows another."""
    path = write_mmdb(tmp_path / "c.mmdb", "x-country", {"20.0.0.0/8": {"country_code": "DE"}})
    geoip = Geoip(databases=(path,), networks=(), max_age_days=30)
    built = NetworkData.load(geoip, secret=NETWORK_SECRET, now_unix_s=AT).sources[0].built_unix_s
    assert built is not None
    kept = Kept(geoip, built)
    assert not kept.keeper.due(built + 30 * DAY_S - 1)
    assert kept.keeper.due(built + 30 * DAY_S)
    assert not kept.keeper.due(built + 30 * DAY_S + 1)
    kept.at = built + 30 * DAY_S + 1
    await kept.keeper.reload(Cause.ASKED)
    assert kept.gate.snapshot.network.sources[0].stale
    assert not kept.keeper.due(built + 40 * DAY_S)


async def test_files_beside_a_list_are_watched(tmp_path: Path) -> None:
    """A YAML list may hold its prefixes in another file."""
    (tmp_path / "more").mkdir()
    write_list(tmp_path / "more", 3)
    path = tmp_path / "networks.yaml"
    path.write_text("lists:\n  - {description: D., kind: tor, file: more/exits.txt}\n...\n")
    kept = Kept(Geoip(databases=(), networks=(path,)))
    await kept.keeper.watch.look(kept.keeper.reload)  # now these files are known too
    write_list(tmp_path / "more", 5)
    await kept.keeper.watch.look(kept.keeper.reload)
    assert kept.entries == [5]


def test_what_is_watched(tmp_path: Path) -> None:
    """Files by name and the manifests beside them: a busy folder wakes nobody."""
    geoip = Geoip(databases=(tmp_path / "a" / "c.mmdb",), networks=(tmp_path / "n.yaml",))
    kept = Kept(geoip)
    assert network_folders(geoip) == {tmp_path, tmp_path / "a"}
    assert network_files(geoip, kept.gate.snapshot.network.parts) == {
        tmp_path / "a" / "c.mmdb",
        tmp_path / "a" / "manifest.json",
        tmp_path / "n.yaml",
        tmp_path / "manifest.json",
    }
    feed = Feed(id="f", url="https://example.com/f", format="prefixes")
    with_feeds = Geoip(databases=(), networks=(), feeds=(feed,), feeds_dir=tmp_path / "feeds")
    assert network_folders(with_feeds) == {tmp_path / "feeds"}
