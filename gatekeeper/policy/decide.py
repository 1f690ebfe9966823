"""From facts to a verdict: screen, assess, then conclude once the limits have answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gatekeeper.policy.capabilities import classified
from gatekeeper.policy.embargo import cleared, embargo_matches, in_effect
from gatekeeper.policy.model import Decision, Finding, Obligation, Standing
from gatekeeper.policy.ruleset import OnUnknown
from gatekeeper.policy.score import score
from gatekeeper.policy.shaping import shape
from gatekeeper.policy.shortage import shortage, told_of
from gatekeeper.policy.tiers import of_tier
from gatekeeper.policy.view import view_of
from gatekeeper.policy.words import (
    Assurance,
    CredentialStatus,
    GateMode,
    Mode,
    NetworkKind,
    Reason,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gatekeeper.policy.model import Facts, LimitStatus, RiskScore, Shaping, View
    from gatekeeper.policy.ruleset import EmbargoRule, RuleSet

PRIVATE_RULE: Final = "private"
CREDENTIAL_RULE: Final = "credential"
BAN_RULE: Final = "ban"
REQUEST_RULE: Final = "request"
MODE_RULE: Final = "mode"
"""Names under which what is not a rule of the files stands among the findings."""

_SEVERITY: Final = {
    Verdict.ALLOW: 0,
    Verdict.RATE_LIMITED: 1,
    Verdict.STEP_UP: 2,
    Verdict.DENY: 3,
    Verdict.UNAVAILABLE: 4,
    Verdict.UNAUTHENTICATED: 5,
    Verdict.INVALID: 6,
    Verdict.EMBARGOED: 7,
}
"""Which finding speaks: an embargo before all, then whether the call could be judged at all."""

_CREDENTIAL_FINDINGS: Final = {
    CredentialStatus.MISSING: (Verdict.UNAUTHENTICATED, Reason.CREDENTIALS_MISSING),
    CredentialStatus.INVALID: (Verdict.UNAUTHENTICATED, Reason.CREDENTIALS_INVALID),
    CredentialStatus.EXPIRED: (Verdict.UNAUTHENTICATED, Reason.CREDENTIALS_EXPIRED),
    CredentialStatus.UNKNOWN: (Verdict.UNAVAILABLE, Reason.SERVICE_UNAVAILABLE),
}

NEVER_OBSERVED_AWAY: Final = frozenset(
    {Verdict.EMBARGOED, Verdict.UNAUTHENTICATED, Verdict.INVALID, Verdict.UNAVAILABLE}
)
"""Verdicts that ``observe`` mode enforces all the same."""


def screen(facts: Facts, rules: RuleSet, mode: GateMode = GateMode.ENFORCE) -> Standing:
    """Judge what needs no body: embargo, a closed gate, credentials, bans. Spends nothing."""
    findings = (
        []
        if cleared(rules.reach, facts)
        else [found for rule in rules.embargo if (found := _embargo(rule, facts)) is not None]
    )
    binding = any(finding.mode is Mode.ENFORCE for finding in findings)
    if facts.network.kind is NetworkKind.PRIVATE and not rules.private.allow:
        findings.append(
            Finding(PRIVATE_RULE, Mode.ENFORCE, Verdict.EMBARGOED, Reason.REGION_NOT_SUPPORTED)
        )
    credential = facts.credential.status
    if mode is GateMode.CLOSED:
        findings.append(
            Finding(MODE_RULE, Mode.ENFORCE, Verdict.UNAVAILABLE, Reason.SERVICE_UNAVAILABLE)
        )
    elif credential is not CredentialStatus.VALID:
        verdict, reason = _CREDENTIAL_FINDINGS[credential]
        findings.append(Finding(CREDENTIAL_RULE, Mode.ENFORCE, verdict, reason))
    elif facts.account.banned_until is not None and facts.at < facts.account.banned_until:
        findings.append(Finding(BAN_RULE, Mode.ENFORCE, Verdict.DENY, Reason.ACCOUNT_SUSPENDED))
    return _stand(findings, binding=binding) if findings else _CLEAR


_CLEAR: Final = Standing()


def assess(facts: Facts, view: View, rules: RuleSet, screened: Standing = _CLEAR) -> Standing:
    """Judge what needs the body as well: tier, score, thresholds, step-up.

    ``screened`` is what :func:`screen` said of the same facts; its findings are kept.
    """
    exempt = _exempt(view, facts.at, rules, Mode.ENFORCE)
    lifted = _exempt(view, facts.at, rules, Mode.SHADOW)
    risk = score(view, rules, exempt, lifted)
    findings = list(screened.findings)
    tighten = 1.0
    tier = rules.tiers[facts.account.tier]
    told: list[tuple[Finding, str | None]] = []
    if tier.id not in exempt:
        for found in of_tier(tier, facts):
            told.append(found)
            findings.append(found[0])
    assurance = facts.account.assurance
    for threshold in rules.thresholds:
        enforced = threshold.mode is Mode.ENFORCE and risk.total >= threshold.at_least
        in_shadow = risk.shadow_total >= threshold.at_least
        if not (enforced or in_shadow) or threshold.id in exempt:
            continue
        if threshold.verdict is Verdict.STEP_UP and assurance.meets(threshold.assurance):
            continue
        if not in_shadow:
            lifted |= {threshold.id}
        if enforced:
            tighten = min(tighten, threshold.tighten)
        findings.append(
            Finding(
                threshold.id,
                Mode.ENFORCE if enforced else Mode.SHADOW,
                threshold.verdict,
                _THRESHOLD_REASONS[threshold.verdict],
                threshold.assurance.value if threshold.verdict is Verdict.STEP_UP else "",
            )
        )
    findings.extend(
        Finding(
            rule.id,
            rule.mode,
            Verdict.STEP_UP,
            Reason.IDENTITY_VERIFICATION_REQUIRED,
            rule.assurance.value,
        )
        for rule in rules.step_up
        if not assurance.meets(rule.assurance) and rule.when(view) is True and rule.id not in exempt
    )
    shaped = shape(facts, view, risk, rules.shaping_for(facts.account.tier, risk), exempt)
    lifted |= shaped.lifted
    for found in shaped.findings:
        told.append(found)
        findings.append(found[0])
    return _stand(
        findings,
        risk,
        tighten=tighten,
        told=told,
        exempt=exempt,
        lifted=lifted,
        binding=screened.binding,
        shaping=shaped.shaping,
    )


_THRESHOLD_REASONS: Final = {
    Verdict.ALLOW: None,
    Verdict.STEP_UP: Reason.IDENTITY_VERIFICATION_REQUIRED,
    Verdict.DENY: Reason.REQUEST_DENIED,
}


def judge(facts: Facts, rules: RuleSet, *, mode: GateMode = GateMode.ENFORCE) -> Standing:
    """Judge a call whose every fact is known at once, limits aside: screen, then assess."""
    screened = screen(facts, rules, mode)
    if mode is GateMode.BYPASS or stops(screened, mode=mode):
        return screened
    return assess(facts, view_of(classified(facts, rules)), rules, screened)


def outright(reason: Reason, detail: str | None = None) -> Standing:
    """Return the standing of a call that cannot be judged: malformed, or the gate is not able."""
    unable = reason is Reason.SERVICE_UNAVAILABLE
    verdict = Verdict.UNAVAILABLE if unable else Verdict.INVALID
    finding = Finding(REQUEST_RULE, Mode.ENFORCE, verdict, reason)
    return Standing(verdict, reason, verdict, (finding,), detail=detail, binding=True)


def stops(standing: Standing, *, mode: GateMode) -> bool:
    """Tell whether the call ends here: ``observe`` mode refuses only what nothing may open.

    A call that was only screened and has to prove an identity goes on: worse may be found, unless
    the gate is bypassed and nothing more is asked.
    """
    if standing.admits:
        return False
    if mode is GateMode.BYPASS:
        return True
    if standing.verdict is Verdict.STEP_UP and standing.score is None:
        return False
    return standing.binding or mode is not GateMode.OBSERVE


def _exempt(view: View, at: float, rules: RuleSet, mode: Mode) -> frozenset[str]:
    """Return the ids of the rules that exemptions of ``mode`` switch off for this call."""
    exempt: frozenset[str] = frozenset()
    for exemption in rules.exemptions:
        if exemption.mode is mode and at < exemption.expires_at and exemption.when(view) is True:
            exempt |= exemption.rules
    return exempt


def conclude(
    standing: Standing,
    limits: tuple[LimitStatus, ...],
    rules: RuleSet,
    *,
    decision_id: str,
    at: float,
    mode: GateMode,
) -> Decision:
    """Join what the rules and what the limits said into the one decision.

    ``limits`` is empty when the limits were not asked, because the standing already refuses.
    """
    verdict, reason, detail = standing.verdict, standing.reason, standing.detail
    obligation = standing.obligation
    shadow = standing.shadow_verdict
    findings = standing.findings
    short = [status for status in limits if not status.fits]
    if short:
        found = tuple(map(shortage, short))
        shadow = worst((shadow, *(finding.verdict for finding in found)))
        findings += found
        enforced = [status for status in short if status.mode is Mode.ENFORCE]
        if enforced and verdict is Verdict.ALLOW:
            verdict = worst(f.verdict for f in found if f.mode is Mode.ENFORCE)
            speaking = [status for status in enforced if shortage(status).verdict is verdict]
            reason, detail, obligation = told_of(speaking)
    return Decision(
        id=decision_id,
        at=at,
        verdict=verdict,
        reason=reason,
        enforced=standing.binding or mode is not GateMode.OBSERVE,
        shadow_verdict=shadow,
        findings=findings,
        score=standing.score,
        obligation=obligation,
        tighten=standing.tighten,
        limits=limits,
        rules_revision=rules.revision,
        detail=detail,
        shaping=standing.shaping,
    )


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the most severe of ``verdicts``; ``ALLOW`` for none."""
    return max(verdicts, key=_SEVERITY.__getitem__, default=Verdict.ALLOW)


def _embargo(rule: EmbargoRule, facts: Facts) -> Finding | None:
    if not in_effect(rule, facts.at):
        return None
    matches = embargo_matches(rule, facts)
    if matches is False or (matches is None and rule.unknown is OnUnknown.ALLOW):
        return None
    if matches is None and rule.unknown is OnUnknown.STEP_UP:
        if facts.account.assurance.meets(Assurance.IAL1):
            return None
        return Finding(
            rule.id,
            rule.mode,
            Verdict.STEP_UP,
            Reason.IDENTITY_VERIFICATION_REQUIRED,
            Assurance.IAL1.value,
        )
    return Finding(
        rule.id,
        rule.mode,
        Verdict.EMBARGOED,
        Reason.REGION_NOT_SUPPORTED,
        "" if matches else "unknown",
    )


def _stand(
    findings: list[Finding],
    risk: RiskScore | None = None,
    *,
    binding: bool,
    tighten: float = 1.0,
    told: Iterable[tuple[Finding, str | None]] = (),
    exempt: frozenset[str] = frozenset(),
    lifted: frozenset[str] = frozenset(),
    shaping: Shaping | None = None,
) -> Standing:
    """Let the most severe finding speak, in its own sentence where ``told`` has one.

    ``lifted`` are rules that shadow rules would take back.
    """
    if not findings:
        return Standing(score=risk, tighten=tighten, exempt=exempt)
    verdict = worst(f.verdict for f in findings if f.mode is Mode.ENFORCE)
    spoken = [f for f in findings if f.mode is Mode.ENFORCE and f.verdict is verdict]
    obligation = None
    if verdict is Verdict.STEP_UP:
        highest = max(spoken, key=lambda f: Assurance(f.detail).rank)
        obligation = Obligation(Assurance(highest.detail), highest.rule)
    first = spoken[0] if verdict is not Verdict.ALLOW else None
    return Standing(
        verdict=verdict,
        reason=None if first is None else first.reason,
        shadow_verdict=worst(f.verdict for f in findings if f.rule not in lifted),
        findings=tuple(findings),
        score=risk,
        obligation=obligation,
        tighten=tighten,
        detail=next((sentence for finding, sentence in told if finding is first), None),
        exempt=exempt,
        binding=binding or verdict in NEVER_OBSERVED_AWAY,
        shaping=shaping,
    )
