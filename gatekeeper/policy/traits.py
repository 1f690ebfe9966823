"""Traits: keyed digests of what accounts can share; never the thing itself, never a prompt.

A digest is a whole number from 1 to 2^63 - 1, so that any column of signed 64-bit numbers holds it;
0 stands for nothing to make a digest of.
"""

from __future__ import annotations

from msgspec import Struct


class Traits(Struct, frozen=True, gc=False, omit_defaults=True):
    """The evidence in one call, keyed by the secret of one epoch.

    Digests of different epochs cannot be compared. While epochs change, a call has one of these
    for each, so that every window has an epoch that covers it whole.
    """

    epoch: str
    """Id of the key: 8 hexadecimal digits."""
    client: int = 0
    """User agent and SDK headers."""
    headers: int = 0
    """Order of the headers, and the JA4 fingerprint that a trusted edge sent along."""
    system: int = 0
    """System prompt."""
    tools: int = 0
    """Schemas of the tools."""
    format: int = 0
    """Format asked of the answer."""
    scaffold: int = 0
    """System prompt, tools and format together: 0 when the call has none of them."""
    blocks: tuple[int, ...] = ()
    """Chained: each is of the beginning of the messages up to a block boundary, longest last."""
    shape: int = 0
    """Structural SimHash of 63 bits: roles, lengths in log buckets, parameters. Close shapes differ
    in few bits."""
