"""Gatekeeper's own API keys: ``gk_<8 characters>_<32 characters of secret><7 of checksum>``.

The prefix lets scanners find a leaked key, the first part names it to people, and the checksum
tells a mistyped key from a revoked one. Only a keyed digest of the whole is ever stored.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gatekeeper.storage.records_schema import KeyCreation, KeyRow, is_account_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.storage.records import Records

KEY_PREFIX: Final = "gk_"
_SHAPE: Final = re.compile(r"(gk_[a-z2-7]{8}_[a-z2-7]{32})([a-z2-7]{7})")
_ID_BYTES: Final = 5
_SECRET_BYTES: Final = 20
_DRAWS: Final = 5


def key_digest(text: str, subkey: bytes) -> bytes:
    """Return the keyed digest (BLAKE2b, 32 bytes) under which a key is stored and looked up."""
    return hashlib.blake2b(text.encode(), key=subkey, digest_size=32, person=b"gk api key").digest()


def is_well_formed(text: str) -> bool:
    """Tell whether ``text`` has a key's shape and its checksum fits."""
    found = _SHAPE.fullmatch(text)
    return found is not None and _checksum(found[1]) == found[2]


def key_id_of(text: str) -> str | None:
    """Return the readable id of a well-formed key."""
    return text[: len(KEY_PREFIX) + 8] if is_well_formed(text) else None


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new key. ``text`` is shown once and never stored."""

    row: KeyRow
    account_created: bool
    text: str = field(repr=False)


async def issue_key(
    records: Records,
    *,
    subkey: bytes,
    account_id: str,
    label: str,
    at: float,
    expires_at: float | None,
    random_bytes: Callable[[int], bytes],
) -> MintedKey:
    """Draw a key for an account, record its digest and return it; the account is made if missing.

    Raises :class:`ValueError` for an account id that cannot be one and
    :class:`~gatekeeper.storage.records.RecordsError` when it could not be recorded.
    """
    if not is_account_id(account_id):
        raise ValueError("an account id is 1 to 255 visible ASCII characters without spaces")
    for _ in range(_DRAWS):
        text = _mint(random_bytes)
        row = KeyRow(
            key_id=text[: len(KEY_PREFIX) + 8],
            digest=key_digest(text, subkey),
            account_id=account_id,
            label=label,
            created_at=at,
            expires_at=expires_at,
        )
        made = await records.create_key(row)
        if made is not KeyCreation.TAKEN:
            return MintedKey(row, made is KeyCreation.CREATED_WITH_ACCOUNT, text)
    raise RuntimeError(f"{_DRAWS} draws of a key id were all taken: the source of chance is broken")


def _mint(random_bytes: Callable[[int], bytes]) -> str:
    stem = (
        KEY_PREFIX + _base32(random_bytes(_ID_BYTES)) + "_" + _base32(random_bytes(_SECRET_BYTES))
    )
    return stem + _checksum(stem)


def _checksum(stem: str) -> str:
    return _base32(binascii.crc32(stem.encode()).to_bytes(4, "big"))


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()
