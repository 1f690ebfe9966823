"""`gatekeeper admin-keys`: the only way to the first key of the management API."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING

from click.testing import CliRunner

from gatekeeper.cli import main
from gatekeeper.facts.key_shapes import ADMIN_KEY, API_KEY

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def run(tmp_path: Path, *arguments: str) -> Result:
    """Run a command on records of its own."""
    return CliRunner().invoke(main, ["admin-keys", *arguments, "--data-dir", str(tmp_path)])


def test_a_key_is_shown_once_and_kept_as_a_digest(tmp_path: Path) -> None:
    """The key is alone on standard output, and nowhere in the records."""
    made = run(tmp_path, "create", "alice", "--role", "admin", "--days", "30")
    assert made.exit_code == 0
    key = made.stdout.strip()
    assert ADMIN_KEY.is_well_formed(key)
    assert not API_KEY.is_well_formed(key)
    assert "not shown again" in made.stderr
    listed = [json.loads(line) for line in run(tmp_path, "list", "--json").stdout.splitlines()]
    assert [(row["name"], row["role"], row["key_id"]) for row in listed] == [
        ("alice", "admin", ADMIN_KEY.id_of(key))
    ]
    assert listed[0]["expires_at"] - listed[0]["created_at"] == 30 * 86_400
    assert "digest" not in listed[0]
    for file in tmp_path.iterdir():
        assert key.encode() not in file.read_bytes()


def test_it_is_revoked_once(tmp_path: Path) -> None:
    """Again is told, an unknown one is exit code 1; each is in the audit trail."""
    told = run(tmp_path, "create", "bot", "--role", "viewer", "--json").stdout
    key_id = json.loads(told)["key_id"]
    assert run(tmp_path, "revoke", key_id).stdout == f"{key_id}: revoked\n"
    assert run(tmp_path, "revoke", key_id).stdout == f"{key_id}: already revoked\n"
    assert run(tmp_path, "revoke", "gka_zzzzzzzz").exit_code == 1
    assert key_id in run(tmp_path, "list").stdout
    with sqlite3.connect(tmp_path / "records.db") as database:
        actions = [row[0] for row in database.execute("SELECT action FROM audit ORDER BY id")]
    database.close()
    assert actions == ["createAdminKey", *["revokeAdminKey"] * 3]


def test_a_name_and_a_role_are_needed(tmp_path: Path) -> None:
    """Nobody has a nameless key, and no role is assumed."""
    assert run(tmp_path, "create", "alice").exit_code == 2
    assert run(tmp_path, "create", "alice", "--role", "root").exit_code == 2
    nameless = run(tmp_path, "create", " ", "--role", "admin")
    assert nameless.exit_code == 2
    assert "printable" in nameless.stderr
