"""Why a feed could not be had or was not believed."""

from __future__ import annotations


class FeedError(Exception):
    """What came cannot be used; the text says why, without repeating what came."""
