"""What docs/management.md shows is so: the roles, and every example, run as it stands."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gatekeeper.management.operations import OPERATIONS
from gatekeeper.storage.admin_keys import Role

if TYPE_CHECKING:
    from support.admin import Admins

PAGE = (Path(__file__).parents[2] / "docs" / "management.md").read_text(encoding="utf-8")
BLOCKS = [block for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if "curl" in block]


@pytest.mark.parametrize("role", Role)
def test_each_role_names_its_operations(role: Role) -> None:
    """The row of a role lists the operations that need it, and no other."""
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{role.value}` |"))
    named = re.findall(r"`(\w+)`", row.split("|")[3])
    assert sorted(named) == sorted(each.id for each in OPERATIONS if each.role is role)


async def test_the_examples_do_what_they_say(admins: Admins) -> None:
    """All of them, one after the other, against a running gate: no step fails."""
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    assert len(BLOCKS) >= 6
    script = 'set -eu\ncurl() { command curl --silent --show-error --fail-with-body "$@"; }\n'
    script += "\n".join(BLOCKS).replace("http://127.0.0.1:9091", admins.url)
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        script,
        env={"PATH": os.environ["PATH"], "ADMIN_KEY": admins.keys["admin"]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    told, wrong = await process.communicate()
    assert process.returncode == 0, told + wrong
    acme = (await admins.get("/v1/accounts/acme")).json
    assert (acme["organization"], acme["tier"]) == ("Acme AG", "trusted")
    assert (await admins.get("/v1/accounts/beta")).json["banned_until"] is None
    assert (await admins.get("/v1/mode")).json["override"] is None
    assert told.count(b'"files_revision"') == 1
