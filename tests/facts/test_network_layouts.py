"""Layouts: what each vendor's records answer, and that no record answers with a wrong type."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.facts.network_layouts import RISK, UNREADABLE, layout_of
from gatekeeper.policy.countries import COUNTRIES
from gatekeeper.policy.words import NetworkKind

LITE = {"country": "Japan", "country_code": "JP", "asn": "AS2519", "as_name": "ARTERIA"}
CORE = LITE | {
    "region": "Tokyo",
    "region_code": "13",
    "as_type": "isp",
    "is_anonymous": False,
    "is_hosting": False,
    "is_mobile": True,
}
IP2PROXY = {
    "proxy_type": "RES",
    "country_code": "US",
    "region_name": "Ohio",
    "usage_type": "ISP/MOB",
    "asn": "13335",
    "as": "CLOUDFLARENET",
}


def answers(database_type: str, record: dict[str, Any]) -> dict[str, Any]:
    """Return what a record says when it is the only one of a database of that type."""
    return {view: read(record) for view, read in layout_of(database_type, [record]).items()}


@pytest.mark.parametrize(
    ("database_type", "record", "expected"),
    [
        ("ipinfo bundle_location_lite.mmdb", LITE, {"country": "JP", "asn": (2519, "ARTERIA")}),
        (
            "ipinfo bundle_location_core.mmdb",
            CORE,
            {
                "country": "JP",
                "subdivision": "JP-13",
                "asn": (2519, "ARTERIA"),
                "kind": NetworkKind.MOBILE,
            },
        ),
        (
            "ipinfo generic_country_free_country_asn.mmdb",
            {"country": "UA", "country_name": "Ukraine", "asn": "", "as_name": ""},
            {"country": "UA", "asn": None},
        ),
        (
            "ipinfo extended_location_v2.mmdb",
            {"country": "AU", "region": "NSW", "region_name": "New South Wales"},
            {"country": "AU", "subdivision": "AU-NSW"},
        ),
        (
            "ipinfo standard_location_mmdb.mmdb",
            {"country": "UA", "region": "Crimea", "region_code": "43"},
            {"country": "UA", "subdivision": "UA-43"},
        ),
        (
            "ipinfo generic_asn_mmdb_v4.mmdb",
            {"asn": "AS9318", "name": "SK Broadband", "type": "isp", "country": "KR"},
            {"asn": (9318, "SK Broadband"), "kind": None},
        ),
        (
            "ipinfo standard_company.mmdb",
            {"asn": "AS13335", "as_name": "Cloudflare", "type": "hosting", "country": "AU"},
            {"asn": (13335, "Cloudflare"), "kind": NetworkKind.HOSTING},
        ),
        (
            "ipinfo standard_privacy.mmdb",
            {"hosting": "true", "proxy": "", "relay": "true", "service": "", "tor": "", "vpn": ""},
            {"kind": NetworkKind.RELAY},
        ),
        (
            "ipinfo standard_privacy_new.mmdb",
            {"hosting": True, "proxy": False, "relay": False, "tor": False, "vpn": True},
            {"kind": NetworkKind.VPN},
        ),
        (
            "ipinfo generic_privacy_proxy_residential_30d.mmdb",
            {"service": "x", "last_seen": "2026-07-12", "percent_days_seen": 3},
            {"kind": NetworkKind.RESIDENTIAL_PROXY},
        ),
        (
            "ipinfo standard_carrier_new.mmdb",
            {"country": "JP", "mcc": "440", "mnc": "20", "name": "SoftBank"},
            {"kind": NetworkKind.MOBILE},
        ),
        ("ipinfo generic_whois_rir.mmdb", {"country": "AU", "asn": "AS1"}, {}),
        (
            "IP2Proxy-PX12",
            IP2PROXY,
            {
                "country": "US",
                "asn": (13335, "CLOUDFLARENET"),
                "kind": NetworkKind.RESIDENTIAL_PROXY,
            },
        ),
        ("IP2PROXY", {"proxy_type": "-", "usage_type": "DCH"}, {"kind": NetworkKind.HOSTING}),
        ("country ipvAll", {"country_code": "CN"}, {"country": "CN"}),
        ("gatekeeper-registration", {"country_code": "US"}, {"registration": "US"}),
        (
            "DBIP-Country-Lite",
            {"country": {"iso_code": "FR"}, "continent": {"code": "EU"}},
            {"country": "FR"},
        ),
        (
            "DBIP-ASN-Lite (compat=GeoLite2-ASN)",
            {"autonomous_system_number": 1, "autonomous_system_organization": "x"},
            {"asn": (1, "x")},
        ),
        (
            "GeoIP2-IP-Risk",
            {"ip_risk": 75.0, "is_anonymous": True, "is_anonymous_vpn": True},
            {"kind": NetworkKind.VPN},
        ),
        (
            "GeoIP2-Anonymous-IP",
            {"is_anonymous": True, "is_hosting_provider": True},
            {"kind": NetworkKind.HOSTING},
        ),
        ("GeoIP2-Anonymous-IP", {"is_anonymous": True}, {"kind": NetworkKind.VPN}),
        ("a weather database", {"temperature": 20}, {}),
    ],
)
def test_reads_each_layout(
    database_type: str, record: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Each vendor's record fills the views it can, and no other."""
    assert answers(database_type, record) == expected


@pytest.mark.parametrize("code", ["", "-", "ZZ", "EU", "A1", None])
def test_placeholders_are_no_answer(code: str | None) -> None:
    """What stands for nothing in a country column is a miss, not a country."""
    read = layout_of("gatekeeper-registration", [])["registration"]
    assert read({"country_code": code}) is None


@pytest.mark.parametrize(
    ("view", "record"),
    [
        ("country", {"country_code": "cn"}),
        ("country", {"country_code": 7}),
        ("country", {"country_code": ["CN"]}),
        ("country", {"country_code": "QQ"}),
        ("asn", {"asn": "AS"}),
        ("asn", {"asn": True}),
        ("asn", {"asn": 2**32}),
        ("asn", {"asn": -1}),
        ("asn", {"asn": [1]}),
        ("kind", {"is_tor": "perhaps"}),
        ("kind", {"is_vpn": {}}),
        ("kind", {"proxy_type": 3}),
        ("subdivision", {"country_code": "US", "region_code": "ohio!"}),
        ("subdivision", {"country_code": "US", "region_code": 3}),
    ],
)
def test_h16_wrong_types_are_unreadable(view: str, record: dict[str, Any]) -> None:
    """A field of the wrong type is no answer and no miss: it cannot be trusted."""
    layout = layout_of("IP2Proxy", [LITE | CORE | IP2PROXY])
    assert layout[view](record) is UNREADABLE  # type: ignore[index]


@pytest.mark.parametrize(
    ("view", "record"),
    [
        ("country", {"country": "GB"}),
        ("country", {"country": {"iso_code": 1}}),
        ("registration", {"registered_country": []}),
        ("subdivision", {"country": {"iso_code": "GB"}, "subdivisions": {}}),
        ("subdivision", {"country": {"iso_code": "GB"}, "subdivisions": ["ENG"]}),
        ("asn", {"traits": "x"}),
    ],
)
def test_h16_nested_wrong_types_are_unreadable(view: str, record: dict[str, Any]) -> None:
    """The same holds inside MaxMind's nested records."""
    assert layout_of("GeoIP2-Enterprise", [])[view](record) is UNREADABLE  # type: ignore[index]


def test_a_readable_claim_beats_an_unreadable_one() -> None:
    """One broken flag does not hide that another says Tor."""
    assert answers("x", {"is_vpn": "?", "is_tor": True})["kind"] is NetworkKind.TOR


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.binary()
values = leaves | st.lists(leaves, max_size=2) | st.sampled_from(["US", "AS1", "true", {}, [{}]])
KEYS = (  # those that layouts look at
    "country", "country_code", "registered_country", "iso_code", "subdivisions", "traits", "asn",
    "is_tor", "is_anonymous", "proxy_type", "type", "region", "region_code", "region_name",
    "autonomous_system_number", "as_name", "vpn",
)  # fmt: skip
keyed = st.dictionaries(st.sampled_from(KEYS), values)
records = st.dictionaries(st.sampled_from(KEYS), values | keyed)


@given(
    st.sampled_from(["GeoIP2-Enterprise", "GeoLite2-City", "ipinfo location", "IP2Proxy", "x"]),
    records,
    records,
)
def test_h16_no_record_raises_or_answers_wrongly(
    database_type: str, sampled: dict[str, Any], record: dict[str, Any]
) -> None:
    """Whatever a record holds, each view answers in its own type or not at all."""
    for view, read in layout_of(database_type, [sampled]).items():
        answer = read(record)
        if answer is None or answer is UNREADABLE:
            continue
        if view in {"country", "registration"}:
            assert answer in COUNTRIES
        elif view == "subdivision":
            assert isinstance(answer, str)
            assert answer[:2] in COUNTRIES
        elif view == "asn":
            assert isinstance(answer, tuple)
            assert 0 < answer[0] < 2**32
        else:
            assert answer in RISK
