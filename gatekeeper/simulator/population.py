"""Who is there: honest accounts of many kinds, and the accounts of one campaign."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gatekeeper.simulator.scenario import DAY_S, FULL_ACCOUNTS, Adversary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gatekeeper.simulator.scenario import Scenario

Ints = Any
"""An array of whole numbers; of numpy's own types only tests would tell more."""

CAMPAIGN: Final = "campaign"
"""Label of the accounts of the campaign; those of honest ones say what they are."""
_FULL_HONEST: Final = 1_000_000
_VIRAL: Final = 0.3
_NOBODY: Final = -1


class Place(IntEnum):
    """How an account comes by its addresses."""

    HOME = 0
    """One for some days, then another of the same provider."""
    POOL = 1
    """Another of a pool with every call."""
    SESSION = 2
    """One of a pool for some minutes."""
    FIXED = 3
    """One for good."""


class Net(IntEnum):
    """Kinds of network, as codes of :data:`NETS`."""

    RESIDENTIAL = 0
    MOBILE = 1
    HOSTING = 2
    VPN = 3
    BUSINESS = 4


class Hours(IntEnum):
    """When an account calls."""

    DAY = 0
    """Around its middle of the day."""
    ALWAYS = 1
    """At any time but the operator's rest."""
    CRON = 2
    """At full hours."""


class Ask(IntEnum):
    """What a call asks for, as codes of :data:`ASKS`."""

    CHAT = 0
    CODE = 1
    TOOLS = 2
    REASONING = 3
    GRADING = 4


ASKS: Final = (
    (),
    ("code",),
    ("agentic", "code", "tools"),
    ("reasoning",),
    ("grading", "reasoning"),
)
"""Words of what is asked, by code."""
_COLUMNS: Final = (
    "created",
    "card",
    "mail",
    "signup",
    "organization",
    "verified",
    "rate",
    "present",
    "zone",
    "hours",
    "place",
    "first",
    "room",
    "stay",
    "net",
    "client",
    "system",
    "tools",
    "shape",
    "wobble",
    "ask",
    "cover",
    "sigma",
    "tasks",
    "begins",
    "moves",
    "gate",
    "cell",
    "passes",
)


@dataclass(slots=True)
class World:
    """All accounts, as columns; what is -1 or 0 is not there.

    ``first`` and ``room`` are a range of places, of which addresses are made; ``stay``
    is for how many seconds one is kept. ``created`` and ``begins`` are Unix seconds.
    """

    scenario: Scenario
    drawn: dict[str, float]
    names: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)
    spare: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Accounts of the campaign that wait to replace others; they are not there yet."""
    released_day: int = 0
    """Day on which a new model comes out."""

    def __getattr__(self, name: str) -> NDArray[Any]:
        """Return a column."""
        try:
            columns: dict[str, NDArray[Any]] = object.__getattribute__(self, "columns")
            return columns[name]
        except KeyError as error:
            raise AttributeError(name) from error

    @property
    def size(self) -> int:
        """How many accounts there are."""
        return len(self.names)

    @property
    def fake(self) -> NDArray[Any]:
        """Which accounts are the campaign's."""
        return np.array([label == CAMPAIGN for label in self.labels])


def made(scenario: Scenario) -> World:
    """Return everybody of a scenario; the same for the same scenario.

    The honest ones do not depend on the campaign.
    """
    world = World(scenario, scenario.drawn())
    world.released_day = min(scenario.days // 2, scenario.first_day + 6)
    _Honest(world).everybody()
    if scenario.adversary is not Adversary.NONE and scenario.accounts:
        _campaign(world)
    return world


class _Maker:
    """Draws accounts, and keeps count of what is given to one of them alone."""

    def __init__(self, world: World, stream: int, serial: int) -> None:
        self.world = world
        self.scenario = world.scenario
        self.chance = np.random.default_rng([world.scenario.seed, stream])
        self._serial = serial

    def own(self, count: int) -> Ints:
        """Return numbers that nobody else has."""
        self._serial += count
        return np.arange(self._serial - count, self._serial)

    def add(self, label: str, count: int, **columns: Any) -> None:
        """Add accounts; a single value stands for all of them."""
        world, start = self.world, len(self.world.names)
        world.names += [f"acct-{start + n:07}" for n in range(count)]
        world.labels += [label] * count
        for name in _COLUMNS:
            value = np.broadcast_to(np.asarray(columns[name]), (count,))
            had = world.columns.get(name)
            world.columns[name] = value.copy() if had is None else np.concatenate([had, value])


class _Honest(_Maker):
    """Draws honest accounts: most are alone, others share what they share for good reasons."""

    def __init__(self, world: World) -> None:
        super().__init__(world, 2, 1_000)
        self._isp = max(200_000, world.scenario.honest * 60)

    def everybody(self) -> None:
        """Add all kinds; what confounders do not take, individuals are."""
        total, left = self.scenario.honest, self.scenario.honest
        if self.scenario.confounders:
            for kind, share in (
                (self.teams, 0.10),
                (self.applications, 0.05),
                (self.vpn, 0.04),
                (self.mobile, 0.08),
                (self.sase, 0.02),
                (self.university, 0.015),
                (self.hackathon, 0.002),
                (self.cron, 0.015),
                (self.resellers, 0.01),
                (self.organizations, 0.02),
                (self.launch_day, 0.03),
            ):
                count = max(20, round(total * share))
                kind(count)
                left -= count
        self.people("individual", max(left, 1))

    def people(self, label: str, count: int, **changes: Any) -> None:
        """Add people who call from home by day: few do every day, some call a lot."""
        chance, scenario = self.chance, self.scenario
        home = chance.integers(0, self._isp, count)
        style = chance.random(count)
        viral = chance.random(count) < (_VIRAL if scenario.confounders else 0.0)
        own = self.own(count)
        common_mail = chance.random(count) < 0.7
        columns = {
            "created": scenario.start
            + scenario.days * DAY_S * 0.5
            - chance.random(count) * 500 * DAY_S,
            "card": self.own(count),
            "mail": np.where(common_mail, chance.zipf(1.3, count) % 300, self.own(count)),
            "signup": home // 256,
            "organization": _NOBODY,
            "verified": chance.random(count) < 0.03,
            "rate": np.minimum(np.exp(chance.normal(0.6, 1.1, count)), 120.0),
            "present": chance.beta(0.8, 2.4, count),
            "zone": chance.choice([8.0, 14.0, 20.0], count) + chance.normal(0, 2, count),
            "hours": Hours.DAY,
            "place": Place.HOME,
            "first": home,
            "room": 1_000,
            "stay": chance.choice([1.0, 3.0, 14.0, 60.0], count) * DAY_S,
            "net": Net.RESIDENTIAL,
            "client": chance.zipf(1.6, count) % 40,
            "system": np.where(
                viral, 1, np.where(style < 0.45, 0, np.where(style < 0.65, 2 + own % 7, own))
            ),
            "tools": np.where(viral, 1, 0),
            "shape": np.where(viral, 1, 10 + chance.zipf(1.2, count) % 200),
            "wobble": 6,
            "ask": np.where(
                viral, Ask.TOOLS, chance.choice(5, count, p=[0.55, 0.25, 0.1, 0.07, 0.03])
            ),
            "cover": 0.25,
            "sigma": 0.6,
            "tasks": 0,
            "begins": 0.0,
            "moves": chance.exponential(12.0, count),
            "gate": 0,
            "cell": _NOBODY,
            "passes": chance.random(count) < 0.93,
        }
        self.add(label, count, **(columns | changes))

    def _groups(self, count: int, low: int, high: int) -> Ints:
        """Return for each account the number of its group."""
        sizes = self.chance.integers(low, high + 1, count // low + 1)
        return np.repeat(np.arange(sizes.size), sizes)[:count]

    def teams(self, count: int) -> None:
        """Colleagues: an address, a mail domain, a tool of their own, accounts made in one week."""
        groups = self._groups(count, 4, 40)
        some = groups.max() + 1
        office = self.chance.integers(0, self._isp, some)[groups]
        began = self.scenario.start - self.chance.random(some) * 300 * DAY_S
        self.people(
            "team",
            count,
            place=Place.FIXED,
            first=office,
            signup=office // 256,
            net=Net.BUSINESS,
            mail=self.own(some)[groups],
            client=(self.chance.integers(0, 40, some))[groups],
            system=self.own(some)[groups],
            tools=self.own(some)[groups],
            ask=Ask.CODE,
            shape=self.own(some)[groups],
            created=began[groups] + self.chance.random(count) * 7 * DAY_S,
            present=self.chance.beta(3, 2, count),
            card=self.own(some)[groups],
        )

    def applications(self, count: int) -> None:
        """Programs that call by day and night from a server of their own; few make most calls."""
        self.people(
            "application",
            count,
            hours=Hours.ALWAYS,
            place=Place.FIXED,
            net=Net.HOSTING,
            first=self.own(count),
            system=self.own(count),
            tools=np.where(self.chance.random(count) < 0.4, self.own(count), 0),
            shape=self.own(count),
            wobble=2,
            cover=0.0,
            sigma=1.1,
            present=self.chance.beta(4, 1.5, count),
            rate=np.minimum(self.chance.pareto(1.15, count) * 6 + 2, 600.0),
        )

    def vpn(self, count: int) -> None:
        """People behind exits of public VPNs."""
        self.people(
            "vpn",
            count,
            place=Place.SESSION,
            stay=3 * 3_600.0,
            net=Net.VPN,
            first=0,
            room=max(4, count // 30),
            signup=-5 - self.chance.integers(0, 9, count),
        )

    def mobile(self, count: int) -> None:
        """People behind the shared addresses of carriers."""
        self.people(
            "mobile",
            count,
            place=Place.SESSION,
            stay=2 * 3_600.0,
            net=Net.MOBILE,
            first=0,
            room=max(3, count // 20),
            signup=-30 - self.chance.integers(0, 9, count),
        )

    def sase(self, count: int) -> None:
        """Employees of one known organization behind its registered edge."""
        self.people(
            "sase",
            count,
            place=Place.SESSION,
            stay=DAY_S,
            net=Net.BUSINESS,
            first=10**7,
            room=max(2, count // 100),
            organization=1,
            client=3,
            system=self.own(1)[0],
            mail=self.own(1)[0],
            present=self.chance.beta(2, 2, count),
        )

    def university(self, count: int) -> None:
        """Students: some addresses, a mail domain, accounts made in the same weeks."""
        campus = self.own(1)[0]
        self.people(
            "university",
            count,
            place=Place.SESSION,
            stay=DAY_S,
            net=Net.BUSINESS,
            first=10**7 + 5_000,
            room=max(2, count // 60),
            signup=-60,
            mail=campus,
            created=self.scenario.start - 40 * DAY_S + self.chance.random(count) * 30 * DAY_S,
            present=self.chance.beta(2, 2, count),
        )

    def hackathon(self, count: int) -> None:
        """People in one hall: signups within two hours, and all start from the same template."""
        chance, start = self.chance, self.scenario.start
        day = self.scenario.first_day + 2
        began = start + (day + 0.4) * DAY_S
        self.people(
            "hackathon",
            count,
            place=Place.FIXED,
            first=10**7 + 9_000 + chance.integers(0, 3, count),
            net=Net.BUSINESS,
            signup=-61,
            created=began + chance.random(count) * 7_200,
            begins=began,
            system=np.where(chance.random(count) < 0.8, self.own(1)[0], self.own(count)),
            tools=self.own(1)[0],
            shape=self.own(1)[0],
            ask=Ask.TOOLS,
            present=0.8,
            rate=np.exp(chance.normal(2.2, 0.8, count)),
        )

    def cron(self, count: int) -> None:
        """Jobs that call at the same hours every day, each from a server of its own."""
        self.people(
            "cron",
            count,
            hours=Hours.CRON,
            place=Place.FIXED,
            net=Net.HOSTING,
            first=self.own(count),
            rate=24.0,
            sigma=0.0,
            present=1.0,
            system=self.own(count),
            shape=self.own(count),
            cover=0.0,
            wobble=1,
        )

    def resellers(self, count: int) -> None:
        """Accounts that a reseller made for its customers: a card, an address, a client."""
        groups = self._groups(count, 30, 120)
        some = groups.max() + 1
        server = self.own(some)[groups]
        self.people(
            "reseller",
            count,
            place=Place.FIXED,
            net=Net.HOSTING,
            first=server,
            signup=server // 256,
            card=self.own(some)[groups],
            client=7,
        )

    def organizations(self, count: int) -> None:
        """Accounts of organizations that the operator knows, as even as machines."""
        groups = self._groups(count, 20, 60)
        some = groups.max() + 1
        self.people(
            "organization",
            count,
            place=Place.FIXED,
            net=Net.HOSTING,
            first=self.own(some)[groups],
            organization=2 + groups,
            rate=26.0,
            sigma=0.1,
            present=1.0,
            hours=Hours.ALWAYS,
            system=self.own(some)[groups],
            tools=self.own(some)[groups],
            card=self.own(some)[groups],
            shape=self.own(some)[groups],
            cover=0.0,
        )

    def launch_day(self, count: int) -> None:
        """People who come for a new model: signups on its day, and all move to it."""
        chance, world = self.chance, self.world
        began = self.scenario.start + world.released_day * DAY_S
        self.people(
            "launch_day",
            count,
            created=began + chance.exponential(0.5, count) * DAY_S,
            moves=0.0,
            present=chance.beta(2, 3, count),
        )


def _campaign(world: World) -> None:
    """Add the accounts of one operator."""
    scenario, drawn = world.scenario, world.drawn
    kind, count = scenario.adversary, scenario.accounts
    spare = count * 12 if kind is Adversary.I else 0
    everybody = count + spare
    make = _Maker(world, 3, 10**9)
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
        organization=_NOBODY,
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


def _places(world: World, make: _Maker, kind: Adversary, everybody: int) -> dict[str, Any]:
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
