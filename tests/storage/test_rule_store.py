"""Rule files on disk: read whole or not at all, and every revision kept for replay."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support.builders import RULES_FOLDER, default_pack

from gatekeeper.policy.rules import parse_rules
from gatekeeper.policy.ruleset import RuleSet
from gatekeeper.storage.rule_store import archive, archived, read_rules, read_texts

if TYPE_CHECKING:
    from pathlib import Path

    from gatekeeper.policy.mistake import Mistake

TEXT = """\
version: 1
tiers:
  - {id: tier-trusted, description: d, tier: trusted, models: ["*"]}
  - {id: tier-standard, description: d, tier: standard, models: ["*"]}
  - {id: tier-elevated, description: d, tier: elevated, models: ["*"]}
  - {id: tier-restricted, description: d, tier: restricted, models: ["*"]}
models:
  - {model: "*", input_cents_per_million: 1, output_cents_per_million: 1, max_output_tokens: 1}
...
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a directory with one good rule file."""
    (tmp_path / "rules.yaml").write_text(TEXT)
    return tmp_path


def told(read: dict[str, str] | RuleSet | list[Mistake]) -> str:
    """Return the mistakes as text."""
    assert isinstance(read, list)
    return "\n".join(map(str, read))


def test_reads_the_default_pack() -> None:
    """The rules that ship are read as they stand, the folder of cases left out."""
    rules = read_rules(RULES_FOLDER)
    assert isinstance(rules, RuleSet)
    assert rules.revision == default_pack().revision


@pytest.mark.parametrize(
    "other", [".rules.yaml", ".#rules.yaml", "README.md", "rules.yaml~", "schema.json", "._x.yml"]
)
def test_other_files_are_left_alone(folder: Path, other: str) -> None:
    """Backups, notes and what editors hide are no rules."""
    (folder / other).write_text("not: [yaml")
    assert read_texts(folder) == {str(folder / "rules.yaml"): TEXT}


def test_folders_below_are_not_read(folder: Path) -> None:
    """Cases and drafts may lie there."""
    (folder / "cases").mkdir()
    (folder / "cases" / "x.yaml").write_text("version: 9")
    assert isinstance(read_rules(folder), RuleSet)


@pytest.mark.parametrize("name", ["embargo.yml", "embargo.YAML", "embargo.YML"])
def test_h35_a_misspelt_ending_is_a_mistake(folder: Path, name: str) -> None:
    """An embargo in a file that nobody reads must not be missing in silence."""
    (folder / name).write_text(TEXT)
    assert "ends in .yaml" in told(read_rules(folder))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe", "UTF-8"),
        (b"version: 1\n\xe9", "UTF-8"),
        (TEXT[:-5].encode(), "cut off"),
        (b"", ""),
    ],
)
def test_h35_a_bad_file_spoils_the_set(folder: Path, content: bytes, says: str) -> None:
    """The good file beside it does not take effect alone."""
    (folder / "more.yaml").write_bytes(content)
    assert says in told(read_rules(folder))
    assert "more.yaml" in told(read_rules(folder))


def test_h36_what_is_no_file_is_a_mistake(folder: Path) -> None:
    """A dangling link, as a mount being swapped leaves it, and a directory with a file's name."""
    (folder / "gone.yaml").symlink_to(folder / "nowhere")
    (folder / "folder.yaml").mkdir()
    said = told(read_rules(folder))
    assert "gone.yaml" in said
    assert "folder.yaml" in said


def test_h36_links_are_followed(tmp_path: Path) -> None:
    """Kubernetes mounts every file as a link into a directory that it swaps."""
    data, mount = tmp_path / "..data", tmp_path / "mount"
    data.mkdir()
    mount.mkdir()
    (data / "rules.yaml").write_text(TEXT)
    (mount / "rules.yaml").symlink_to(data / "rules.yaml")
    assert isinstance(read_rules(mount), RuleSet)


def test_no_directory(tmp_path: Path) -> None:
    """It is told, with its name."""
    assert "no such directory" in told(read_rules(tmp_path / "missing"))
    (tmp_path / "file").write_text("")
    assert "no such directory" in told(read_rules(tmp_path / "file"))


def test_h36_directory_that_cannot_be_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not taken for an empty one."""

    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    assert "cannot be listed: Permission denied" in told(read_rules(folder))


def test_empty_directory(tmp_path: Path) -> None:
    """No rules at all are a mistake, never a gate that allows everything."""
    assert "tier" in told(read_rules(tmp_path))


# --- the archive --------------------------------------------------------------------------------


def kept(folder: Path) -> str:
    """Archive :data:`TEXT` and return its revision."""
    rules = parse_rules({"rules.yaml": TEXT})
    assert isinstance(rules, RuleSet)
    archive(folder, rules.revision, {"rules.yaml": TEXT})
    return rules.revision


def test_archive_gives_the_rules_back(tmp_path: Path) -> None:
    """By their revision, from a directory that it makes, and leaving nothing else behind."""
    folder = tmp_path / "a" / "revisions"
    revision = kept(folder)
    rules = archived(folder, revision)
    assert rules is not None
    assert rules.revision == revision
    assert [path.name for path in folder.iterdir()] == [f"{revision}.json"]


def test_archive_writes_a_revision_once(tmp_path: Path) -> None:
    """The file of a revision is not touched again."""
    path = tmp_path / f"{kept(tmp_path)}.json"
    before = path.stat()
    kept(tmp_path)
    assert path.stat().st_ino == before.st_ino


DAMAGE = ["", "null", "[]", "[" * 100_000, "{}", '{"rules.yaml": 1}', '{"rules.yaml": "version"}']


@pytest.mark.parametrize("content", DAMAGE, ids=range(len(DAMAGE)))
def test_h35_a_damaged_archive_is_none_and_mended(tmp_path: Path, content: str) -> None:
    """What is damaged is not replayed by; the next start writes it anew."""
    revision = kept(tmp_path)
    (tmp_path / f"{revision}.json").write_text(content)
    assert archived(tmp_path, revision) is None
    kept(tmp_path)
    assert archived(tmp_path, revision) is not None


def test_archive_of_other_rules_is_none(tmp_path: Path) -> None:
    """A file that was changed has another revision than its name says."""
    revision = kept(tmp_path)
    changed = {"rules.yaml": TEXT.replace("description: d,", "description: other,", 1)}
    (tmp_path / f"{revision}.json").write_text(json.dumps(changed))
    assert archived(tmp_path, revision) is None


@pytest.mark.parametrize("revision", ["", "../x", "a/b", "a.b", "\0", "x" * 5_000, "0123456789ab"])
def test_a_record_cannot_name_another_file(tmp_path: Path, revision: str) -> None:
    """Revisions come from records: they lead nowhere but into the archive."""
    (tmp_path / "x.json").write_text("{}")
    folder = tmp_path / "revisions"
    folder.mkdir()
    assert archived(folder, revision) is None


def test_full_disk_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is the caller's to tell; what stood aside is gone."""

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    with pytest.raises(OSError, match="No space"):
        kept(tmp_path)
    assert list(tmp_path.iterdir()) == []
