"""A mistake in a file or setting, told with its place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """One thing wrong in a configuration, and where."""

    file: str
    """File, or ``environment`` or ``command line``."""
    line: int | None
    """1-based, when known."""
    path: str
    """Place inside the document, such as ``signals[3].points``."""
    message: str
    """What is wrong and what would be right, in one sentence."""

    def __str__(self) -> str:
        """Return ``file:line: path: message``, the form editors can jump to."""
        line = "" if self.line is None else f":{self.line}"
        path = f"{self.path}: " if self.path else ""
        return f"{self.file}{line}: {path}{self.message}"
