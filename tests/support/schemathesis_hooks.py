"""What schemathesis cannot know: how to send lines of JSON."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.serializer("application/jsonl")
def lines(_ctx: Any, value: Any) -> bytes:
    """Send text as it is."""
    return str(value).encode(errors="replace")
