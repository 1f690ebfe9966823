"""CPU time that containment adds to a call, and what it takes to make and to follow one.

Example: python bench/containment.py --members 25000

The aim is a few microseconds for each call that is read, whoever makes it.
"""

from __future__ import annotations

import argparse
import os
import time

from _clock import microseconds
from msgspec.structs import replace

from gatekeeper.policy.campaign_ledger import advance
from gatekeeper.policy.campaigns import Campaign, Group, Layer, SharedTrait, Stage
from gatekeeper.policy.containment import NO_CONTAINMENT, Containment
from gatekeeper.policy.model import Account, Call, Credential, Facts, NetworkFacts
from gatekeeper.policy.traits import Traits
from gatekeeper.policy.words import Assurance, CredentialKind, CredentialStatus
from gatekeeper.settings import Settings
from gatekeeper.sources import load_rules

DAY_S = 86_400.0
CELL = 500
"""Members of one campaign."""
SHARED = 64
"""Traits of one campaign."""


def groups(members: int, at: float) -> tuple[Group, ...]:
    """Return groups of :data:`CELL` accounts, each with traits of its own."""
    found = []
    for first in range(0, members, CELL):
        names = tuple(f"acct-{number:08}" for number in range(first, min(first + CELL, members)))
        shared = tuple(
            SharedTrait(Layer.ADDRESS, "address", 1 + first * SHARED + each, 20, 21)
            for each in range(SHARED)
        )
        layers = (Layer.ADDRESS, Layer.SCAFFOLD)
        found.append(Group(names, shared, layers, 80.0, 0.01, at - 10 * DAY_S, at))
    return tuple(found)


def facts(at: float, **changes: object) -> Facts:
    """Return a call of a verified account, or of one that is changed."""
    ordinary = Account("somebody", known=True, created_at=at - 400 * DAY_S)
    return Facts(
        at,
        NetworkFacts("192.0.2.0/24", os.urandom(16).hex(), os.urandom(16).hex()),
        Credential(CredentialKind.API_KEY, CredentialStatus.VALID),
        replace(ordinary, **changes),
        Call("POST", "/v1/chat/completions"),
        traits=(Traits("0" * 8, client=1, system=2, tools=3, scaffold=4),),
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--number", type=int, default=20_000, help="calls a round")
    parser.add_argument("--members", type=int, default=25_000, help="members of all campaigns")
    arguments = parser.parse_args()
    at, number = time.time(), arguments.number
    rules = load_rules(Settings())[1]
    ids = iter(range(10**9))
    found = groups(arguments.members, at)

    def run(campaigns: tuple[Campaign, ...]) -> tuple[Campaign, ...]:
        return advance(campaigns, found, rules, at, lambda: f"cmp_{next(ids):012x}")

    campaigns = run(())
    probing = tuple(replace(each, stage=Stage.PROBE) for each in campaigns)
    full = Containment.of_campaigns(campaigns, rules, b"key")
    probe = Containment.of_campaigns(probing, rules, b"key")
    member = facts(at, id="acct-00000007")
    callers = {
        "nobody is contained": lambda: NO_CONTAINMENT.placed(stranger),
        "verified account": lambda: full.placed(verified),
        "old account, no member": lambda: full.placed(stranger),
        "new account, no traits": lambda: full.placed(newcomer),
        "member": lambda: full.placed(member),
        "member, probed by key": lambda: probe.placed(member),
    }
    stranger, newcomer = facts(at), facts(at, id="new", created_at=at)
    verified = facts(at, assurance=Assurance.IAL1)
    print(f"{len(full.members)} members of {len(full.campaigns)} campaigns")
    for name, step in callers.items():
        print(f"{name:24} {microseconds(step, number):7.2f} us a call")
    making = microseconds(lambda: Containment.of_campaigns(campaigns, rules, b"key"), 1)
    print(f"{'make a containment':24} {making / 1e3:7.1f} ms, off the loop")
    print(f"{'ledger, first run':24} {microseconds(lambda: run(()), 1) / 1e3:7.1f} ms")
    print(f"{'ledger, next run':24} {microseconds(lambda: run(campaigns), 1) / 1e3:7.1f} ms")


if __name__ == "__main__":
    main()
