"""Admin keys (``gka_...``): made, recorded by their digest, and shown once. There is no default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gatekeeper.facts.api_keys import DRAWS
from gatekeeper.facts.key_shapes import ADMIN_KEY
from gatekeeper.storage.admin_keys import AdminKeyRow
from gatekeeper.storage.records_schema import is_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.storage.admin_keys import AdminKeys, Role


@dataclass(frozen=True, slots=True)
class MintedAdminKey:
    """A new admin key. ``text`` is shown once and never stored."""

    row: AdminKeyRow
    text: str = field(repr=False)


async def issue_admin_key(
    keys: AdminKeys,
    *,
    subkey: bytes,
    name: str,
    role: Role,
    at: float,
    expires_at: float | None,
    random_bytes: Callable[[int], bytes],
) -> MintedAdminKey:
    """Draw an admin key, record its digest and return it.

    Raises :class:`ValueError` for a name that cannot be one and
    :class:`~gatekeeper.storage.database.RecordsError` when it could not be recorded.
    """
    if not is_name(name):
        raise ValueError("a name is 1 to 200 printable characters without spaces around them")
    for _ in range(DRAWS):
        text = ADMIN_KEY.mint(random_bytes)
        row = AdminKeyRow(
            key_id=ADMIN_KEY.readable(text),
            digest=ADMIN_KEY.digest(text, subkey),
            name=name,
            role=role,
            created_at=at,
            expires_at=expires_at,
        )
        if await keys.create(row):
            return MintedAdminKey(row, text)
    raise RuntimeError(f"{DRAWS} draws of a key id were all taken: the source of chance is broken")
