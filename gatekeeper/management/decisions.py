"""Decisions of this node: searched, read, explained by judging them again."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field

from gatekeeper.management.operation import Answer, Asked, Method, Operation, Tag, Wire
from gatekeeper.management.paging import PageQuery, next_cursor, position
from gatekeeper.management.problems import Code, Problem, missing
from gatekeeper.management.wire import AccountId, Time
from gatekeeper.policy.record import to_record
from gatekeeper.policy.view import view_of
from gatekeeper.policy.words import Reason
from gatekeeper.storage.admin_keys import Role
from gatekeeper.storage.decision_log import encode_record
from gatekeeper.storage.decision_search import (
    DecisionQuery,
    Found,
    Kept,
    Place,
    find_decision,
    search_back,
)
from gatekeeper.storage.replay import Replay, replayed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gatekeeper.management.services import Services
    from gatekeeper.policy.model import Decision as Judged
    from gatekeeper.policy.ruleset import RuleSet

_MOST_BYTES: Final = 32_000_000
"""Of the log that one request looks at; the cursor goes on from there."""
_AT_ONCE: Final = 2
"""Searches at a time: they share the processor with the calls."""


class DecisionDesk:
    """The decision log of this node, read off the event loop."""

    def __init__(self, directory: Path, archive: Path, rules: Callable[[], RuleSet]) -> None:
        """Read nothing yet. ``rules`` are those in force, ``archive`` holds all that ever were."""
        self._directory = directory
        self._archive = archive
        self._rules = rules
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def search(self, query: DecisionQuery, *, start: Place | None, limit: int) -> Found:
        """Return the next piece of a search; see :func:`search_back`."""
        async with self._turns:
            return await asyncio.to_thread(
                search_back,
                self._directory,
                query,
                start=start,
                limit=limit,
                most_bytes=_MOST_BYTES,
            )

    async def find(self, decision_id: str) -> Kept | None:
        """Return what the log has of one decision."""
        async with self._turns:
            return await asyncio.to_thread(find_decision, self._directory, decision_id)

    async def explain(self, record: Mapping[str, Any]) -> Replay | str:
        """Judge a recorded decision again."""
        async with self._turns:
            return await asyncio.to_thread(replayed, record, self._rules(), self._archive)


VerdictWord = Literal[
    "allow",
    "rate_limited",
    "step_up",
    "deny",
    "embargoed",
    "invalid",
    "unauthenticated",
    "unavailable",
]


class DecisionSummary(Wire):
    """One decision in a list."""

    id: str
    at: float
    verdict: VerdictWord
    reason: str | None
    enforced: bool
    """Whether it was acted on; `false` in observe mode."""
    shadow_verdict: str
    account: str
    country: str | None
    asn: int | None
    network_kind: str
    prefix: str
    method: str
    path: str
    model: str | None
    score: int | None
    rules: list[str]
    """Ids of the rules that matched."""
    rules_revision: str


class DecisionPage(Wire):
    """Decisions of this node, the newest first. A page may be empty and still have a next one."""

    items: list[DecisionSummary]
    next_cursor: str | None


_RuleId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]


class DecisionSearch(PageQuery):
    """What to look for; all that is given must fit."""

    account: AccountId | None = None
    verdict: VerdictWord | None = None
    reason: Reason | None = None
    rule: _RuleId | None = None
    """Id of a rule that matched, in whatever mode."""
    since: Time | None = None
    until: Time | None = None


class Decision(Wire):
    """Everything that was recorded of one decision; docs/conditions.md tells what facts mean."""

    decision: dict[str, Any]
    outcome: dict[str, Any] | None
    """How the call ended: usage, bytes, status of the upstream. `null` for a refusal."""


class JudgedNow(Wire):
    """What the rules in force make of the same facts."""

    verdict: VerdictWord
    reason: str | None
    rules_revision: str


class Explanation(Wire):
    """A decision judged again from its record."""

    id: str
    verdict: VerdictWord
    """By the rules that made it."""
    same_verdict: bool
    """Whether that is the verdict that was recorded."""
    facts: dict[str, Any]
    """Every field that conditions can read."""
    judged: dict[str, Any]
    """The record of the decision as it comes out again, without its facts."""
    now: JudgedNow | None
    """By the rules in force; `null` when those are the ones that made it."""


async def _search(services: Services, asked: Asked) -> Answer | Problem:
    query: DecisionSearch = asked.query
    place = position(query, "si")
    if isinstance(place, Problem):
        return place
    found = await services.decisions.search(
        DecisionQuery(**query.model_dump(mode="json", exclude={"limit", "cursor"})),
        start=Place(str(place[0]), int(place[1])) if place else None,
        limit=query.limit,
    )
    more = next_cursor(query, [*asdict(found.rest).values()]) if found.rest is not None else None
    items = [_summary(record) for record in found.records]
    return Answer(DecisionPage(items=items, next_cursor=more))


def _summary(record: Mapping[str, Any]) -> DecisionSummary:
    facts = record["facts"]
    network, call = facts.get("network", {}), facts.get("call", {})
    score = record.get("score") or {}
    return DecisionSummary(
        id=record["id"],
        at=record["at"],
        verdict=record["verdict"],
        reason=record.get("reason"),
        enforced=record.get("enforced", True),
        shadow_verdict=record.get("shadow_verdict", record["verdict"]),
        account=facts["account"]["id"],
        country=network.get("country"),
        asn=network.get("asn"),
        network_kind=network.get("kind", "unknown"),
        prefix=network.get("prefix", ""),
        method=call.get("method", ""),
        path=call.get("path", ""),
        model=call.get("model"),
        score=score.get("total"),
        rules=[found["rule"] for found in record.get("findings", ())],
        rules_revision=record.get("rules_revision", ""),
    )


async def _get(services: Services, asked: Asked) -> Answer | Problem:
    kept = await services.decisions.find(asked.path["decision_id"])
    if kept is None:
        return _not_here()
    return Answer(Decision(decision=kept.decision, outcome=kept.outcome))


async def _explain(services: Services, asked: Asked) -> Answer | Problem:
    kept = await services.decisions.find(asked.path["decision_id"])
    if kept is None:
        return _not_here()
    replay = await services.decisions.explain(kept.decision)
    if isinstance(replay, str):
        return Problem(Code.CONFLICT, replay)
    return Answer(
        Explanation(
            id=replay.recorded.id,
            verdict=_word(replay.decision),
            same_verdict=replay.same,
            facts=dict(view_of(replay.recorded.facts)),
            judged=_judged(replay),
            now=None
            if replay.now is None
            else JudgedNow(
                verdict=_word(replay.now),
                reason=replay.now.reason,
                rules_revision=replay.now.rules_revision,
            ),
        )
    )


def _word(decision: Judged) -> Any:
    return decision.verdict.word


def _judged(replay: Replay) -> dict[str, Any]:
    recorded = replay.recorded
    record = to_record(replay.decision, recorded.facts, mode=recorded.mode)
    del record["facts"]
    plain: dict[str, Any] = json.loads(encode_record(record))
    return plain


def _not_here() -> Problem:
    problem = missing("decision in the log of this node")
    return Problem(problem.code, f"{problem.detail} Another node may have made it.")


OPERATIONS: Final = (
    Operation(
        "searchDecisions",
        Method.GET,
        "/v1/decisions",
        Role.VIEWER,
        Tag.DECISIONS,
        "Search decisions",
        _search,
        description="Those of this node, the newest first. Each request looks at a bounded piece "
        "of the log, so a page may be empty and have a `next_cursor` all the same.",
        query=DecisionSearch,
        answer=DecisionPage,
        problems=(Code.INVALID_CURSOR,),
    ),
    Operation(
        "getDecision",
        Method.GET,
        "/v1/decisions/{decision_id}",
        Role.VIEWER,
        Tag.DECISIONS,
        "Read a decision",
        _get,
        answer=Decision,
        problems=(Code.NOT_FOUND,),
    ),
    Operation(
        "explainDecision",
        Method.GET,
        "/v1/decisions/{decision_id}/explanation",
        Role.VIEWER,
        Tag.DECISIONS,
        "Explain a decision",
        _explain,
        description="Judges the recorded facts again, by the rules that made the decision and by "
        "those in force.",
        answer=Explanation,
        problems=(Code.NOT_FOUND, Code.CONFLICT),
    ),
)
