"""What the rule of an account's tier has against a call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekeeper.policy.model import Finding
from gatekeeper.policy.patterns import matches_any
from gatekeeper.policy.words import Reason, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gatekeeper.policy.model import Facts
    from gatekeeper.policy.ruleset import TierRule


def of_tier(tier: TierRule, facts: Facts) -> Iterator[tuple[Finding, str | None]]:
    """Yield what speaks against a call, each with a sentence for the caller where there is one."""
    call = facts.call
    if not facts.account.assurance.meets(tier.assurance):
        yield (
            Finding(
                tier.id,
                tier.mode,
                Verdict.STEP_UP,
                Reason.IDENTITY_VERIFICATION_REQUIRED,
                tier.assurance.value,
            ),
            None,
        )
    if call.model is not None and not matches_any(call.model, tier.models):
        yield Finding(tier.id, tier.mode, Verdict.DENY, Reason.MODEL_NOT_PERMITTED), None
    if tier.max_output_tokens is not None and call.max_output_tokens > tier.max_output_tokens:
        lever = f"{tier.max_output_tokens} output tokens: lower max_tokens or n."
        yield _too_large(tier), f"One call may ask for at most {lever}"
    if tier.max_input_tokens is not None and call.input_tokens > tier.max_input_tokens:
        lever = f"{tier.max_input_tokens} input tokens: shorten the prompt."
        yield _too_large(tier), f"One call may hold at most {lever}"


def _too_large(tier: TierRule) -> Finding:
    return Finding(tier.id, tier.mode, Verdict.RATE_LIMITED, Reason.REQUEST_EXCEEDS_LIMIT)
