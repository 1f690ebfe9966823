"""The shape of keys of ours: ``<prefix><8 characters>_<32 characters of secret><7 of checksum>``.

The prefix lets scanners find a leaked key, the first part names it to people, and the checksum
tells a mistyped key from a revoked one. Only a keyed digest of the whole is ever stored.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_BODY: Final = re.compile(r"([a-z2-7]{8}_[a-z2-7]{32})([a-z2-7]{7})")
_ID_CHARS: Final = 8
_ID_BYTES: Final = 5
_SECRET_BYTES: Final = 20


@dataclass(frozen=True, slots=True)
class KeyShape:
    """One family of keys: what they begin with, and what their digests are bound to."""

    prefix: str
    person: bytes

    def mint(self, random_bytes: Callable[[int], bytes]) -> str:
        """Draw a key of 160 secret bits."""
        body = f"{_base32(random_bytes(_ID_BYTES))}_{_base32(random_bytes(_SECRET_BYTES))}"
        stem = self.prefix + body
        return stem + _checksum(stem)

    def is_well_formed(self, text: str) -> bool:
        """Tell whether ``text`` has a key's shape and its checksum fits."""
        found = _BODY.fullmatch(text, len(self.prefix)) if text.startswith(self.prefix) else None
        return found is not None and _checksum(self.prefix + found[1]) == found[2]

    def id_of(self, text: str) -> str | None:
        """Return the readable id of a well-formed key."""
        return self.readable(text) if self.is_well_formed(text) else None

    def readable(self, text: str) -> str:
        """Return the part of a key that is safe to show and log."""
        return text[: len(self.prefix) + _ID_CHARS]

    def digest(self, text: str, subkey: bytes) -> bytes:
        """Return the keyed digest (BLAKE2b, 32 bytes) under which a key is stored and looked up."""
        return hashlib.blake2b(
            text.encode(), key=subkey, digest_size=32, person=self.person
        ).digest()


API_KEY: Final = KeyShape("gk_", b"gk api key")
"""Keys of callers."""
ADMIN_KEY: Final = KeyShape("gka_", b"gk admin key")
"""Keys of those who run the gate; no caller's key ever opens the management API."""


def _checksum(stem: str) -> str:
    return _base32(binascii.crc32(stem.encode()).to_bytes(4, "big"))


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()
