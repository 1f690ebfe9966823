"""`gatekeeper keys` and `gatekeeper accounts`: what they keep, show and refuse."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., Any]


def rows(result: Any) -> list[dict[str, Any]]:
    """Return the JSON lines of a result."""
    return [json.loads(line) for line in result.stdout.splitlines()]


# --- keys ---


def test_a_key_is_shown_once_and_never_kept(run: Run, tmp_path: Path) -> None:
    """Standard output is the key alone; nothing on disk holds it."""
    made = run("keys", "create", "acme", "--label", "CI", "--days", "2")
    key = made.stdout.strip()
    assert key.startswith("gk_")
    assert "new account acme" in made.stderr
    assert "account acme: keep the key" in run("keys", "create", "acme").stderr
    for file in (tmp_path / "data").rglob("*"):
        assert not file.is_file() or key[12:].encode() not in file.read_bytes()


def test_keys_are_listed_and_revoked(run: Run) -> None:
    """The list names keys by their readable id, never by a digest."""
    first, second = (
        json.loads(run("keys", "create", account, "--json").stdout) for account in ("one", "two")
    )
    assert {row["key_id"] for row in rows(run("keys", "list", "--json"))} == {
        first["key_id"],
        second["key_id"],
    }
    assert "revoked" in run("keys", "revoke", first["key_id"]).stdout
    (row,) = rows(run("keys", "list", "--account", "one", "--json"))
    assert row["revoked_at"] is not None
    assert "digest" not in row
    assert first["key_id"] in run("keys", "list").stdout
    assert "already" in run("keys", "revoke", first["key_id"]).stdout


def test_what_cannot_be_a_key(run: Run) -> None:
    """An unknown key is 1; an account id with spaces or no days at all are 2."""
    assert "unknown key" in run("keys", "revoke", "gk_nosuch", code=1).stdout
    assert "without spaces" in run("keys", "create", "a b", code=2).stderr
    run("keys", "create", "acme", "--days", "0", code=2)


# --- accounts ---


def test_an_account_is_set_and_shown(run: Run) -> None:
    """Fields are set one by one and cleared by an empty value."""
    run("accounts", "set", "acme", "tier=trusted", "assurance=ial1", "owners=a,b")
    shown = json.loads(run("accounts", "show", "acme").stdout)
    assert (shown["tier"], shown["assurance"], shown["owners"]) == ("trusted", "ial1", ["a", "b"])
    run("accounts", "set", "acme", "banned_until=forever", "ban_reason=stolen cards", "owners=")
    shown = json.loads(run("accounts", "show", "acme").stdout)
    assert (shown["banned_until"], shown["tier"], shown["owners"]) == ("forever", "trusted", [])
    run("accounts", "set", "acme", "banned_until=")
    assert json.loads(run("accounts", "show", "acme").stdout)["banned_until"] is None
    assert "there is no account nobody" in run("accounts", "show", "nobody", code=1).stderr


def test_every_mistake_in_an_account_is_told(run: Run) -> None:
    """Wrong values and unknown fields come together, and nothing is changed."""
    told = run("accounts", "set", "acme", "tier=gold", "colour=red", code=2).stderr
    assert "tier: must be one of trusted, standard, elevated, restricted" in told
    assert "colour: is not a field of an account; fields are" in told
    run("accounts", "show", "acme", code=1)
    assert "not FIELD=VALUE" in run("accounts", "set", "acme", "tier", code=2).stderr


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("accounts.csv", "id,tier,organization\nacme,trusted,org-1\nbeta,,\n"),
        (
            "accounts.jsonl",
            '{"id":"acme","tier":"trusted","organization":"org-1"}\n{"id":"beta"}\n',
        ),
    ],
)
def test_accounts_are_imported(run: Run, tmp_path: Path, name: str, text: str) -> None:
    """CSV and JSON lines do the same; a second run updates."""
    (tmp_path / name).write_text(text)
    assert run("accounts", "import", str(tmp_path / name)).stdout == "2 created, 0 updated\n"
    assert run("accounts", "import", str(tmp_path / name)).stdout == "0 created, 2 updated\n"
    acme, beta = rows(run("accounts", "list", "--json"))
    assert (acme["tier"], acme["organization"], beta["tier"]) == ("trusted", "org-1", "standard")
    assert "acme" in run("accounts", "list").stdout


def test_an_import_is_all_or_nothing(run: Run, tmp_path: Path) -> None:
    """All mistakes are told with their lines, and the good lines are not taken either."""
    file = tmp_path / "accounts.csv"
    file.write_text("id,tier\nacme,trusted\n,bad\nx y,standard\n")
    told = run("accounts", "import", str(file), code=2).stderr
    assert f"{file}:3: id: " in told
    assert f"{file}:3: tier: " in told
    assert f"{file}:4: id: " in told
    assert run("accounts", "list", "--json").stdout == ""


# --- organizations ---


def test_an_organization_is_set_listed_and_shown(run: Run) -> None:
    """Fields are set one by one; an empty value clears the ranges."""
    run(
        "organizations", "set", "acme", "name=Acme AG", "verified=yes", "egress=8.8.8.0/24, 9.9.9.9"
    )
    shown = json.loads(run("organizations", "show", "acme").stdout)
    assert (shown["name"], shown["verified"]) == ("Acme AG", True)
    assert shown["egress"] == ["8.8.8.0/24", "9.9.9.9/32"]
    run("organizations", "set", "acme", "egress=")
    (row,) = rows(run("organizations", "list", "--json"))
    assert (row["name"], row["egress"]) == ("Acme AG", [])
    assert "Acme AG" in run("organizations", "list").stdout
    assert "no organization x" in run("organizations", "show", "x", code=1).stderr


def test_mistakes_in_an_organization_are_told(run: Run) -> None:
    """Ranges that cannot be its own, a range of somebody else's, and what is not FIELD=VALUE."""
    told = run("organizations", "set", "acme", "egress=10.0.0.0/8", "verified=maybe", code=2).stderr
    assert "egress[0]: 10.0.0.0/8 is not public" in told
    assert "verified: must be true or false" in told
    run("organizations", "set", "acme", "egress=8.8.8.0/24")
    told = run("organizations", "set", "beta", "egress=8.8.0.0/16", code=2).stderr
    assert told == "8.8.0.0/16 overlaps 8.8.8.0/24, which acme has registered\n"
    assert "not FIELD=VALUE" in run("organizations", "set", "acme", "egress", code=2).stderr


def test_records_that_cannot_be_used(run: Run, tmp_path: Path) -> None:
    """A data directory that is a file is told in a sentence, not in a traceback."""
    (tmp_path / "data").write_text("in the way")
    assert "cannot" in run("accounts", "list", code=2).stderr
    assert "cannot" in run("keys", "create", "acme", code=2).stderr
