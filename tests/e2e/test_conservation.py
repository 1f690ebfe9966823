"""Nothing is lost: the books of callers, upstream, gates and store agree on every token.

Requests of all families go through four gates and one store, while upstreams break, callers hang
up, gates are killed and the store restarts, all by chance. ``SEED`` replays a plan, ``REQUESTS``
says how long the long run is.
"""

from __future__ import annotations

import os
import random
import sys
from typing import TYPE_CHECKING

import pytest
from support.conservation.balances import Balances
from support.conservation.books import Books
from support.conservation.chance import make_plan
from support.conservation.fleet import WORKERS, Fleet
from support.conservation.plan import WORDS
from support.valkey import serving

from gatekeeper.dialects.estimate import estimate_tokens
from gatekeeper.dialects.exact_tokens import ExactTokens

if TYPE_CHECKING:
    from pathlib import Path

    from gatekeeper.settings import Geoip

DURABLE = ("--appendonly", "yes", "--appendfsync", "no")
"""A store whose state outlives its process: it writes before it answers, and only so.

With `everysec` it may answer first while an older write is on its way to the disk, and what a
killed store has answered but not written is lost: that is what a store's operator chooses.
"""
SHOWN = 40


def say(line: str) -> None:
    """Tell those who wait how it goes."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


async def play(
    folder: Path, geoip: Geoip, *, requests: int, disasters: int, hold_s: float, callers: int
) -> Fleet:
    """Play a plan and check all books."""
    seed = int(os.environ.get("SEED") or random.randrange(1_000_000))
    say(f"SEED={seed} REQUESTS={requests}")
    plan = make_plan(seed, requests, WORKERS, disasters)
    async with serving(folder / "store", *DURABLE) as store:
        fleet = Fleet(folder, geoip, store, plan, hold_s, callers)
        await fleet.run(say)
    books = Books(fleet)
    books.check()
    balances = Balances(books)
    balances.check()
    for name, count in sorted(books.told.items()):
        say(f"{count:8} {name}")
    say(f"{len(fleet.lives):8} processes, {balances.lost} settlements lost and charged as held")
    say(f"{balances.exact} balances of the store known to the unit")
    wrong = books.wrong + balances.wrong
    assert not wrong, f"SEED={seed}: {len(wrong)} breaches\n" + "\n".join(wrong[:SHOWN])
    assert books.told["requests"] == requests
    assert len(fleet.lives) - WORKERS + len(fleet.outages) == disasters
    for kind in ("exact", "estimated", "verdict rate_limited"):
        assert books.told[kind] > requests // 50, books.told
    return fleet


def test_a_word_is_a_token() -> None:
    """What the books count as delivered, `o200k_base` counts too, and no estimate is lower."""
    exact = ExactTokens()
    for word in WORDS:
        text = f" {word}".encode()
        assert (exact(text), estimate_tokens(text) >= 1) == (1, True), word


async def test_h23_the_three_books_agree(tmp_path: Path, small_geoip: Geoip) -> None:
    """A short run with one disaster of each kind."""
    await play(tmp_path, small_geoip, requests=600, disasters=4, hold_s=20.0, callers=24)


@pytest.mark.soak
async def test_h41_the_three_books_agree_in_the_long_run(
    tmp_path: Path, small_geoip: Geoip
) -> None:
    """A long run; the gate that nobody touched is no larger at its end than in its middle."""
    requests = int(os.environ.get("REQUESTS") or 20_000)
    fleet = await play(
        tmp_path,
        small_geoip,
        requests=requests,
        disasters=max(8, requests // 600),
        hold_s=45.0,
        callers=32,
    )
    early = [each for each in fleet.resources if requests * 0.3 <= each[0] <= requests * 0.5]
    late = [each for each in fleet.resources if each[0] >= requests * 0.8]
    say(f"resident KiB and files of a gate: {early[0][1:]} early, {late[-1][1:]} late")
    grown = max(each[1] for each in late) - max(each[1] for each in early)
    assert grown < 16_384, fleet.resources
    assert late[-1][2] <= max(each[2] for each in early), fleet.resources
