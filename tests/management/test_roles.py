"""Who may do what, route by route from the document itself; nothing opens without a key (H20)."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio
import trustme
from support.admin import Admins
from support.gates import Clock, Gates

from gatekeeper.management.openapi import document
from gatekeeper.management.operations import OPERATIONS
from gatekeeper.settings import Geoip
from gatekeeper.storage.audit import AuditOutcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DOCUMENT = document(OPERATIONS)
ROLES = ("viewer", "operator", "admin")
UNKNOWN = "gka_aaaaaaaa_" + "a" * 32 + "aaaaaaa"
SAMPLES = {
    "account_id": "acme",
    "key_id": "gk_aaaaaaaa",
    "admin_key_id": "gka_zzzzzzzz",
    "decision_id": "dec_" + "0" * 28,
    "organization_id": "acme",
    "case_id": "case",
    "campaign_id": "cmp_000000000001",
    "revision": "0123456789ab",
}
CALLS = [
    (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]


def named(call: Any) -> str | None:
    """Name a case by its operation."""
    return call["operationId"] if isinstance(call, dict) else None


def sample(path: str) -> str:
    """Fill the parameters of a path in."""
    return re.sub(r"\{(\w+)\}", lambda found: SAMPLES[found[1]], path)


def options(operation: dict[str, Any]) -> dict[str, Any]:
    """Return a body of the right type, though hardly one that is valid."""
    content = operation.get("requestBody", {}).get("content", {})
    return {"data": b"{}", "headers": {"Content-Type": next(iter(content))}} if content else {}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def matrix(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Admins, Clock]]:
    """Return one gate for the whole matrix."""
    gates = Gates(tmp_path_factory.mktemp("matrix"), Geoip(databases=(), networks=()))
    clock = Clock()
    try:
        async with Admins.of(gates, clock=clock) as admins:
            yield admins, clock
    finally:
        await gates.stop()


@pytest.fixture
async def clocked(gates: Gates) -> AsyncIterator[tuple[Admins, Clock]]:
    """Return a gate whose clock the test moves, so that failures are not bounded away."""
    clock = Clock()
    async with Admins.of(gates, clock=clock) as admins:
        yield admins, clock


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("method", "path", "operation"), CALLS, ids=named)
async def test_h20_each_operation_wants_its_role(
    matrix: tuple[Admins, Clock], method: str, path: str, operation: dict[str, Any]
) -> None:
    """401 without a usable key, 403 below the role that the document names, no such above it."""
    admins, clock = matrix
    for key in (None, UNKNOWN, "gka_", admins.gate.keys["acme"], "expired", "revoked"):
        clock.advance(60)
        told = await admins.ask(method, sample(path), key=key, **options(operation))
        assert (told.status, told.code) == (401, "unauthenticated"), key
        assert told.headers["WWW-Authenticate"].startswith("Bearer")
        assert "admin-keys create" in told.json["detail"]
    needed = ROLES.index(operation["x-required-role"])
    for rank, role in enumerate(ROLES):
        told = await admins.ask(method, sample(path), key=role, **options(operation))
        if rank < needed:
            assert (told.status, told.code) == (403, "role_required")
            assert operation["x-required-role"] in told.json["detail"]
        else:
            assert told.status not in {401, 403}
            assert str(told.status) in operation["responses"]


async def test_h20_there_is_no_default_key_and_nothing_is_exposed(gates: Gates) -> None:
    """A fresh gate has no admin key, listens on loopback, and answers strangers nothing."""
    gate = await gates()
    assert gate.settings.admin.host == "127.0.0.1"
    listed = await gate.cli("admin-keys", "list", "--json")
    assert listed.stdout == ""
    url = f"http://127.0.0.1:{gate.app.admin_port}/v1/status"
    for secret in ("", "admin", "changeme", "gka_"):
        async with gate.http.get(url, headers={"Authorization": f"Bearer {secret}"}) as told:
            assert told.status == 401
    async with gate.http.get("/v1/status") as told:
        assert told.status in {401, 404}, "callers' listener knows nothing of it"


async def test_h20_forwarded_headers_do_not_count(clocked: tuple[Admins, Clock]) -> None:
    """Failures are bounded by the address of the connection, whatever a header claims."""
    admins, clock = clocked
    statuses = []
    for number in range(40):
        headers = {
            "X-Forwarded-For": f"8.8.{number}.8",
            "Forwarded": f"for=8.8.{number}.8",
            "X-Real-IP": f"8.8.{number}.8",
        }
        told = await admins.get("/v1/status", key=UNKNOWN, headers=headers)
        statuses.append(told.status)
    assert statuses == [401] * 30 + [429] * 10
    assert (await admins.get("/v1/status", key="viewer")).status == 200, "keys still open it"
    refused = await admins.trail(outcome=AuditOutcome.REFUSED)
    assert len(refused) == 30, "nor does the trail grow without bound"
    assert {entry.peer for entry in refused} == {"127.0.0.0/24"}
    clock.advance(60)
    assert (await admins.get("/v1/status", key=UNKNOWN)).status == 401


async def test_h20_secrets_are_never_returned_by_get(admins: Admins) -> None:
    """No GET of the whole document returns a key, a digest or the secret of the gate."""
    made = await admins.ask("POST", "/v1/accounts/acme/keys", json={})
    more = await admins.ask("POST", "/v1/admin-keys", json={"name": "bob", "role": "viewer"})
    secret = (admins.gate.settings.data_dir / "secret").read_bytes().strip()
    secrets = [
        made.json["key"].encode(),
        more.json["key"].encode(),
        secret,
        *(key.encode() for key in (*admins.keys.values(), *admins.gate.keys.values())),
    ]
    for method, path, _ in CALLS:
        if method == "GET":
            told = await admins.get(sample(path))
            assert not [each for each in secrets if each in told.body], path
            assert b"digest" not in told.body.replace(b"email_digest", b""), path
    detail = [entry.detail for entry in await admins.trail()]
    assert not [each for each in secrets if each.decode() in str(detail)]


async def test_a_key_acts_at_once_and_ends_at_once(admins: Admins) -> None:
    """A new admin key opens the API with its role, and no longer once it is revoked."""
    made = await admins.ask(
        "POST", "/v1/admin-keys", key="admin", json={"name": "carol", "role": "operator"}
    )
    assert made.status == 201
    key, key_id = made.json["key"], made.json["key_id"]
    assert (await admins.get("/v1/accounts", key=key)).status == 200
    assert (await admins.get("/v1/admin-keys", key=key)).status == 403
    assert (await admins.ask("DELETE", f"/v1/admin-keys/{key_id}")).status == 204
    assert (await admins.get("/v1/accounts", key=key)).status == 401


async def test_a_key_does_not_revoke_itself(admins: Admins) -> None:
    """Nobody locks themselves out by mistake."""
    key_id = admins.keys["admin"][:12]
    told = await admins.ask("DELETE", f"/v1/admin-keys/{key_id}")
    assert (told.status, told.code) == (409, "conflict")
    assert (await admins.get("/v1/status")).status == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Host": "evil.example"}, "host_not_served"),
        ({"Host": "127.0.0.1.evil.example:9091"}, "host_not_served"),
        ({"Host": "localhost@evil.example"}, "host_not_served"),
        ({"Host": ""}, "malformed"),
        ({"Sec-Fetch-Site": "cross-site"}, "cross_site"),
        ({"Sec-Fetch-Site": "same-site"}, "cross_site"),
        ({"Origin": "https://evil.example"}, "cross_site"),
        ({"Origin": "null"}, "cross_site"),
    ],
)
async def test_h20_pages_of_other_sites_get_nothing(
    admins: Admins, headers: dict[str, str], code: str
) -> None:
    """Neither DNS rebinding nor a cross-site call gets an answer, with a valid key or without."""
    for path in ("/v1/status", "/v1/openapi.json", "/"):
        told = await admins.get(path, headers=headers)
        assert told.code == code
        assert "Access-Control-Allow-Origin" not in told.headers


@pytest.mark.parametrize(
    "host", ["localhost:1", "127.0.0.1", "[::1]:9091", "10.1.2.3", "gate.test"]
)
async def test_the_gate_is_reached_by_address_or_by_a_name_it_knows(
    gates: Gates, host: str
) -> None:
    """Addresses and loopback need no setting, names stand in ``admin.hosts``."""
    async with Admins.of(gates, admin={"port": 0, "hosts": ("gate.test",)}) as admins:
        assert (await admins.get("/v1/status", headers={"Host": host})).status == 200


async def test_it_can_be_switched_off(gates: Gates) -> None:
    """``admin.enabled: false`` opens no port at all."""
    gate = await gates(admin={"enabled": False})
    assert gate.app.admin_port == 0


async def test_keys_of_callers_open_nothing(admins: Admins) -> None:
    """An API key is no admin key, and an admin key is no API key."""
    assert (await admins.get("/v1/status", key=admins.gate.keys["acme"])).status == 401
    url = f"{admins.gate.url}/v1/models"
    async with admins.gate.http.get(url, headers={"x-api-key": admins.keys["admin"]}) as told:
        assert told.status == 401


async def test_one_bearer_key_and_nothing_else_counts(admins: Admins) -> None:
    """Other headers, schemes and doubled lines are not read."""
    key = admins.keys["admin"]
    for headers in (
        {"x-api-key": key},
        {"Authorization": f"Basic {key}"},
        {"Cookie": f"key={key}"},
    ):
        assert (await admins.get("/v1/status", key=None, headers=headers)).status == 401
    assert (await admins.get(f"/v1/status?key={key}", key=None)).status == 401
    lower = {"Authorization": f"bearer {key}"}
    assert (await admins.get("/v1/status", key=None, headers=lower)).status == 200


async def test_it_can_be_reached_by_tls(gates: Gates, tmp_path: Path) -> None:
    """With a certificate the listener speaks TLS and nothing else."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    tls = {"certificate": certificate, "key": key}
    async with Admins.of(gates, admin={"port": 0, "tls": tls}) as admins:
        admins.url = f"https://localhost:{admins.gate.app.admin_port}"
        assert (await admins.get("/v1/status", ssl=trusting)).status == 200
        admins.url = f"http://localhost:{admins.gate.app.admin_port}"
        with pytest.raises(aiohttp.ClientError):
            await admins.get("/v1/status")
