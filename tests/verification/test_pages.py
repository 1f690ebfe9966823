"""The gate's own pages: what they say, where they lead, and that nothing on them can run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from aiohttp.web import Response
from multidict import CIMultiDict

from gatekeeper.policy.words import Assurance, Reason
from gatekeeper.storage.cases import Cases
from gatekeeper.storage.cases_schema import TryRules
from gatekeeper.storage.database import RecordsError
from gatekeeper.storage.records import Records
from gatekeeper.storage.records_schema import AccountPatch
from gatekeeper.telemetry import Metrics
from gatekeeper.verification.links import CHECKS, PREFIX, LinkSigner
from gatekeeper.verification.pages import PageCall
from gatekeeper.verification.service import Verification, new_case_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

AT = 1_767_225_600.0
SIGNER = LinkSigner(b"0123456789abcdef0123456789abcdef", "https://gate.example/base", 60)
RULES = TryRules(pending_s=600, valid_s=None, max_tries=3, period_s=86_400)


@pytest.fixture
async def records(tmp_path: Path) -> AsyncIterator[Records]:
    """Open records with one account."""
    opened = await Records.open(f"sqlite:///{tmp_path / 'records.db'}")
    for account in ("acct-1", "<script>'\"&"):
        await opened.upsert_account(AccountPatch(account, {}), at=AT)
    yield opened
    await opened.close()


def verification(records: Records, support: str = "") -> Verification:
    """Return step-up without a vendor."""

    async def refresh(_: float) -> None:
        pass

    return Verification(
        Cases(records.database),
        None,
        RULES,
        links=SIGNER,
        support=support,
        refresh=refresh,
        metrics=Metrics(),
    )


def path_of(account: str = "acct-1") -> str:
    """Return the path of a fresh link."""
    url = SIGNER.issue(account, Assurance.IAL1, "dec_1", AT).url
    return url.removeprefix("https://gate.example/base")


async def asked(
    made: Verification,
    path: str,
    method: str = "GET",
    *,
    at: float = AT,
    body: bytes | Reason = b"",
    **headers: str,
) -> Response:
    """Ask for a page."""

    async def read(most_bytes: int) -> bytes | Reason:
        assert most_bytes <= 65_536
        return body

    response = await made.pages.answer(
        PageCall(method, path, CIMultiDict(headers), "key", at, read)
    )
    assert isinstance(response, Response)
    return response


async def opened(made: Verification, path: str) -> str:
    """Press the button of a link; return the path of the check."""
    found = await asked(made, path, "POST")
    assert found.status == 303
    return CHECKS + found.headers["Location"].removeprefix("../checks/")


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        (path_of(), 200, "account acct-1 to level ial1 and name the decision dec_1"),
        (PREFIX + "forged", 410, "refused request again"),
        (PREFIX, 404, "no such page"),
        (PREFIX + "a/b", 404, "no such page"),
        (CHECKS, 404, "no such page"),
        (CHECKS + "case_guess", 404, "no such page"),
        (CHECKS + "case_guess/state", 404, "no such page"),
        (CHECKS + "case_guess/other", 404, "no such page"),
        (CHECKS + "%00", 404, "no such page"),
        ("/gatekeeper/v1/other", 404, "no such page"),
        ("/gatekeeper/v1/assets/secret", 404, "no such page"),
        ("/gatekeeper/v1/assets/../html.py", 404, "no such page"),
        ("/gatekeeper/", 404, "no such page"),
    ],
)
async def test_pages(records: Records, path: str, status: int, says: str) -> None:
    """A link that holds says what to do; any other says how to get one."""
    page = await asked(verification(records), path)
    assert page.status == status
    assert says in (page.text or "")
    assert page.content_type == "text/html"


async def test_expired_link(records: Records) -> None:
    """A link is judged by the moment of the call; how its check went can be seen for longer."""
    made = verification(records)
    path = path_of()
    check = await opened(made, path)
    assert (await asked(made, path, at=AT + 60)).status == 410
    assert (await asked(made, path, "POST", at=AT + 60)).status == 410
    assert (await asked(made, check, at=AT + 1e6)).status == 200


@pytest.mark.parametrize(
    ("support", "says"),
    [("", "Contact the operator"), ("Write to <help@example.com>.", "&lt;help@example.com&gt;")],
)
async def test_support(records: Records, support: str, says: str) -> None:
    """The operator's sentence is shown as text."""
    assert says in ((await asked(verification(records, support), path_of())).text or "")


async def test_nothing_on_the_page_runs(records: Records) -> None:
    """Account names are escaped, and the browser is told to run, frame and keep nothing."""
    page = await asked(verification(records), path_of("<script>'\"&"))
    text = page.text or ""
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert " style=" not in text
    policy = page.headers["Content-Security-Policy"]
    for wanted in ("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert wanted in policy
    assert "unsafe" not in policy
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["X-Content-Type-Options"] == "nosniff"


async def test_pages_without_a_form_send_none(records: Records) -> None:
    """Only a page with a button may be sent, and to us alone while there is no vendor."""
    made = verification(records)
    first = await asked(made, path_of())
    assert "form-action 'self';" in first.headers["Content-Security-Policy"]
    last = await asked(made, await opened(made, path_of()))
    assert "form-action 'none'" in last.headers["Content-Security-Policy"]


async def test_the_way_on_is_relative(records: Records) -> None:
    """It holds behind any prefix, and leads nowhere that a caller could choose."""
    made = verification(records)
    path = path_of()
    response = await asked(made, path, "POST", Host="evil.example", **{"X-Forwarded-Host": "evil"})
    assert response.status == 303
    (case,) = await made.desk.page()
    assert response.headers["Location"] == f"../checks/{case.id}"
    assert SIGNER.check_url("c") == "https://gate.example/base/gatekeeper/v1/checks/c"


async def test_a_check_names_no_account(records: Records) -> None:
    """The vendor knows the page that it leads back to; nothing on it says who it is about."""
    made = verification(records)
    check = await opened(made, path_of())
    for path in (check, f"{check}/state"):
        assert "acct-1" not in ((await asked(made, path)).text or "")


async def test_who_is_proven_already_needs_no_case(records: Records) -> None:
    """An operator has set the assurance: the button says so at once."""
    await records.upsert_account(AccountPatch("acct-1", {"assurance": Assurance.IAL2}), at=AT)
    found = await asked(verification(records), path_of(), "POST")
    assert (found.status, "is verified" in (found.text or "")) == (200, True)


@pytest.mark.parametrize(
    ("path", "link"),
    [
        (path_of(), "../assets/page.css"),
        (CHECKS + "case_guess", "../assets/page.css"),
        (CHECKS + "case_guess/other", "../../assets/page.css"),
        ("/gatekeeper/v1/other", "assets/page.css"),
        ("/gatekeeper/x", "v1/assets/page.css"),
    ],
)
async def test_every_page_finds_its_style(records: Records, path: str, link: str) -> None:
    """Relative again, from each depth."""
    assert f'href="{link}"' in ((await asked(verification(records), path)).text or "")


@pytest.mark.parametrize(
    ("name", "kind"), [("page.css", "text/css"), ("page.js", "text/javascript")]
)
async def test_assets(records: Records, name: str, kind: str) -> None:
    """Style and script are files of ours; they ask nothing of another origin."""
    found = await asked(verification(records), f"/gatekeeper/v1/assets/{name}")
    assert (found.status, found.content_type) == (200, kind)
    assert isinstance(found.body, bytes)
    assert b"http" not in found.body


@pytest.mark.parametrize(
    ("where", "method", "allowed"),
    [(path_of(), "DELETE", "GET, HEAD, POST"), (CHECKS + "case_1", "POST", "GET, HEAD")],
)
async def test_methods(records: Records, where: str, method: str, allowed: str) -> None:
    """What cannot be done is told with what can."""
    found = await asked(verification(records), where, method)
    assert found.status == 405
    assert found.headers["Allow"] == allowed


async def test_a_form_that_is_too_large_or_from_elsewhere(records: Records) -> None:
    """Nothing is opened."""
    made = verification(records)
    for status, body, headers in (
        (413, Reason.BODY_TOO_LARGE, {}),
        (403, b"", {"Sec-Fetch-Site": "cross-site"}),
    ):
        given: Any = headers
        assert (await asked(made, path_of(), "POST", body=body, **given)).status == status
    assert await made.desk.page() == ()


async def test_records_that_cannot_be_read(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page says to try again, and says nothing of why."""

    async def broken(*_: Any, **__: Any) -> Any:
        raise RecordsError("no such table: secrets")

    monkeypatch.setattr(Cases, "of_account", broken)
    found = await asked(verification(records), path_of())
    assert (found.status, found.headers["Retry-After"]) == (503, "10")
    assert "secrets" not in (found.text or "")


async def test_an_account_that_is_not_on_record(records: Records) -> None:
    """It is told whom to ask, and no case is made."""
    made = verification(records)
    found = await asked(made, path_of("stranger"), "POST")
    assert found.status == 403
    assert "account stranger to level ial1" in (found.text or "")
    assert await made.desk.page() == ()


def test_ids_of_cases() -> None:
    """Long, and never the same."""
    assert len({new_case_id() for _ in range(100)}) == 100
    assert len(new_case_id()) == 31


async def test_pages_do_not_share_headers(records: Records) -> None:
    """Changing one answer does not change the next."""
    made = verification(records)
    (await asked(made, "/gatekeeper/")).headers["X-Mine"] = "1"
    assert "X-Mine" not in (await asked(made, "/gatekeeper/")).headers
