"""Step-up with the sandbox vendor: refused, opened, passed, through; and all that may go wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.gates import eventually
from support.vendors import (
    gate_with,
    passes,
    press,
    refused_link,
    run_sandbox,
    seen,
)

from gatekeeper.settings import SecretSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.gates import Gates
    from support.vendors import RunningSandbox


@pytest.fixture
async def sandbox() -> AsyncIterator[RunningSandbox]:
    """Serve a sandbox vendor."""
    running = await run_sandbox()
    yield running
    await running.runner.cleanup()


async def test_the_whole_loop_over_two_nodes(
    gates: Gates, sandbox: RunningSandbox, tmp_path: Path
) -> None:
    """Refused on one node, opened on the other, passed: the same call goes through on both."""
    secret = tmp_path / "secret"
    secret.write_text("s" * 40)
    shared = {
        "records_url": f"sqlite:///{tmp_path / 'records.db'}",
        "secret": SecretSource(file=secret),
    }
    one = await gate_with(gates, sandbox, **shared)
    two = await gate_with(gates, sandbox, accounts={}, **shared)
    two.keys.update(one.keys)
    link = await refused_link(one)
    there = link.replace(one.url, two.url)
    assert "Start verification" in (await seen(there))[1]
    status, page = await press(there)
    assert (status, page.startswith(sandbox.url)) == (303, True)
    assert "No identity is checked" in (await seen(page))[1]
    status, back = await press(page, result="pass")
    assert (status, back) == (303, f"{there}/done")
    assert "Your identity is verified" in (await seen(back))[1]
    assert await passes(two)  # it answered the page, so it knows already
    await eventually(lambda: passes(one))
    assert (await one.openai("watched").models.list()).data
