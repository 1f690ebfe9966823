"""What may be said of an organization: names, and public ranges that can be its own."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Final

from gatekeeper.facts.address import is_public
from gatekeeper.facts.prefixes import parse_prefix
from gatekeeper.storage.organizations import OrganizationPatch
from gatekeeper.storage.records_schema import is_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.facts.prefixes import IPNetwork
    from gatekeeper.storage.organizations import OrganizationValue

MAX_EGRESS: Final = 256
"""Prefixes of one organization."""
_SHORTEST_V4: Final = 8
_SHORTEST_V6: Final = 20
"""What registries give to the largest networks; who claims more claims other people's."""
_FIELDS: Final = ("name", "verified", "egress")


def parse_organization(record: Mapping[str, object]) -> OrganizationPatch | list[tuple[str, str]]:
    """Read one organization from named values, or return pairs of field and what is wrong."""
    mistakes: list[tuple[str, str]] = []
    organization_id = record.get("id")
    if not isinstance(organization_id, str) or not is_name(organization_id):
        mistakes.append(("id", "must be 1 to 200 printable characters"))
    values: dict[str, OrganizationValue] = {}
    for name, value in record.items():
        if name == "id":
            continue
        if name not in _FIELDS:
            known = ", ".join(_FIELDS)
            text = f"is not a field of an organization; fields are {known}"
            mistakes.append((str(name)[:40], text))
        elif name == "egress":
            found = _egress(value)
            if isinstance(found, list):
                mistakes += found
            else:
                values[name] = found
        elif (name == "verified" and isinstance(value, bool)) or (
            name == "name" and isinstance(value, str) and is_name(value)
        ):
            values[name] = value
        else:
            wanted = {"verified": "true or false", "name": "1 to 200 printable characters"}[name]
            mistakes.append((name, f"must be {wanted}"))
    return mistakes or OrganizationPatch(str(organization_id), values)


def _egress(value: object) -> tuple[str, ...] | list[tuple[str, str]]:
    if not isinstance(value, list | tuple) or len(value) > MAX_EGRESS:
        return [("egress", f"must be a list of at most {MAX_EGRESS} prefixes")]
    mistakes: list[tuple[str, str]] = []
    prefixes: list[str] = []
    for index, text in enumerate(value):
        found = _prefix(text)
        if isinstance(found, str):
            mistakes.append((f"egress[{index}]", found))
        elif str(found) not in prefixes:
            prefixes.append(str(found))
    return mistakes or tuple(prefixes)


def _prefix(text: object) -> IPNetwork | str:
    if not isinstance(text, str) or len(text) > 64:  # noqa: PLR2004 - no prefix is longer
        return "must be a prefix such as 8.8.8.0/24"
    network = parse_prefix(text)
    if isinstance(network, str):
        return network
    shortest = _SHORTEST_V4 if isinstance(network, IPv4Network) else _SHORTEST_V6
    if network.prefixlen < shortest:
        return f"{network} is too large to be one organization's: /{shortest} is the most"
    if not is_public(network):
        return f"{network} is not public: private, reserved and tunnel addresses name nobody"
    return network
