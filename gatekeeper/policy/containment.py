"""Who belongs to which campaign, in the form that a gate asks for every call that it reads.

Gates swap a :class:`Containment` whole. Asking it takes a few look-ups in dictionaries.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from gatekeeper.policy.campaigns import CampaignFacts, Layer, Stage
from gatekeeper.policy.words import Assurance

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gatekeeper.policy.campaigns import Campaign, SharedTrait
    from gatekeeper.policy.model import Account, Facts, NetworkFacts
    from gatekeeper.policy.ruleset import ContainmentRule, RuleSet
    from gatekeeper.policy.traits import Traits

ADDRESS: Final = "address"
SUBNET_CLIENT: Final = "subnet_client"
PAYMENT: Final = "payment"
SIGNUP: Final = "signup"
MAIL: Final = "mail"
CLIENT: Final = "client"
SCAFFOLD: Final = "scaffold"
SYSTEM: Final = "system"
TOOLS: Final = "tools"
"""Kinds of :class:`~gatekeeper.policy.campaigns.SharedTrait` that one call can show."""

_DIGITS: Final = 15
"""Hexadecimal digits of a key that a column of signed 64-bit numbers holds."""
_MASK: Final = 2**63 - 1
_LAYERS: Final = 2
"""Layers from which a new account must show traits to inherit."""
_NOBODY_ELSE: Final = 0.9
"""Part of the accounts with a trait that are members, from which nobody else has it."""
_PLACE: Final = Layer.ADDRESS
_GROUND: Final = {Layer.SUBNET_CLIENT: _PLACE}
"""Layers that count as one: whoever shares an address shares its subnet, and all of a household or
an office may use one client."""


def number_of(key: str) -> int:
    """Return the number by which sightings know an ``address_key`` or ``prefix_key``."""
    return int(key[:_DIGITS], 16)


def mixed(a: int, b: int) -> int:
    """Return one digest for two that are only telling together, as SQL can make it too."""
    return ((a * 31) ^ b) & _MASK


def shown(
    account: Account, network: NetworkFacts, traits: tuple[Traits, ...]
) -> tuple[tuple[Layer, str, int], ...]:
    """Return what a call shows of the traits that campaigns share: layer, kind and digest.

    Structural shapes are left out: many callers have them by chance.
    """
    found = [
        (Layer.ADDRESS, ADDRESS, number_of(network.address_key)),
        (Layer.SIGNUP, PAYMENT, account.payment),
        (Layer.SIGNUP, SIGNUP, account.signup),
        (Layer.SIGNUP, MAIL, account.mail),
    ]
    prefix = number_of(network.prefix_key)
    for each in traits:
        found += (
            (Layer.SUBNET_CLIENT, SUBNET_CLIENT, each.client and mixed(prefix, each.client)),
            (Layer.SUBNET_CLIENT, CLIENT, each.client),
            (Layer.SCAFFOLD, SCAFFOLD, each.scaffold),
            (Layer.SCAFFOLD, SYSTEM, each.system),
            (Layer.SCAFFOLD, TOOLS, each.tools),
        )
    return tuple(trait for trait in found if trait[2])


@dataclass(frozen=True, slots=True)
class Contained:
    """One campaign as gates need it."""

    facts: CampaignFacts
    asked: CampaignFacts
    """The same for members that a probe asks."""
    share: int
    """Of 2^64 parts of the members, those that a probe asks."""
    since: float
    """Accounts made from then on may inherit."""
    newcomers_s: int
    """And those younger than this."""
    left: frozenset[str]
    found_at: float
    """When it was found: what is made from then on in its likeness replaces what it lost."""
    private: frozenset[tuple[str, int]]
    """Kinds and digests of scaffolds that nobody else has."""

    def replaced_by(self, account: Account, kind: str, digest: int) -> bool:
        """Tell whether an account that shows a trait was made to take a lost one's place.

        It was made after the campaign had been found, and works on what only members work on.
        """
        made = account.created_at
        return made is not None and made >= self.found_at and (kind, digest) in self.private

    def takes_in(self, account: Account, at: float) -> bool:
        """Tell whether the account is new enough to inherit; an unknown age is new."""
        made = account.created_at
        if account.id in self.left:
            return False
        return made is None or made >= self.since or at - made < self.newcomers_s


@dataclass(frozen=True, slots=True)
class Containment:
    """All that gates know of campaigns, under one revision."""

    revision: str
    """First 12 hexadecimal digits of the SHA-256 of the content; empty for none."""
    members: Mapping[str, str]
    """Campaign by account."""
    campaigns: Mapping[str, Contained]
    traits: Mapping[str, Mapping[int, tuple[str, ...]]]
    """Campaigns by kind and digest of the traits by which new accounts inherit."""
    since: float
    newcomers_s: int
    """As of :class:`Contained`, the widest of all."""
    probe_key: bytes = field(repr=False)
    """Keys whom a probe asks, so that nobody can tell beforehand."""

    @classmethod
    def of_campaigns(
        cls, campaigns: Iterable[Campaign], rules: RuleSet, probe_key: bytes
    ) -> Containment:
        """Work out who belongs where. An account of two campaigns is in the one further on."""
        stages = {rule.stage: rule for rule in rules.containment}
        going = sorted(
            (each for each in campaigns if each.state.contains),
            key=lambda each: (each.stage.rank, each.group.score, each.id),
        )
        if not going:
            return NO_CONTAINMENT
        members = {account: each.id for each in going for account in sorted(each.contained)}
        contained = {each.id: _contained(each, stages) for each in going}
        traits: dict[str, dict[int, tuple[str, ...]]] = defaultdict(dict)
        for each in reversed(going):  # the furthest on first
            for trait in _inherited_by(each):
                ids = traits[trait.kind].get(trait.digest, ())
                traits[trait.kind][trait.digest] = (*ids, each.id)
        return cls(
            revision=_revision(going, contained),
            members=MappingProxyType(members),
            campaigns=MappingProxyType(contained),
            traits=MappingProxyType(traits),
            since=min(each.since for each in contained.values()),
            newcomers_s=max(each.newcomers_s for each in contained.values()),
            probe_key=probe_key,
        )

    def placed(self, facts: Facts) -> Facts:
        """Return the facts of a call that was read with the campaign that its caller is in."""
        if not self.campaigns and facts.campaign is None and not facts.containment:
            return facts
        found = self.of(facts.account, facts.network, facts.traits, facts.at)
        return replace(facts, campaign=found, containment=self.revision)

    def of(
        self, account: Account, network: NetworkFacts, traits: tuple[Traits, ...], at: float
    ) -> CampaignFacts | None:
        """Return the campaign that a caller is in, or inherits.

        Nobody is who has proven an identity, or belongs to a verified organization.
        """
        if account.assurance is not Assurance.NONE or account.organization_verified:
            return None
        campaign = self.members.get(account.id)
        mine = None if campaign is None else self._facts(self.campaigns[campaign], account.id)
        if mine is not None and mine.stage is not Stage.OBSERVE:
            return mine
        made = account.created_at
        if made is not None and made < self.since and at - made >= self.newcomers_s:
            return mine
        # To be in a group that is only observed keeps nobody out of what it inherits from another.
        inherited = self._inherited(account, shown(account, network, traits), at)
        if mine is None or (inherited is not None and inherited.stage is not Stage.OBSERVE):
            return inherited
        return mine

    def _inherited(
        self, account: Account, showing: tuple[tuple[Layer, str, int], ...], at: float
    ) -> CampaignFacts | None:
        seen: dict[str, set[Layer]] = {}
        for layer, kind, digest in showing:
            by_digest = self.traits.get(kind)
            if by_digest is not None:
                for campaign in by_digest.get(digest, ()):
                    layers = seen.setdefault(campaign, set())
                    layers.add(_GROUND.get(layer, layer))
                    if self.campaigns[campaign].replaced_by(account, kind, digest):
                        layers.add(Layer.SIGNUP)
        enough = [each for each, layers in seen.items() if len(layers) >= _LAYERS]
        enough = [each for each in enough if self.campaigns[each].takes_in(account, at)]
        if not enough:
            return None
        furthest = max(enough, key=self._how_far)
        facts = self._facts(self.campaigns[furthest], account.id)
        return replace(facts, inherited=True, layers=tuple(sorted(seen[furthest])))

    def _how_far(self, campaign: str) -> tuple[int, float, str]:
        facts = self.campaigns[campaign].facts
        return facts.stage.rank, facts.score, campaign

    def _facts(self, contained: Contained, account_id: str) -> CampaignFacts:
        if not contained.share:
            return contained.facts
        named = f"{contained.facts.id}\0{account_id}".encode(errors="surrogatepass")
        drawn = hashlib.blake2b(named, key=self.probe_key, digest_size=8).digest()
        probed = int.from_bytes(drawn) < contained.share
        return contained.asked if probed else contained.facts


NO_CONTAINMENT: Final = Containment(
    "", MappingProxyType({}), MappingProxyType({}), MappingProxyType({}), 0.0, 0, b""
)
"""No campaign is contained."""


def _contained(campaign: Campaign, stages: Mapping[Stage, ContainmentRule]) -> Contained:
    group, stage = campaign.group, campaign.stage
    probe, rule = stages.get(Stage.PROBE), stages.get(stage)
    facts = CampaignFacts(campaign.id, stage, group.score, tuple(map(str, group.layers)))
    percent = (probe and probe.percent) or 0.0
    return Contained(
        facts=facts,
        asked=replace(facts, probed=True),
        share=round(percent / 100 * 2**64) if stage is Stage.PROBE else 0,
        since=min(group.first_seen, campaign.since),
        newcomers_s=0 if rule is None else rule.newcomers_s,
        left=frozenset(campaign.left),
        found_at=campaign.since,
        private=frozenset(
            (trait.kind, trait.digest)
            for trait in group.shared
            if trait.layer is Layer.SCAFFOLD and trait.members >= _NOBODY_ELSE * trait.accounts
        ),
    )


_SHOWN: Final = frozenset(
    {ADDRESS, SUBNET_CLIENT, PAYMENT, SIGNUP, MAIL, CLIENT, SCAFFOLD, SYSTEM, TOOLS}
)


def _inherited_by(campaign: Campaign) -> Iterator[SharedTrait]:
    """Yield the traits that speak for the campaign: most of the accounts that have one are in it.

    Others would sweep in the new customers of a carrier, or the users of a public template.
    """
    for trait in campaign.group.shared:
        if trait.kind in _SHOWN and trait.digest and 2 * trait.members > trait.accounts:
            yield trait


def _revision(campaigns: list[Campaign], contained: Mapping[str, Contained]) -> str:
    content = [
        (
            contained[each.id].facts,
            contained[each.id].share,
            contained[each.id].newcomers_s,
            each.since,
            sorted(each.contained),
            sorted(each.left),
            each.group.shared,
            each.group.first_seen,
        )
        for each in campaigns
    ]
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()[:12]
