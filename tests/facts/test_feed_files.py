"""What a gate makes of fetched feeds: kinds, owners, age, and each failure on its own."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from support.lookups import status
from support.mmdb_files import MAXMIND

from gatekeeper.facts.feed_files import read_entries
from gatekeeper.facts.network import NetworkData
from gatekeeper.feeds.update import Updater
from gatekeeper.policy.words import LookupStatus, NetworkKind
from gatekeeper.settings import Feed, Geoip

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_795_000_000.0
DAY_S = 86_400.0


def fetched(folder: Path, **feeds: dict[str, Any]) -> Geoip:
    """Return settings whose feeds were fetched at ``NOW``; each names its content."""
    made = []
    for name, options in feeds.items():
        content = options.pop("content")
        (folder / name).write_bytes(content)
        made.append(Feed(**{"id": name, "file": folder / name, "format": "prefixes"} | options))
    geoip = Geoip(databases=(), networks=(), feeds=tuple(made), feeds_dir=folder / "feeds")
    updater = Updater(geoip, {}, lambda: NOW, lambda *_: None)
    outcomes = asyncio.run(updater.update(geoip.feeds))
    assert all(each.good for each in outcomes), outcomes
    return geoip


def loaded(geoip: Geoip, at: float = NOW) -> NetworkData:
    """Load as a gate does."""
    return NetworkData.load(geoip, secret=b"0123456789abcdef", now_unix_s=at)


def test_lists_give_kind_owner_and_name(tmp_path: Path) -> None:
    """What the settings say of a feed is a fact of each of its networks, by prefix and AS."""
    geoip = fetched(
        tmp_path,
        exits={"content": b"8.8.8.8\n2600::/32\n", "kind": "tor"},
        clouds={
            "content": b"AS1221 # T\n",
            "format": "asns",
            "kind": "hosting",
            "owner": "telstra",
            "owner_country": "AU",
        },
        wide={"content": b"8.8.0.0/16\n"},
    )
    asn = MAXMIND / "GeoLite2-ASN-Test.mmdb"
    data = loaded(geoip.model_copy(update={"databases": (asn,)}))
    assert data.problems == ()
    facts = data.observe(ip_address("8.8.8.8"))
    assert (facts.kind, facts.listed_by) == (NetworkKind.TOR, ("exits", "wide"))
    assert data.observe(ip_address("2600::1")).listed_by == ("exits",)
    cloud = data.observe(ip_address("1.128.0.1"))
    assert (cloud.owner, cloud.owner_country, cloud.kind) == (
        "telstra",
        "AU",
        NetworkKind.HOSTING,
    )
    assert data.owners == {"telstra"}
    assert data.observe(ip_address("9.9.9.9")).listed_by == ()
    assert status(data.observe(ip_address("9.9.9.9")), "lists") is LookupStatus.MISS
    assert status(data.observe(ip_address("1.128.0.2")), "lists") is LookupStatus.HIT


def test_twenty_lists_cost_a_call_one_look_up(tmp_path: Path) -> None:
    """All are one source in facts and records, and each its own in metrics."""
    geoip = fetched(tmp_path, **{f"l{n}": {"content": b"8.8.8.8\n"} for n in range(20)})
    data = loaded(geoip)
    facts = data.observe(ip_address("8.8.8.8"))
    assert [(lookup.view, lookup.source) for lookup in facts.lookups] == [
        ("lists", "feeds"),
        ("kind", "feeds"),
    ]
    assert len(facts.listed_by) == len(data.sources) == 20


@pytest.mark.parametrize(("age_days", "used"), [(2, True), (4, False)])
def test_a_list_beyond_its_age_answers_unknown(tmp_path: Path, age_days: float, used: bool) -> None:
    """It is told, with what to run; another list is not touched."""
    geoip = fetched(
        tmp_path,
        exits={"content": b"8.8.8.8\n", "max_age_days": 3},
        other={"content": b"8.8.8.9\n"},
    )
    data = loaded(geoip, NOW + age_days * DAY_S)
    facts = data.observe(ip_address("8.8.8.8"))
    assert data.observe(ip_address("8.8.8.9")).listed_by == ("other",)
    if used:
        assert (facts.listed_by, data.problems) == (("exits",), ())
        assert data.stale_at == NOW + 3 * DAY_S
        return
    assert facts.listed_by == ()
    assert LookupStatus.UNKNOWN in {
        lookup.status for lookup in facts.lookups if lookup.source == "exits"
    }
    (problem,) = data.problems
    assert "gatekeeper lists update" in problem.message


@pytest.mark.parametrize("owner", [None, "somebody"])
def test_only_a_lost_list_with_an_owner_makes_owners_uncertain(
    tmp_path: Path, owner: str | None
) -> None:
    """An embargo by owner does not refuse everybody because a list of Tor exits is too old."""
    asn = MAXMIND / "GeoLite2-ASN-Test.mmdb"
    lost = Feed(id="x", url="https://lists.example/x", format="prefixes", owner=owner)
    geoip = Geoip(databases=(asn,), networks=(), feeds=(lost,), feeds_dir=tmp_path)
    networks = tmp_path / "networks.yaml"
    networks.write_text("lists: [{id: a, description: b, prefixes: [9.9.9.9]}]\n...\n")
    data = loaded(geoip.model_copy(update={"networks": (networks,)}))
    facts = data.observe(ip_address("1.128.0.1"))
    assert facts.uncertain("kind")
    assert facts.uncertain("lists") is (owner is not None)
    assert (data.owners is None) is (owner is not None)


def test_a_database_has_an_age_of_its_own_or_that_of_all(tmp_path: Path) -> None:
    """The feed's limit comes before the limit of all databases; beyond it nothing is believed."""
    content = (MAXMIND / "GeoIP2-City-Test.mmdb").read_bytes()
    (tmp_path / "feeds").mkdir()
    geoip = fetched(tmp_path, city={"content": content, "format": "mmdb"})
    built = loaded(geoip).sources[0].built_unix_s
    assert built is not None
    at = built + 100 * DAY_S
    (feed,) = geoip.feeds

    def problems(all_days: float | None, own_days: float | None) -> int:
        changed = feed.model_copy(update={"max_age_days": own_days})
        both = {"feeds": (changed,), "max_age_days": all_days}
        return len(loaded(geoip.model_copy(update=both), at).problems)

    assert [problems(*each) for each in ((None, None), (90, None), (90, 120), (None, 90))] == [
        *(0, 1, 0, 1)
    ]
    stale = loaded(geoip.model_copy(update={"max_age_days": 90.0}), at)
    assert stale.sources[0].stale
    assert stale.observe(ip_address("81.2.69.160")).country is None


def test_a_feed_never_fetched_is_a_problem(tmp_path: Path) -> None:
    """Its views are unknown, not a silent miss; the command is named."""
    feeds = (
        Feed(id="exits", url="https://lists.example/exits", format="prefixes"),
        Feed(id="city", url="https://lists.example/city", format="mmdb"),
    )
    geoip = Geoip(databases=(), networks=(), feeds=feeds, feeds_dir=tmp_path / "none")
    data = loaded(geoip)
    assert [problem.file for problem in data.problems] == ["exits", "city"]
    assert "gatekeeper lists update" in data.problems[0].message
    assert "gatekeeper geoip update" in data.problems[1].message
    facts = data.observe(ip_address("8.8.8.8"))
    assert {(each.source, each.view) for each in facts.lookups} >= {
        ("exits", "kind"),
        ("city", "country"),
    }
    assert {each.status for each in facts.lookups} == {LookupStatus.UNKNOWN}


def test_a_feed_that_became_a_database_was_never_fetched(tmp_path: Path) -> None:
    """A list is not opened as a database because it has its id."""
    geoip = fetched(tmp_path, exits={"content": b"8.8.8.8\n"})
    (feed,) = geoip.feeds
    changed = feed.model_copy(update={"format": "mmdb"})
    (problem,) = loaded(geoip.model_copy(update={"feeds": (changed,)})).problems
    assert "never fetched" in problem.message


def test_without_feeds_their_directory_is_nobodys_business(tmp_path: Path) -> None:
    """A manifest that is damaged means nothing to who has no feeds."""
    (tmp_path / "manifest.json").write_text("{")
    geoip = Geoip(databases=(), networks=(), feeds_dir=tmp_path)
    assert loaded(geoip).problems == ()


@pytest.mark.parametrize("mode", ["missing", "unreadable"])
def test_h16_a_file_or_manifest_that_is_gone_is_told(tmp_path: Path, mode: str) -> None:
    """A directory in a file's place is as unreadable as a missing file."""
    geoip = fetched(
        tmp_path,
        exits={"content": b"8.8.8.8\n"},
        city={
            "content": (MAXMIND / "GeoIP2-City-Test.mmdb").read_bytes(),
            "format": "mmdb",
        },
    )
    for path in (*geoip.feeds_dir.glob("*.txt"), *geoip.feeds_dir.glob("*.mmdb")):
        path.unlink()
        if mode == "unreadable":
            path.mkdir()
    problems = loaded(geoip).problems
    assert len(problems) == 2
    assert all("cannot be read" in problem.message for problem in problems)
    (geoip.feeds_dir / "manifest.json").unlink()
    (geoip.feeds_dir / "manifest.json").mkdir()
    assert "manifest cannot be read" in loaded(geoip).problems[0].message


@pytest.mark.parametrize(
    "text", ["1.2.3", "1.2.3/24", "1.2.3.4/33", "1.2.3.4/0", "::/129", "ASx", "x/8", "1.2.3.4/x"]
)
def test_what_no_update_wrote_is_refused(text: str) -> None:
    """The quick reader is strict: a line is a prefix or an AS number."""
    with pytest.raises(ValueError, match=r".+"):
        read_entries(text.encode())


def test_entries_are_read_as_they_stand() -> None:
    """Both families and AS numbers, comments skipped."""
    asns, prefixes = read_entries(b"# x\nAS5\n1.2.3.0/24\n\n2600::/32\n")
    assert asns == [5]
    assert prefixes == {(4, 8): [0x010203], (6, 96): [0x2600 << 16]}
