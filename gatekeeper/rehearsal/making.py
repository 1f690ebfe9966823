"""Makes an engine of settings and rules, with limits in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gatekeeper.door import Door
from gatekeeper.facts.address import TrustedProxies
from gatekeeper.facts.credentials import Authenticator
from gatekeeper.facts.email_domains import DisposableDomains
from gatekeeper.facts.network import NetworkData
from gatekeeper.facts.replica import Replica
from gatekeeper.facts.traits import AccountTraits
from gatekeeper.policy.words import GateMode
from gatekeeper.rehearsal.engine import MODES, Engine
from gatekeeper.snapshot import Snapshot
from gatekeeper.sources import counter_of, trait_maker
from gatekeeper.storage.limiter_memory import MemoryLimiter
from gatekeeper.storage.secrets import derive

if TYPE_CHECKING:
    from gatekeeper.policy.ruleset import RuleSet
    from gatekeeper.settings import Settings

SECRET: Final = b"a rehearsal keys nothing that leaves it"
"""Not a gate's own: nothing that is keyed by it leaves a rehearsal, and two of them tell the same.
"""
_MOST_CELLS: Final = 5_000_000


def engine_of(settings: Settings, rules: RuleSet, *, at: float) -> Engine:
    """Return an engine that knows nobody; ``at`` is when its network data is looked at.

    Raises :class:`~gatekeeper.sources.StartError` for what the settings name and is not there.
    """
    network = NetworkData.load(settings.geoip, secret=derive(SECRET, "network"), now_unix_s=at)
    replica = Replica(DisposableDomains.bundled().listed_by, AccountTraits(SECRET))
    listener = settings.listeners[0]
    own = {"secret": None, "previous_secret": None}
    unkeyed = settings.model_copy(update={"traits": settings.traits.model_copy(update=own)})
    return Engine(
        settings,
        Snapshot.of(rules, network, GateMode(settings.mode)),
        Door.of(MODES, listener.forwarded_header, TrustedProxies(listener.trusted_proxies)),
        replica,
        MemoryLimiter(_MOST_CELLS),
        trait_maker(unkeyed, SECRET, {}),
        counter_of(settings),
        Authenticator(replica, subkey=derive(SECRET, "credentials")),
    )
