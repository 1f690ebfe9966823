"""Schemathesis over the whole document, against a really running gate."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from support.admin import Admins
from support.gates import rules_text

if TYPE_CHECKING:
    from support.gates import Gates

SUPPORT = Path(__file__).parents[1] / "support"
CONFIG = """\
[checks.missing_required_header]
expected-statuses = [400, 401, 422, 428] # RFC 6585: a condition is missing

[parameters]
"path.decision_id" = "{decision_id}"
"path.case_id" = "{case_id}"
"path.campaign_id" = "{campaign_id}"
"path.revision" = "{revision}"
"""


async def test_no_operation_breaks_or_opens(gates: Gates, tmp_path: Path) -> None:
    """No 5xx, nothing without a key, every answer as the document tells, nonsense is refused.

    What is well-formed may still be refused (a condition that does not hold, a time in the past),
    so that check is left out.
    """
    bound = {"port": 0, "failures_per_minute": 1_000_000}
    accounts = {"acme": {}, "watched": {"tier": "elevated"}}
    async with Admins.of(gates, rules=rules_text(), admin=bound, accounts=accounts) as admins:
        config = tmp_path / "schemathesis.toml"
        config.write_text(CONFIG.format(**await admins.some_history()), encoding="utf-8")
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"),
            f"{admins.url}/v1/openapi.json",
            *("--header", f"Authorization: Bearer {admins.keys['admin']}"),
            *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
            *("--phases", "coverage,fuzzing,stateful", "--max-examples", "4"),
            *("--seed", "1", "--no-color", "--generation-database", "none"),
        ]
        environ = {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(SUPPORT)}
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=tmp_path,
            env={**os.environ, **environ},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        told, _ = await process.communicate()
        assert process.returncode == 0, told.decode()[-6_000:]
        # It has created, banned and revoked: none of that took the key that it used away.
        status = await admins.get("/v1/status")
        assert status.status == 200
        assert admins.gate.app.metrics.value("gatekeeper_internal_errors") == 0
