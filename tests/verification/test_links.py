"""Signed links: what was issued checks out until it expires, and nothing else does."""

from __future__ import annotations

import base64

import jwt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gatekeeper.policy.words import Assurance
from gatekeeper.verification.links import PREFIX, LinkClaims, LinkSigner

NOW = 1_767_225_600.0
KEY = b"0123456789abcdef0123456789abcdef"
SIGNER = LinkSigner(KEY, "https://gate.example/base/", 3600)
CLAIMS = {
    "aud": "gatekeeper-verification",
    "sub": "acct-1",
    "acr": "ial1",
    "jti": "dec_1",
    "exp": int(NOW) + 3600,
}


def forged(key: bytes = KEY, algorithm: str = "HS256", **changes: object) -> str:
    """Return a token that says something else; a claim set to ``None`` is left out."""
    claims = {name: value for name, value in (CLAIMS | changes).items() if value is not None}
    return jwt.encode(claims, key, algorithm=algorithm)


def encoded(text: str) -> str:
    """Return one part of a token."""
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def test_link_leads_back_to_what_was_issued() -> None:
    """The link is one path segment under the public URL and says who needs what, and why."""
    link = SIGNER.issue("acct-1", Assurance.IAL2, "dec_1", NOW + 0.9)
    assert link.url.startswith("https://gate.example/base" + PREFIX)
    token = link.url.rpartition("/")[2]
    claims = LinkClaims("acct-1", Assurance.IAL2, "dec_1", int(NOW) + 3600)
    assert SIGNER.check(token, NOW) == claims
    assert link.expires_at == claims.expires_at


@pytest.mark.parametrize(
    ("later_s", "good"), [(0, True), (3599.9, True), (3600, False), (1e9, False)]
)
def test_link_expires(later_s: float, *, good: bool) -> None:
    """It is good up to its expiry by the gate's clock, not the library's."""
    assert (SIGNER.check(forged(), NOW + later_s) is not None) is good


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(forged(b"another key of at least 32 bytes!"), id="other key"),
        pytest.param(forged(KEY * 2, "HS512"), id="other algorithm"),
        pytest.param(encoded('{"alg":"none"}') + "." + forged().split(".")[1] + ".", id="none"),
        pytest.param(forged(aud="other"), id="other audience"),
        pytest.param(forged(aud=None), id="no audience"),
        pytest.param(forged(sub=None), id="no account"),
        pytest.param(forged(jti=None), id="no decision"),
        pytest.param(forged(exp=None), id="no expiry"),
        pytest.param(forged(acr=None), id="no assurance"),
        pytest.param(forged(acr="ial9"), id="no such assurance"),
        pytest.param(forged(acr=["ial1"]), id="assurance of another type"),
        pytest.param(forged(exp="soon"), id="expiry of another type"),
        pytest.param(forged()[:-4], id="cut off"),
        pytest.param("", id="empty"),
        pytest.param("..", id="dots"),
        pytest.param("é.é.é", id="not ASCII"),
        pytest.param(encoded("[" * 5_000) + ".e30.x", id="nested too deep"),
        pytest.param(encoded("[]") + ".e30.x", id="head of another type"),
        pytest.param("\ud800.a.b", id="surrogate"),
    ],
)
def test_what_is_not_a_link(token: str) -> None:
    """Forged, damaged or of another purpose: nothing is learned and nothing is raised."""
    assert SIGNER.check(token, NOW) is None


@settings(max_examples=100, deadline=None)
@given(at=st.integers(0, len(forged()) - 1), by=st.characters(codec="ascii"))
@example(at=0, by="\0")
def test_any_change_breaks_a_link(at: int, by: str) -> None:
    """A changed character either breaks the link or means the same bits."""
    token = forged()
    changed = token[:at] + by + token[at + 1 :]
    found = SIGNER.check(changed, NOW)
    assert found is None or found == SIGNER.check(token, NOW)
