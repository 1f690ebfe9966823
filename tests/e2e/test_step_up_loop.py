"""Step-up with the sandbox vendor: refused, opened, passed, through; and all that may go wrong."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import aiohttp
import pytest
import structlog
from support.gates import Clock, eventually, rules_text
from support.postgres_server import running_postgres
from support.vendors import (
    API_KEY,
    SECRET,
    WEBHOOK,
    gate_with,
    opened,
    passes,
    press,
    refused_link,
    run_sandbox,
    seen,
)

from gatekeeper.policy.lifecycles import CaseState
from gatekeeper.policy.words import Assurance
from gatekeeper.settings import Log, SecretSource, StepUp
from gatekeeper.storage.cases_schema import Change
from gatekeeper.telemetry import configure_logging

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from support.gates import Gates, RunningGate
    from support.vendors import RunningSandbox


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    """Start a real PostgreSQL."""
    with running_postgres() as url:
        yield url


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
    assert (status, back.startswith(f"{two.url}/gatekeeper/v1/checks/case_")) == (303, True)
    assert "Your identity is verified" in (await seen(back))[1]
    assert await passes(two)  # it answered the page, so it knows already
    await eventually(lambda: passes(one))
    assert (await one.openai("watched").models.list()).data


async def test_two_nodes_on_postgresql(
    gates: Gates, sandbox: RunningSandbox, tmp_path: Path, postgres_url: str
) -> None:
    """The same over the database of a fleet."""
    secret = tmp_path / "secret"
    secret.write_text("s" * 40)
    shared = {"records_url": postgres_url, "secret": SecretSource(file=secret)}
    one = await gate_with(gates, sandbox, **shared)
    two = await gate_with(gates, sandbox, accounts={}, **shared)
    two.keys.update(one.keys)
    _, page = await opened(one)
    assert await press(page, result="pass")  # its webhook goes to the second
    await eventually(lambda: passes(one))
    await eventually(lambda: passes(two))


async def test_after_a_failure_a_new_link_begins_anew(
    gates: Gates, sandbox: RunningSandbox
) -> None:
    """The old link says that it is over; the next refusal's link leads to a pass."""
    gate = await gate_with(gates, sandbox)
    link, page = await opened(gate)
    _, back = await press(page, result="fail")
    assert "could not be verified" in (await seen(back))[1]
    assert "could not be verified" in (await seen(link))[1]
    assert (await seen(page))[0] == 410
    assert await press(link) == (303, back.replace(f"{gate.url}/gatekeeper/v1/", "../"))
    assert not await passes(gate)
    _, page = await opened(gate)
    _, back = await press(page, result="pass")
    assert "is verified" in (await seen(back))[1]
    assert await passes(gate)
    metrics = await gate.metrics()
    for event, count in (("opened", 2), ("declined", 1), ("restarted", 1), ("approved", 1)):
        assert f'gatekeeper_verification_cases_total{{event="{event}"}} {count}.0' in metrics


async def test_a_check_that_expires_may_be_tried_again(
    gates: Gates, sandbox: RunningSandbox
) -> None:
    """No result is no refusal for good."""
    gate = await gate_with(gates, sandbox)
    _, page = await opened(gate)
    _, back = await press(page, result="expire")
    assert "ended without a result" in (await seen(back))[1]
    assert not await passes(gate)
    _, page = await opened(gate)
    await press(page, result="pass")
    await eventually(lambda: passes(gate))


async def test_tries_end_and_an_admin_goes_on(gates: Gates, sandbox: RunningSandbox) -> None:
    """When no try is left, only an admin helps: by allowing another, or by deciding."""
    gate = await gate_with(gates, sandbox, step_up=sandbox.step_up(max_attempts=1))
    _, page = await opened(gate)
    await press(page, result="fail")
    link = await refused_link(gate)
    status, _ = await press(link)
    assert status == 403
    (case,) = await gate.app.verification.desk.page(account_id="watched")
    refused = await gate.cli("cases", "approve", case.id, "--reason", "seen", ok=False)
    assert refused.exit_code == 1
    assert "the case is rejected" in refused.stderr
    await gate.cli("cases", "restart", case.id, "--reason", "camera was broken")
    _, page = await opened(gate)
    assert page.startswith(sandbox.url)
    await gate.cli("cases", "approve", case.id, "--reason", "passport seen", "--by", "anna")
    await eventually(lambda: passes(gate))
    assert await press(link) == (303, f"../checks/{case.id}")
    assert "is verified" in (await seen(check_of(gate, case.id)))[1]
    steps = await gate.app.verification.desk.history(case.id)
    assert (steps[0].actor, steps[0].reason) == ("anna", "passport seen")
    _, back = await press(page, result="fail")  # the vendor's word comes too late
    assert "is verified" in (await seen(back))[1]
    assert await passes(gate)


async def test_an_admin_alone_can_do_it(gates: Gates) -> None:
    """Without a vendor, opening makes a case that waits for somebody to decide."""
    gate = await gate_with(gates, None, step_up=StepUp(support="Write to help@example.com."))
    link = await refused_link(gate)
    text = (await seen(link))[1]
    assert "Ask for verification" in text
    assert await gate.app.verification.desk.page() == ()  # looking makes no case
    assert "Write to help@example.com. Ask for the verification of account watched" in text
    status, where = await press(link)
    (case,) = await gate.app.verification.desk.page()
    assert (status, where) == (303, f"../checks/{case.id}")
    for url in (link, check_of(gate, case.id)):
        text = (await seen(url))[1]
        assert "Waiting for the operator" in text
        assert "Write to help@example.com. Name the case." in text
    at = gate.app._unix_s()
    change, _ = await gate.app.verification.desk.decline(case.id, actor="a", reason="no", at=at)
    assert change is Change.DONE
    assert "could not be verified" in (await seen(link))[1]
    _ = await gate.app.verification.desk.restart(case.id, actor="a", reason="yes", at=at)
    _ = await gate.app.verification.desk.approve(case.id, actor="a", reason="yes", at=at)
    assert await passes(gate)  # this node knows at once


async def test_a_link_is_only_looked_at(gates: Gates, sandbox: RunningSandbox) -> None:
    """Scanners of mail and previews of chats follow links: none of that makes a case."""
    gate = await gate_with(gates, sandbox)
    link = await refused_link(gate)
    async with aiohttp.ClientSession() as scanner:
        for method in ("GET", "HEAD", "GET", "OPTIONS", "PUT"):
            async with scanner.request(method, link) as answer:
                assert answer.status == (200 if method in {"GET", "HEAD"} else 405)
    assert await gate.app.verification.desk.page() == ()
    assert sandbox.cloud.sessions == {}


async def test_one_link_opened_tenfold_is_one_session(
    gates: Gates, sandbox: RunningSandbox
) -> None:
    """Impatient clicks and two browsers lead to the same page of the vendor."""
    gate = await gate_with(gates, sandbox)
    link = await refused_link(gate)
    pages = await asyncio.gather(*(press(link) for _ in range(10)))
    assert {status for status, _ in pages} == {303}
    assert len({page for _, page in pages}) == 1
    assert len(sandbox.cloud.sessions) == 1


async def test_the_way_through_needs_no_webhook(gates: Gates, sandbox: RunningSandbox) -> None:
    """Where no webhook gets in, the page that one comes back to asks the vendor."""
    gate = await gate_with(gates, sandbox)
    sandbox.cloud.reports_to("")
    _, page = await opened(gate)
    _, back = await press(page, result="pass")
    assert "is verified" in (await seen(back))[1]
    assert await passes(gate)


async def test_cases_that_nobody_reports_are_looked_after(
    gates: Gates, sandbox: RunningSandbox
) -> None:
    """A webhook that never came is made up for; what takes too long lapses; proofs run out."""
    clock = Clock()
    gate = await gate_with(gates, sandbox, clock=clock)
    sandbox.cloud.reports_to("")
    _, page = await opened(gate)
    flow = gate.app.verification.flow
    assert await flow.reconcile(clock.unix_s) == 0  # too early
    session_id = page.rpartition("/")[2]
    sandbox.cloud.decide(session_id, "pass")
    clock.advance(61)
    assert await flow.reconcile(clock.unix_s) == 1
    assert await passes(gate)
    assert await flow.reconcile(clock.unix_s) == 0
    clock.advance(366 * 86_400)
    assert await flow.reconcile(clock.unix_s) == 1
    assert not await passes(gate)
    (case,) = await flow.cases.page()
    assert (case.state, case.reason) == (CaseState.EXPIRED, "proof_expired")
    _, page = await opened(gate)
    clock.advance(61)
    assert await flow.reconcile(clock.unix_s) == 1  # still under way at the vendor
    clock.advance(8 * 86_400)
    assert await flow.reconcile(clock.unix_s) == 1
    (case,) = await flow.cases.page()
    assert (case.state, case.reason) == (CaseState.EXPIRED, "no_result")


async def test_a_vendor_that_does_not_answer(gates: Gates, sandbox: RunningSandbox) -> None:
    """Callers read to try again, nothing is lost, and no try is used up by it."""
    clock = Clock()
    gate = await gate_with(gates, sandbox, clock=clock, step_up=sandbox.step_up(max_attempts=1))
    link = await refused_link(gate)
    key = sandbox.cloud.settings
    sandbox.cloud.settings = replace(key, api_key="changed")
    status, _ = await press(link)
    assert status == 503
    sandbox.cloud.settings = key
    status, page = await press(link)
    assert (status, page.startswith(sandbox.url)) == (303, True)
    sandbox.cloud.settings = replace(key, api_key="changed")
    (case,) = await gate.app.verification.desk.page()
    assert "Waiting for the result" in (await seen(check_of(gate, case.id)))[1]
    flow = gate.app.verification.flow
    clock.advance(8 * 86_400 - 7_200)  # its time is over, and still nobody can say how it went
    assert await flow.reconcile(clock.unix_s) == 1
    (case,) = await flow.cases.page()
    assert case.state is CaseState.PENDING
    sandbox.cloud.decide(page.rpartition("/")[2], "pass")
    sandbox.cloud.settings = key
    clock.advance(3_600)
    assert await flow.reconcile(clock.unix_s) == 1
    assert await passes(gate)


async def test_a_vendor_that_lost_a_session(gates: Gates, sandbox: RunningSandbox) -> None:
    """The try lapses, and the next one is a new session."""
    gate = await gate_with(gates, sandbox)
    link, _ = await opened(gate)
    sandbox.cloud.sessions.clear()
    assert "ended without a result" in (await seen(link))[1]


async def test_less_than_asked_is_not_enough(gates: Gates, sandbox: RunningSandbox) -> None:
    """A vendor that reached a lower level than was asked has approved nothing."""
    rules = rules_text().replace("assurance: ial1", "assurance: ial2")
    gate = await gate_with(gates, sandbox, rules=rules)
    _, page = await opened(gate)
    sandbox.cloud.sessions[page.rpartition("/")[2]].assurance = Assurance.IAL1
    _, back = await press(page, result="pass")
    await eventually(lambda: says(back, "could not be verified"))
    (case,) = await gate.app.verification.desk.page()
    assert case.reason == "assurance_too_low"
    assert not await passes(gate)


def check_of(gate: RunningGate, case_id: str) -> str:
    """Return where a case can be looked at."""
    return f"{gate.url}/gatekeeper/v1/checks/{case_id}"


async def says(url: str, words: str) -> bool:
    """Tell whether a page says this."""
    return words in (await seen(url))[1]


async def test_pages_obey_an_embargo_and_webhooks_do_not(
    gates: Gates, sandbox: RunningSandbox
) -> None:
    """Whoever may not use the service may not verify for it either; vendors may be anywhere."""
    gate = await gate_with(gates, sandbox)
    link = await refused_link(gate)
    cuba = {"X-Forwarded-For": "152.206.1.1"}
    async with aiohttp.ClientSession(headers=cuba) as browser:
        for method, url in (("GET", link), ("POST", link), ("GET", check_of(gate, "case_1"))):
            async with browser.request(method, url, allow_redirects=False) as answer:
                assert answer.status == 451
                decision = answer.headers["Gatekeeper-Decision"]
        async with browser.post(f"{gate.url}{WEBHOOK}", data=b"{}") as answer:
            assert answer.status == 400
    assert (await gate.decision(decision))["verdict"] == "embargoed"
    assert await gate.app.verification.desk.page() == ()


async def test_a_form_from_elsewhere_opens_nothing(gates: Gates, sandbox: RunningSandbox) -> None:
    """Another site cannot make a browser press the button."""
    gate = await gate_with(gates, sandbox)
    link = await refused_link(gate)
    async with aiohttp.ClientSession() as browser:
        for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 303)):
            headers = {"Sec-Fetch-Site": site}
            async with browser.post(link, headers=headers, allow_redirects=False) as answer:
                assert answer.status == status
        async with browser.post(link, data=b"x" * 5_000) as answer:
            assert answer.status == 413


async def test_an_account_that_was_banned_meanwhile(gates: Gates, sandbox: RunningSandbox) -> None:
    """A link from before the ban opens no check."""
    gate = await gate_with(gates, sandbox)
    link = await refused_link(gate)
    await gate.cli("accounts", "set", "watched", "banned_until=forever")
    assert (await press(link))[0] == 403
    assert sandbox.cloud.sessions == {}


async def test_a_link_tells_of_the_result_after_its_end(
    gates: Gates, sandbox: RunningSandbox
) -> None:
    """A check may take longer than a link is good: the way back still works, a new try does not."""
    clock = Clock()
    gate = await gate_with(gates, sandbox, clock=clock)
    link, page = await opened(gate)
    clock.advance(2 * 86_400)
    assert (await press(link))[0] == 410
    _, back = await press(page, result="pass")
    assert "is verified" in (await seen(back))[1]


async def test_no_link_reaches_a_log(
    gates: Gates, sandbox: RunningSandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    """A link is as good as a key while it lasts: neither log nor record holds one."""
    configure_logging(Log())  # a test before may have sent the log elsewhere
    gate = await gate_with(gates, sandbox)
    link, page = await opened(gate)
    _, back = await press(page, result="pass")
    await seen(back)
    structlog.reset_defaults()
    token, session_id = link.rpartition("/")[2], page.rpartition("/")[2]
    captured = capfd.readouterr()
    written = captured.out + captured.err + str(gate.book())
    assert "verification_case" in written
    for secret in (token, token.rpartition(".")[2], session_id, API_KEY, SECRET):
        assert secret not in written


async def test_one_address_cannot_ask_for_ever(gates: Gates, sandbox: RunningSandbox) -> None:
    """Pages are bounded per address and minute; other addresses go on."""
    clock = Clock()
    gate = await gate_with(gates, sandbox, clock=clock)
    link = await refused_link(gate)
    statuses = []
    async with aiohttp.ClientSession() as browser:
        for _ in range(125):
            async with browser.get(link) as answer:
                statuses.append(answer.status)
        assert statuses.index(429) > 100
        assert answer.headers["Retry-After"] == "60"
        elsewhere = {"X-Forwarded-For": "8.8.8.8"}
        async with browser.get(link, headers=elsewhere) as answer:
            assert answer.status == 200
        clock.advance(60)
        async with browser.get(link) as answer:
            assert answer.status == 200
