"""Traits of calls and accounts: keyed digests that can be compared, and lead back to nothing.

What an account is known by is keyed by a secret that stays. Evidence in calls is keyed anew in each
epoch; while one follows another both are written, for longer than any window the watcher looks at,
so that each window has an epoch that covers it whole.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB
from msgspec import Struct

from gatekeeper.dialects.evidence import Look
from gatekeeper.facts.address import parse_address
from gatekeeper.policy.traits import Traits
from gatekeeper.storage.secrets import derive

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gatekeeper.dialects.body import Fields
    from gatekeeper.dialects.evidence import Evidence
    from gatekeeper.storage.records_schema import AccountRow

_MASK: Final = 2**63 - 1
_IN, _OUT = "8xQ", "Q8x"
"""A digest in a block of the cipher, and what is kept of the block that it becomes."""
_TELLS, _STANDS = 1, 2
"""What a header is good for: its value tells of the program, its place does."""
_SDK: Final = ("x-stainless-", "anthropic-", "openai-", "x-goog-api-client", "x-app")
"""How headers begin by which SDKs tell of themselves."""
_EACH_TIME: Final = frozenset(
    {"x-stainless-retry-count", "x-stainless-read-timeout", "x-stainless-timeout"}
)
"""Of those: what differs from call to call."""
_BY_OTHERS: Final = (
    "x-forwarded-",
    "forwarded",
    "via",
    "x-real-ip",
    "x-request-id",
    "traceparent",
    "tracestate",
    "cf-",
    "content-length",
)
"""How headers begin that an edge adds, or that tell of the body."""
_MOST_NAMES: Final = 4_096
_MOST_CLIENTS: Final = 1_024
_MOST_VALUE: Final = 120
_MOST_EPOCHS: Final = 16
_V4_BYTES: Final = 3
_V6_BYTES: Final = 6


class AccountTraits:
    """Digests of what the records say of an account, keyed by a secret that stays."""

    def __init__(self, secret: bytes) -> None:
        self._key = derive(secret, "traits/accounts")

    def payment(self, row: AccountRow) -> int:
        """Return the digest of the payment fingerprint, 0 for none."""
        return _digest(self._key, b"payment", (row.payment_fingerprint or "").encode())

    def signup(self, row: AccountRow) -> int:
        """Return the digest of the /24 or /48 of the address it was made from, 0 for none."""
        address = None if row.signup_address is None else parse_address(row.signup_address)
        if address is None:
            return 0
        cut = address.packed[: _V4_BYTES if isinstance(address, IPv4Address) else _V6_BYTES]
        return _digest(self._key, b"signup", bytes((address.version,)) + cut)

    def mail(self, row: AccountRow) -> int:
        """Return the digest of domain and pattern of the mail address, 0 without a pattern."""
        if row.email_domain is None or row.email_pattern is None:
            return 0
        text = f"{row.email_pattern}@{row.email_domain}"
        return _digest(self._key, b"mail", text.encode(errors="replace"))


class _Epoch(Struct, frozen=True, gc=False):
    """What keys the traits of one secret in one epoch."""

    id: str
    permute: Callable[[bytes], bytes]
    mask: int


class TraitMaker:
    """Makes the traits of calls.

    ``secrets`` has the secret in force, then one that is being replaced, if any. ``epoch_s`` is the
    length of an epoch; for ``overlap_s`` after its beginning the one before is written as well.
    ``edge_header`` names the header in which a trusted edge tells the caller's JA4 fingerprint.
    """

    def __init__(
        self,
        secrets: Sequence[bytes],
        *,
        epoch_s: float,
        overlap_s: float,
        edge_header: str | None = None,
    ) -> None:
        self._keys = tuple(derive(secret, "traits/epochs") for secret in secrets)
        self._heads = tuple(derive(secret, "traits/heads") for secret in secrets)
        self._looks = tuple(Look(derive(secret, "traits/prompts")) for secret in secrets)
        self._epoch_s = epoch_s
        self._overlap_s = overlap_s
        self._edge_header = edge_header
        self._epoch = lru_cache(_MOST_EPOCHS)(_epoch_of)
        self._head = lru_cache(_MOST_CLIENTS)(_head_of)
        self._kinds: dict[str, int] = {}

    def look(self, fields: Fields) -> tuple[Evidence, ...]:
        """Return what a prompt shows, by each of the secrets; never fails."""
        return tuple(look.at(fields) for look in self._looks)

    def traits_of(
        self,
        headers: Mapping[str, str],
        evidence: Sequence[Evidence],
        at: float,
        *,
        from_edge: bool = False,
    ) -> tuple[Traits, ...]:
        """Return the traits of a call at ``at`` (Unix seconds), those of the epoch in force first.

        ``headers`` are in the order in which they came; ``from_edge`` tells whether a trusted proxy
        sent them. Of a call without ``evidence`` there are none.
        """
        if not evidence:
            return ()
        heard = self._heard(headers, from_edge=from_edge)
        number, into_s = divmod(at, self._epoch_s)
        numbers = (int(number), int(number) - 1) if into_s < self._overlap_s else (int(number),)
        heads = [self._head(key, *heard) for key in self._heads]
        return tuple(
            _keyed(self._epoch(key, each), seen, head)
            for each in numbers
            for key, seen, head in zip(self._keys, evidence, heads, strict=True)
        )

    def _heard(self, headers: Mapping[str, str], *, from_edge: bool) -> tuple[str, str]:
        """Return what the client program tells of itself, and how it writes its headers."""
        told, order, kinds = [], [], self._kinds
        for name, value in headers.items():
            kind = kinds.get(name)
            if kind is None:
                kind = self._kind(name)
            if kind & _TELLS:
                told.append(value[:_MOST_VALUE])
            if kind & _STANDS:
                order.append(name)
        if from_edge and self._edge_header is not None:
            order.append(f"\0{headers.get(self._edge_header, '')[:_MOST_VALUE]}")
        return "\n".join(told), "\n".join(order)

    def _kind(self, name: str) -> int:
        """Work out once what a header is good for."""
        low = name.lower()
        kind = 0
        if low == "user-agent" or (low.startswith(_SDK) and low not in _EACH_TIME):
            kind |= _TELLS
        if not low.startswith(_BY_OTHERS) and low != self._edge_header:
            kind |= _STANDS
        if len(self._kinds) < _MOST_NAMES:
            self._kinds[name] = kind
        return kind


def _epoch_of(key: bytes, number: int) -> _Epoch:
    own = derive(key, f"traits/epoch/{number}")
    name = blake2b(own, digest_size=4, person=b"epoch").hexdigest()
    # Single blocks are permuted, each for itself: equal digests stay equal within an epoch.
    permute = Cipher(AES256(own), ECB()).encryptor().update  # noqa: S305
    return _Epoch(name, permute, _digest(own, b"shape", b"shape"))


def _head_of(key: bytes, told: str, order: str) -> tuple[int, int]:
    client, headers = told.encode(errors="replace"), order.encode(errors="replace")
    return _digest(key, b"client", client), _digest(key, b"headers", headers)


def _keyed(epoch: _Epoch, seen: Evidence, head: tuple[int, int]) -> Traits:
    """Return the digests as they are in one epoch; 0 stays 0."""
    plain = (*head, seen.system, seen.tools, seen.format, seen.scaffold, *seen.blocks)
    mixed = epoch.permute(struct.pack(f">{_IN * len(plain)}", *plain))
    client, headers, system, tools, shaped, scaffold, *chained = (
        digest and (drawn & _MASK or 1)
        for digest, drawn in zip(plain, struct.unpack(f">{_OUT * len(plain)}", mixed), strict=True)
    )
    return Traits(
        epoch.id,
        client,
        headers,
        system,
        tools,
        shaped,
        scaffold,
        tuple(chained),
        seen.shape and (seen.shape ^ epoch.mask) & _MASK,
    )


def _digest(key: bytes, kind: bytes, text: bytes) -> int:
    if not text:
        return 0
    drawn = blake2b(text, digest_size=8, key=key, person=kind).digest()
    return int.from_bytes(drawn) & _MASK or 1
