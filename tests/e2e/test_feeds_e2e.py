"""A gate judges by what was fetched, and tells age, size and revision of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families
from support.gates import Clock

from gatekeeper.feeds.update import Updater
from gatekeeper.settings import Feed

if TYPE_CHECKING:
    from pathlib import Path

    from support.gates import Gates

    from gatekeeper.settings import Geoip

DENY_TOR = """\
signals:
  - {id: signal-tor, description: T., when: 'network.kind == "tor"', points: 100}
thresholds:
  - {id: threshold-deny, description: D., points: 100, then: deny}
"""


async def test_a_fetched_list_decides_and_is_measured(
    gates: Gates, small_geoip: Geoip, tmp_path: Path
) -> None:
    """From a file to a verdict: the caller on the list is seen as Tor; metrics show its source."""
    (tmp_path / "exits").write_text("8.8.8.8\n8.8.9.0/24\n")
    feed = Feed(id="tor-exits", file=tmp_path / "exits", format="prefixes", kind="tor")
    late = Feed(id="later", file=tmp_path / "none", format="prefixes")
    geoip = small_geoip.model_copy(update={"feeds": (feed, late), "feeds_dir": tmp_path / "feeds"})
    clock = Clock()
    (outcome, _) = await Updater(geoip, {}, lambda: clock.unix_s, lambda *_: None).update(
        geoip.feeds
    )
    assert outcome.file is not None
    gate = await gates(clock=clock, geoip=geoip)
    clock.advance(3_600)
    headers = gate.headers(x_forwarded_for="8.8.8.8")
    async with gate.http.post(
        "/v1/chat/completions",
        json={"model": "demo-small", "messages": [{"role": "user", "content": "Hi"}]},
        headers=headers,
    ) as answer:
        decision = await gate.decision(answer.headers["gatekeeper-decision"])
    network = decision["facts"]["network"]
    assert (network["kind"], network["listed_by"]) == ("tor", ["tor-exits"])

    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(await gate.metrics())
        for sample in family.samples
        if family.name.startswith("gatekeeper_network")
    }
    assert samples["gatekeeper_network_source_age_seconds", "tor-exits"] == 3_600
    assert samples["gatekeeper_network_source_entries", "tor-exits"] == 2
    assert samples["gatekeeper_network_source_info", outcome.file.revision, "tor-exits"] == 1
    assert samples["gatekeeper_network_source_entries", "country.mmdb"] > 0
    assert samples["gatekeeper_network_problems",] == 1, "the feed that was never fetched"
