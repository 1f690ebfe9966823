"""Database layouts, read as vendors ship them: from a record to the views it answers.

Which layout a file has is told by its ``database_type`` and by the shape of its records:
MaxMind GeoIP2 and GeoLite2 (nested countries; flat ASN, ISP, Anonymous IP, Anonymous Plus,
Residential Proxy, Connection Type), IPinfo, IP2Proxy, DB-IP and ip-location-db (flat).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

from gatekeeper.policy.countries import COUNTRIES
from gatekeeper.policy.words import NetworkKind

NetworkView: TypeAlias = Literal["country", "registration", "subdivision", "asn", "kind"]
Record: TypeAlias = Mapping[str, Any]


class Unreadable(Enum):
    """The answer of a record whose field has the wrong type or an impossible value."""

    UNREADABLE = "unreadable"


UNREADABLE: Final = Unreadable.UNREADABLE
Answer: TypeAlias = "str | tuple[int, str | None] | NetworkKind | Unreadable | None"
"""``None`` when the record says nothing; ``asn`` answers number and organisation."""
Layout: TypeAlias = Mapping[NetworkView, Callable[[Record], Answer]]

REGISTRATION_TYPE: Final = "gatekeeper-registration"
"""``database_type`` of files whose flat ``country_code`` is where the block is registered."""

RISK: Final = {
    kind: rank
    for rank, kind in enumerate(
        (
            NetworkKind.TOR,
            NetworkKind.RESIDENTIAL_PROXY,
            NetworkKind.VPN,
            NetworkKind.RELAY,
            NetworkKind.HOSTING,
            NetworkKind.MOBILE,
            NetworkKind.RESIDENTIAL,
        )
    )
}
"""Kinds a source may claim, riskiest first: over all sources the riskiest counts."""

_NO_ANSWER: Final = frozenset({"", "-", "ZZ", "XX", "EU", "AP", "A1", "A2", "O1"})
_SUBDIVISION: Final = re.compile(r"[A-Z0-9]{1,3}", re.ASCII)
_ASN: Final = re.compile(r"(?:AS)?([0-9]{1,10})", re.ASCII | re.IGNORECASE)
_MAX_ASN: Final = 2**32 - 1
_MAX_NAME: Final = 200

_FLAGS: Final = {
    "is_tor_exit_node": NetworkKind.TOR,
    "is_tor": NetworkKind.TOR,
    "tor": NetworkKind.TOR,
    "is_residential_proxy": NetworkKind.RESIDENTIAL_PROXY,
    "is_res_proxy": NetworkKind.RESIDENTIAL_PROXY,
    "is_anonymous_vpn": NetworkKind.VPN,
    "is_vpn": NetworkKind.VPN,
    "vpn": NetworkKind.VPN,
    # A public proxy hides its user as a VPN does, and there is no kind of its own for it.
    "is_public_proxy": NetworkKind.VPN,
    "is_anonymous_proxy": NetworkKind.VPN,
    "is_proxy": NetworkKind.VPN,
    "proxy": NetworkKind.VPN,
    "is_relay": NetworkKind.RELAY,
    "relay": NetworkKind.RELAY,
    "is_hosting_provider": NetworkKind.HOSTING,
    "is_hosting": NetworkKind.HOSTING,
    "hosting": NetworkKind.HOSTING,
    "is_mobile": NetworkKind.MOBILE,
    "mobile": NetworkKind.MOBILE,
}
_WORDS: Final[dict[str, dict[str, NetworkKind]]] = {
    "proxy_type": {  # IP2Proxy
        "VPN": NetworkKind.VPN,
        "TOR": NetworkKind.TOR,
        "DCH": NetworkKind.HOSTING,
        "PUB": NetworkKind.VPN,
        "WEB": NetworkKind.VPN,
        "SES": NetworkKind.HOSTING,
        "RES": NetworkKind.RESIDENTIAL_PROXY,
        "CPN": NetworkKind.RELAY,
        "EPN": NetworkKind.RELAY,
    },
    "usage_type": {
        "DCH": NetworkKind.HOSTING,
        "CDN": NetworkKind.HOSTING,
        "SES": NetworkKind.HOSTING,
        "MOB": NetworkKind.MOBILE,
    },
    "user_type": {  # MaxMind
        "hosting": NetworkKind.HOSTING,
        "content_delivery_network": NetworkKind.HOSTING,
        "search_engine_spider": NetworkKind.HOSTING,
        "consumer_privacy_network": NetworkKind.RELAY,
        "cellular": NetworkKind.MOBILE,
        "residential": NetworkKind.RESIDENTIAL,
    },
    # "Cable/DSL" is a kind of line, not of customer: it proves no residence.
    "connection_type": {"Cellular": NetworkKind.MOBILE},
    "as_type": {"hosting": NetworkKind.HOSTING},  # IPinfo
    "type": {"hosting": NetworkKind.HOSTING},
}
_YES_NO: Final[dict[object, bool]] = {
    **dict.fromkeys((True, "true", "1"), True),
    **dict.fromkeys((False, None, "", "false", "0", "-"), False),
}


def layout_of(database_type: str, sample: Sequence[Record]) -> Layout:
    """Return how to read a database, from its type and some of its records; empty: not at all."""
    if database_type == REGISTRATION_TYPE:
        return {"registration": _flat_country}
    if database_type.startswith("ipinfo "):
        return _ipinfo_layout(database_type, sample)
    if "Residential-Proxy" in database_type:
        return {"kind": _listed_as(NetworkKind.RESIDENTIAL_PROXY)}
    maxmind = database_type.startswith(("GeoIP", "GeoLite", "DBIP"))
    nested = any(isinstance(record.get("country"), dict) for record in sample)
    if nested or (maxmind and re.search("City|Country|Enterprise|Insights", database_type)):
        return _nested_layout(database_type, sample, is_maxmind="DBIP" not in database_type)
    return _flat_layout(database_type, sample)


def _nested_layout(database_type: str, sample: Sequence[Record], *, is_maxmind: bool) -> Layout:
    keys = {key for record in sample for key in record}
    traits = {
        key
        for record in sample
        if isinstance(record.get("traits"), dict)
        for key in record["traits"]
    }
    rich = is_maxmind and re.search("Enterprise|Insights", database_type)
    layout: dict[NetworkView, Callable[[Record], Answer]] = {"country": _in("country", _iso)}
    if is_maxmind or "registered_country" in keys:
        layout["registration"] = _in("registered_country", _iso)
    if (is_maxmind and re.search("City|Enterprise|Insights", database_type)) or any(
        _nested_subdivision(record) is not None for record in sample
    ):
        layout["subdivision"] = _nested_subdivision
    if rich or "autonomous_system_number" in traits:
        layout["asn"] = _in("traits", _asn)
    if rich or traits & (_FLAGS.keys() | _WORDS.keys()):
        layout["kind"] = _in("traits", _kind)
    return layout


def _flat_layout(database_type: str, sample: Sequence[Record]) -> Layout:
    keys = {key for record in sample for key in record}
    layout: dict[NetworkView, Callable[[Record], Answer]] = {}
    if "country_code" in keys or any(_looks_like_code(record.get("country")) for record in sample):
        layout["country"] = _flat_country
        if "region_code" in keys or {"region", "region_name"} <= keys:
            layout["subdivision"] = _flat_subdivision
    if keys & {"autonomous_system_number", "asn"} or re.search("-(ASN|ISP)", database_type):
        layout["asn"] = _asn
    if keys & (_FLAGS.keys() | (_WORDS.keys() - {"type"})) or re.search(
        "Anonymous|IP-Risk|Connection-Type|IP2Proxy", database_type, re.IGNORECASE
    ):
        layout["kind"] = _kind
    return layout


def _ipinfo_layout(database_type: str, sample: Sequence[Record]) -> Layout:
    """IPinfo names a country in many files that is not where the address is used."""
    if "residential" in database_type:
        return {"kind": _listed_as(NetworkKind.RESIDENTIAL_PROXY)}
    if "carrier" in database_type:
        return {"kind": _listed_as(NetworkKind.MOBILE)}
    if "privacy" in database_type:
        return {"kind": _kind}
    if "location" in database_type or "country" in database_type:
        return _flat_layout(database_type, sample)
    if "asn" in database_type or "company" in database_type:
        return {"asn": _asn, "kind": _kind}
    return {}


def _in(key: str, read: Callable[[Record], Answer]) -> Callable[[Record], Answer]:
    def inside(record: Record) -> Answer:
        part = record.get(key)
        if part is None:
            return None
        return read(part) if isinstance(part, dict) else UNREADABLE

    return inside


def _listed_as(kind: NetworkKind) -> Callable[[Record], Answer]:
    """Read a database in which to be listed at all is the answer."""
    return lambda _: kind


def _country(value: object) -> str | Unreadable | None:
    if value is None or value in _NO_ANSWER:
        return None
    return value if isinstance(value, str) and value in COUNTRIES else UNREADABLE


def _looks_like_code(value: object) -> bool:
    return isinstance(value, str) and value in COUNTRIES


def _iso(record: Record) -> Answer:
    return _hashable(record.get("iso_code"), _country)


def _flat_country(record: Record) -> Answer:
    return _hashable(record.get("country_code", record.get("country")), _country)


def _hashable(value: object, read: Callable[[object], Answer]) -> Answer:
    return UNREADABLE if isinstance(value, (dict, list)) else read(value)


def _subdivision(country: Answer, code: object) -> Answer:
    if code is None or country is None or code == "":
        return None
    if not (isinstance(country, str) and isinstance(code, str)):
        return UNREADABLE
    code = code.removeprefix(f"{country}-")
    return f"{country}-{code}" if _SUBDIVISION.fullmatch(code) else UNREADABLE


def _nested_subdivision(record: Record) -> Answer:
    parts = record.get("subdivisions")
    if parts is None or parts == []:
        return None
    if not (isinstance(parts, list) and isinstance(parts[0], dict)):
        return UNREADABLE
    return _subdivision(_in("country", _iso)(record), parts[0].get("iso_code"))


def _flat_subdivision(record: Record) -> Answer:
    code = record.get("region_code")
    if code is None and "region_name" in record:
        code = record.get("region")
    return _subdivision(_flat_country(record), code)


def _asn(record: Record) -> Answer:
    number = record.get("autonomous_system_number", record.get("asn"))
    if isinstance(number, str):
        digits = _ASN.fullmatch(number)
        if digits is None:
            return None if number in {"", "-"} else UNREADABLE
        number = int(digits[1])
    if number is None or number == 0:
        return None
    if isinstance(number, bool) or not isinstance(number, int) or not 0 < number <= _MAX_ASN:
        return UNREADABLE
    for key in ("autonomous_system_organization", "as_name", "name", "as"):
        name = record.get(key)
        if isinstance(name, str) and name not in {"", "-"}:
            return number, name[:_MAX_NAME]
    return number, None


def _kind(record: Record) -> Answer:
    """Return the riskiest kind the record claims; unreadable only when no claim can be read."""
    best: NetworkKind | None = None
    readable = True
    for key, value in record.items():
        claim: NetworkKind | None = None
        if key in _FLAGS or key == "is_anonymous":
            yes = None if isinstance(value, (dict, list, float)) else _YES_NO.get(value)
            readable = readable and yes is not None
            # MaxMind sets `is_anonymous` for hosting too; alone it means an unnamed anonymizer.
            if yes and not (key == "is_anonymous" and record.get("is_hosting_provider")):
                claim = _FLAGS.get(key, NetworkKind.VPN)
        elif key in _WORDS:
            if isinstance(value, str):
                claim = _WORDS[key].get(value)
            else:
                readable = False
        if claim is not None and (best is None or RISK[claim] < RISK[best]):
            best = claim
    if best is None and not readable:
        return UNREADABLE
    return best
