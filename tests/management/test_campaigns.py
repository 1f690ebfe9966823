"""Campaigns in the management API: found, read, judged under their version, audited."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.builders import AT
from support.campaigns import accounts, campaign, group

from gatekeeper.policy.campaigns import CampaignState
from gatekeeper.storage.campaigns import CampaignBook

if TYPE_CHECKING:
    from support.admin import Admins

ONE = campaign(missing={"gone": AT})
OTHER = campaign(group(accounts(20, 40)), id="cmp_000000000002")
GONE = campaign(id="cmp_000000000003", state=CampaignState.DISMISSED)
PATH = f"/v1/campaigns/{ONE.id}"
WHY = {"reason": "seen by hand"}


@pytest.fixture(autouse=True)
async def three(admins: Admins) -> None:
    """Put three campaigns into the records."""
    await CampaignBook(admins.database).write((ONE, OTHER, GONE), at=AT, seen=0)


async def test_campaigns_are_found_by_state_and_in_pages(admins: Admins) -> None:
    """Each comes once; a cursor of other filters is refused."""
    first = (await admins.get("/v1/campaigns?limit=2", key="viewer")).json
    assert [each["id"] for each in first["items"]] == [ONE.id, OTHER.id]
    rest = (await admins.get(f"/v1/campaigns?limit=2&cursor={first['next_cursor']}")).json
    assert [each["id"] for each in rest["items"]] == [GONE.id]
    assert rest["next_cursor"] is None
    dismissed = (await admins.get("/v1/campaigns?state=dismissed")).json
    assert [each["id"] for each in dismissed["items"]] == [GONE.id]
    foreign = await admins.get(f"/v1/campaigns?state=dismissed&cursor={first['next_cursor']}")
    assert foreign.code == "invalid_cursor"


async def test_a_campaign_is_told_with_what_bears_it_out(admins: Admins) -> None:
    """Its shared traits and layers, under an ETag; members are a list of their own."""
    told = await admins.get(PATH, key="viewer")
    assert told.json["layers"] == [layer.value for layer in ONE.group.layers]
    assert told.json["shared"][0]["trait"] == f"{11:016x}"
    assert "a00001" not in told.body.decode()
    known = {"If-None-Match": told.headers["ETag"]}
    assert (await admins.get(PATH, headers=known)).status == 304
    assert (await admins.get("/v1/campaigns/cmp_00000000ffff")).status == 404


async def test_members_come_in_pages(admins: Admins) -> None:
    """All that are contained, once, those that are missing with since when."""
    found: list[dict[str, object]] = []
    cursor = ""
    while True:
        page = (await admins.get(f"{PATH}/members?limit=4{cursor}")).json
        found += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert [each["account_id"] for each in found] == sorted(ONE.contained)
    assert [each["missing_since"] for each in found] == [None] * 10 + [AT]
    assert (await admins.get("/v1/campaigns/cmp_00000000ffff/members")).status == 404


async def test_a_campaign_is_judged_under_its_version(admins: Admins) -> None:
    """Whoever saw an older one is refused; each step is in its history and in the trail."""
    tag = (await admins.get(PATH)).headers["ETag"]
    match = {"If-Match": tag}
    done = await admins.ask("POST", f"{PATH}/confirm", key="operator", json=WHY, headers=match)
    assert (done.status, done.json["state"]) == (200, "confirmed")
    latest = done.json["history"][0]
    assert (latest["what"], latest["detail"]) == ("confirmed", "seen by hand")
    assert latest["by"].startswith("operator (gka_")
    stale = await admins.ask("POST", f"{PATH}/dismiss", json=WHY, headers=match)
    assert (stale.status, stale.code) == (412, "precondition_failed")
    again = await admins.ask("POST", f"{PATH}/confirm", json=WHY)
    assert (again.status, again.code) == (409, "conflict")
    match = {"If-Match": done.headers["ETag"]}
    freed = await admins.ask("POST", f"{PATH}/release", json=WHY, headers=match)
    assert freed.json["state"] == "released"
    assert (await admins.ask("POST", f"{PATH}/dismiss", json=WHY)).json["state"] == "dismissed"
    trail = await admins.trail(target_id=ONE.id, action="confirmCampaign")
    assert trail[0].detail["changed"] == {"state": ["proposed", "confirmed"]}
    assert trail[0].detail["reason"] == "seen by hand"


async def test_two_campaigns_become_one(admins: Admins) -> None:
    """The other goes on as part of this one; not with itself, nor with one that is closed."""
    done = await admins.ask("POST", f"{PATH}/merge", json=WHY | {"other": OTHER.id})
    assert (done.status, done.json["members"]) == (200, 31)
    other = (await admins.get(f"/v1/campaigns/{OTHER.id}")).json
    assert (other["state"], other["into"]) == ("merged", ONE.id)
    for unfit in (ONE.id, GONE.id):
        told = await admins.ask("POST", f"{PATH}/merge", json=WHY | {"other": unfit})
        assert (told.status, told.code) == (409, "conflict")
    nobody = await admins.ask("POST", f"{PATH}/merge", json=WHY | {"other": "cmp_00000000ffff"})
    assert nobody.status == 404
