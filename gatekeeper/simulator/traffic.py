"""What everybody sends on one day, as columns in the order of time."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gatekeeper.simulator.scenario import DAY_S
from gatekeeper.simulator.world import Ask, Hours, Net, Place

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gatekeeper.simulator.world import World

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX2: Final = np.uint64(0x94D049BB133111EB)
_POSITIVE: Final = np.uint64(2**63 - 1)
_RESIDENTS_IN_POOLS: Final = 8
"""Of a pool's addresses, one in so many is of the provider of the honest people."""
_SHAPES: Final = 200
_BLOCKS: Final = {
    # Networks of whole blocks of 2^16 addresses, by kind: none lies in an embargoed country.
    Net.RESIDENTIAL: [(73 << 8) | n for n in range(256)] + [(98 << 8) | n for n in range(160, 256)],
    Net.MOBILE: [(172 << 8) | n for n in range(56, 60)],
    Net.HOSTING: [
        (159 << 8) | 65,
        (165 << 8) | 227,
        (167 << 8) | 71,
        (134 << 8) | 209,
        (68 << 8) | 183,
    ],
    Net.VPN: [(146 << 8) | 70],
    Net.BUSINESS: [(12 << 8) | n for n in range(256)],
}
INPUT_MEDIAN: Final = (1_020.0, 1_469.0, 1_469.0, 1_200.0, 1_800.0)
OUTPUT_MEDIAN: Final = (129.0, 60.0, 40.0, 500.0, 350.0)
"""Median tokens by what is asked; chat and code after the Azure traces of 2023."""
_SPREAD: Final = 0.95


@dataclass(frozen=True, slots=True)
class Events:
    """Calls: one array element for each, in the order of time."""

    at: NDArray[np.float64]
    """Unix seconds."""
    who: NDArray[np.int64]
    """Index of the account."""
    address: NDArray[np.int64]
    """IPv4, as a number."""
    system: NDArray[np.int64]
    """Which system prompt, 0 for none."""
    tools: NDArray[np.int64]
    opening: NDArray[np.int64]
    """How the conversation begins."""
    task: NDArray[np.int64]
    """What is asked, last of all."""
    shape: NDArray[np.int64]
    """63 bits: close shapes differ in few."""
    ask: NDArray[np.int64]
    """An :class:`~gatekeeper.simulator.world.Ask`."""
    model: NDArray[np.int64]
    """1 for the one that comes out in the course of the simulation."""
    input_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    gate: NDArray[np.int64]

    @property
    def size(self) -> int:
        """How many calls there are."""
        return int(self.at.size)

    def only(self, which: NDArray[Any]) -> Events:
        """Return some of the calls."""
        return Events(*(getattr(self, each.name)[which] for each in fields(self)))


def mixed(*numbers: Any) -> NDArray[np.int64]:
    """Return numbers from 1 to 2^63 - 1 that look like chance, the same for the same arguments."""
    value = np.zeros(1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for number in numbers:
            value = value + np.asarray(number).astype(np.int64).astype(np.uint64) + _GOLDEN
            value = (value ^ (value >> np.uint64(30))) * _MIX
            value = (value ^ (value >> np.uint64(27))) * _MIX2
            value ^= value >> np.uint64(31)
    return ((value & _POSITIVE) | np.uint64(1)).astype(np.int64)


def events_of(world: World, day: int, accounts: NDArray[Any] | None = None) -> Events:
    """Return the calls of a day, of all accounts or of some; days may be asked in any order."""
    scenario = world.scenario
    chosen = np.arange(world.size) if accounts is None else accounts
    chance = np.random.default_rng([scenario.seed, 4, day, int(chosen[0]) if chosen.size else 0])
    start = scenario.start + day * DAY_S
    there = (world.created[chosen] < start + DAY_S) & (world.begins[chosen] < start + DAY_S)
    calls = there & (chance.random(chosen.size) < world.present[chosen])
    sigma = world.sigma[chosen]
    uneven = np.exp(chance.normal(0.0, 1.0, chosen.size) * sigma - sigma**2 / 2)
    counts = chance.poisson(world.rate[chosen] * uneven) * calls
    cron = world.hours[chosen] == Hours.CRON
    counts = np.where(cron & calls, world.rate[chosen].astype(np.int64), counts)
    who = np.repeat(chosen, counts)
    at = start + _seconds(world, who, counts, chance)
    late = np.maximum(world.created[who], world.begins[who])
    keep = at >= late
    who, at = who[keep], at[keep]
    order = np.argsort(at, kind="stable")
    return _told(world, who[order], at[order], day, chance)


def _seconds(
    world: World, who: NDArray[Any], counts: NDArray[Any], chance: np.random.Generator
) -> NDArray[Any]:
    """Return when in the day each call is made."""
    many = who.size
    hours = world.hours[who]
    by_day = (world.zone[who] * 3_600 + chance.normal(0, 3.3 * 3_600, many)) % DAY_S
    rest = world.drawn["idle_hours"] * 3_600
    always = rest + chance.random(many) * (DAY_S - rest)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    turn = np.arange(many) - first
    cron = (turn % 24) * 3_600 + chance.random(many) * 240
    return np.where(hours == Hours.DAY, by_day, np.where(hours == Hours.CRON, cron, always))


def _told(
    world: World, who: NDArray[Any], at: NDArray[Any], day: int, chance: np.random.Generator
) -> Events:
    many = who.size
    covered = chance.random(many) < world.cover[who]
    system = np.where(covered, 0, world.system[who])
    ask = np.where(covered, Ask.CHAT, world.ask[who])
    common = 10 + chance.zipf(1.2, many) % _SHAPES
    kind = np.where(covered, common, world.shape[who])
    shape = mixed(kind, 77)
    for _ in range(6):
        flips = chance.random(many) * 6 < np.where(covered, 6, world.wobble[who])
        bit = np.left_shift(np.int64(1), chance.integers(0, 62, many))
        shape = np.where(flips & (chance.random(many) < 0.5), shape ^ bit, shape)
    shared_out = (world.tasks[who] > 0) & ~covered
    serial = np.arange(many) + (day + 1) * 10**9
    ordinary = np.where(
        chance.random(many) < 0.03, chance.integers(1, 4_000, many), serial + 10**15
    )
    released = world.scenario.start + world.released_day * DAY_S
    return Events(
        at=at,
        who=who,
        address=addresses(world, who, at, chance),
        system=system,
        tools=np.where(covered, 0, world.tools[who]),
        opening=np.where(system > 0, 10**6 + system, chance.integers(1, 60, many)),
        task=np.where(shared_out, serial, ordinary),
        shape=shape,
        ask=ask,
        model=(at >= released + world.moves[who] * DAY_S).astype(np.int64),
        input_tokens=_tokens(INPUT_MEDIAN, ask, chance),
        output_tokens=_tokens(OUTPUT_MEDIAN, ask, chance),
        gate=np.where(world.gate[who] > 0, chance.integers(0, 2, many), 0),
    )


def _tokens(
    medians: tuple[float, ...], ask: NDArray[Any], chance: np.random.Generator
) -> NDArray[Any]:
    drawn = np.array(medians)[ask] * np.exp(chance.normal(0, _SPREAD, ask.size))
    whole: NDArray[Any] = np.clip(drawn, 1, 32_000).astype(np.int64)
    return whole


def addresses(
    world: World, who: NDArray[Any], at: NDArray[Any], chance: np.random.Generator
) -> NDArray[Any]:
    """Return the IPv4 address of each call, as a number."""
    place, first = world.place[who], world.first[who].astype(np.int64)
    turn = np.floor(at / world.stay[who] + mixed(who, 5) % 1_000 / 1_000).astype(np.int64)
    drawn = np.where(place == Place.POOL, chance.integers(0, 2**40, who.size), mixed(who, turn, 6))
    at_place = first + np.where(place == Place.FIXED, 0, drawn % world.room[who])
    net = world.net[who]
    pooled = (net == Net.RESIDENTIAL) & ((place == Place.POOL) | (place == Place.SESSION))
    provider = max(200_000, world.scenario.honest * 60) * _RESIDENTS_IN_POOLS
    at_place = np.where(pooled, mixed(at_place, 9) % provider, at_place)
    return ipv4(net, at_place)


def ipv4(net: NDArray[Any], at_place: NDArray[Any]) -> NDArray[Any]:
    """Return the address of a place in the networks of its kind; neighbours share a /24."""
    found = np.zeros(at_place.size, dtype=np.int64)
    for kind, blocks in _BLOCKS.items():
        some = net == kind
        if some.any():
            places = at_place[some]
            subnet = (places >> 8) * 40_503 % (len(blocks) * 256)
            block = np.array(blocks, dtype=np.int64)[subnet >> 8]
            found[some] = (block << 16) | ((subnet & 255) << 8) | (places & 255)
    return found
