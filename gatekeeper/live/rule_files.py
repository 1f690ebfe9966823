"""The rule files of one gate: read whole or not at all, and remembered over a restart."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from gatekeeper.live.files import FileWatch, look_at
from gatekeeper.policy.rules import parse_rules
from gatekeeper.storage.rule_store import read_texts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatekeeper.policy.mistake import Mistake
    from gatekeeper.policy.ruleset import RuleSet


@dataclass(frozen=True, slots=True)
class RuleFiles:
    """The files of a rule set by name, and what they say."""

    texts: Mapping[str, str]
    rules: RuleSet

    @classmethod
    def of(cls, texts: Mapping[str, str], rules: RuleSet) -> RuleFiles:
        """Return files by name or path with what they say."""
        return cls({Path(name).name: text for name, text in texts.items()}, rules)

    @classmethod
    def parse(cls, texts: Mapping[str, str]) -> RuleFiles | list[Mistake]:
        """Compile files by name or path; slow, so call it in a thread."""
        rules = parse_rules(texts)
        return rules if isinstance(rules, list) else cls.of(texts, rules)

    @classmethod
    def read(cls, directory: Path) -> RuleFiles | list[Mistake] | None:
        """Read and compile a directory; slow, so call it in a thread.

        ``None`` when files changed meanwhile: what was read may never have stood there together.
        """
        before = look_at(rule_files(directory))
        texts = read_texts(directory)
        if look_at(rule_files(directory)) != before:
            return None
        return texts if isinstance(texts, list) else cls.parse(texts)


class Remembered(Struct, frozen=True):
    """What the files of this gate were when they were last seen."""

    revision: str
    seq: int
    """Number of the activation by which they then came or could have come into force."""

    @classmethod
    def read(cls, path: Path) -> Remembered | None:
        """Read it back; what is missing or damaged is not remembered."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, msgspec.DecodeError):
            return None

    def write(self, path: Path) -> None:
        """Keep it. Raises ``OSError`` when the disk refuses."""
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        aside.write_bytes(msgspec.json.encode(self))
        aside.replace(path)


def watch_rules(directory: Path) -> FileWatch:
    """Return a watch over a directory of rules; make it before they are read."""
    return FileWatch(lambda: (directory,), lambda: rule_files(directory))


def rule_files(directory: Path) -> list[Path]:
    """Return the files of a directory that are read, or are mistakes."""
    try:
        return [
            path
            for path in directory.iterdir()
            if path.name[:1] != "." and path.suffix.lower() in {".yaml", ".yml"}
        ]
    except OSError:
        return []
