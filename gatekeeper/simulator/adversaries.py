"""The accounts of one campaign, by how it hides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gatekeeper.simulator.scenario import DAY_S, FULL_ACCOUNTS, Adversary
from gatekeeper.simulator.world import CAMPAIGN, NOBODY, Ask, Hours, Maker, Net, Place

if TYPE_CHECKING:
    from gatekeeper.simulator.world import World


def add_campaign(world: World) -> None:
    """Add the accounts of one operator."""
    scenario, drawn = world.scenario, world.drawn
    kind, count = scenario.adversary, scenario.accounts
    spare = count * 12 if kind is Adversary.I else 0
    everybody = count + spare
    make = Maker(world, 3, 10**9)
    chance = make.chance
    began = scenario.start + scenario.first_day * DAY_S
    within = np.arange(everybody)
    cells = np.zeros(everybody, dtype=np.int64)
    if kind is Adversary.J:
        cells = within // max(5, round(drawn["full_cell"] * count / FULL_ACCOUNTS))
    some = int(cells.max()) + 1
    pipelines = max(1, round(drawn["pipelines"]))
    style = cells * pipelines + chance.integers(0, pipelines, everybody)
    scaffolds = make.own(some * pipelines)[style]
    tools = np.where(style % 2 == 0, scaffolds, 0)
    own = make.own(everybody)
    bought = kind is Adversary.L
    card = within // max(1, round(drawn["accounts_per_card"]))
    mail = within // max(1, round(drawn["accounts_per_mail_pattern"]))
    signup_at = began - DAY_S - chance.random(everybody) * drawn["signup_days"] * DAY_S
    if bought:
        signup_at -= drawn["aged_days"] * DAY_S * chance.uniform(0.5, 1.5, everybody)
    ramp = kind is Adversary.H
    where = _places(world, make, kind, everybody)
    make.add(
        CAMPAIGN,
        everybody,
        created=signup_at,
        card=own if bought else make.own(everybody)[card],
        mail=(chance.zipf(1.3, everybody) % 300) if bought else make.own(everybody)[mail],
        signup=-1_000 - own if not bought else chance.integers(0, 10**6, everybody),
        organization=NOBODY,
        verified=False,
        rate=scenario.calls_per_day,
        present=1.0,
        zone=0.0,
        hours=Hours.ALWAYS,
        client=chance.integers(0, 3, everybody) + 5 * (cells % 3),
        system=make.own(everybody) if kind is Adversary.G else scaffolds,
        tools=0 if kind is Adversary.G else tools,
        shape=scaffolds,
        wobble=3 if kind is Adversary.G else 2,
        ask=np.array([Ask.REASONING, Ask.GRADING, Ask.TOOLS])[style % 3],
        cover=drawn["cover"] if kind is Adversary.F else 0.0,
        sigma=drawn["volume_sigma"],
        tasks=1 + cells,
        begins=began + (chance.random(everybody) * drawn["ramp_days"] * DAY_S if ramp else 0.0),
        moves=0.3,
        gate=1 if kind is Adversary.K else 0,
        cell=cells,
        passes=False,
        **where,
    )
    if spare:
        world.spare = np.arange(world.size - spare, world.size)
        world.columns["created"][world.spare] = np.inf
        world.columns["begins"][world.spare] = np.inf


def _places(world: World, make: Maker, kind: Adversary, everybody: int) -> dict[str, Any]:
    """Return from where the accounts of a campaign call; pools grow with its accounts."""
    drawn, count = world.drawn, world.scenario.accounts
    if kind in {Adversary.C, Adversary.F, Adversary.G}:
        row = np.arange(everybody)
        per = max(1, round(drawn["accounts_per_subnet"]))
        first = 2 * 10**7 + row // per * 256 + row % per
        return {
            "place": Place.FIXED,
            "first": first,
            "room": 1,
            "stay": DAY_S,
            "net": Net.RESIDENTIAL,
        }
    if kind is Adversary.D:
        size = max(3, round(drawn["hosting_per_account"] * count))
        return {
            "place": Place.POOL,
            "first": 3 * 10**6,
            "room": size,
            "stay": 1.0,
            "net": Net.HOSTING,
        }
    if kind is Adversary.E:
        size = max(3, round(drawn["mobile_per_account"] * count))
        return {
            "place": Place.SESSION,
            "first": 0,
            "room": size,
            "stay": 1_800.0,
            "net": Net.MOBILE,
        }
    small = max(10, round(drawn["small_pool_per_account"] * count))
    large = max(10, round(drawn["large_pool_per_account"] * count))
    uses_small = make.chance.random(everybody) < drawn["small_pool_share"]
    sticky = kind in {Adversary.B, Adversary.J, Adversary.L}
    return {
        "place": Place.SESSION if sticky else Place.POOL,
        "first": np.where(uses_small, 0, 10**6),
        "room": np.where(uses_small, small, large),
        "stay": drawn["session_minutes"] * 60 if sticky else 1.0,
        "net": Net.RESIDENTIAL,
    }
