"""Whether machine-made data has a believable size: neither collapsed nor bloated (H37)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gatekeeper.policy.mistake import Mistake

if TYPE_CHECKING:
    from collections.abc import Mapping

BY_HAND_ENTRIES: Final = 100
"""Lists shorter than this are kept by people, who may well double them in a day."""


def collapsed(before_entries: int, after_entries: int) -> str | None:
    """Say what is wrong with a new size: less than two thirds of the last, or more than twice."""
    sizes = f"from {before_entries} to {after_entries} entries"
    if after_entries * 3 < before_entries * 2:
        return f"It would shrink {sizes}, by more than a third."
    if after_entries > before_entries * 2:
        return f"It would grow {sizes}, to more than double."
    return None


def out_of_proportion(before: Mapping[str, int], after: Mapping[str, int]) -> list[Mistake]:
    """Tell which sources of running data changed in size beyond belief; new ones never do."""
    mistakes = []
    for name, entries in before.items():
        now = after.get(name, 0)
        if max(entries, now) >= BY_HAND_ENTRIES and (wrong := collapsed(entries, now)) is not None:
            advice = "Restart the gate if this is right, or set geoip.accept_size_changes."
            mistakes.append(Mistake(name, None, "", f"{wrong} {advice}"))
    return mistakes
