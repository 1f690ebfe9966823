"""A gate without listeners, for tests of what changes under way, and records that can be broken."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from support.gates import rules_text

from gatekeeper.facts.network import NetworkData
from gatekeeper.live.rule_files import RuleFiles, watch_rules
from gatekeeper.live.rules import RuleKeeper
from gatekeeper.policy.words import GateMode
from gatekeeper.settings import Geoip
from gatekeeper.snapshot import Snapshot
from gatekeeper.storage.rule_history import RuleHistory
from gatekeeper.telemetry import Metrics

if TYPE_CHECKING:
    from pathlib import Path

    from gatekeeper.policy.ruleset import RuleSet
    from gatekeeper.storage.database import Database

AT = 1_790_000_000.0
NETWORK_SECRET = b"0123456789abcdef"


class Judge:
    """Something with a snapshot; keeps every one that it ever had."""

    def __init__(self, rules: RuleSet, network: NetworkData | None = None) -> None:
        """Start with rules, and with network data or none."""
        empty = Geoip(databases=(), networks=())
        if network is None:
            network = NetworkData.load(empty, secret=NETWORK_SECRET, now_unix_s=AT)
        self.seen: list[Snapshot] = []
        self.snapshot = Snapshot.of(rules, network, GateMode.ENFORCE)

    @property
    def snapshot(self) -> Snapshot:
        """What is in force."""
        return self.seen[-1]

    @snapshot.setter
    def snapshot(self, new: Snapshot) -> None:
        self.seen.append(new)

    @property
    def revisions(self) -> list[str]:
        """Revisions of the rules that were ever in force, in order, each once in a row."""
        every = [snapshot.rules.revision for snapshot in self.seen]
        return [new for old, new in zip([None, *every], every, strict=False) if new != old]


def limited(per_hour: int, country: str = "CU") -> str:
    """Return rules that differ by a limit and by whom they embargo."""
    limit = "unit: requests, per: [account]"
    section = f"limits:\n  - {{id: l, description: d, {limit}, rate: {per_hour}/hour}}\n"
    return rules_text(section).replace("countries: [CU]", f"countries: [{country}]")


def revision_of(text: str) -> str:
    """Return the revision of one file of rules."""
    files = RuleFiles.parse({"rules.yaml": text})
    assert isinstance(files, RuleFiles), files
    return files.rules.revision


def write_rules(directory: Path, text: str, name: str = "rules.yaml") -> None:
    """Replace a rule file as a careful program does."""
    directory.mkdir(exist_ok=True)
    aside = directory / f".{name}.new"
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, directory / name)  # noqa: PTH105 - the system call that is meant


async def keeper_of(
    directory: Path, database: Database, *, name: str = "a", metrics: Metrics | None = None
) -> tuple[RuleKeeper, Judge]:
    """Return a keeper that has started, and what it keeps."""
    files = await asyncio.to_thread(RuleFiles.read, directory)
    assert isinstance(files, RuleFiles), files
    gate = Judge(files.rules)
    keeper = RuleKeeper(
        gate,
        RuleHistory(database),
        directory,
        files,
        archive_dir=directory.parent / f"revisions-{name}",
        name=name,
        clock=lambda: AT,
        metrics=metrics or Metrics(),
        watch=watch_rules(directory),
    )
    await keeper.start()
    return keeper, gate
