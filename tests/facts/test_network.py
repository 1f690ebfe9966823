"""Network facts: sources asked together, each standing alone; keys that count callers."""

from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from support.lookups import status
from support.mmdb_files import MAXMIND, write_mmdb

from gatekeeper.facts.address import AddressSource, ClientAddress, canonical
from gatekeeper.facts.network import NetworkData
from gatekeeper.policy.model import NetworkFacts
from gatekeeper.policy.words import LookupStatus, NetworkKind
from gatekeeper.settings import Geoip

ROOT = Path(__file__).parents[2]
SECRET = b"0123456789abcdef"
HIT, MISS, UNKNOWN = LookupStatus.HIT, LookupStatus.MISS, LookupStatus.UNKNOWN


def load(*databases: Path, networks: tuple[Path, ...] = (), **more: float) -> NetworkData:
    """Load sources with the secret of this file."""
    geoip = Geoip(databases=databases, networks=networks, **more)  # type: ignore[arg-type]
    return NetworkData.load(geoip, secret=SECRET, now_unix_s=0.0)


@pytest.fixture(scope="module")
def shipped() -> NetworkData:
    """Load all that the project ships."""
    return load(
        *(ROOT / path for path in Geoip().databases),
        networks=tuple(ROOT / path for path in Geoip().networks),
    )


@pytest.mark.parametrize(
    ("address", "country", "registered"),
    [
        ("223.5.5.5", "CN", "CN"),
        ("175.45.176.1", "KP", "KP"),
        ("5.255.255.5", "RU", "RU"),
        ("2a02:6b8::1", "RU", "RU"),
        ("47.74.0.1", "JP", "US"),
    ],
)
def test_shipped_data_has_known_answers(
    shipped: NetworkData, address: str, country: str, registered: str
) -> None:
    """The world-wide data answers as it was checked by hand."""
    facts = shipped.observe(ip_address(address))
    assert (facts.country, facts.registered_country) == (country, registered)
    assert shipped.problems == ()


def test_shipped_data_knows_a_cloud_by_its_number(shipped: NetworkData) -> None:
    """Used in Japan, registered in the US, and yet Alibaba's: the AS number tells."""
    facts = shipped.observe(ip_address("47.74.0.1"))
    assert (facts.asn, facts.owner, facts.owner_country) == (45102, "alibaba", "CN")
    assert facts.listed_by == ("cloud-alibaba",)
    assert facts.kind is NetworkKind.HOSTING
    assert {view: status(facts, view) for view in ("country", "registration", "asn", "lists")} == {
        "country": HIT,
        "registration": HIT,
        "asn": HIT,
        "lists": HIT,
    }
    assert status(facts, "subdivision") is UNKNOWN


def test_an_ordinary_address_is_not_called_residential(shipped: NetworkData) -> None:
    """To be on no list proves nothing: the kind stays unknown, the look-up a miss."""
    facts = shipped.observe(ip_address("175.45.176.1"))
    assert facts.kind is NetworkKind.UNKNOWN
    assert facts.listed_by == ()
    assert status(facts, "kind") is MISS


def test_h15_one_failed_source_disables_no_other(tmp_path: Path) -> None:
    """Beside a missing, a broken and a raising database, the rest answer as ever."""
    broken = tmp_path / "broken.mmdb"
    broken.write_bytes(b"\0" * 100)
    only_v4 = write_mmdb(
        tmp_path / "4.mmdb", "country", {"1.0.0.0/8": {"country_code": "AU"}}, ip_version=4
    )
    asn = MAXMIND / "GeoLite2-ASN-Test.mmdb"
    data = load(tmp_path / "absent.mmdb", broken, only_v4, asn, networks=(tmp_path / "no.yaml",))
    assert [Path(problem.file).name for problem in data.problems] == [
        "absent.mmdb",
        "broken.mmdb",
        "no.yaml",
    ]
    facts = data.observe(ip_address("2600:6000::1"))
    assert status(facts, "country") is UNKNOWN
    assert facts.asn == 237
    assert status(facts, "asn") is HIT
    assert status(facts, "lists") is UNKNOWN
    assert {lookup.source for lookup in facts.lookups if lookup.status is UNKNOWN} == {
        "absent.mmdb",
        "broken.mmdb",
        "4.mmdb",
        "no.yaml",
    }


def test_h15_without_an_as_number_lists_are_unknown(tmp_path: Path) -> None:
    """A list by AS number could not be asked, unless the address itself is on it."""
    lists = tmp_path / "networks.yaml"
    lists.write_text(
        "lists:\n  - {id: a, description: b, kind: tor, asns: [{asn: 1221, name: T}],"
        " prefixes: [9.9.9.9]}\n...\n"
    )
    without = load(networks=(lists,))
    assert status(without.observe(ip_address("1.128.0.1")), "lists") is UNKNOWN
    assert without.observe(ip_address("9.9.9.9")).listed_by == ("a",)
    both = load(MAXMIND / "GeoLite2-ASN-Test.mmdb", networks=(lists,))
    assert both.observe(ip_address("1.128.0.1")).listed_by == ("a",)
    assert status(both.observe(ip_address("9.9.9.8")), "lists") is MISS


def test_the_first_source_with_an_answer_wins(tmp_path: Path) -> None:
    """Order in the settings decides between two answers; a miss lets the next one speak."""
    one = write_mmdb(tmp_path / "1.mmdb", "country", {"8.0.0.0/8": {"country_code": "US"}})
    two = write_mmdb(
        tmp_path / "2.mmdb",
        "country",
        {"8.0.0.0/8": {"country_code": "CN"}, "9.0.0.0/8": {"country_code": "FR"}},
    )
    assert load(one, two).observe(ip_address("8.8.8.8")).country == "US"
    assert load(two, one).observe(ip_address("8.8.8.8")).country == "CN"
    assert load(one, two).observe(ip_address("9.9.9.9")).country == "FR"


def test_the_riskiest_kind_wins(tmp_path: Path) -> None:
    """Over all sources, databases and lists, the riskiest claim counts, in any order."""
    mobile = write_mmdb(tmp_path / "m.mmdb", "x", {"8.0.0.0/8": {"is_mobile": True}})
    vpn = write_mmdb(tmp_path / "v.mmdb", "x", {"8.0.0.0/8": {"vpn": True}})
    lists = tmp_path / "networks.yaml"
    lists.write_text("lists:\n  - {id: t, description: b, kind: relay, prefixes: [8.8.8.8]}\n...\n")
    for databases in ((mobile, vpn), (vpn, mobile)):
        data = load(*databases, networks=(lists,))
        assert data.observe(ip_address("8.8.8.8")).kind is NetworkKind.VPN
    assert load(mobile, networks=(lists,)).observe(ip_address("8.8.8.8")).kind is NetworkKind.RELAY


def test_an_old_database_is_told_and_not_believed(tmp_path: Path) -> None:
    """Staleness is a problem in words, unknown in facts, and its moment is known beforehand."""
    path = write_mmdb(tmp_path / "c.mmdb", "country", {"8.0.0.0/8": {"country_code": "US"}})
    fresh = load(path, max_age_days=30)
    (source,) = fresh.sources
    assert source.built_unix_s is not None
    assert fresh.stale_at == source.built_unix_s + 30 * 86_400
    old = NetworkData.load(
        Geoip(databases=(path,), networks=(), max_age_days=30),
        secret=SECRET,
        now_unix_s=fresh.stale_at + 1,
    )
    assert "older than 30 days" in old.problems[0].message
    assert status(old.observe(ip_address("8.8.8.8")), "country") is UNKNOWN
    assert old.stale_at is None


@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1", "::1", "fd00::1", "100.64.0.1"])
def test_private_addresses_are_their_own_kind(shipped: NetworkData, address: str) -> None:
    """Nothing is looked up for an address that is nobody's on the internet."""
    facts = shipped.observe(ip_address(address))
    assert facts.kind is NetworkKind.PRIVATE
    assert facts.lookups == ()
    assert status(facts, "country") is UNKNOWN


@pytest.mark.parametrize("address", ["2002:a00:1::1", "2001::1", "64:ff9b::a00:1"])
def test_h14_what_cannot_be_located_is_unknown_and_not_private(
    shipped: NetworkData, address: str
) -> None:
    """Tunnels and translators give no location, and never pass for private."""
    facts = shipped.observe(ip_address(address))
    assert facts.kind is NetworkKind.UNKNOWN
    assert {lookup.status for lookup in facts.lookups} == {UNKNOWN}


def test_h13_a_client_that_no_proxy_named_has_no_location(shipped: NetworkData) -> None:
    """The proxy's own address counts the calls; it does not make them private."""
    proxy = ip_address("10.0.0.1")
    facts = shipped.observe_client(ClientAddress(proxy, AddressSource.UNKNOWN))
    assert facts.kind is NetworkKind.UNKNOWN
    assert status(facts, "country") is UNKNOWN
    assert facts.address_key == shipped.observe(proxy).address_key
    named = ClientAddress(ip_address("8.8.8.8"), AddressSource.FORWARDED)
    assert shipped.observe_client(named) == shipped.observe(ip_address("8.8.8.8"))


def test_h14_a_64_is_one_key_and_memory_is_bounded() -> None:
    """Ten thousand addresses of one /64 are one bucket, and the cache has its limit."""
    data = load()
    start = int(IPv6Address("2a02:1:2:3::"))
    keys = {data.observe(IPv6Address(start + at)).address_key for at in range(10_000)}
    assert len(keys) == 1
    assert data.observe(ip_address("2a02:1:2:4::")).address_key not in keys
    assert data.remembered.cache_info().maxsize == 65_536


@given(st.integers(0, 2**112 - 1), st.integers(0, 2**96 - 1))
def test_h14_choosing_a_tunnel_address_gains_no_bucket(six: int, teredo: int) -> None:
    """All of 6to4 is one key and all of Teredo another, whatever they carry inside."""
    data = load()
    for first, chosen in (("2002::", six), ("2001::", teredo)):
        base = ip_address(first)
        other = IPv6Address(int(base) + chosen)
        assert data.observe(other).address_key == data.observe(base).address_key
        assert data.observe(other).prefix_key == data.observe(base).prefix_key


def test_keys_follow_address_prefix_and_secret() -> None:
    """Keys tell apart what limits count apart, and change with the secret."""
    data = load()
    one, two = data.observe(ip_address("8.8.8.8")), data.observe(ip_address("8.8.8.9"))
    far = data.observe(ip_address("8.8.9.8"))
    assert one.address_key != two.address_key
    assert one.prefix_key == two.prefix_key != far.prefix_key
    assert one.prefix == "8.8.8.0/24"
    assert data.observe(ip_address("2a02:1:2:3::4")).prefix == "2a02:1:2::/48"
    other = NetworkData((), (), secret=b"another").observe(ip_address("8.8.8.8"))
    assert other.address_key != one.address_key
    with pytest.raises(ValueError, match="empty secret"):
        NetworkData((), (), secret=b"")


def test_facts_never_hold_the_full_address(shipped: NetworkData) -> None:
    """No field of the facts gives the address away."""
    for text in ("47.74.123.231", "2a02:6b8:1:2:3:4:5:6"):
        facts = shipped.observe(ip_address(text))
        shown = " ".join(str(getattr(facts, field.name)) for field in structs.fields(NetworkFacts))
        assert text not in shown
        assert ip_address(text) != ip_network(facts.prefix).network_address


@given(st.integers(0, 2**32 - 1) | st.integers(0, 2**128 - 1))
def test_every_address_has_facts(shipped: NetworkData, number: int) -> None:
    """Any address at all is observed without raising, the same each time."""
    address = canonical(ip_address(number))
    facts = shipped.observe(address)
    assert facts == shipped._look_up(address)
    assert facts.revision == shipped.revision


def test_the_revision_follows_the_content(tmp_path: Path) -> None:
    """Other data is another revision; the same data the same."""
    rows = {"8.0.0.0/8": {"country_code": "US"}}
    path = write_mmdb(tmp_path / "c.mmdb", "country", rows)
    assert load(path).revision == load(path).revision
    assert load(path).revision != load().revision
