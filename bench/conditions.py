"""Time the conditions: CPU time of one evaluation each, over calls of which more or less is known.

Run with ``python -m bench.conditions`` or ``python bench/conditions.py`` from the root.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from timeit import Timer
from typing import TYPE_CHECKING

# the root rather than this folder, whose file names would hide packages such as limits
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from gatekeeper.policy.conditions import compile_condition  # noqa: E402 - as above

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gatekeeper.policy.conditions import Condition
    from gatekeeper.policy.model import View

LIMIT_NS = 2_000

PLAIN: View = {
    "network.country": "DE",
    "network.registered_country": "DE",
    "network.subdivision": "DE-BE",
    "network.asn": 3320,
    "network.as_organization": "Deutsche Telekom AG",
    "network.kind": "residential",
    "network.listed_by": (),
    "network.prefix": "203.0.113.0/24",
    "account.id": "acct_1",
    "account.known": True,
    "account.organization": "acme",
    "account.tier": "standard",
    "account.assurance": "ial1",
    "account.age_days": 210.5,
    "account.email_domain": "acme.example",
    "account.email_listed_by": (),
    "account.owners": (),
    "account.owner_countries": (),
    "credential.kind": "api_key",
    "credential.key_id": "gk_abcd",
    "call.method": "POST",
    "call.path": "/v1/chat/completions",
    "call.dialect": "openai_chat",
    "call.model": "gpt-4o",
    "call.stream": True,
    "call.input_tokens": 1200,
    "call.max_output_tokens": 4096,
    "call.choices": 1,
    "call.cost_cents": 4.5,
    "call.body_bytes": 5120,
    "call.client": "openai-python",
}
SUSPICIOUS: View = {
    **PLAIN,
    "network.country": "US",
    "network.owner": "alibaba",
    "network.owner_country": "CN",
    "network.asn": 45102,
    "network.kind": "vpn",
    "network.listed_by": ("tor-exits", "x4b-vpn"),
    "account.tier": "elevated",
    "account.assurance": "none",
    "account.age_days": 0.5,
    "account.email_listed_by": ("disposable",),
    "account.owners": ("bytedance",),
    "account.owner_countries": ("CN",),
    "call.choices": 8,
    "call.cost_cents": 250.0,
}
VIEWS: dict[str, list[View]] = {
    "plain": [PLAIN],
    "suspicious": [SUSPICIOUS],
    "nothing known": [{}],
    # texts that no pattern has seen lately
    "new texts": [
        {**PLAIN, "call.path": f"/v1/chat/{n}", "call.model": f"model-{n}", "call.client": f"c{n}"}
        for n in range(1_000)
    ],
}

EXAMPLES = (
    "account.known",
    "network.kind == 'vpn' && account.age_days < 30.0",
    "network.asn in [45102, 37963, 134963, 132203, 45090, 55990, 136907, 55967, 138997, 396986]",
    "network.kind in ['vpn', 'tor', 'residential_proxy'] && !(account.assurance in ['ial2'])",
    "'tor-exits' in network.listed_by || 'x4b-vpn' in network.listed_by",
    "network.listed_by.exists(x, x.startsWith('tor-'))",
    """has(network.country) && has(network.registered_country)
    && network.country != network.registered_country""",
    "call.path.startsWith('/v1/') && call.client.contains('python')",
    "call.max_output_tokens * call.choices > 100000",
    "call.cost_cents / double(call.choices) > 50.0",
    "account.known ? account.age_days < 7.0 : call.cost_cents > 1.0",
    "call.path.matches('^/v1/(chat|messages)')",
    """network.kind == 'vpn' && account.age_days < 30.0 && !(account.tier == 'trusted')
    && (network.country != network.registered_country || account.owners.size() > 0)
    && call.max_output_tokens > 1000""",
)


def evaluation_ns(condition: Condition, views: list[View], seconds: float) -> float:
    """Measure one evaluation; the best of five rounds that together take about ``seconds``."""
    evaluate = condition.evaluate
    views = views * (1_000 // len(views))

    def once() -> None:
        for view in views:
            evaluate(view)

    timer = Timer(once, timer=time.process_time)
    loops = max(1, int(seconds / 5 / Timer(once).timeit(1)))
    return min(timer.repeat(5, loops)) / loops / len(views) * 1e9


def rule_conditions(folder: Path) -> Iterator[tuple[str, Condition]]:
    """Yield the id and condition of every rule in ``folder``; exit on a mistake in it."""
    from gatekeeper.policy.rules import parse_rules  # noqa: PLC0415 - not needed without rules

    paths = sorted(folder.glob("*.yaml"))
    rules = parse_rules({path.name: path.read_text() for path in paths})
    if isinstance(rules, list):
        sys.exit("\n".join(map(str, rules)))
    for signal in rules.signals:
        yield signal.id, signal.when
    for limit in rules.limits:
        if limit.when is not None:
            yield limit.id, limit.when
    for step_up in rules.step_up:
        yield step_up.id, step_up.when
    for exemption in rules.exemptions:
        yield exemption.id, exemption.when


def main() -> None:
    """Print a table and the slowest condition."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rules", type=Path, default=Path("rules"), help="folder of rule files (default: rules)"
    )
    parser.add_argument(
        "--seconds", type=float, default=0.1, help="per condition and view (default: 0.1)"
    )
    arguments = parser.parse_args()
    subjects = [(source, compile_condition(source)) for source in EXAMPLES]
    subjects += rule_conditions(arguments.rules)
    print("".join(f"{name:>15}" for name in VIEWS), " condition (ns of CPU time)")
    slowest = (0.0, "")
    for name, condition in subjects:
        costs = [evaluation_ns(condition, views, arguments.seconds) for views in VIEWS.values()]
        slowest = max(slowest, (max(costs), name))
        print("".join(f"{cost:15.0f}" for cost in costs), f" {' '.join(name.split())}")
    print(
        f"\nslowest: {slowest[0]:.0f} ns of {LIMIT_NS} ns allowed: {' '.join(slowest[1].split())}"
    )


if __name__ == "__main__":
    main()
