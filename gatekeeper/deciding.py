"""Turns what rules and limits say into one decision, writes it down, and words the refusal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gatekeeper.delivery import countable
from gatekeeper.judging import Case
from gatekeeper.listener.answers import refusal_text, refuse
from gatekeeper.policy.decide import conclude, outright
from gatekeeper.policy.record import to_record
from gatekeeper.policy.words import Reason, Verdict
from gatekeeper.storage.decision_log import encode_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.web import BaseRequest, StreamResponse

    from gatekeeper.dialects.base import Dialect, RefusalText
    from gatekeeper.listener.head import BadRequest
    from gatekeeper.policy.model import Decision, Facts, LimitStatus, Moment, Standing
    from gatekeeper.settings import Settings
    from gatekeeper.storage.decision_log import DecisionLog
    from gatekeeper.storage.usage import UsageBook
    from gatekeeper.telemetry import Metrics
    from gatekeeper.tracing import Tracing
    from gatekeeper.verification.links import LinkSigner, VerificationLink


class Arrival(Case, frozen=True, gc=False):
    """A call under judgement whose caller waits for an answer."""

    request: BaseRequest


@dataclass(frozen=True, slots=True)
class Deciding:
    """What it takes to decide and to say so."""

    settings: Settings
    clock: Callable[[], Moment]
    log: DecisionLog
    links: LinkSigner
    metrics: Metrics
    usage: UsageBook
    tracing: Tracing | None

    def decide(
        self,
        case: Case,
        standing: Standing,
        facts: Facts,
        limits: tuple[LimitStatus, ...] = (),
    ) -> Decision:
        """Conclude, record and count. A gate that cannot record admits nothing."""
        decision = self.concluded(case, standing, facts, limits)
        if decision.admits and not self.log.accepting:
            decision = self.concluded(case, outright(Reason.SERVICE_UNAVAILABLE), facts, ())
        self._record(case, decision, facts)
        if self.tracing is not None:
            self.tracing.decided(decision, facts.call.dialect, facts.call.method)
        return decision

    def _record(self, case: Case, decision: Decision, facts: Facts) -> None:
        self.log.append(encode_record(to_record(decision, facts, mode=case.now.mode)))
        self.metrics.count(
            "gatekeeper_decisions",
            decision.verdict.word,
            decision.reason or "",
            facts.call.dialect,
            "yes" if decision.enforced else "no",
        )
        if not decision.admits and countable(facts):
            self.usage.refused(facts.account.id, facts.at)
        for found in decision.findings:
            self.metrics.count(
                "gatekeeper_rule_matches", found.rule, found.mode, found.verdict.word
            )
        took_us = self.clock().monotonic_us - case.at.monotonic_us
        self.metrics.observe("gatekeeper_decision_seconds", took_us * 1e-6)

    def concluded(
        self, case: Case, standing: Standing, facts: Facts, limits: tuple[LimitStatus, ...]
    ) -> Decision:
        """Join what the rules and what the limits said; nothing is written down yet."""
        return conclude(
            standing,
            limits,
            case.now.rules,
            decision_id=case.id,
            at=facts.at,
            mode=case.now.mode,
        )

    def refuse_outright(
        self, case: Arrival, why: BadRequest, facts: Facts, dialect: Dialect
    ) -> StreamResponse:
        """Refuse what cannot be judged."""
        return self.end(case, outright(why.reason, why.detail), facts, dialect)

    def end(
        self, case: Arrival, standing: Standing, facts: Facts, dialect: Dialect
    ) -> StreamResponse:
        """Refuse what the rules already do, without asking the limits."""
        return self.refuse(case, self.decide(case, standing, facts), facts, dialect)

    def refuse(
        self, case: Arrival, decision: Decision, facts: Facts, dialect: Dialect
    ) -> StreamResponse:
        """Word a refusal that was decided, in the dialect of the call."""
        link = self._link(case, decision, facts)
        return refuse(
            case.request,
            decision,
            dialect,
            self.settings,
            kind=facts.credential.kind,
            link=link,
            said=facts.credential.detail,
        )

    def tell(self, case: Case, decision: Decision, facts: Facts, detail: str | None) -> RefusalText:
        """Record the refusal of a further piece and return what its caller is told."""
        self._record(case, decision, facts)
        kind, said = facts.credential.kind, facts.credential.detail
        decision = replace(decision, detail=detail or decision.detail)
        link = self._link(case, decision, facts)
        return refusal_text(decision, self.settings, kind=kind, link=link, said=said)

    def _link(self, case: Case, decision: Decision, facts: Facts) -> VerificationLink | None:
        if decision.obligation is None or decision.verdict is not Verdict.STEP_UP:
            return None
        assurance = decision.obligation.assurance
        return self.links.issue(facts.account.id, assurance, case.id, case.at.unix_s)
