"""Rules while gates run: what is active, history, texts, validate, compare, activate, roll back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field, StringConstraints

from gatekeeper.live.desk import MAX_FILES, RuleDiff, UnknownRevision
from gatekeeper.management.etags import unmet
from gatekeeper.management.operation import Answer, Asked, Audit, Method, Operation, Tag, Wire
from gatekeeper.management.paging import PageQuery, next_cursor, position
from gatekeeper.management.problems import Code, FieldError, Problem, invalid, missing
from gatekeeper.policy.rule_changes import ChangeKind
from gatekeeper.storage.admin_keys import Role
from gatekeeper.storage.rule_history import Activation as ActivationRow
from gatekeeper.storage.rule_history import Conflict, Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gatekeeper.management.services import Services
    from gatekeeper.policy.mistake import Mistake

Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\.yaml$")]
Files = Annotated[dict[FileName, str], Field(min_length=1, max_length=MAX_FILES)]
Comment = Annotated[str, Field(max_length=500, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]


class Activation(Wire):
    """Rules that were put in force on all nodes."""

    seq: int
    revision: str
    at: float
    by: str
    source: Source
    comment: str


class Told(Wire):
    """One mistake in rule files."""

    file: str
    line: int | None
    path: str
    """Place inside the file."""
    message: str


class Refusal(Wire):
    """Rules that did not take effect, because of mistakes."""

    at: float
    mistakes: list[Told]


class ActiveRules(Wire):
    """The rules that this node serves."""

    revision: str
    files_revision: str
    """Of this node's own rule files, when they were last good."""
    activation: Activation | None
    """What put them in force; `null` when the node's own files serve for want of records."""
    last_refused: Refusal | None


class ActivationPage(Wire):
    """Activations, the newest first."""

    items: list[Activation]
    next_cursor: str | None


class RuleFiles(Wire):
    """The files of one revision by name."""

    revision: str
    files: dict[str, str]


class Candidate(Wire):
    """Rule files that are not in force."""

    files: Files
    """All files of the rule directory by name, such as `limits.yaml`: not only changed ones."""


class Validated(Wire):
    """Whether rule files would be taken, and what is wrong with them."""

    valid: bool
    revision: str | None
    """What the revision would be called."""
    mistakes: list[Told]


class Comparison(Wire):
    """What to compare."""

    before: Revision | None = None
    """A revision; default: the active one."""
    after: Revision | Files
    """A revision, or files."""


class Change(Wire):
    """A rule that is not the same."""

    section: str
    rule: str
    kind: ChangeKind


class Difference(Wire):
    """What differs between two rule sets."""

    before: str
    after: str
    changes: list[Change]
    weakened_embargoes: list[str]
    """What embargoes in force would lose: read this before you activate."""
    text: str
    """Unified diff of the files."""


class NewActivation(Wire):
    """What to put in force: a revision that was once, or files."""

    target: Revision | Files
    comment: Comment = ""


class RollBack(Wire):
    """Why; kept in the audit trail."""

    reason: Comment = ""


async def _active(services: Services, asked: Asked) -> Answer:  # noqa: ARG001 - as all handlers
    active = _told_active(services)
    return Answer(active, etag=_etag(active.revision))


async def _history(services: Services, asked: Asked) -> Answer | Problem:
    query: PageQuery = asked.query
    before = position(query, "i")
    if isinstance(before, Problem):
        return before
    rows = await services.rules.history(
        before=int(before[0]) if before else None, limit=query.limit + 1
    )
    more = next_cursor(query, [rows[query.limit - 1].seq]) if len(rows) > query.limit else None
    items = [_activation(row) for row in rows[: query.limit]]
    return Answer(ActivationPage(items=items, next_cursor=more))


async def _texts(services: Services, asked: Asked) -> Answer | Problem:
    revision = asked.path["revision"]
    files = await services.rules.texts(revision)
    if files is None:
        return missing("revision of the rules")
    return Answer(RuleFiles(revision=revision, files=files))


async def _validate(services: Services, asked: Asked) -> Answer | Problem:
    candidate: Candidate = asked.body
    found = await services.rules.validate(candidate.files)
    if isinstance(found, list):
        asked.trace.of("rules", "", valid=False)
        return Answer(Validated(valid=False, revision=None, mistakes=_mistakes(found)))
    asked.trace.of("rules", found.revision, valid=True)
    return Answer(Validated(valid=True, revision=found.revision, mistakes=[]))


async def _diff(services: Services, asked: Asked) -> Answer | Problem:
    wanted: Comparison = asked.body
    before = wanted.before or services.rules.active().revision
    asked.trace.of("rules", before)
    found = await services.rules.diff(before, wanted.after)
    if not isinstance(found, RuleDiff):
        return _refused(found)
    return Answer(
        Difference(
            before=found.before,
            after=found.after,
            changes=[
                Change(section=each.section, rule=each.rule, kind=each.kind)
                for each in found.changes
            ],
            weakened_embargoes=list(found.weakened),
            text=found.text,
        )
    )


async def _activate(services: Services, asked: Asked) -> Answer | Problem:
    new: NewActivation = asked.body
    active = _told_active(services)
    asked.trace.of("rules", "", before=active.revision, comment=new.comment)
    if wrong := _must_match(asked, active):
        return wrong
    weakened = await services.rules.diff(active.revision, new.target)
    if isinstance(weakened, RuleDiff):
        asked.trace.of("rules", weakened.after, weakened_embargoes=list(weakened.weakened))
    done = await services.rules.activate(
        new.target,
        by=asked.actor.name,
        at=asked.at,
        comment=new.comment,
        expected_active=active.revision,
    )
    return _activated(done, services)


async def _roll_back(services: Services, asked: Asked) -> Answer | Problem:
    why: RollBack = asked.body
    active = _told_active(services)
    asked.trace.of("rules", "", before=active.revision, reason=why.reason)
    if wrong := _must_match(asked, active):
        return wrong
    done = await services.rules.roll_back(
        by=asked.actor.name, at=asked.at, expected_active=active.revision
    )
    if isinstance(done, ActivationRow):
        asked.trace.of("rules", done.revision)
    return _activated(done, services)


def _must_match(asked: Asked, active: ActiveRules) -> Problem | None:
    if asked.if_match is None:
        return Problem(
            Code.PRECONDITION_REQUIRED,
            "Send `If-Match` with the ETag of `GET /v1/rules/active`, so that nobody's rules are "
            "overwritten unseen.",
        )
    return unmet(asked, active, _etag(active.revision))


def _activated(
    done: ActivationRow | Conflict | UnknownRevision | list[Mistake], services: Services
) -> Answer | Problem:
    if not isinstance(done, ActivationRow):
        return _refused(done)
    active = _told_active(services)
    return Answer(active, etag=_etag(active.revision))


def _refused(why: Conflict | UnknownRevision | list[Mistake]) -> Problem:
    if isinstance(why, Conflict):
        return Problem(
            Code.PRECONDITION_FAILED,
            "Other rules became active meanwhile: read them, compare, and send their ETag.",
        )
    if isinstance(why, UnknownRevision):
        return missing("earlier revision of the rules" if not why.revision else "revision")
    return invalid(
        FieldError(
            f"/files/{mistake.file}" if mistake.file != "request" else f"/{mistake.path}",
            f"{'' if mistake.line is None else f'line {mistake.line}: '}"
            f"{mistake.path + ': ' if mistake.path else ''}{mistake.message}",
        )
        for mistake in why
    )


def _told_active(services: Services) -> ActiveRules:
    active = services.rules.active()
    refused = active.last_refused
    return ActiveRules(
        revision=active.revision,
        files_revision=active.files_revision,
        activation=None if active.activation is None else _activation(active.activation),
        last_refused=None
        if refused is None
        else Refusal(at=refused.at, mistakes=_mistakes(refused.mistakes)),
    )


def _activation(row: ActivationRow) -> Activation:
    return Activation(
        seq=row.seq,
        revision=row.revision,
        at=row.at,
        by=row.by,
        source=row.source,
        comment=row.comment,
    )


def _mistakes(found: Sequence[Mistake]) -> list[Told]:
    return [
        Told(file=each.file, line=each.line, path=each.path, message=each.message) for each in found
    ]


def _etag(revision: str) -> str:
    return f'"{revision}"'


_CHANGE: Final[dict[str, Any]] = {
    "role": Role.ADMIN,
    "tag": Tag.RULES,
    "answer": ActiveRules,
    "tagged": True,
    "matched": True,
    "problems": (Code.NOT_FOUND, Code.PRECONDITION_FAILED, Code.PRECONDITION_REQUIRED),
    "audit": Audit.AROUND,
}

OPERATIONS: Final = (
    Operation(
        "getActiveRules",
        Method.GET,
        "/v1/rules/active",
        Role.VIEWER,
        Tag.RULES,
        "Which rules are in force",
        _active,
        answer=ActiveRules,
        tagged=True,
    ),
    Operation(
        "listRuleActivations",
        Method.GET,
        "/v1/rules/activations",
        Role.VIEWER,
        Tag.RULES,
        "Which rules were in force when, and who made them so",
        _history,
        query=PageQuery,
        answer=ActivationPage,
        problems=(Code.INVALID_CURSOR,),
    ),
    Operation(
        "getRuleFiles",
        Method.GET,
        "/v1/rules/revisions/{revision}",
        Role.VIEWER,
        Tag.RULES,
        "Read the files of a revision",
        _texts,
        answer=RuleFiles,
        tagged=True,
        problems=(Code.NOT_FOUND,),
    ),
    Operation(
        "validateRules",
        Method.POST,
        "/v1/rules:validate",
        Role.OPERATOR,
        Tag.RULES,
        "Check rule files",
        _validate,
        description="Tells every mistake with its file and line. Nothing takes effect.",
        body=Candidate,
        answer=Validated,
        audit=Audit.AROUND,
    ),
    Operation(
        "compareRules",
        Method.POST,
        "/v1/rules:diff",
        Role.OPERATOR,
        Tag.RULES,
        "Compare rules",
        _diff,
        description="Rule by rule and line by line, and which embargoes would lose anything.",
        body=Comparison,
        answer=Difference,
        problems=(Code.NOT_FOUND,),
        audit=Audit.AROUND,
    ),
    Operation(
        "activateRules",
        Method.POST,
        "/v1/rules:activate",
        summary="Put rules in force on all nodes",
        handle=_activate,
        description="All nodes follow within seconds; no call under way is touched and no bucket "
        "is reset. With a mistake anywhere nothing changes.",
        body=NewActivation,
        **_CHANGE,
    ),
    Operation(
        "rollBackRules",
        Method.POST,
        "/v1/rules:rollback",
        summary="Put the rules before these in force again",
        handle=_roll_back,
        body=RollBack,
        **_CHANGE,
    ),
)
