"""Time the limits: planning the claims of a call, reserving and settling them, the headers.

Run with ``python -m bench.limiter`` or ``python bench/limiter.py`` from the root of the project.
"""

from __future__ import annotations

import asyncio
import itertools
import resource
import sys
import tempfile
import time
import timeit
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gatekeeper import settings
from gatekeeper.policy.limit_plan import LimitPlanner
from gatekeeper.policy.limits import Claim, Quota
from gatekeeper.policy.model import (
    Account,
    Call,
    Credential,
    Facts,
    Moment,
    NetworkFacts,
    Standing,
    Usage,
)
from gatekeeper.policy.ratelimit_headers import rate_limit_headers
from gatekeeper.policy.ruleset import LimitRule, PrivateAddresses, RuleSet
from gatekeeper.policy.view import view_of
from gatekeeper.policy.words import CredentialKind, CredentialStatus, Mode, OnFailure, Tier, Unit
from gatekeeper.storage.decision_log import DecisionLog, encode_record
from gatekeeper.storage.limiter_memory import MemoryLimiter

if TYPE_CHECKING:
    from collections.abc import Callable

QUOTAS = (
    (Unit.REQUESTS, ("account",), 600, 60),
    (Unit.REQUESTS, ("account",), 20_000, 86_400),
    (Unit.INPUT_TOKENS, ("account",), 2_000_000, 60),
    (Unit.OUTPUT_TOKENS, ("account",), 400_000, 60),
    (Unit.COST, ("account",), 10_000, 86_400),
    (Unit.CONCURRENCY, ("account",), 20, 1),
    (Unit.REQUESTS, ("address",), 1_200, 60),
    (Unit.REQUESTS, ("prefix",), 6_000, 60),
    (Unit.REQUESTS, ("asn",), 60_000, 60),
    (Unit.OUTPUT_TOKENS, ("account", "model"), 400_000, 3_600),
    (Unit.COST, ("organization",), 200_000, 2_592_000),
    (Unit.REQUESTS, ("country",), 600_000, 60),
)
ROUNDS = 20_000


def rule_set() -> RuleSet:
    """Return twelve limits such as a default pack has, all of which apply."""
    limits = tuple(
        LimitRule(
            id=f"limit-{number}",
            description="",
            mode=Mode.ENFORCE,
            unit=unit,
            per=per,
            amount=amount * 1000 if unit is not Unit.CONCURRENCY else amount,
            period_s=period_s,
            burst=amount * 1000 if unit is not Unit.CONCURRENCY else amount,
            tiers=frozenset(Tier),
            when=None,
            on_store_failure=OnFailure.CLOSED,
        )
        for number, (unit, per, amount, period_s) in enumerate(QUOTAS)
    )
    return RuleSet(
        revision="0",
        private=PrivateAddresses(allow=True),
        embargo=(),
        signals=(),
        thresholds=(),
        tiers={},
        limits=limits,
        step_up=(),
        exemptions=(),
        models=(),
    )


def facts() -> Facts:
    """Return a call that every quota counts."""
    return Facts(
        at=1.0,
        network=NetworkFacts("192.0.2.0/24", "a" * 32, "b" * 32, country="US", asn=64_496),
        credential=Credential(
            CredentialKind.API_KEY, CredentialStatus.VALID, "gk_12345678", "account"
        ),
        account=Account("account-1", organization="example"),
        call=Call(
            "POST",
            "/v1/chat/completions",
            model="some-model-2026",
            input_tokens=900,
            max_output_tokens=4096,
            cost_cents=1.25,
        ),
    )


def show(name: str, run: Callable[[], object], number: int = ROUNDS) -> None:
    """Print the best of five rounds, in microseconds of processor time a run."""
    best = min(timeit.repeat(run, timer=time.thread_time, number=number, repeat=5)) / number
    print(f"{name:<52}{best * 1e6:8.2f} us")


def drive(run: Callable[[], object]) -> Callable[[], None]:
    """Run a coroutine that never waits, without an event loop."""

    def once() -> None:
        try:
            run().send(None)  # type: ignore[attr-defined]
        except StopIteration:
            return
        raise RuntimeError("it waited")

    return once


def flood(quota: Quota) -> None:
    """Reserve for a million distinct partitions, a thousand a second, and tell what is kept."""
    limiter, most = MemoryLimiter(), 0

    async def call(number: int) -> None:
        claim = Claim(quota, f"{number:032x}", 1_000_000)
        await limiter.reserve([claim], Moment(0.0, number * 1000), 1.0, str(number))

    started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(1_000_000):
        drive(partial(call, number))()
        most = max(most, len(limiter))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - started
    print(f"{'a million partitions: most buckets at a time':<52}{most:8d}")
    print(f"{'a million partitions: memory grown by':<52}{grown:8d} KiB")


def main() -> None:
    """Print one line for each step."""
    planner = LimitPlanner(rule_set())
    call = facts()
    view, standing = view_of(call), Standing()
    claims = planner.claims(call, standing, view)
    limiter = MemoryLimiter()
    ids = itertools.count()
    used = Usage(900, 300, 0.4)

    async def turn() -> None:
        number = next(ids)
        at = Moment(0.0, number * 100_000)
        reserved = await limiter.reserve(claims, at, 600.0, str(number))
        if reserved.held is None:
            raise RuntimeError("refused")
        await limiter.settle(reserved.held, used, at)

    async def reserve() -> None:
        number = next(ids)
        at = Moment(0.0, number * 100_000)
        if (await limiter.reserve(claims, at, 0.0, str(number))).held is None:
            raise RuntimeError("refused")

    async def statuses() -> tuple[object, ...]:
        return (
            await limiter.reserve(claims, Moment(0.0, next(ids) * 100_000), 0.0, "last")
        ).statuses

    show(f"plan {len(claims)} claims", lambda: planner.claims(call, standing, view))
    show("reserve 12 claims", drive(reserve))
    show("reserve and settle 12 claims", drive(turn))
    last = asyncio.run(statuses())
    show("RateLimit headers of 12 statuses (7 of them own)", lambda: rate_limit_headers(last))  # type: ignore[arg-type]
    record = {"kind": "decision", "id": "d" * 26, "facts": call, "limits": last}
    line = encode_record(record)
    show(f"encode a record of {len(line)} bytes", lambda: encode_record(record))
    flood(Quota.of(replace(rule_set().limits[6], amount=600, burst=600)))
    with tempfile.TemporaryDirectory() as directory:
        log = DecisionLog(settings.DecisionLog(directory=Path(directory), spool_records=10_000_000))
        show("append it to the decision log", lambda: log.append(line))
        asyncio.run(log.close(30.0))
        print(f"{'records written':<52}{log.written:8d}")


if __name__ == "__main__":
    main()
