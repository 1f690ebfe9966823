"""`gatekeeper cases`: find a case, see its history, decide it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from gatekeeper.policy.words import Assurance
from gatekeeper.storage.cases import Cases
from gatekeeper.storage.cases_schema import TryRules
from gatekeeper.storage.records import Records
from gatekeeper.storage.records_schema import AccountPatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., Any]

RULES = TryRules(pending_s=600, valid_s=None, max_tries=3, period_s=86_400)


@pytest.fixture
def case_id(tmp_path: Path) -> str:
    """Open a link of ``acme``; return the case."""

    async def open_one() -> str:
        (tmp_path / "data").mkdir()
        records = await Records.open(f"sqlite:///{tmp_path / 'data' / 'records.db'}")
        await records.upsert_account(AccountPatch("acme", {}), at=1.0)
        await Cases(records.database).open(
            "acme", Assurance.IAL1, "dec_1", case_id="case_1", vendor="", rules=RULES, at=1.0
        )
        await records.close()
        return "case_1"

    return asyncio.run(open_one())


def test_cases_are_found(run: Run, case_id: str) -> None:
    """By state, account and any whole id; as a table or as JSON."""
    assert case_id in run("cases", "list").stdout
    for options in (("--state", "pending"), ("--account", "acme"), ("--search", "dec_1")):
        (line,) = run("cases", "list", "--json", *options).stdout.splitlines()
        assert json.loads(line)["id"] == case_id
    assert run("cases", "list", "--json", "--state", "verified").stdout == ""


def test_a_case_is_approved(run: Run, case_id: str) -> None:
    """The account rises with it, for as long as the settings say; the history names who and why."""
    done = run("cases", "approve", case_id, "--reason", "passport seen", "--by", "anna").stdout
    assert done == f"case {case_id} of account acme is verified\n"
    shown = json.loads(run("cases", "show", case_id).stdout)
    assert shown["state"] == "verified"
    assert shown["history"][0]["actor"] == "anna"
    assert shown["history"][0]["reason"] == "passport seen"
    account = json.loads(run("accounts", "show", "acme").stdout)
    assert account["assurance"] == "ial1"
    assert account["assurance_expires"] > 0
    assert "case is verified" in run("cases", "decline", case_id, "--reason", "x", code=1).stderr


def test_a_case_is_declined_and_restarted(tmp_path: Path, run: Run, case_id: str) -> None:
    """Who decides is whoever runs the command, unless it says otherwise; both are audited."""
    run("cases", "decline", case_id, "--reason", "name does not match")
    run("cases", "restart", case_id, "--reason", "new papers")
    shown = json.loads(run("cases", "show", case_id).stdout)
    assert shown["state"] == "required"
    assert shown["history"][0]["actor"].startswith("cli:")
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "records.db")) as database:
        rows = list(database.execute("SELECT action, target_id FROM audit ORDER BY id"))
    assert rows == [("declineCase", case_id), ("restartCase", case_id)]


def test_what_cannot_be_decided(run: Run, case_id: str) -> None:
    """No such case is 1; no reason, or one that would break a line, is 2."""
    assert "no such case" in run("cases", "approve", "case_no", "--reason", "x", code=1).stderr
    assert "there is no case" in run("cases", "show", "case_no", code=1).stderr
    run("cases", "approve", case_id, code=2)
    for reason in ("", " ", "a\nb", "x" * 201):
        run("cases", "approve", case_id, "--reason", reason, code=2)
    assert json.loads(run("cases", "show", case_id).stdout)["state"] == "pending"
