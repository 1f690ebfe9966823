"""Signatures of webhooks: the published example, and every way to get one wrong (H39)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gatekeeper.verification.standard_webhooks import check, key_of, sign
from gatekeeper.verification.vendor import WebhookRefusal

NOW = 1_790_000_000
KEY, OLD, OTHER = b"k" * 32, b"o" * 32, b"x" * 32
BODY = b'{"data": {"id": "vs_1"}}'


def checked(headers: dict[str, str], body: bytes = BODY, *, now: float = NOW) -> object:
    """Check with the key of today and the one before it."""
    return check([KEY, OLD], CIMultiDict(headers), body, now_s=now, tolerance_s=300)


def test_the_published_example() -> None:
    """The reference vector of the specification comes out to the letter."""
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = sign([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("secret", "key"),
    [("whsec_AQID", b"\1\2\3"), ("plain text", b"plain text"), ("whsec_no!", b"whsec_no!")],
)
def test_keys(secret: str, key: bytes) -> None:
    """A marked secret is base64; any other is its own bytes."""
    assert key_of(secret) == key


def test_what_was_signed_checks_out() -> None:
    """Header names in any case."""
    headers = {name.title(): value for name, value in sign([KEY], "msg_1", NOW, BODY).items()}
    assert checked(headers) == "msg_1"


@pytest.mark.parametrize("keys", [[KEY], [OLD], [OLD, KEY], [OTHER, OLD]], ids=str)
def test_h39_a_secret_is_changed_without_losing_a_webhook(keys: list[bytes]) -> None:
    """Two secrets here, or two signatures there: one pair that fits is enough."""
    assert checked(sign(keys, "msg_1", NOW, BODY)) == "msg_1"


def test_h39_a_foreign_key_is_refused() -> None:
    """Also when it signs twice."""
    assert checked(sign([OTHER, b""], "msg_1", NOW, BODY)) is WebhookRefusal.FORGED


def test_h39_the_signature_is_over_the_bytes_as_they_came() -> None:
    """The same JSON written differently is another body."""
    headers = sign([KEY], "msg_1", NOW, BODY)
    for other in (json.dumps(json.loads(BODY), separators=(",", ":")).encode(), BODY + b"\n", b""):
        assert checked(headers, other) is WebhookRefusal.FORGED


@pytest.mark.parametrize(
    ("age_s", "outcome"),
    [
        (0, "msg_1"),
        (300, "msg_1"),
        (-300, "msg_1"),
        (301, WebhookRefusal.STALE),
        (-301, WebhookRefusal.STALE),
        (1e9, WebhookRefusal.STALE),
    ],
)
def test_h39_a_replay_after_the_tolerance_is_stale(age_s: float, outcome: object) -> None:
    """Neither old nor from the future."""
    assert checked(sign([KEY], "msg_1", NOW, BODY), now=NOW + age_s) == outcome


@pytest.mark.parametrize("header", ["webhook-id", "webhook-timestamp"])
def test_h39_id_and_time_are_signed_too(header: str) -> None:
    """A replay under a new id or time is forged."""
    headers = sign([KEY], "msg_1", NOW, BODY)
    headers[header] = "msg_2" if header == "webhook-id" else str(NOW + 1)
    assert checked(headers) is WebhookRefusal.FORGED


@pytest.mark.parametrize(
    ("header", "value", "outcome"),
    [
        ("webhook-id", "", WebhookRefusal.MALFORMED),
        ("webhook-id", "x" * 201, WebhookRefusal.MALFORMED),
        ("webhook-id", "a b", WebhookRefusal.MALFORMED),
        ("webhook-id", "é", WebhookRefusal.MALFORMED),
        ("webhook-timestamp", "", WebhookRefusal.MALFORMED),
        ("webhook-timestamp", "soon", WebhookRefusal.MALFORMED),
        ("webhook-timestamp", "1790000000.0", WebhookRefusal.MALFORMED),
        ("webhook-timestamp", "-1", WebhookRefusal.MALFORMED),
        ("webhook-timestamp", "١٢٣", WebhookRefusal.MALFORMED),
        ("webhook-timestamp", "9" * 5_000, WebhookRefusal.MALFORMED),
        ("webhook-signature", "", WebhookRefusal.FORGED),
        ("webhook-signature", "v1,", WebhookRefusal.FORGED),
        ("webhook-signature", "v1,\udce9", WebhookRefusal.FORGED),
        ("webhook-signature", " ".join(["v1,AAAA"] * 9), WebhookRefusal.MALFORMED),
    ],
)
def test_h39_headers_that_are_none(header: str, value: str, outcome: object) -> None:
    """Missing, endless or of another alphabet: refused without a defect."""
    assert checked({**sign([KEY], "msg_1", NOW, BODY), header: value}) is outcome


def test_h39_another_scheme_is_no_signature() -> None:
    """The right digest under another name does not count."""
    headers = sign([KEY], "msg_1", NOW, BODY)
    headers["webhook-signature"] = headers["webhook-signature"].replace("v1,", "v1a,")
    assert checked(headers) is WebhookRefusal.FORGED


def test_no_headers_at_all() -> None:
    """An ordinary request is malformed, not a defect."""
    assert checked({}) is WebhookRefusal.MALFORMED


@given(st.binary(max_size=60), st.text(max_size=60), st.text(max_size=20), st.text(max_size=90))
def test_no_bytes_are_a_defect(body: bytes, message_id: str, sent_at: str, signed: str) -> None:
    """Whatever comes is refused, never raised."""
    headers = {"webhook-id": message_id, "webhook-timestamp": sent_at, "webhook-signature": signed}
    assert isinstance(checked(headers, body), WebhookRefusal)
