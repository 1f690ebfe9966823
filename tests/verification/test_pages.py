"""The page behind a link: what it says, and that nothing on it can run."""

from __future__ import annotations

import pytest

from gatekeeper.policy.model import Moment
from gatekeeper.policy.words import Assurance
from gatekeeper.verification.links import PREFIX, LinkSigner
from gatekeeper.verification.pages import VerificationPages

AT = Moment(1_767_225_600.0, 0)
SIGNER = LinkSigner(b"0123456789abcdef0123456789abcdef", "https://gate.example", 60)


def path_of(account: str) -> str:
    """Return the path of a fresh link."""
    url = SIGNER.issue(account, Assurance.IAL1, "dec_1", AT.unix_s).url
    return url.removeprefix("https://gate.example")


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        (path_of("acct-1"), 200, "account acct-1 to level ial1 and name the decision dec_1"),
        (PREFIX + "forged", 410, "Repeat the call"),
        (PREFIX, 410, "Repeat the call"),
        ("/gatekeeper/v1/other", 404, "no such page"),
        ("/gatekeeper/", 404, "no such page"),
    ],
)
def test_pages(path: str, status: int, says: str) -> None:
    """A link that holds says what to do; any other says how to get one."""
    page = VerificationPages(SIGNER, "").page(path, AT)
    assert page.status == status
    assert says in (page.text or "")
    assert page.content_type == "text/html"


def test_expired_link() -> None:
    """A link is judged by the moment of the call."""
    late = Moment(AT.unix_s + 60, 0)
    assert VerificationPages(SIGNER, "").page(path_of("acct-1"), late).status == 410


@pytest.mark.parametrize(
    ("support", "says"),
    [("", "Contact the operator"), ("Write to <help@example.com>.", "&lt;help@example.com&gt;")],
)
def test_support(support: str, says: str) -> None:
    """The operator's sentence is shown as text."""
    assert says in (VerificationPages(SIGNER, support).page(path_of("a"), AT).text or "")


def test_nothing_on_the_page_runs() -> None:
    """Account names are escaped, and the browser is told to run, frame and keep nothing."""
    page = VerificationPages(SIGNER, "").page(path_of("<script>'\"&"), AT)
    assert "<script>" not in (page.text or "")
    assert "&lt;script&gt;" in (page.text or "")
    policy = page.headers["Content-Security-Policy"]
    for wanted in ("default-src 'none'", "frame-ancestors 'none'", "form-action 'none'"):
        assert wanted in policy
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["X-Content-Type-Options"] == "nosniff"


def test_pages_do_not_share_headers() -> None:
    """Changing one answer does not change the next."""
    pages = VerificationPages(SIGNER, "")
    pages.page("/gatekeeper/", AT).headers["X-Mine"] = "1"
    assert "X-Mine" not in pages.page("/gatekeeper/", AT).headers
