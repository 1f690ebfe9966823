"""Honest accounts: most are alone, others share what they share for good reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gatekeeper.simulator.scenario import DAY_S
from gatekeeper.simulator.world import NOBODY, Ask, Hours, Ints, Maker, Net, Place

if TYPE_CHECKING:
    from gatekeeper.simulator.world import World

_VIRAL: Final = 0.3
"""Part of the people who use the one public agent."""


class Honest(Maker):
    """Draws honest accounts of all kinds."""

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
                (self.organizations, 0.01),
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
            "organization": NOBODY,
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
            "cell": NOBODY,
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
            rate=np.minimum(self.chance.pareto(1.1, count) * 2.5 + 0.6, 300.0),
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
