"""One operation of the API, declared once: all else is made from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pydantic import BaseModel, ConfigDict

from gatekeeper.storage.audit import changes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from gatekeeper.management.problems import Code, Problem
    from gatekeeper.management.services import Services
    from gatekeeper.storage.admin_keys import AdminKeyRow, Role


class Method(StrEnum):
    """HTTP methods that operations use; HEAD goes with GET."""

    GET = "GET"
    PUT = "PUT"
    POST = "POST"
    DELETE = "DELETE"


class Tag(StrEnum):
    """Groups of operations, in the order in which they are read."""

    ACCOUNTS = "Accounts"
    KEYS = "Keys"
    ORGANIZATIONS = "Organizations"
    CASES = "Verification cases"
    CAMPAIGNS = "Campaigns"
    RULES = "Rules"
    MODE = "Mode"
    LISTS = "Lists"
    DECISIONS = "Decisions"
    USAGE = "Usage"
    STATUS = "Status"
    AUDIT = "Audit"
    ADMIN_KEYS = "Admin keys"


class Audit(Enum):
    """How an operation comes into the audit trail."""

    NO = "no"
    """It changes nothing."""
    WITHIN = "within"
    """The entry is written in the transaction of the change."""
    AROUND = "around"
    """The change reaches beyond one transaction: the entry is written before it, and finished."""


class Wire(BaseModel):
    """What goes over the wire: strict, closed, immutable."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        defer_build=True,  # a gate that starts does not wait for what is asked later
    )


class Nothing(Wire):
    """No query parameters."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A success. ``etag`` replaces the digest of the body, for operations that have one."""

    body: Wire | None = None
    status: int | None = None
    """Overrides the operation's own."""
    etag: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Streamed:
    """A success whose body is made piece by piece."""

    chunks: AsyncIterator[bytes]
    content_type: str
    file_name: str


@dataclass(slots=True)
class Trace:
    """What the audit trail will say of a request; handlers fill it in as they learn it."""

    target_kind: str = ""
    target_id: str = ""
    detail: dict[str, Any] = field(default_factory=dict)

    def of(self, kind: str, target_id: str, **detail: Any) -> None:
        """Name what is acted on, and add what is done to it."""
        self.target_kind, self.target_id = kind, target_id
        self.detail.update(detail)

    def changed(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Add each field that differs, with both of its values."""
        self.detail["changed"] = changes(before, after)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that passed: authenticated, authorised, parsed."""

    id: str
    at: float
    """Unix seconds."""
    actor: AdminKeyRow
    path: Mapping[str, str]
    query: Any
    """The operation's ``query`` model."""
    body: Any
    """The operation's ``body`` model; bytes for an operation that takes a file."""
    if_match: str | None
    if_none_match: str | None
    trace: Trace


Handler: TypeAlias = "Callable[[Services, Asked], Awaitable[Answer | Streamed | Problem]]"


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked."""

    id: str
    method: Method
    path: str
    """Template under the root, such as ``/v1/accounts/{account_id}``."""
    role: Role
    tag: Tag
    summary: str
    handle: Handler
    description: str = ""
    query: type[Wire] = Nothing
    body: type[Wire] | None = None
    file_type: str | None = None
    """Media type of a body that is a file, read by the handler."""
    answer: type[Wire] | None = None
    answer_type: str = "application/json"
    """Media type of a streamed answer."""
    status: int = 200
    tagged: bool = False
    """Whether the answer carries an ETag."""
    matched: bool = False
    """Whether ``If-Match`` is heeded."""
    problems: tuple[Code, ...] = ()
    """Beyond those that every operation has."""
    audit: Audit = Audit.NO

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the path's parameters."""
        return tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))


@dataclass(frozen=True, slots=True)
class PathParameter:
    """What a part of a path may look like."""

    pattern: str
    description: str


PATH_PARAMETERS: Final[Mapping[str, PathParameter]] = {
    "account_id": PathParameter(
        r"^[\x21-\x7e]{1,255}$", "Id of the account; percent-encode what a path cannot hold."
    ),
    "key_id": PathParameter(r"^gk_[a-z2-7]{8}$", "Readable id of an API key."),
    "admin_key_id": PathParameter(r"^gka_[a-z2-7]{8}$", "Readable id of an admin key."),
    "decision_id": PathParameter(r"^dec_[0-9a-f]{28}$", "Id of a decision, as callers see it."),
    "organization_id": PathParameter(
        r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]{0,198}[^\s\x00-\x1f\x7f-\x9f])?$",
        "Name of the organization; percent-encode what a path cannot hold.",
    ),
    "case_id": PathParameter(r"^[A-Za-z0-9_-]{1,64}$", "Id of a verification case."),
    "campaign_id": PathParameter(r"^cmp_[0-9a-f]{12}$", "Id of a campaign."),
    "revision": PathParameter(r"^[0-9a-f]{8,64}$", "Revision of the rules."),
}
