"""Who is there: honest accounts of many kinds, and the accounts of one campaign."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekeeper.simulator.adversaries import add_campaign
from gatekeeper.simulator.honest import Honest
from gatekeeper.simulator.scenario import Adversary
from gatekeeper.simulator.world import World

if TYPE_CHECKING:
    from gatekeeper.simulator.scenario import Scenario


def made(scenario: Scenario) -> World:
    """Return everybody of a scenario; the same for the same scenario.

    The honest ones do not depend on the campaign.
    """
    world = World(scenario, scenario.drawn())
    world.released_day = min(scenario.days // 2, scenario.first_day + 6)
    Honest(world).everybody()
    if scenario.adversary is not Adversary.NONE and scenario.accounts:
        add_campaign(world)
    return world
