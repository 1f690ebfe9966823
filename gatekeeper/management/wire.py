"""Types of fields that several operations share."""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints

from gatekeeper.policy.model import FOREVER
from gatekeeper.storage.records_schema import is_name

END_OF_TIME: Final = 253_402_300_800.0
"""Start of the year 10000: what is later was not meant as seconds."""

Time = Annotated[float, Field(ge=0, lt=END_OF_TIME)]
"""Unix seconds, UTC."""
Until = Time | Literal["forever"]


def _printable(text: str) -> str:
    if is_name(text):
        return text
    raise ValueError("This must be 1 to 200 printable characters, without spaces at its ends.")


Name = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=200,
        pattern=r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$",
    ),
    AfterValidator(_printable),
]
"""What people call something: printable, no space at its ends."""
Text = Annotated[str, StringConstraints(min_length=1, max_length=2_000)]
AccountId = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,255}$")]


def until(unix_s: float | None) -> Until | None:
    """Return the end of a ban as it is told; JSON has no infinity."""
    if unix_s is None:
        return None
    return "forever" if math.isinf(unix_s) or unix_s >= FOREVER else unix_s


def seconds(end: Until) -> float:
    """Return the end of a ban as it is recorded."""
    return math.inf if end == "forever" else float(end)
