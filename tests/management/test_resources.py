"""What each group of operations does to a gate that serves calls."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from support.admin import Admins
from support.gates import eventually, rules_text

from gatekeeper.listener.answers import DECISION_HEADER

if TYPE_CHECKING:
    from support.gates import Gates

ACME = "/v1/accounts/acme"
LINES = {"Content-Type": "application/jsonl"}
CHAT = "/v1/chat/completions"
SMALL = {"model": "demo-small", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}


async def call(admins: Admins, key: str | None = None) -> tuple[int, str]:
    """Send a call of acme; return its status and decision id."""
    headers = {"x-api-key": key or admins.gate.keys["acme"]}
    async with admins.gate.http.post(CHAT, headers=headers, json=SMALL) as answer:
        await answer.read()
        return answer.status, answer.headers[DECISION_HEADER]


async def reaches(admins: Admins, status: int, key: str | None = None) -> None:
    """Wait until calls of acme end so."""

    async def ends() -> bool:
        return (await call(admins, key))[0] == status

    await eventually(ends)


# --- accounts ---


async def test_accounts_that_the_operators_system_pushes(admins: Admins) -> None:
    """A PUT by id creates, a second one updates, what it does not name stays; null clears."""
    pushed = {
        "created_at": 1_790_000_000,
        "organization": "Beta Ltd",
        "email_domain": "beta.example",
        "email_pattern": "aaaa.99",
        "email_digest": "a" * 64,
        "payment_fingerprint": "fp_1a2b3c",
        "signup_address": "2001:DB8::1",
        "tier": "standard",
        "owners": ["bytedance"],
    }
    made = await admins.ask("PUT", "/v1/accounts/beta", key="operator", json=pushed)
    assert made.status == 201
    assert made.json["signup_address"] == "2001:db8::1"
    assert {name: made.json[name] for name in pushed if name != "signup_address"} == {
        name: value for name, value in pushed.items() if name != "signup_address"
    }
    again = await admins.ask("PUT", "/v1/accounts/beta", json={"email_pattern": None})
    assert again.status == 200
    assert again.json["email_pattern"] is None
    assert again.json["organization"] == "Beta Ltd"


async def test_a_ban_and_its_end_reach_the_gate(admins: Admins) -> None:
    """Calls are refused within a second, and pass again once it is lifted."""
    assert (await call(admins))[0] == 200
    banned = await admins.ask("POST", f"{ACME}/ban", json={"reason": "stolen cards"})
    assert (banned.json["banned_until"], banned.json["ban_reason"]) == ("forever", "stolen cards")
    await reaches(admins, 403)
    assert (await admins.get("/v1/accounts?banned=true")).json["items"][0]["id"] == "acme"
    freed = await admins.ask("POST", f"{ACME}/unban", json={"reason": "a mistake"})
    assert freed.json["banned_until"] is None
    await reaches(admins, 200)
    past = await admins.ask("POST", f"{ACME}/ban", json={"reason": "x", "until": 1})
    assert past.json["errors"] == [{"pointer": "/until", "detail": "This lies in the past."}]
    nobody = await admins.ask("POST", "/v1/accounts/nobody/ban", json={"reason": "x"})
    assert (nobody.status, nobody.code) == (404, "not_found")


async def test_a_tier_reaches_the_gate(admins: Admins) -> None:
    """``elevated`` asks for proof of identity, as the rules say."""
    await reaches(admins, 200)
    told = await admins.ask("PUT", f"{ACME}/tier", json={"tier": "elevated", "reason": "odd use"})
    assert told.json["tier"] == "elevated"
    await reaches(admins, 403)


async def test_an_import_is_all_or_none_with_every_mistake(admins: Admins) -> None:
    """Each mistake has its line; with one of them nothing is taken."""
    lines = [
        '{"id": "one", "tier": "trusted"}',
        '{"id": "two", "tier": "best"}',
        "not json",
        '{"id": "one"}',
        '{"id": "bad\\u0000.example", "email_domain": "\\ud800.example"}',
    ]
    body = "\n".join(lines).encode()
    told = await admins.ask("POST", "/v1/accounts:import", data=body, headers=LINES)
    assert told.status == 422
    assert {each["pointer"] for each in told.json["errors"]} == {
        "line/2/tier",
        "line/3",
        "line/4/id",
        "line/5/id",
        "line/5/email_domain",
    }
    assert (await admins.get("/v1/accounts/one")).status == 404
    many = "\n".join(json.dumps({"id": f"m{number}"}) for number in range(3_000))
    told = await admins.ask("POST", "/v1/accounts:import", data=many.encode(), headers=LINES)
    assert told.json == {"created": 3_000, "updated": 0}


async def test_notes_are_added_and_read_newest_first(admins: Admins) -> None:
    """A note carries the name of the key that wrote it."""
    for text in ("first", "second"):
        await admins.ask("POST", f"{ACME}/notes", key="operator", json={"text": text})
    page = (await admins.get(f"{ACME}/notes?limit=1")).json
    assert [each["text"] for each in page["items"]] == ["second"]
    assert page["items"][0]["author"] == "operator"
    rest = (await admins.get(f"{ACME}/notes?limit=1&cursor={page['next_cursor']}")).json
    assert [each["text"] for each in rest["items"]] == ["first"]
    assert rest["next_cursor"] is None
    assert (await admins.get("/v1/accounts/nobody/notes")).status == 404
    told = await admins.ask("POST", "/v1/accounts/nobody/notes", json={"text": "x"})
    assert told.status == 404


async def test_search_finds_what_fits(admins: Admins) -> None:
    """Fields are combined."""
    for name, tier in (("a1", "trusted"), ("a2", "restricted"), ("b1", "trusted")):
        await admins.ask("PUT", f"/v1/accounts/{name}", json={"tier": tier})
    found = await admins.get("/v1/accounts?id_prefix=a&tier=trusted")
    assert [each["id"] for each in found.json["items"]] == ["a1"]


# --- keys ---


async def test_a_key_is_shown_once_and_opens_the_gate_until_revoked(admins: Admins) -> None:
    """It serves within a second of its making, and ends within a second of its revocation."""
    made = await admins.ask("POST", f"{ACME}/keys", key="operator", json={"label": "ci"})
    assert made.status == 201
    key, key_id = made.json["key"], made.json["key_id"]
    await reaches(admins, 200, key)
    listed = (await admins.get("/v1/keys?account=acme")).json["items"]
    assert {each["label"] for each in listed} == {"", "ci"}
    assert not any("key" in each for each in listed)
    assert (await admins.ask("DELETE", f"/v1/keys/{key_id}")).status == 204
    await reaches(admins, 401, key)
    assert (await admins.ask("DELETE", f"/v1/keys/{key_id}")).status == 204
    assert (await admins.ask("DELETE", "/v1/keys/gk_zzzzzzzz")).status == 404
    assert (await admins.ask("POST", "/v1/accounts/nobody/keys", json={})).status == 404
    past = await admins.ask("POST", f"{ACME}/keys", json={"expires_at": 1})
    assert past.status == 422


# --- organizations ---


async def test_organizations_register_ranges_that_no_other_has(admins: Admins) -> None:
    """Canonical, public, apart; what overlaps is a conflict."""
    put = await admins.ask("PUT", "/v1/organizations/acme", json={"egress": ["8.8.8.0/24"]})
    assert (put.status, put.json["egress"], put.json["name"]) == (201, ["8.8.8.0/24"], "acme")
    other = await admins.ask("PUT", "/v1/organizations/beta", json={"egress": ["8.8.8.8/32"]})
    assert (other.status, other.code) == (409, "conflict")
    private = await admins.ask("PUT", "/v1/organizations/beta", json={"egress": ["10.0.0.0/8"]})
    assert private.json["errors"][0]["pointer"] == "/egress[0]"
    named = await admins.ask("PUT", "/v1/organizations/acme", json={"verified": True})
    assert named.json["egress"] == ["8.8.8.0/24"]
    assert [each["id"] for each in (await admins.get("/v1/organizations")).json["items"]] == [
        "acme"
    ]


# --- decisions ---


async def test_decisions_are_found_read_and_explained(admins: Admins) -> None:
    """A refusal is found by account and verdict, and judged again to the same verdict."""
    _, allowed = await call(admins)
    await admins.ask("POST", f"{ACME}/ban", json={"reason": "x"})
    await reaches(admins, 403)
    _, refused = await call(admins)
    await admins.gate.outcome(allowed)
    await admins.gate.decision(refused)
    found = (await admins.get("/v1/decisions?account=acme&verdict=deny&limit=1")).json["items"]
    assert [each["id"] for each in found] == [refused]
    assert found[0]["reason"] == "account_suspended"
    whole = (await admins.get(f"/v1/decisions/{allowed}")).json
    assert whole["decision"]["facts"]["account"]["id"] == "acme"
    assert whole["outcome"]["status"] == 200
    why = (await admins.get(f"/v1/decisions/{refused}/explanation")).json
    assert (why["verdict"], why["same_verdict"], why["now"]) == ("deny", True, None)
    assert why["facts"]["account.id"] == "acme"
    assert "facts" not in why["judged"]
    assert (await admins.get("/v1/decisions?account=nobody")).json["items"] == []
    assert (await admins.get("/v1/decisions/dec_" + "0" * 28)).status == 404


# --- usage ---


async def test_usage_is_counted_per_account_and_day_and_exported(admins: Admins) -> None:
    """What the upstream reported, what was refused, nothing of strangers; JSON and CSV agree."""
    for _ in range(3):
        assert (await call(admins))[0] == 200
    await call(admins, "gk_made_up")
    await admins.ask("POST", f"{ACME}/ban", json={"reason": "x"})
    await reaches(admins, 403)
    rows: list[dict[str, Any]] = []

    async def counted() -> bool:
        rows[:] = (await admins.get("/v1/usage?account=acme")).json["items"]
        return sum(row["refused"] for row in rows) > 0

    await eventually(counted)
    used = next(row for row in rows if row["model"] == "*")
    assert used["day"] == datetime.now(UTC).date().isoformat()
    settled = [each["usage"] for each in admins.gate.book() if each["kind"] == "outcome"]
    assert len(settled) >= 3
    assert (used["requests"], used["refused"], used["estimated_requests"]) == (len(settled), 0, 0)
    assert used["input_tokens"] == sum(each["input_tokens"] for each in settled)
    assert used["output_tokens"] == sum(each["output_tokens"] for each in settled)
    assert used["cost_cents"] == pytest.approx(sum(each["cost_cents"] for each in settled))
    assert {row["account"] for row in (await admins.get("/v1/usage")).json["items"]} == {"acme"}
    told = await admins.get("/v1/usage.csv")
    assert told.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert 'filename="usage.csv"' in told.headers["Content-Disposition"]
    lines = list(csv.DictReader(io.StringIO(told.body.decode())))
    assert [line["requests"] for line in lines if line["model"] == "*"] == [str(len(settled))]
    assert (await admins.get("/v1/usage?first_day=2026-02-30")).status == 422
    assert (await admins.get("/v1/usage?last_day=0001-01-01")).json["items"] == []


async def test_usage_is_not_lost_at_the_end(gates: Gates) -> None:
    """A gate that stops records what it had not yet."""
    async with Admins.of(gates) as admins:
        assert (await call(admins))[0] == 200
        await admins.gate.stop()
        async with admins.database.reading() as connection:
            rows = (await connection.exec_driver_sql("SELECT requests FROM usage_daily")).all()
        assert [row[0] for row in rows] == [1]


# --- rules, mode, lists, cases, status ---


async def test_rules_are_validated_compared_activated_and_rolled_back(admins: Admins) -> None:
    """Under an ETag; what an embargo would lose is told before, and kept in the trail."""
    active = await admins.get("/v1/rules/active")
    tag = active.headers["ETag"]
    assert tag == f'"{active.json["revision"]}"'
    files = (await admins.get(f"/v1/rules/revisions/{active.json['revision']}")).json["files"]
    name = next(iter(files))
    assert name.endswith(".yaml")
    bad = await admins.ask("POST", "/v1/rules:validate", json={"files": {name: "version: 1\n"}})
    assert bad.json["valid"] is False
    assert bad.json["mistakes"][0]["file"] == name
    without = rules_text().replace("countries: [CU]", "countries: [KP]")
    good = await admins.ask("POST", "/v1/rules:validate", json={"files": {name: without}})
    assert good.json["valid"] is True
    diff = (await admins.ask("POST", "/v1/rules:diff", json={"after": {name: without}})).json
    assert diff["changes"] == [{"section": "embargo", "rule": "embargo-cuba", "kind": "changed"}]
    assert len(diff["weakened_embargoes"]) == 1
    assert "+" in diff["text"]
    new = {"target": {name: without}, "comment": "try"}
    unseen = await admins.ask("POST", "/v1/rules:activate", json=new)
    assert (unseen.status, unseen.code) == (428, "precondition_required")
    stale = await admins.ask("POST", "/v1/rules:activate", json=new, headers={"If-Match": '"0"'})
    assert stale.status == 412
    broken = {"target": {name: "version: 1\n"}}
    told = await admins.ask("POST", "/v1/rules:activate", json=broken, headers={"If-Match": tag})
    assert told.status == 422
    assert (await admins.get("/v1/rules/active")).headers["ETag"] == tag
    done = await admins.ask("POST", "/v1/rules:activate", json=new, headers={"If-Match": tag})
    assert done.status == 200
    assert done.json["revision"] == good.json["revision"]
    assert done.json["activation"]["by"] == "admin"
    assert admins.gate.app.gate.snapshot.rules.revision == good.json["revision"]
    trail = await admins.trail(action="activateRules")
    assert trail[-1].detail["weakened_embargoes"] == diff["weakened_embargoes"]
    back = await admins.ask(
        "POST", "/v1/rules:rollback", json={}, headers={"If-Match": done.headers["ETag"]}
    )
    assert back.headers["ETag"] == tag
    history = (await admins.get("/v1/rules/activations")).json["items"]
    assert [each["revision"] for each in history][:2] == [tag.strip('"'), good.json["revision"]]
    assert (await admins.get("/v1/rules/revisions/0123456789ab")).status == 404


async def test_the_mode_is_set_for_all_and_given_back(admins: Admins) -> None:
    """``closed`` refuses every call at once; the settings' mode returns when it is cleared."""
    shut = await admins.ask("PUT", "/v1/mode", json={"mode": "closed", "reason": "an incident"})
    assert (shut.json["mode"], shut.json["override"]["by"]) == ("closed", "admin")
    assert (await call(admins))[0] == 503
    assert (await admins.get("/v1/status")).json["mode"] == "closed"
    await admins.ask("PUT", "/v1/mode", json={"mode": "bypass", "reason": "our own defect"})
    assert (await call(admins))[0] == 200
    freed = await admins.ask("DELETE", "/v1/mode")
    assert (freed.json["mode"], freed.json["override"]) == ("enforce", None)
    past = await admins.ask(
        "PUT", "/v1/mode", json={"mode": "closed", "reason": "x", "expires_at": 1}
    )
    assert past.json["errors"][0]["pointer"] == "/expires_at"


async def test_cases_are_found_and_decided(gates: Gates) -> None:
    """An admin's approval lets the same call through; what is decided is decided once."""
    accounts: dict[str, dict[str, object]] = {"acme": {}, "watched": {"tier": "elevated"}}
    async with Admins.of(gates, accounts=accounts) as admins:
        case_id = (await admins.some_history())["case_id"]
        found = (await admins.get("/v1/cases?state=pending&account=watched")).json["items"]
        assert [each["id"] for each in found] == [case_id]
        path = f"/v1/cases/{case_id}"
        done = await admins.ask(
            "POST", f"{path}/approve", key="operator", json={"reason": "seen in person"}
        )
        assert (done.status, done.json["state"]) == (200, "verified")
        assert "operator" in done.json["actor"]
        await reaches(admins, 200, admins.gate.keys["watched"])
        again = await admins.ask("POST", f"{path}/approve", json={"reason": "x"})
        assert (again.status, again.code) == (409, "conflict")
        assert (await admins.get(path)).json["history"][0]["reason"] == "seen in person"
        trail = await admins.trail(target_id=case_id)
        assert trail[0].detail["changed"] == {"state": ["pending", "verified"]}
        nobody = await admins.ask("POST", "/v1/cases/none/decline", json={"reason": "x"})
        assert nobody.status == 404


async def test_lists_and_status_tell_what_is_served(admins: Admins) -> None:
    """Every source with its age, every node with its revisions."""
    lists = (await admins.get("/v1/lists")).json
    assert lists["sources"] == []
    assert (await admins.ask("POST", "/v1/lists:reload")).status == 202
    status = (await admins.get("/v1/status")).json
    assert status["ready"] is True
    assert status["containment_revision"] == ""
    assert status["records"]["answering"] is True
    assert status["limits"] == {"shared": False, "answering": True}
    assert [node["rules_revision"] for node in status["nodes"]] == [status["rules_revision"]]
