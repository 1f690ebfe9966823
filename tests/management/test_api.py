"""What every operation has in common: strict reading, clear problems, audit, ETags, pages."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from support.admin import Admins
from support.gates import eventually

from gatekeeper.management.operation import Audit
from gatekeeper.management.operations import OPERATIONS
from gatekeeper.storage.audit import AuditOutcome

if TYPE_CHECKING:
    from support.gates import Gates
    from support.postgres import Postgres

ACME = "/v1/accounts/acme"
JSON = {"Content-Type": "application/json"}
DEEP = b'{"tier": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        (b"", "malformed", None),
        (b"{", "malformed", None),
        (b"[]", "invalid_fields", ""),
        (b"null", "invalid_fields", ""),
        (b'{"tier": "trusted", "tier": "restricted"}', "malformed", None),
        (b'{"tier": "trusted"} {}', "malformed", None),
        (b'{"tier": NaN}', "malformed", None),
        (b'{"tier": "\xff"}', "malformed", None),
        (b'{"organization": "a\\u0000b"}', "malformed", None),
        (b'{"organization": "\\ud800"}', "malformed", None),
        (b'{"owners": ["\\udfff"]}', "malformed", None),
        (b'{"created_at": ' + b"9" * 5_000 + b"}", "malformed", None),
        (b'{"created_at": 1e999}', "invalid_fields", "/created_at"),
        (DEEP, "malformed", None),
        (b'{"teir": "trusted"}', "invalid_fields", "/teir"),
        (b'{"tier": "Trusted"}', "invalid_fields", "/tier"),
        (b'{"tier": null}', "invalid_fields", "/tier"),
        (b'{"created_at": "2026-01-01"}', "invalid_fields", "/created_at"),
        (b'{"created_at": true}', "invalid_fields", "/created_at"),
        (b'{"email_domain": "a@b.example"}', "invalid_fields", "/email_domain"),
        (b'{"owners": ["ok", "NO"]}', "invalid_fields", "/owners/1"),
        (b'{"payment_fingerprint": "4111111111111111"}', "invalid_fields", "/payment_fingerprint"),
        (b'{"signup_address": "fe80::1%eth0"}', "invalid_fields", "/signup_address"),
        (b'{"banned_until": 99999999999}', "invalid_fields", "/banned_until"),
    ],
    ids=lambda value: value[:30].decode("latin-1") if isinstance(value, bytes) else None,
)
async def test_what_means_two_things_or_nothing_is_refused(
    admins: Admins, body: bytes, code: str, pointer: str | None
) -> None:
    """4xx with the place of the mistake, never a 5xx, and nothing of what was sent."""
    told = await admins.ask("PUT", ACME, data=body, headers=JSON)
    assert told.code == code
    assert told.headers["Content-Type"] == "application/problem+json"
    assert told.json["request_id"] == told.headers["X-Request-Id"]
    if pointer is not None:
        assert pointer in {each["pointer"] for each in told.json["errors"]}
    assert b"4111111111111111" not in told.body
    assert (await admins.get(ACME)).json["tier"] == "standard"


async def test_all_mistakes_are_told_at_once(admins: Admins) -> None:
    """Whoever sends three wrong fields reads of three."""
    sent = {"teir": 1, "created_at": -1, "owner_countries": ["de"]}
    told = await admins.ask("PUT", ACME, json=sent)
    assert told.status == 422
    pointers = {each["pointer"] for each in told.json["errors"]}
    assert pointers == {"/teir", "/created_at", "/owner_countries/0"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 415),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/json; charset=latin-1"}, 415),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
    ],
)
async def test_the_type_of_a_body_is_not_guessed(
    admins: Admins, headers: dict[str, str], status: int
) -> None:
    """Anything but plain JSON is 415."""
    sent = headers or {"Content-Type": ""}
    told = await admins.ask("PUT", ACME, data=b"{}", headers=sent)
    assert told.status == status


async def test_bodies_are_bounded(gates: Gates) -> None:
    """Too large is 413, told or not beforehand, and the connection serves on elsewhere."""
    async with Admins.of(gates, admin={"port": 0, "max_body_bytes": 10_000}) as admins:
        big = b'{"organization": "' + b"a" * 20_000 + b'"}'

        async def drip() -> Any:
            yield big

        for data in (big, drip()):
            told = await admins.ask("PUT", ACME, data=data, headers=JSON)
            assert (told.status, told.code) == (413, "too_large")
        assert (await admins.get(ACME)).status == 200


async def test_a_body_that_nobody_asked_for_is_refused(admins: Admins) -> None:
    """A GET or DELETE with a body is a mistake, and not the next request."""
    told = await admins.ask("GET", ACME, data=b"GET /v1/status HTTP/1.1\r\n\r\n")
    assert (told.status, told.code) == (400, "malformed")


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "query/limit"),
        ("limit=501", "query/limit"),
        ("limit=1e2", "query/limit"),
        ("limit=1&limit=2", "query/limit"),
        ("tier=", "query/tier"),
        ("banned=maybe", "query/banned"),
        ("teir=trusted", "query"),
    ],
)
async def test_queries_are_strict(admins: Admins, query: str, pointer: str) -> None:
    """Unknown, repeated and misspelt parameters are told, not ignored."""
    told = await admins.get(f"/v1/accounts?{query}")
    assert (told.status, told.code) == (422, "invalid_fields")
    assert told.json["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize("query", ["id_prefix=%ff", "id_prefix=%zz", "organization=%00"])
async def test_queries_must_be_text(admins: Admins, query: str) -> None:
    """What does not decode is 400."""
    assert (await admins.get(f"/v1/accounts?{query}")).code == "malformed"


async def test_paths_and_methods(admins: Admins) -> None:
    """404 and 405 tell what there is; HEAD is a GET without its body; OPTIONS lists methods."""
    assert (await admins.get("/v1/nothing")).code == "not_found"
    assert (await admins.get("/v1/accounts/")).code == "not_found"
    told = await admins.ask("PATCH", ACME)
    assert (told.status, told.headers["Allow"]) == (405, "GET, HEAD, PUT")
    assert (await admins.ask("OPTIONS", ACME)).headers["Allow"] == "GET, HEAD, PUT"
    assert (await admins.ask("POST", "/v1/openapi.json")).status == 405
    whole, head = await admins.get(ACME), await admins.ask("HEAD", ACME)
    assert head.status == 200
    assert (head.headers["ETag"], head.body) == (whole.headers["ETag"], b"")
    for path in ("/v1/../v1/status", "/v1/%2e%2e/v1/status", "//v1/status", "/V1/status"):
        assert (await admins.get(path)).status == 404


async def test_every_answer_is_kept_from_browsers_and_caches(admins: Admins) -> None:
    """No answer is stored, framed, sniffed or read by another site."""
    for path, key in ((ACME, "admin"), (ACME, None), ("/", None), ("/v1/usage.csv", "admin")):
        told = await admins.get(path, key=key)
        assert told.headers["Cache-Control"] == "no-store"
        assert told.headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in told.headers["Content-Security-Policy"]
        assert told.headers["X-Request-Id"].startswith("req_")
        assert "Server" not in told.headers
        assert not [name for name in told.headers if name.lower().startswith("access-control")]


async def test_an_account_id_may_hold_anything_visible(admins: Admins) -> None:
    """Ids that a path cannot hold as they are come percent-encoded."""
    strange = "auth0|5f/..?#%+&;=\"'<>"
    encoded = "".join(f"%{ord(character):02X}" for character in strange)
    made = await admins.ask("PUT", f"/v1/accounts/{encoded}", json={})
    assert (made.status, made.json["id"]) == (201, strange)
    assert (await admins.get(f"/v1/accounts/{encoded}")).json["id"] == strange
    assert (await admins.get("/v1/accounts/a%20b")).status == 422


async def test_etags_tell_what_changed(admins: Admins) -> None:
    """Unchanged is 304; a change by somebody else fails a conditional one (412)."""
    first = (await admins.get(ACME)).headers["ETag"]
    assert first.startswith('"')
    assert (await admins.get(ACME, headers={"If-None-Match": first})).status == 304
    assert (await admins.get(ACME, headers={"If-None-Match": f"W/{first}"})).status == 304
    put = await admins.ask("PUT", ACME, json={"tier": "trusted"}, headers={"If-Match": first})
    assert put.status == 200
    assert put.headers["ETag"] == (await admins.get(ACME)).headers["ETag"] != first
    late = await admins.ask("PUT", ACME, json={"tier": "restricted"}, headers={"If-Match": first})
    assert (late.status, late.code) == (412, "precondition_failed")
    assert (await admins.get(ACME)).json["tier"] == "trusted"
    for tag in ("nonsense", f"{first} {first}", '"open'):
        told = await admins.ask("PUT", ACME, json={}, headers={"If-Match": tag})
        assert (told.status, told.code) == (422, "invalid_fields")


async def test_create_only_and_change_only(admins: Admins) -> None:
    """``If-None-Match: *`` creates and never changes, ``If-Match: *`` the other way round."""
    only_new, only_old = {"If-None-Match": "*"}, {"If-Match": "*"}
    assert (await admins.ask("PUT", "/v1/accounts/new", json={}, headers=only_old)).status == 412
    assert (await admins.ask("PUT", "/v1/accounts/new", json={}, headers=only_new)).status == 201
    assert (await admins.ask("PUT", "/v1/accounts/new", json={}, headers=only_new)).status == 412
    assert (await admins.ask("PUT", "/v1/accounts/new", json={}, headers=only_old)).status == 200


async def test_of_many_who_race_with_one_etag_one_wins(admins: Admins) -> None:
    """Twenty conditional changes of the same version: one is made, nineteen are told."""
    tag = (await admins.get(ACME)).headers["ETag"]
    told = await asyncio.gather(
        *(
            admins.ask("PUT", ACME, json={"organization": f"o{number}"}, headers={"If-Match": tag})
            for number in range(20)
        )
    )
    assert sorted(each.status for each in told) == [200] + [412] * 19
    winner = next(each for each in told if each.status == 200)
    assert (await admins.get(ACME)).json["organization"] == winner.json["organization"]


BODIES: dict[str, Any] = {
    "putAccount": {"tier": "trusted"},
    "setAccountTier": {"tier": "elevated", "reason": "watched"},
    "banAccount": {"reason": "stolen cards"},
    "unbanAccount": {"reason": "a mistake"},
    "addAccountNote": {"text": "called them"},
    "createKey": {"label": "ci"},
    "createAdminKey": {"name": "bob", "role": "viewer"},
    "putOrganization": {"egress": ["8.8.8.0/24"]},
    "approveCase": {"reason": "seen in person"},
    "declineCase": {"reason": "not them"},
    "restartCase": {"reason": "try again"},
    "confirmCampaign": {"reason": "looked at it"},
    "dismissCampaign": {"reason": "customers"},
    "releaseCampaign": {"reason": "let them go"},
    "mergeCampaigns": {"reason": "the same people", "other": "cmp_000000000002"},
    "setMode": {"mode": "observe", "reason": "first week"},
    "validateRules": {"files": {"a.yaml": "version: 2\n"}},
    "compareRules": {"after": "0123456789ab"},
    "activateRules": {"target": "0123456789ab"},
    "rollBackRules": {},
}
PATHS = {
    "{account_id}": "acme",
    "{key_id}": "gk_aaaaaaaa",
    "{admin_key_id}": "gka_zzzzzzzz",
    "{organization_id}": "acme",
    "{case_id}": "case_1",
    "{campaign_id}": "cmp_000000000001",
}


@pytest.mark.parametrize("sent", ["right", "wrong", "unfit"])
async def test_each_change_leaves_exactly_one_entry(admins: Admins, sent: str) -> None:
    """Done or refused, every operation that may change something is in the trail, once."""
    for operation in OPERATIONS:
        if operation.audit is Audit.NO:
            continue
        path = operation.path
        for name, value in PATHS.items():
            path = path.replace(name, value)
        options: dict[str, Any] = {}
        if operation.file_type is not None:
            options = {"data": b'{"id": "x"}', "headers": {"Content-Type": operation.file_type}}
        elif operation.body is not None:
            options = {"json": BODIES[operation.id]}
        if sent == "wrong":
            options = {"data": b'{"what": 1', "headers": JSON}
        if sent == "unfit":
            options.setdefault("headers", {})["If-Match"] = '"other"'
        before = len(await admins.trail())
        told = await admins.ask(operation.method.value, path, **options)
        entries = (await admins.trail())[before:]
        assert len(entries) == 1, operation.id
        entry = entries[0]
        assert (entry.action, entry.actor_name, entry.role) == (operation.id, "admin", "admin")
        assert entry.request_id == told.headers["X-Request-Id"]
        assert entry.status == told.status, operation.id
        done = told.status < 300
        assert entry.outcome is (AuditOutcome.DONE if done else AuditOutcome.REFUSED), operation.id
        if sent == "wrong" and operation.body is not None:
            assert entry.detail["code"] in {"malformed", "invalid_fields"}


async def test_reading_leaves_no_entry(admins: Admins) -> None:
    """The trail tells of changes and refusals, not of looks."""
    before = len(await admins.trail())
    for operation in OPERATIONS:
        if operation.audit is Audit.NO and not operation.parameters:
            assert (await admins.get(operation.path)).status == 200, operation.id
    assert len(await admins.trail()) == before


async def test_the_trail_tells_what_changed(admins: Admins) -> None:
    """Who, what, from what to what, and why; filters find it."""
    await admins.ask(
        "POST", f"{ACME}/ban", key="operator", json={"reason": "stolen cards", "until": "forever"}
    )
    told = await admins.get("/v1/audit?target_id=acme&action=banAccount", key="viewer")
    entry = told.json["items"][0]
    assert entry["actor_name"] == "operator"
    assert entry["detail"]["reason"] == "stolen cards"
    assert entry["detail"]["changed"] == {
        "banned_until": [None, "forever"],
        "ban_reason": [None, "stolen cards"],
    }
    assert (entry["target_kind"], entry["outcome"], entry["status"]) == ("account", "done", 200)
    assert entry["peer"] == "127.0.0.0/24"
    assert (await admins.get("/v1/audit?actor=gka_nobody")).json["items"] == []


async def test_the_trail_hides_what_points_at_a_person(admins: Admins) -> None:
    """It is kept for ever, so addresses, digests and payment fingerprints are told as changed."""
    pushed = {"signup_address": "8.8.8.8", "payment_fingerprint": "fp_1a2b3c", "tier": "trusted"}
    await admins.ask("PUT", ACME, json=pushed)
    await admins.gate.cli("accounts", "set", "acme", "signup_address=9.9.9.9")
    by_api, by_command = (await admins.trail(target_id="acme"))[-2:]
    assert by_api.detail["changed"] == {
        "signup_address": [None, "hidden"],
        "payment_fingerprint": [None, "hidden"],
        "tier": ["standard", "trusted"],
    }
    assert by_command.detail["changed"] == {"signup_address": ["hidden", "hidden"]}


async def test_it_works_on_postgresql(gates: Gates, postgres: Postgres) -> None:
    """Conditional changes, keys, audit and usage do the same as on SQLite."""
    async with Admins.of(gates, records_url=postgres.new_url()) as admins:
        tag = (await admins.get(ACME)).headers["ETag"]
        told = await asyncio.gather(
            *(
                admins.ask(
                    "PUT", ACME, json={"organization": f"o{number}"}, headers={"If-Match": tag}
                )
                for number in range(10)
            )
        )
        assert sorted(each.status for each in told) == [200] + [412] * 9
        assert (await admins.ask("POST", f"{ACME}/keys", json={})).status == 201
        assert (await admins.ask("POST", "/v1/accounts/no/notes", json={"text": "x"})).status == 404
        assert (await admins.ask("PUT", "/v1/organizations/o", json={})).status == 201
        outcomes = [entry.outcome.value for entry in await admins.trail()]
        assert sorted(outcomes) == ["done"] * 3 + ["refused"] * 10
        for path in ("/v1/usage", "/v1/usage.csv", "/v1/audit", "/v1/cases", "/v1/status"):
            assert (await admins.get(path)).status == 200
        postgres.cut()

        async def back() -> bool:
            return (await admins.get(ACME)).status == 200

        await eventually(back)


async def test_a_change_that_cannot_be_audited_is_not_made(admins: Admins) -> None:
    """Change and entry are one transaction: without the one there is not the other."""
    async with admins.database.writing() as connection:
        await connection.exec_driver_sql("DROP TABLE audit")
    told = await admins.ask("PUT", ACME, json={"tier": "trusted"})
    assert (told.status, told.code) == (503, "records_unavailable")
    assert told.headers["Retry-After"] == "1"
    assert (await admins.get(ACME)).json["tier"] == "standard"
    told = await admins.ask("PUT", "/v1/mode", json={"mode": "closed", "reason": "x"})
    assert told.status == 503
    assert (await admins.get("/v1/mode")).json["mode"] == "enforce"


async def test_commands_are_audited_as_their_user(admins: Admins) -> None:
    """The command line changes the same records, and leaves the same trail."""
    await admins.gate.cli("accounts", "set", "acme", "tier=trusted")
    await admins.gate.cli("keys", "create", "acme")
    await admins.gate.cli("admin-keys", "create", "dora", "--role", "viewer")
    await admins.gate.cli("organizations", "set", "acme", "verified=yes")
    entries = [each for each in await admins.trail() if each.actor.startswith("cli:")]
    assert [each.action for each in entries] == [
        "putAccount",
        "createKey",
        "createAdminKey",
        "putOrganization",
    ]
    assert entries[0].detail["changed"] == {"tier": ["standard", "trusted"]}


async def test_pages_lose_and_double_nothing_while_rows_come(admins: Admins) -> None:
    """What was there when the reading began is seen once, though others insert meanwhile."""
    there = {f"a{number:03}" for number in range(0, 100, 2)}
    lines = "\n".join(json.dumps({"id": each}) for each in sorted(there))
    headers = {"Content-Type": "application/jsonl"}
    await admins.ask("POST", "/v1/accounts:import", data=lines.encode(), headers=headers)
    seen: list[str] = []
    cursor, number = "", 1
    while True:
        told = await admins.get(f"/v1/accounts?id_prefix=a&limit=7{cursor}")
        seen += [each["id"] for each in told.json["items"]]
        if told.json["next_cursor"] is None:
            break
        cursor = f"&cursor={told.json['next_cursor']}"
        for new in (number, 100 - number):
            await admins.ask("PUT", f"/v1/accounts/a{new:03}", json={})
        number += 2
    assert len(seen) == len(set(seen))
    assert set(seen) >= there
    assert seen == sorted(seen)


async def test_a_cursor_belongs_to_its_query(admins: Admins) -> None:
    """Other filters, another list, or a damaged cursor are told; the limit may differ."""
    for number in range(5):
        await admins.ask("PUT", f"/v1/accounts/a{number}", json={})
    page = (await admins.get("/v1/accounts?limit=2&id_prefix=a")).json
    cursor = page["next_cursor"]
    assert (await admins.get(f"/v1/accounts?id_prefix=a&limit=3&cursor={cursor}")).status == 200
    for query in (
        f"/v1/accounts?cursor={cursor}",
        f"/v1/accounts?id_prefix=b&cursor={cursor}",
        f"/v1/keys?cursor={cursor}",
        f"/v1/accounts?id_prefix=a&cursor={cursor[:-2]}",
        "/v1/accounts?cursor=AAAA",
        "/v1/accounts?cursor=bnVsbA",
        "/v1/audit?cursor=WzFd",
    ):
        told = await admins.get(query)
        assert (told.status, told.code) == (400, "invalid_cursor")


async def test_without_records_it_says_so_and_recovers(admins: Admins) -> None:
    """503 that may be tried again, for keys cannot be checked either; then all is well again."""
    file = admins.gate.settings.data_dir / "records.db"
    async with admins.database.writing() as connection:
        await connection.exec_driver_sql("ALTER TABLE admin_keys RENAME TO gone")
    told = await admins.get("/v1/status")
    assert (told.status, told.code) == (503, "records_unavailable")
    assert (await admins.get("/v1/openapi.json", key=None)).status == 200
    async with admins.database.writing() as connection:
        await connection.exec_driver_sql("ALTER TABLE gone RENAME TO admin_keys")

    async def back() -> bool:
        return (await admins.get("/v1/status")).status == 200

    await eventually(back)
    assert file.exists()


async def test_requests_are_counted_by_operation(admins: Admins) -> None:
    """Metrics have the operation and the status, never what a caller sent."""
    await admins.get("/v1/status")
    await admins.get("/v1/made-up-by-a-caller")
    told = await admins.gate.metrics()
    assert 'gatekeeper_admin_requests_total{operation="getStatus",status="200"}' in told
    assert 'gatekeeper_admin_requests_total{operation="",status="404"}' in told
    assert "made-up" not in told
