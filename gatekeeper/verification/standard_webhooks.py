"""Signatures of webhooks by the Standard Webhooks specification (1.0), symmetric scheme ``v1``.

The content signed is ``id.timestamp.body``. A header may carry several signatures, and a receiver
may hold several secrets: either is enough to change a secret without losing a webhook.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from gatekeeper.verification.vendor import WebhookRefusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ID_HEADER: Final = "webhook-id"
TIME_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"
_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - how secrets are marked, not one
_SCHEME: Final = "v1,"
_MOST_SIGNATURES: Final = 8
_LONGEST_ID: Final = 200
_LONGEST_TIME: Final = 12


def key_of(secret: str) -> bytes:
    """Return the key that a secret stands for; ``whsec_`` marks base64, all else is taken as is."""
    if not secret.startswith(_SECRET_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return secret.encode()


def sign(keys: Iterable[bytes], message_id: str, sent_at: int, body: bytes) -> dict[str, str]:
    """Return the three headers of a webhook, signed with each key; ``sent_at`` in Unix seconds."""
    signatures = [_SCHEME + _signature(key, message_id, str(sent_at), body) for key in keys]
    return {
        ID_HEADER: message_id,
        TIME_HEADER: str(sent_at),
        SIGNATURE_HEADER: " ".join(signatures),
    }


def check(
    keys: Sequence[bytes],
    headers: Mapping[str, str],
    body: bytes,
    *,
    now_s: float,
    tolerance_s: float,
) -> str | WebhookRefusal:
    """Return the id of a webhook that one of ``keys`` signed within ``tolerance_s`` of now."""
    message_id, sent_at = headers.get(ID_HEADER, ""), headers.get(TIME_HEADER, "")
    given = headers.get(SIGNATURE_HEADER, "").split(" ")
    wrong = not message_id or len(message_id) > _LONGEST_ID or not _is_visible(message_id)
    if wrong or len(given) > _MOST_SIGNATURES or not _is_time(sent_at):
        return WebhookRefusal.MALFORMED
    wanted = [_signature(key, message_id, sent_at, body).encode() for key in keys]
    offered = [
        each.removeprefix(_SCHEME).encode("utf-8", "replace")
        for each in given
        if each.startswith(_SCHEME)
    ]
    # Every pair is compared, so that time tells nothing of which was near.
    matches = [hmac.compare_digest(ours, theirs) for ours in wanted for theirs in offered]
    if not any(matches):
        return WebhookRefusal.FORGED
    if abs(now_s - int(sent_at)) > tolerance_s:
        return WebhookRefusal.STALE
    return message_id


def _signature(key: bytes, message_id: str, sent_at: str, body: bytes) -> str:
    content = f"{message_id}.{sent_at}.".encode() + body
    return base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()


def _is_time(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_TIME and text.isascii() and text.isdecimal()


def _is_visible(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text
