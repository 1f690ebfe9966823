"""Rule files on disk: the directory in force, and an archive of every revision that ever was.

A decision names its revision, so that it can be replayed by the very rules that made it.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.rules import parse_rules

if TYPE_CHECKING:
    from pathlib import Path

    from gatekeeper.policy.ruleset import RuleSet


def read_texts(directory: Path) -> dict[str, str] | list[Mistake]:
    """Read every ``*.yaml`` of a directory (not below it), or tell what cannot be read.

    Hidden files are left out, as editors put theirs beside the one they change.
    """
    texts: dict[str, str] = {}
    mistakes: list[Mistake] = []
    try:
        if not directory.is_dir():
            return [Mistake(str(directory), None, "", "there is no such directory of rule files")]
        paths = sorted(path for path in directory.iterdir() if path.name[:1] != ".")
    except OSError as error:
        return [Mistake(str(directory), None, "", f"cannot be listed: {error.strerror}")]
    for path in paths:
        if path.suffix.lower() not in {".yaml", ".yml"}:
            continue
        if path.suffix != ".yaml":
            message = "would not be read: the name of a rule file ends in .yaml"
            mistakes.append(Mistake(str(path), None, "", message))
            continue
        try:
            texts[str(path)] = path.read_text(encoding="utf-8")
        except OSError as error:
            mistakes.append(Mistake(str(path), None, "", f"cannot be read: {error.strerror}"))
        except UnicodeDecodeError:
            mistakes.append(Mistake(str(path), None, "", "is not UTF-8 text"))
    return mistakes or texts


def read_rules(directory: Path) -> RuleSet | list[Mistake]:
    """Read and compile the rules of a directory; all mistakes at once."""
    texts = read_texts(directory)
    return texts if isinstance(texts, list) else parse_rules(texts)


def archive(directory: Path, revision: str, texts: dict[str, str]) -> None:
    """Keep the files of a revision, once. Raises ``OSError`` when the disk refuses."""
    if archived(directory, revision) is not None:
        return
    directory.mkdir(parents=True, exist_ok=True)
    aside = directory / f".{revision}.{os.getpid()}"
    try:
        aside.write_text(json.dumps(texts), encoding="utf-8")
        aside.replace(directory / f"{revision}.json")
    finally:
        aside.unlink(missing_ok=True)


def archived(directory: Path, revision: str) -> RuleSet | None:
    """Return the rules of a revision; ``None`` when it was not archived or is damaged."""
    if not revision.isalnum():
        return None
    try:
        texts = json.loads((directory / f"{revision}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(texts, dict):
        return None
    rules = parse_rules({str(name): str(text) for name, text in texts.items()})
    return None if isinstance(rules, list) or rules.revision != revision else rules
