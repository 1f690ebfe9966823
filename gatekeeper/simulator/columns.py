"""Calls as the sightings that a watcher reads: Parquet files, one for a day."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gatekeeper.simulator.scenario import DAY_S
from gatekeeper.simulator.traffic import mixed
from gatekeeper.simulator.world import ASKS, Net

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from gatekeeper.simulator.traffic import Events
    from gatekeeper.simulator.world import World

_EPOCH: Final = "51b0a7e5"
_KINDS: Final = {Net.HOSTING: "hosting", Net.VPN: "vpn"}
"""What network data tells of a kind of network; of others it is ``unknown``."""
_CLASSES: Final = {
    "code": "software-engineering", "agentic": "agentic-tool-use", "tools": "agentic-tool-use",
    "reasoning": "reasoning", "grading": "grading",
}  # fmt: skip


def _listed(words: tuple[str, ...]) -> str:
    return f"CAST([{', '.join(map(repr, words))}] AS VARCHAR[])"


def _classes(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_CLASSES[word] for word in words))


_CODES = range(len(ASKS))
_WORDS = " ".join(f"WHEN {code} THEN {_listed(ASKS[code])}" for code in _CODES)
_CAPABILITIES = " ".join(f"WHEN {code} THEN {_listed(_classes(ASKS[code]))}" for code in _CODES)
_NETS = " ".join(f"WHEN {net:d} THEN '{name}'" for net, name in _KINDS.items())
_COPY: Final = f"""
COPY (
  SELECT calls."at", 's' || calls.serial AS id, people.account,
    CASE WHEN people.organization < 0 THEN NULL ELSE 'org-' || people.organization END
      AS organization,
    CASE WHEN people.verified THEN 'ial1' ELSE 'none' END AS assurance, 'standard' AS tier,
    people.created AS created_at, people.card AS payment, people.signup, people.mail,
    'allow' AS verdict, TRUE AS admitted, 'model-' || calls.model AS model,
    calls.input_tokens, calls.output_tokens, calls.address, calls.prefix,
    CAST(64500 AS INTEGER) AS asn, CASE people.net {_NETS} ELSE 'unknown' END AS kind,
    'US' AS country, people.organization > 0 AS egress, '{_EPOCH}' AS epoch, people.client,
    people.client AS headers, calls."system", calls.tools, CAST(0 AS BIGINT) AS format,
    calls.scaffold, [calls.opening, calls.task] AS blocks, calls.shape,
    CASE calls.ask {_WORDS} END AS asks, CASE calls.ask {_CAPABILITIES} END AS capabilities,
    CAST(NULL AS VARCHAR) AS campaign, CAST(NULL AS VARCHAR) AS stage
  FROM calls JOIN people ON calls.who = people.who ORDER BY calls."at"
) TO '{{path}}' (FORMAT parquet)
"""  # noqa: S608 - of our own words


def lend_people(connection: DuckDBPyConnection, world: World) -> None:
    """Let :func:`write_day` know who everybody is."""
    people: dict[str, Any] = {
        "who": np.arange(world.size),
        "account": np.array(world.names, dtype=object),
        "organization": world.organization.astype(np.int64),
        "verified": world.verified.astype(bool),
        "created": world.created.astype(np.float64),
        "card": mixed(world.card, 101),
        "signup": mixed(world.signup, 102),
        "mail": mixed(world.mail, 103),
        "client": mixed(world.client, 104),
        "net": world.net.astype(np.int64),
    }
    connection.register("lent", people)
    connection.execute("CREATE OR REPLACE TEMP TABLE people AS SELECT * FROM lent")
    connection.unregister("lent")


def write_day(  # noqa: PLR0917
    connection: DuckDBPyConnection, world: World, events: Events, day: int, directory: Path,
    name: str = "simulated",
) -> None:  # fmt: skip
    """Write the sightings of one day into ``directory``, as the watcher's intake would have."""
    if not events.size:
        return
    at = world.scenario.start + day * DAY_S
    folder = directory / "sightings" / f"day={datetime.fromtimestamp(at, UTC):%Y-%m-%d}"
    folder.mkdir(parents=True, exist_ok=True)
    told = np.where(events.system > 0, mixed(events.system, 105), 0)
    tools = np.where(events.tools > 0, mixed(events.tools, 106), 0)
    both = (events.system > 0) | (events.tools > 0)
    calls = {
        "at": events.at,
        "who": events.who,
        "serial": day * 10**9 + np.arange(events.size),
        "model": events.model,
        "input_tokens": events.input_tokens,
        "output_tokens": events.output_tokens,
        "address": mixed(events.address, 107),
        "prefix": mixed(events.address >> 8, 108),
        "system": told,
        "tools": tools,
        "scaffold": np.where(both, mixed(events.system, events.tools, 109), 0),
        "opening": mixed(events.opening, 110),
        "task": mixed(events.opening, events.task, 111),
        "shape": events.shape,
        "ask": events.ask,
    }
    connection.register("calls", calls)
    connection.execute(_COPY.format(path=folder / f"{name}.parquet"))
    connection.unregister("calls")
