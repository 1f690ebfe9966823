"""One call after the other through the gate's own steps, on the time that the calls tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp.http import HttpVersion
from msgspec import Struct
from msgspec.structs import replace
from multidict import CIMultiDict, CIMultiDictProxy

from gatekeeper.dialects import dialect_for, dialect_of_socket
from gatekeeper.dialects.base import Incoming
from gatekeeper.facts.address import AddressSource
from gatekeeper.judging import Case, Judging, classed
from gatekeeper.listener.head import BadRequest, read_head
from gatekeeper.listener.intake import Taken, understood
from gatekeeper.policy.decide import conclude, outright, screen, stops
from gatekeeper.policy.model import Call, Credential, Facts, Moment, Usage
from gatekeeper.policy.record import to_record
from gatekeeper.policy.words import CredentialKind, CredentialStatus, Reason
from gatekeeper.storage.decision_log import encode_record
from gatekeeper.terms import asked
from gatekeeper.upstream.routes import Route

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.dialects.base import Ask, Dialect
    from gatekeeper.door import Door
    from gatekeeper.facts.credentials import Authenticator
    from gatekeeper.facts.replica import Replica
    from gatekeeper.facts.traits import TraitMaker
    from gatekeeper.policy.model import Account, Decision, Standing
    from gatekeeper.settings import Settings
    from gatekeeper.snapshot import Snapshot
    from gatekeeper.storage.limiter import Limiter

MODES: Final = frozenset({CredentialKind.OPAQUE})
"""How callers of a recording may identify themselves when it names no account: by any key."""
_VERSION: Final = HttpVersion(1, 1)
_EVERYWHERE: Final = Route("recorded", (), (), ())
_HOST: Final = "recorded"
_SUCCESS: Final = 2
_MICRO: Final = 1_000_000


class Heard(Struct, frozen=True, gc=False):
    """A request head that came from no connection."""

    method: str
    raw_path: str
    headers: CIMultiDictProxy[str]
    version: HttpVersion = _VERSION


class Answered(Struct, frozen=True, gc=False):
    """What came back for a call."""

    status: int = 200
    usage: Usage | None = None
    """Tokens that were reported, its cost left out; ``None``: nothing is known."""


class RecordedCall(Struct, frozen=True, gc=False):
    """One call to rehearse."""

    at: float
    """Unix seconds."""
    remote: str
    """Address of the peer."""
    method: str
    path: str
    """Target, with the query if any."""
    headers: dict[str, str]
    body: bytes
    account: str | None = None
    """Stands in for a credential: who calls. ``None``: whom the headers name."""
    answered: Answered = Answered()


class Rehearsed(Struct, frozen=True, gc=False):
    """What was decided, and on what facts."""

    decision: Decision
    facts: Facts


@dataclass(slots=True)
class Engine:
    """Decides calls as a gate does: same order, same code, limits and records included.

    A call is settled as soon as it was admitted, so that none is under way when the next one comes:
    limits on concurrency never bind. No upstream is asked, and every model is served.
    """

    settings: Settings
    snapshot: Snapshot
    """What calls are judged by; may be replaced between two calls."""
    door: Door
    replica: Replica
    limiter: Limiter
    traits: TraitMaker | None
    count: Callable[[bytes], int]
    """Counts the tokens of UTF-8 text."""
    authenticator: Authenticator
    log: Callable[[bytes], object] | None = None
    """Takes each line that a gate's decision log would have."""
    decided: int = 0
    _began: float | None = None
    _now: float = 0.0

    async def decide(self, call: RecordedCall) -> Rehearsed:
        """Judge one call, hold and settle its limits, and record it."""
        at = self._moment(call.at)
        self.decided += 1
        case = Case(f"dec_{int(call.at * 1_000):012x}{self.decided:016x}", at, self.snapshot)
        return await self._judged(case, call)

    def _moment(self, at: float) -> Moment:
        """Return both clocks; that of the limits never goes back, whatever a recording says."""
        if self._began is None:
            self._began = at
        self._now = max(self._now, at)
        return Moment(at, max(0, int((self._now - self._began) * _MICRO)))

    async def _judged(self, case: Case, call: RecordedCall) -> Rehearsed:
        now, unix_s = case.now, case.at.unix_s
        headers = CIMultiDict(call.headers)
        headers.setdefault("host", _HOST)
        heard = Heard(call.method, call.path, CIMultiDictProxy(headers))
        client = self.door.client_at(call.remote, heard.headers)
        network = now.network.observe_client(client)
        head = read_head(heard, self.settings.name)
        credential, account = self._who(call, heard, unix_s)
        if isinstance(head, BadRequest):
            facts = Facts(unix_s, network, credential, account, Call("", ""))
            return self._refused(case, facts, head)
        path = head.target.path
        dialect = (
            dialect_for(head.method, path, has_body=bool(call.body))
            if head.upgrade is None
            else dialect_of_socket(path)
        )
        network = self.replica.placed(network, client, account)
        asking = Call(head.method, path, dialect.name, client=head.client)
        facts = Facts(unix_s, network, credential, account, asking)
        standing = screen(facts, now.rules, now.mode)
        if stops(standing, mode=now.mode):
            return self._noted(case, self._concluded(case, standing), facts)
        taken = self._taken(dialect, head.target.query, path, call)
        if isinstance(taken, BadRequest):
            return self._refused(case, facts, taken)
        facts = replace(facts, call=asked(asking, taken, now.prices))
        ask = taken.ask
        if self.traits is not None and ask is not None:
            edge = client.source is AddressSource.FORWARDED
            seen = self.traits.traits_of(heard.headers, ask.evidence, unix_s, from_edge=edge)
            facts = replace(facts, traits=seen)
        facts = classed(facts, now)
        judging = Judging(self.limiter, self.settings.deadlines.hold_s)
        judged = await judging.judge(case, facts, standing, taken)
        decision = conclude(
            judged.standing,
            judged.statuses,
            now.rules,
            decision_id=case.id,
            at=unix_s,
            mode=now.mode,
        )
        if not decision.admits:
            await judging.give_back(judged, case.at)
        found = self._noted(case, decision, facts)
        if not decision.admits:
            return found
        used = self._used(call.answered, ask, facts)
        if judged.held is not None:
            await self.limiter.settle(judged.held, used, case.at)
        if call.answered.status // 100 == _SUCCESS and credential.kind is CredentialKind.OPAQUE:
            self.replica.note_opaque_success(account.id, unix_s)
        if self.log is not None:
            outcome = {"kind": "outcome", "id": case.id, "at": unix_s, "usage": used, "took_s": 0.0}
            self.log(encode_record(outcome))
        return found

    def _noted(self, case: Case, decision: Decision, facts: Facts) -> Rehearsed:
        if self.log is not None:
            self.log(encode_record(to_record(decision, facts, mode=case.now.mode)))
        return Rehearsed(decision, facts)

    def _who(self, call: RecordedCall, heard: Heard, unix_s: float) -> tuple[Credential, Account]:
        if call.account is None:
            return self.authenticator.identify(heard.headers, MODES, unix_s)
        account = self.replica.account(call.account, unix_s)
        kind = CredentialKind.API_KEY if account.known else CredentialKind.OPAQUE
        return Credential(kind, CredentialStatus.VALID, None, account.id), account

    def _taken(
        self, dialect: Dialect, query: str, path: str, call: RecordedCall
    ) -> Taken | BadRequest:
        sizes, body = self.settings.sizes, call.body
        if not dialect.reads_body:
            return Taken(_EVERYWHERE, None, None, None, len(body))
        if len(body) > sizes.max_body_bytes:
            return BadRequest(Reason.BODY_TOO_LARGE, f"At most {sizes.max_body_bytes} bytes.")
        look = None if self.traits is None else self.traits.look
        incoming = Incoming(body, path, query, "application/json", self.count, look)
        found = understood(dialect, incoming, "", sizes.max_inflated_bytes)
        if isinstance(found, BadRequest):
            return found
        return Taken(_EVERYWHERE, body, found[0], found[1], len(body))

    def _used(self, answered: Answered, ask: Ask | None, facts: Facts) -> Usage:
        """Return what is charged: as reported; else the input as estimated, and no output."""
        usage = answered.usage
        if usage is None:
            spent = 0 if ask is None or answered.status // 100 != _SUCCESS else ask.input_tokens
            usage = Usage(spent, 0, estimated=True)
        cents = self.snapshot.prices.cents(facts.call.model, usage)
        return replace(usage, cost_cents=cents, bytes=facts.call.body_bytes)

    def _refused(self, case: Case, facts: Facts, why: BadRequest) -> Rehearsed:
        return self._noted(case, self._concluded(case, outright(why.reason, why.detail)), facts)

    @staticmethod
    def _concluded(case: Case, standing: Standing) -> Decision:
        now, at = case.now, case.at.unix_s
        return conclude(standing, (), now.rules, decision_id=case.id, at=at, mode=now.mode)
