"""Whether an embargo rule matches: three-valued, because not knowing is an answer of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekeeper.policy.ruleset import EmbargoView
from gatekeeper.policy.words import LookupStatus, NetworkKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gatekeeper.policy.model import Account, Facts, NetworkFacts
    from gatekeeper.policy.ruleset import EmbargoReach, EmbargoRule


def embargo_matches(rule: EmbargoRule, facts: Facts) -> bool | None:
    """Tell whether ``rule`` matches; ``None`` when a view that it tests is not known.

    A private address has no region, so only the organization view is tested for it; whether
    private addresses are served at all is the rule set's ``private`` section.
    """
    unknown = False
    for answer in _answers(rule, facts):
        if answer:
            return True
        unknown = unknown or answer is None
    return None if unknown else False


def cleared(reach: EmbargoReach, facts: Facts) -> bool:
    """Tell at once that no rule can match: everything they test is known and outside.

    ``False`` says nothing: the rules must be asked one by one.
    """
    network, account = facts.network, facts.account
    if reach.owners is not None and (
        account.status is LookupStatus.UNKNOWN
        or not reach.owners.isdisjoint(account.owners)
        or not reach.owner_countries.isdisjoint(account.owner_countries)
    ):
        return False
    if network.kind is NetworkKind.PRIVATE:
        return True
    if reach.use is not None and (
        network.country is None
        or network.country in reach.use
        or network.subdivision in reach.subdivisions
    ):
        return False
    if reach.registration is not None and (
        network.registered_country is None or network.registered_country in reach.registration
    ):
        return False
    return reach.asns is None or not (
        network.asn in reach.asns
        or network.owner in reach.as_owners
        or network.owner_country in reach.as_countries
        or (network.asn is None and network.uncertain("asn"))
        or (network.owner is None and network.uncertain("lists"))
    )


def in_effect(rule: EmbargoRule, at: float) -> bool:
    """Tell whether ``rule`` is in force at ``at`` (Unix seconds)."""
    return (rule.effective_from is None or rule.effective_from <= at) and (
        rule.effective_until is None or at < rule.effective_until
    )


def _answers(rule: EmbargoRule, facts: Facts) -> Iterator[bool | None]:
    network, on = facts.network, rule.on
    if EmbargoView.ORGANIZATION in on:
        yield _owned(rule, facts.account)
    if network.kind is NetworkKind.PRIVATE:
        return
    if EmbargoView.USE in on:
        if rule.countries:
            # An address that no database places is not known to be outside: a miss is unknown.
            yield None if network.country is None else network.country in rule.countries
        if rule.subdivisions:
            yield _in_subdivision(rule, network)
    if EmbargoView.REGISTRATION in on and rule.countries:
        registered = network.registered_country
        yield None if registered is None else registered in rule.countries
    if EmbargoView.ASN in on and (rule.asns or rule.owners or rule.countries):
        yield _announced(rule, network)


def _owned(rule: EmbargoRule, account: Account) -> bool | None:
    if not (
        rule.owners.isdisjoint(account.owners)
        and rule.countries.isdisjoint(account.owner_countries)
    ):
        return True
    return None if account.status is LookupStatus.UNKNOWN else False


def _in_subdivision(rule: EmbargoRule, network: NetworkFacts) -> bool | None:
    country, subdivision = network.country, network.subdivision
    if subdivision in rule.subdivisions:
        return True
    # One database may place an address in another country than the next one's subdivision.
    if subdivision is not None and (country is None or subdivision.startswith(f"{country}-")):
        return False
    if country is None:
        return None
    within = f"{country}-"
    return None if any(code.startswith(within) for code in rule.subdivisions) else False


def _announced(rule: EmbargoRule, network: NetworkFacts) -> bool | None:
    if (
        network.asn in rule.asns
        or network.owner in rule.owners
        or network.owner_country in rule.countries
    ):
        return True
    # Here a miss is an answer: the address is announced by no AS, or by one on no list.
    if network.asn is None and network.uncertain("asn"):
        return None
    owned = bool(rule.owners or rule.countries)
    return None if owned and network.owner is None and network.uncertain("lists") else False
