"""Gatekeeper's own API keys (``gk_...``): made, recorded by their digest, and shown once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gatekeeper.facts.key_shapes import API_KEY
from gatekeeper.storage.records_schema import KeyCreation, KeyRow, is_account_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.storage.records import Records

KEY_PREFIX: Final = API_KEY.prefix
DRAWS: Final = 5
"""How often an id may be taken already before chance itself is in doubt."""

key_digest = API_KEY.digest
is_well_formed = API_KEY.is_well_formed
key_id_of = API_KEY.id_of


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
    for _ in range(DRAWS):
        text = API_KEY.mint(random_bytes)
        row = KeyRow(
            key_id=API_KEY.readable(text),
            digest=key_digest(text, subkey),
            account_id=account_id,
            label=label,
            created_at=at,
            expires_at=expires_at,
        )
        made = await records.create_key(row)
        if made is not KeyCreation.TAKEN:
            return MintedKey(row, made is KeyCreation.CREATED_WITH_ACCOUNT, text)
    raise RuntimeError(f"{DRAWS} draws of a key id were all taken: the source of chance is broken")
