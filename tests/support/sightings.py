"""A small town of honest accounts and a few campaigns, as sightings to hold the detector to.

The simulator has the large one; this knows nothing of it. Everything is drawn from one seed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import duckdb
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

DAY = 86_400
START = 1_776_816_000  # midnight, UTC
EPOCH = "0a1b2c3d"


def digest(number: Any) -> Any:
    """Return numbers that look like digests, the same for the same number."""
    value = np.atleast_1d(np.asarray(number, dtype=np.uint64)) + np.uint64(1)
    value = value * np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    result = ((value ^ (value >> np.uint64(32))) >> np.uint64(4)).astype(np.int64)
    return result if np.ndim(number) else result[0]


@dataclass
class People:
    """Accounts of one kind; one array element for each."""

    label: str
    created_at: NDArray[Any]
    payment: NDArray[Any]
    signup: NDArray[Any]
    mail: NDArray[Any]
    client: NDArray[Any]
    system: NDArray[Any]
    shape: NDArray[Any]
    """One row, four columns: the shapes of its calls."""
    rate: NDArray[Any]
    """Calls on a day on which it calls."""
    present: NDArray[Any]
    """Chance that it calls on a day."""
    homes: NDArray[Any] | None
    """Address by account and day; ``None`` for one from the pool with every call."""
    pool: NDArray[Any] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    kind: str = "residential"
    egress: bool = False
    organization: str | None = None
    assurance: str = "none"
    flat: bool = False
    tasks: bool = False
    cron: bool = False
    cover: float = 0.0
    ask: str | None = None
    pivot: bool = False

    @property
    def size(self) -> int:
        """How many there are."""
        return self.created_at.size


class Town:
    """Draws people and writes what they do."""

    def __init__(self, seed: int = 7, days: int = 14, honest: int = 2_000) -> None:
        self.chance = np.random.default_rng(seed)
        self.days = days
        self.honest = honest
        self.groups: list[People] = []
        self.isp = np.zeros(0, dtype=np.int64)
        """Addresses of the first strangers, of which a proxy operator has some too."""
        self._serial = 1_000_000

    def new(self, count: int = 1) -> NDArray[Any]:
        """Return digests that nobody else has."""
        self._serial += count
        return digest(np.arange(self._serial - count, self._serial))

    def address_block(self, count: int) -> NDArray[Any]:
        """Return addresses that nobody else has, 256 of a /24 in a row."""
        first = (self._serial // 256 + 1) * 256
        self._serial = first + count
        return np.arange(first, first + count)

    def people(self, label: str, count: int, **changes: Any) -> People:
        """Return strangers, with what the caller changes of them."""
        chance = self.chance
        isp = self.address_block(count * 4)
        if self.isp.size == 0:
            self.isp = isp
        moves = chance.random((count, self.days)) < 0.2
        moves[:, 0] = True
        homes = isp[chance.integers(0, isp.size, (count, self.days))]
        since = np.maximum.accumulate(np.where(moves, np.arange(self.days), 0), axis=1)
        homes = np.take_along_axis(homes, since, axis=1)
        own, style = self.new(count), chance.random(count)
        common = digest(500 + chance.integers(0, 8, count))
        facts = {
            "created_at": START - chance.random(count) * 400 * DAY,
            "payment": self.new(count),
            "signup": digest(homes[:, 0] // 256),
            "mail": np.where(chance.random(count) < 0.6, common, self.new(count)),
            "client": digest(300 + chance.zipf(1.7, count) % 12),
            "system": np.where(style < 0.4, 0, np.where(style < 0.7, digest(100), own)),
            "shape": digest(700 + chance.integers(0, 60, (count, 4))),
            "rate": np.exp(chance.normal(0.8, 1.3, count)) + 0.5,
            "present": chance.beta(1.2, 2, count),
            "homes": homes,
        }
        made = People(label, **(facts | changes))
        self.groups.append(made)
        return made

    def confounders(self) -> None:
        """Add honest people who share what strangers do not."""
        chance = self.chance
        self.people("individual", self.honest)
        office = self.address_block(1)
        self.people(
            "team", 30, homes=np.full((30, self.days), office[0]),
            system=np.full(30, self.new()[0]), mail=np.full(30, self.new()[0]),
            signup=np.full(30, digest(office[0] // 256)), client=np.full(30, digest(301)),
        )  # fmt: skip
        carrier = self.address_block(3)
        self.people(
            "mobile", 150, kind="mobile", homes=carrier[chance.integers(0, 3, (150, self.days))]
        )
        edge = self.address_block(8)
        self.people(
            "sase", 200, kind="hosting", egress=True, client=np.full(200, digest(302)),
            homes=edge[chance.integers(0, 8, (200, self.days))], system=np.full(200, self.new()[0]),
        )  # fmt: skip
        campus = self.address_block(8)
        self.people(
            "university", 150, homes=campus[chance.integers(0, 8, (150, self.days))],
            signup=np.full(150, digest(campus[0] // 256)), mail=np.full(150, self.new()[0]),
            created_at=START - 40 * DAY + chance.random(150) * 30 * DAY,
        )  # fmt: skip
        self.people(
            "hackathon", 120, created_at=START + 3 * DAY + chance.random(120) * 7_200,
            signup=np.full(120, self.new()[0]), system=np.full(120, self.new()[0]),
        )  # fmt: skip
        self.people("cron", 40, cron=True, rate=np.full(40, 24.0), present=np.ones(40), flat=True)
        shop = self.address_block(1)
        self.people(
            "reseller", 60, homes=np.full((60, self.days), shop[0]), kind="hosting",
            payment=np.full(60, self.new()[0]), signup=np.full(60, digest(shop[0] // 256)),
            client=np.full(60, digest(303)),
        )  # fmt: skip
        edge = self.address_block(1)
        self.people(
            "organization", 40, organization="acme", homes=np.full((40, self.days), edge[0]),
            rate=np.full(40, 26.0), present=np.ones(40), flat=True,
            system=np.full(40, self.new()[0]), payment=np.full(40, self.new()[0]),
        )  # fmt: skip

    def campaign(self, label: str, count: int = 120, **changes: Any) -> People:
        """Add one operator's accounts, 26 calls a day each, by one pool address for each call."""
        chance, cards = self.chance, self.new(count // 3 + 1)
        pipelines, mails, clients = self.new(3), self.new(3), digest(np.array([304, 305]))
        pick = chance.integers(0, 3, count)
        shapes = self.new(6)
        facts = {
            "created_at": START - 12 * DAY + chance.random(count) * 8 * DAY,
            "payment": cards[np.arange(count) // 3],
            "signup": self.new(count),
            "mail": mails[chance.integers(0, 3, count)],
            "client": clients[pick % 2],
            "system": pipelines[pick],
            "shape": shapes[np.stack([pick * 2, pick * 2 + 1] * 2, axis=1)],
            "rate": np.full(count, 26.0),
            "present": np.ones(count),
            "homes": None,
            "pool": np.concatenate([self.address_block(count * 340), self._homes(count * 20)]),
            "flat": True,
            "tasks": True,
            "ask": "reasoning",
            "kind": "residential_proxy",
        }
        made = People(label, **(facts | changes))
        self.groups.append(made)
        return made

    def _homes(self, count: int) -> NDArray[Any]:
        """Return addresses of honest people's provider, for a pool of theirs."""
        return self.isp[self.chance.integers(0, self.isp.size, count)]

    def static_homes(self, count: int, in_a_subnet: int = 40) -> NDArray[Any]:
        """Return one address for each account for good, some to a /24, as ISP proxies are sold."""
        block = self.address_block(256 * (count // in_a_subnet + 1))
        place = np.arange(count)
        homes = block[place // in_a_subnet * 256 + place % in_a_subnet]
        return np.repeat(homes[:, None], self.days, axis=1)

    def write(self, directory: Path) -> dict[str, str]:
        """Write all sightings, and return the label of every account."""
        connection = duckdb.connect()
        labels: dict[str, str] = {}
        for place, people in enumerate(self.groups):
            columns, names = self._calls(people, place)
            labels |= dict.fromkeys(names, people.label)
            connection.register(f"part{place}", columns)
        union = " UNION ALL ".join(f"SELECT * FROM part{n}" for n in range(len(self.groups)))  # noqa: S608
        connection.execute(f"CREATE TABLE raw AS {union}")
        for day in range(self.days):
            name = datetime.fromtimestamp(START + day * DAY, UTC).date().isoformat()
            folder = directory / "sightings" / f"day={name}"
            folder.mkdir(parents=True, exist_ok=True)
            first = START + day * DAY
            connection.execute(
                _COPY.format(first=first, last=first + DAY, path=folder / "a.parquet")
            )
        connection.close()
        return labels

    def _calls(self, people: People, place: int) -> tuple[dict[str, NDArray[Any]], list[str]]:
        """Return the columns of all calls of some people, and their names."""
        chance, size = self.chance, people.size
        names = np.array([f"{people.label}-{place}-{n}" for n in range(size)], dtype=object)
        day_of = np.arange(self.days)
        counts = chance.poisson(people.rate[:, None], (size, self.days))
        counts *= chance.random((size, self.days)) < people.present[:, None]
        counts[people.created_at[:, None] > START + (day_of + 1) * DAY] = 0
        who = np.repeat(np.repeat(np.arange(size), self.days), counts.ravel())
        day = np.repeat(np.tile(day_of, size), counts.ravel())
        many = who.size
        if people.cron:
            hour, within = chance.integers(0, 24, many), chance.random(many) * 300
        elif people.flat:
            hour, within = chance.integers(0, 24, many), chance.random(many) * 3_600
        else:
            zone = chance.normal(14, 2, size)
            hour = np.clip(chance.normal(zone[who], 4), 0, 23).astype(int)
            within = chance.random(many) * 3_600
        at = START + day * DAY + hour * 3_600 + within
        at = np.maximum(at, people.created_at[who])
        if people.homes is None:
            address = people.pool[chance.integers(0, people.pool.size, many)]
        else:
            address = people.homes[who, day]
        covered = chance.random(many) < people.cover
        shape = people.shape[who, chance.integers(0, 4, many)]
        shape = np.where(covered, digest(700 + chance.integers(0, 60, many)), shape)
        system = np.where(covered, 0, people.system[who])
        block = np.where(system > 0, digest(system % 2**40), digest(chance.integers(1, 50, many)))
        tasks = self.new(many) if people.tasks else digest(10**9 + chance.integers(0, 4_000, many))
        moved = (day >= self.days // 2) & (people.pivot | (chance.random(size) < 0.1)[who])
        return {
            "at": at,
            "id": np.array([f"{place}-{n}" for n in range(many)], dtype=object),
            "account": names[who],
            "organization": np.array([people.organization or ""] * many, dtype=object),
            "assurance": np.array([people.assurance] * many, dtype=object),
            "created_at": people.created_at[who],
            "payment": people.payment[who],
            "signup": people.signup[who],
            "mail": people.mail[who],
            "model": np.where(moved, "model-2", "model-1").astype(object),
            "output_tokens": chance.integers(50, 900, many),
            "address": digest(address),
            "prefix": digest(address // 256),
            "kind": np.array([people.kind] * many, dtype=object),
            "egress": np.full(many, people.egress),
            "client": people.client[who],
            "system": system,
            "first_block": block,
            "last_block": tasks,
            "shape": shape,
            "ask": np.array([people.ask or ""] * many, dtype=object),
        }, names.tolist()


_COPY = f"""
COPY (
  SELECT CAST("at" AS DOUBLE) AS "at", id, account, NULLIF(organization, '') AS organization,
    assurance, 'standard' AS tier, created_at, payment, signup, mail, 'allow' AS verdict,
    TRUE AS admitted, model, CAST(900 AS BIGINT) AS input_tokens, output_tokens, address, prefix,
    CAST(64500 AS INTEGER) AS asn, kind, 'US' AS country, egress, '{EPOCH}' AS epoch, client,
    client AS headers, system, CAST(0 AS BIGINT) AS tools, CAST(0 AS BIGINT) AS format,
    system AS scaffold, [first_block, last_block] AS blocks, shape,
    CASE WHEN ask = '' THEN CAST([] AS VARCHAR[]) ELSE [ask] END AS asks,
    CASE WHEN ask = '' THEN CAST([] AS VARCHAR[]) ELSE [ask] END AS capabilities,
    CAST(NULL AS VARCHAR) AS campaign, CAST(NULL AS VARCHAR) AS stage
  FROM raw WHERE "at" >= {{first}} AND "at" < {{last}}
) TO '{{path}}' (FORMAT parquet)
"""  # noqa: S608 (of our own words)
