"""The rules under which the gates of a conservation test judge."""

from __future__ import annotations

from typing import Final

from support.conservation.plan import MOST_OUTPUT, SHAPED, YIELDING

INPUT_CENTS, CACHED_CENTS, OUTPUT_CENTS = 100_000.0, 10_000.0, 400_000.0
"""Prices of a million tokens: dear, so that one token is far more than a bucket drains."""
DRAIN_PER_S: Final = 1 / (31 * 86_400)
"""Units that flow back in a second: next to nothing, so that the balances can be read."""


def rules(hold_s: float) -> str:
    """Return rules under which some calls of every account are refused."""
    return f"""\
version: 1
private: {{allow: true}}
embargo:
  - {{id: embargo-cuba, description: C., countries: [CU], on: [use], unknown: allow, source: law}}
tiers:
  - {{id: tier-trusted, description: T., tier: trusted, models: ["*"]}}
  - {{id: tier-standard, description: S., tier: standard, models: ["*"]}}
  - {{id: tier-elevated, description: E., tier: elevated, models: ["*"]}}
  - {{id: tier-restricted, description: R., tier: restricted, models: ["*"]}}
models:
  - {{model: "*", input_cents_per_million: {INPUT_CENTS}, output_cents_per_million: {OUTPUT_CENTS},
     cached_input_cents_per_million: {CACHED_CENTS}, max_output_tokens: {MOST_OUTPUT}}}
shaping:
  - {{id: shaped, description: S., when: call.model == "{SHAPED}", logprobs: remove,
     drop_reasoning: true, max_output_tokens: 25, max_choices: 1}}
limits:
  - {{id: calls, description: C., unit: requests, per: [account], rate: 1/month, burst: 34}}
  - {{id: given, description: I., unit: input_tokens, per: [account], rate: 1/month, burst: 2200}}
  - {{id: written, description: O., unit: output_tokens, per: [account], rate: 1/month,
     burst: 1300}}
  - {{id: spent, description: S., unit: cost, per: [account], rate: 1/month, burst: 800}}
  - {{id: moved, description: B., unit: bytes, per: [account], rate: 1/month, burst: 90000000}}
  - {{id: all-written, description: A., unit: output_tokens, per: [everyone], rate: 1/month,
     burst: 4000000000}}
  - {{id: watched, description: W., unit: output_tokens, per: [account], rate: 1/month, burst: 500,
     mode: shadow}}
  - {{id: yielding, description: Y., unit: output_tokens, per: [account], rate: 1/month,
     burst: 150, at_end: stop, when: call.model == "{YIELDING}"}}
  - {{id: slots, description: S., unit: concurrency, per: [account], slots: 10,
     lease: {int(hold_s)} seconds}}
...
"""
