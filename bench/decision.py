"""CPU time of one decision, step by step, with the default rules and the real network data.

Example: python bench/decision.py

The aim is 40 microseconds from facts to verdict: screen, view, assess, claims, reserve, conclude.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from _clock import microseconds

from gatekeeper.app import system_clock
from gatekeeper.facts.address import parse_address
from gatekeeper.facts.network import NetworkData
from gatekeeper.policy.decide import assess, conclude, screen
from gatekeeper.policy.model import Account, Call, Credential, Facts, Usage
from gatekeeper.policy.ratelimit_headers import rate_limit_headers
from gatekeeper.policy.record import to_record
from gatekeeper.policy.view import view_of
from gatekeeper.policy.words import CredentialKind, CredentialStatus, Tier
from gatekeeper.settings import Settings
from gatekeeper.snapshot import Snapshot
from gatekeeper.sources import load_rules
from gatekeeper.storage.decision_log import encode_record
from gatekeeper.storage.limiter_memory import MemoryLimiter

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

VERDICT = ("screen", "view", "assess", "claims", "reserve and settle", "conclude")


def finish(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as stopped:
        return stopped.value
    raise RuntimeError("it waited")


def steps(work: Path, tier: Tier, address: str) -> dict[str, Callable[[], object]]:
    """Return each step of a decision as a function of nothing."""
    settings = Settings(data_dir=work)
    network = NetworkData.load(settings.geoip, secret=os.urandom(32), now_unix_s=time.time())
    snapshot = Snapshot.of(load_rules(settings)[1], network)
    where, at = parse_address(address), system_clock()
    if where is None:
        raise SystemExit(f"{address} is not an address")
    rules, limiter = snapshot.rules, MemoryLimiter()
    facts = Facts(
        at.unix_s,
        snapshot.network.observe(where),
        Credential(CredentialKind.API_KEY, CredentialStatus.VALID, "gk_abcdefgh", "bench"),
        Account("bench", known=True, tier=tier, created_at=at.unix_s - 4e7),
        Call("POST", "/v1/chat/completions", "openai_chat", "gpt-4o-mini", max_output_tokens=200),
    )
    view, screened = view_of(facts), screen(facts, rules)
    standing = assess(facts, view, rules, screened)
    claims = snapshot.planner.claims(facts, standing, view)
    turn = iter(range(10**9))

    def reserve() -> Any:
        reserved = finish(limiter.reserve(claims, at, 3600.0, str(next(turn))))
        if reserved.held is not None:
            finish(limiter.settle(reserved.held, Usage(), at))
        return reserved

    statuses = reserve().statuses

    def decide() -> Any:
        return conclude(
            standing, statuses, rules, decision_id="dec_0", at=at.unix_s, mode=snapshot.mode
        )

    decision = decide()
    record = to_record(decision, facts, mode=snapshot.mode)
    print(
        f"{decision.verdict.word}; {len(claims)} limits; record {len(encode_record(record))} bytes"
    )
    return {
        "screen": lambda: screen(facts, rules),
        "view": lambda: view_of(facts),
        "assess": lambda: assess(facts, view, rules, screened),
        "claims": lambda: snapshot.planner.claims(facts, standing, view),
        "reserve and settle": reserve,
        "conclude": decide,
        "record": lambda: encode_record(to_record(decision, facts, mode=snapshot.mode)),
        "headers": lambda: rate_limit_headers(statuses),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--number", type=int, default=5_000, help="calls a round")
    parser.add_argument("--tier", type=Tier, choices=list(Tier), default=Tier.STANDARD)
    parser.add_argument("--address", default="8.8.4.4")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        total = 0.0
        for name, step in steps(Path(work), arguments.tier, arguments.address).items():
            took = microseconds(step, arguments.number)
            total += took if name in VERDICT else 0.0
            print(f"{name:20} {took:7.2f} us")
    print(f"{'facts to verdict':20} {total:7.2f} us  (aim: 40)")


if __name__ == "__main__":
    main()
