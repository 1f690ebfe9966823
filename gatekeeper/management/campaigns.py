"""Campaigns: found, read with what bears them out, judged by a person."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field, StringConstraints

from gatekeeper.management.etags import unmet
from gatekeeper.management.operation import Answer, Asked, Audit, Method, Operation, Tag, Wire
from gatekeeper.management.paging import PageQuery, next_cursor, position
from gatekeeper.management.problems import Code, Problem, missing
from gatekeeper.policy.campaign_steps import confirm, dismiss, merge, release
from gatekeeper.policy.campaigns import Campaign, CampaignState, Layer, SharedTrait, Stage
from gatekeeper.storage.admin_keys import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gatekeeper.management.services import Services
    from gatekeeper.storage.campaigns import CampaignRow

_MOST_REASON: Final = 200

CampaignId = Annotated[str, StringConstraints(pattern=r"^cmp_[0-9a-f]{12}$")]


class CampaignSummary(Wire):
    """One campaign. Times are Unix seconds."""

    id: str
    state: CampaignState
    stage: Stage
    """How far it is contained, as long as its state is `proposed` or `confirmed`."""
    score: float
    """0 to 100."""
    members: int
    """Accounts that are treated as members."""
    since: float
    """When it was first proposed."""
    last_seen: float
    updated_at: float


class Shared(Wire):
    """One thing that members share."""

    layer: Layer
    kind: str
    trait: str
    """Keyed digest of it, which says nothing without the secret: 16 hexadecimal digits."""
    members: int
    """How many members have it."""
    accounts: int
    """How many accounts have it in all."""
    weight: float
    """Rarity: natural logarithm of all accounts over those that have it."""


class CampaignEvent(Wire):
    """One thing that happened to a campaign."""

    at: float
    what: str
    detail: str
    by: str


class CampaignDetail(CampaignSummary):
    """One campaign, what bears it out, and all that happened to it."""

    staged_at: float
    """When it came to its stage."""
    into: str | None
    """The campaign that it was merged into."""
    left: int
    """Accounts that proved who they are, and so belong to it no more."""
    layers: list[Layer]
    """Independent ways in which the accounts are linked, each by itself."""
    q_value: float
    """Share of false ones to expect among groups that score at least as much."""
    measures: dict[str, float]
    """What the score is made of."""
    shared: list[Shared]
    """The most telling first."""
    first_seen: float
    calls: int
    input_tokens: int
    output_tokens: int
    capabilities: dict[str, float]
    """Share of calls by capability class."""
    networks: dict[str, int]
    """Calls by kind of network."""
    models: dict[str, int]
    """Calls by model."""
    history: list[CampaignEvent]
    """The latest first."""


class CampaignPage(Wire):
    """Campaigns by id."""

    items: list[CampaignSummary]
    next_cursor: str | None


class CampaignSearch(PageQuery):
    """Which campaigns."""

    state: CampaignState | None = None


class Member(Wire):
    """One account that is treated as a member."""

    account_id: str
    missing_since: float | None
    """When the watcher no longer found it in the group; it stays for a while."""


class MemberPage(Wire):
    """Members by the id of the account."""

    items: list[Member]
    next_cursor: str | None


class CampaignVerdict(Wire):
    """Why a person decides so."""

    reason: Annotated[
        str, Field(min_length=1, max_length=_MOST_REASON, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")
    ]


class CampaignMerge(CampaignVerdict):
    """Which campaign becomes part of this one, and why."""

    other: CampaignId


async def _search(services: Services, asked: Asked) -> Answer | Problem:
    query: CampaignSearch = asked.query
    after = position(query, "s")
    if isinstance(after, Problem):
        return after
    rows = await services.campaigns.page(
        states=() if query.state is None else (query.state,),
        after=str(after[0]) if after else "",
        limit=query.limit + 1,
    )
    more = next_cursor(query, [rows[query.limit - 1].id]) if len(rows) > query.limit else None
    items = [CampaignSummary(**_listed(row)) for row in rows[: query.limit]]
    return Answer(CampaignPage(items=items, next_cursor=more))


async def _get(services: Services, asked: Asked) -> Answer | Problem:
    found = await services.campaigns.get(asked.path["campaign_id"])
    return missing("campaign") if found is None else _answer(*found)


async def _members(services: Services, asked: Asked) -> Answer | Problem:
    query: PageQuery = asked.query
    after = position(query, "s")
    if isinstance(after, Problem):
        return after
    found = await services.campaigns.get(asked.path["campaign_id"])
    if found is None:
        return missing("campaign")
    accounts = sorted(found[0].contained)
    start = bisect_right(accounts, str(after[0])) if after else 0
    shown = accounts[start : start + query.limit]
    more = next_cursor(query, [shown[-1]]) if start + query.limit < len(accounts) else None
    gone = found[0].missing
    items = [Member(account_id=each, missing_since=gone.get(each)) for each in shown]
    return Answer(MemberPage(items=items, next_cursor=more))


async def _confirm(services: Services, asked: Asked) -> Answer | Problem:
    return await _judged(services, asked, confirm)


async def _dismiss(services: Services, asked: Asked) -> Answer | Problem:
    return await _judged(services, asked, dismiss)


async def _release(services: Services, asked: Asked) -> Answer | Problem:
    return await _judged(services, asked, release)


async def _judged(
    services: Services,
    asked: Asked,
    judge: Callable[[Campaign, str, float, str], Campaign | None],
) -> Answer | Problem:
    verdict: CampaignVerdict = asked.body

    def step(campaign: Campaign) -> tuple[Campaign, ...] | None:
        judged = judge(campaign, _actor(asked), asked.at, verdict.reason)
        return None if judged is None else (judged,)

    return await _stepped(services, asked, (asked.path["campaign_id"],), step)


async def _merge(services: Services, asked: Asked) -> Answer | Problem:
    wanted: CampaignMerge = asked.body

    def step(one: Campaign, other: Campaign) -> tuple[Campaign, ...] | None:
        return merge(one, other, _actor(asked), asked.at, wanted.reason)

    asked.trace.of("campaign", asked.path["campaign_id"], other=wanted.other)
    return await _stepped(services, asked, (asked.path["campaign_id"], wanted.other), step)


async def _stepped(
    services: Services,
    asked: Asked,
    campaign_ids: tuple[str, ...],
    step: Callable[..., Iterable[Campaign] | None],
) -> Answer | Problem:
    """Take a step within the transaction of its audit entry: nobody else writes meanwhile."""
    campaign_id = campaign_ids[0]
    asked.trace.of("campaign", campaign_id, reason=asked.body.reason)
    before = [await services.campaigns.get(each) for each in campaign_ids]
    if before[0] is None or None in before:
        return missing("campaign")
    campaign, row = before[0]
    if wrong := unmet(asked, _whole(campaign, row), _etag(row)):
        return wrong
    if await services.campaigns.change(campaign_ids, step, at=asked.at) is None:
        return Problem(
            Code.CONFLICT,
            f"The campaign is {campaign.state.value}, in which this is not possible (a merge needs "
            "two that are open): look at its history.",
        )
    after = await services.campaigns.get(campaign_id)
    if after is None:
        raise LookupError("a campaign that was just written is not there")
    asked.trace.changed({"state": campaign.state.value}, {"state": after[0].state.value})
    return _answer(*after)


def _answer(campaign: Campaign, row: CampaignRow) -> Answer:
    return Answer(_whole(campaign, row), etag=_etag(row))


def _etag(row: CampaignRow) -> str:
    return f'"{row.seq}"'


def _actor(asked: Asked) -> str:
    return f"{asked.actor.name} ({asked.actor.key_id})"


def _listed(row: CampaignRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in CampaignSummary.model_fields}


def _whole(campaign: Campaign, row: CampaignRow) -> CampaignDetail:
    group = campaign.group
    return CampaignDetail(
        **_listed(row),
        staged_at=campaign.staged_at,
        into=campaign.into,
        left=len(campaign.left),
        layers=list(group.layers),
        q_value=group.q_value,
        measures=group.measures,
        shared=[_shared(each) for each in group.shared],
        first_seen=group.first_seen,
        calls=group.calls,
        input_tokens=group.input_tokens,
        output_tokens=group.output_tokens,
        capabilities=group.capabilities,
        networks=group.networks,
        models=group.models,
        history=[
            CampaignEvent(at=each.at, what=each.what, detail=each.detail, by=each.by)
            for each in reversed(campaign.history)
        ],
    )


def _shared(trait: SharedTrait) -> Shared:
    return Shared(
        layer=trait.layer,
        kind=trait.kind,
        trait=f"{trait.digest:016x}",
        members=trait.members,
        accounts=trait.accounts,
        weight=trait.weight,
    )


_ONE: Final = "/v1/campaigns/{campaign_id}"
_CHANGE: Final[dict[str, Any]] = {
    "role": Role.OPERATOR,
    "tag": Tag.CAMPAIGNS,
    "answer": CampaignDetail,
    "tagged": True,
    "matched": True,
    "problems": (Code.NOT_FOUND, Code.CONFLICT, Code.PRECONDITION_FAILED),
    "audit": Audit.WITHIN,
}

OPERATIONS: Final = (
    Operation(
        "searchCampaigns",
        Method.GET,
        "/v1/campaigns",
        Role.VIEWER,
        Tag.CAMPAIGNS,
        "Search campaigns",
        _search,
        query=CampaignSearch,
        answer=CampaignPage,
        problems=(Code.INVALID_CURSOR,),
    ),
    Operation(
        "getCampaign",
        Method.GET,
        _ONE,
        Role.VIEWER,
        Tag.CAMPAIGNS,
        "Read a campaign",
        _get,
        answer=CampaignDetail,
        tagged=True,
        problems=(Code.NOT_FOUND,),
    ),
    Operation(
        "listCampaignMembers",
        Method.GET,
        f"{_ONE}/members",
        Role.VIEWER,
        Tag.CAMPAIGNS,
        "List the members of a campaign",
        _members,
        query=PageQuery,
        answer=MemberPage,
        problems=(Code.NOT_FOUND, Code.INVALID_CURSOR),
    ),
    Operation(
        "confirmCampaign",
        Method.POST,
        f"{_ONE}/confirm",
        summary="Agree that it is a campaign",
        handle=_confirm,
        description="Only a person lets it go then, and rules may ban it.",
        body=CampaignVerdict,
        **_CHANGE,
    ),
    Operation(
        "dismissCampaign",
        Method.POST,
        f"{_ONE}/dismiss",
        summary="Disagree that it is a campaign",
        handle=_dismiss,
        description="Every node treats its members as anybody within a second. It is not proposed "
        "again on the same evidence.",
        body=CampaignVerdict,
        **_CHANGE,
    ),
    Operation(
        "releaseCampaign",
        Method.POST,
        f"{_ONE}/release",
        summary="Let the members of a campaign go",
        handle=_release,
        description="Others on the same evidence are another campaign.",
        body=CampaignVerdict,
        **_CHANGE,
    ),
    Operation(
        "mergeCampaigns",
        Method.POST,
        f"{_ONE}/merge",
        summary="Let another campaign go on as part of this one",
        handle=_merge,
        description="It is contained as far as either was, under its own id.",
        body=CampaignMerge,
        **_CHANGE,
    ),
)
