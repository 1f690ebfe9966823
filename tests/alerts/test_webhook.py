"""Alerts by webhook: when a condition is told, and how messages reach a real receiver."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from aiohttp import web
from support.gates import eventually

from gatekeeper.alerts.webhook import Alerts, Growth
from gatekeeper.settings import AlertName, AlertSettings
from gatekeeper.telemetry import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

KEY = b"0123456789abcdef0123456789abcdef"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
NOW = 1_770_000_000.0


class Receiver:
    """A webhook endpoint that checks signatures and keeps what it took."""

    def __init__(self) -> None:
        self.url = ""
        self.taken: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.forged = 0
        self.before: Callable[[int], Awaitable[web.Response | None]] | None = None
        self.asked = 0

    async def take(self, request: web.Request) -> web.Response:
        """Verify as a receiver would: from the raw bytes."""
        self.asked += 1
        body = await request.read()
        self.ids.append(request.headers["webhook-id"])
        if self.before is not None and (said := await self.before(self.asked)) is not None:
            return said
        content = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}."
        wanted = base64.b64encode(hmac.digest(KEY, content.encode() + body, hashlib.sha256))
        version, _, given = request.headers["webhook-signature"].partition(",")
        if version != "v1" or not hmac.compare_digest(wanted, given.encode()):
            self.forged += 1
            return web.Response(status=401)
        assert request.headers["content-type"].startswith("application/cloudevents+json")
        self.taken.append(json.loads(body))
        return web.Response(status=204)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Run a receiver."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook?key=hidden"
    yield receiver
    await runner.cleanup()


def alerts_to(url: str = "http://127.0.0.1:9/hook", secret: str = SECRET, **more: Any) -> Alerts:
    """Return alerts of a gate whose clock stands still."""
    numbers = itertools.count(1)
    return Alerts(
        AlertSettings(webhook_url=url, **more),
        secret,
        source="https://models.example.com/gatekeeper/gate",
        clock=lambda: NOW,
        new_id=lambda: f"evt_{next(numbers)}",
        chance=lambda: 0.0,
        metrics=Metrics(),
        first_retry_s=0.001,
    )


@asynccontextmanager
async def running(alerts: Alerts) -> AsyncIterator[None]:
    """Let alerts run for a while."""
    task = asyncio.create_task(alerts.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def told(alerts: Alerts) -> list[tuple[str, str]]:
    """Return state and text of what waits to be sent."""
    data = [json.loads(message.body)["data"] for message in alerts.waiting]
    return [(each["state"], each["text"]) for each in data]


class Condition:
    """What a test says is the case."""

    text: str | None = None

    def __call__(self) -> str | None:
        """Read it."""
        return self.text


# --- when something is told ---------------------------------------------------------------------


def test_a_condition_is_told_once_and_resolved_once() -> None:
    """However long it lasts; it has ended after a minute without it."""
    alerts, condition = alerts_to(), Condition()
    alerts.watch(AlertName.LOG_FAILING, condition)
    alerts.look(NOW)
    assert told(alerts) == []
    condition.text = "the disk is full"
    for second in range(100):
        alerts.look(NOW + second)
    assert told(alerts) == [("firing", "the disk is full")]
    condition.text = None
    alerts.look(NOW + 158)
    assert len(told(alerts)) == 1
    alerts.look(NOW + 159)
    assert told(alerts)[1:] == [("resolved", "It has ended.")]
    alerts.look(NOW + 1_000)
    assert len(told(alerts)) == 2


def test_a_condition_that_flutters_is_one_alert() -> None:
    """Less than a minute of quiet does not end it."""
    alerts, condition = alerts_to(), Condition()
    alerts.watch(AlertName.STORE_DEGRADED, condition)
    for second in range(0, 600, 10):
        condition.text = "no answer" if second % 20 else None
        alerts.look(NOW + second)
    assert told(alerts) == [("firing", "no answer")]


def test_beginnings_keep_their_distance() -> None:
    """A second beginning waits for ``min_interval_s``, and is told then if it still holds."""
    alerts, condition = alerts_to(min_interval_s=1_000), Condition()
    alerts.watch(AlertName.STORE_DEGRADED, condition)

    def at(second: int, text: str | None) -> list[str]:
        condition.text = text
        alerts.look(NOW + second)
        return [state for state, _ in told(alerts)]

    assert at(0, "gone") == ["firing"]
    assert at(100, None) == ["firing", "resolved"]
    assert at(200, "gone") == ["firing", "resolved"]
    assert at(300, None) == ["firing", "resolved"]  # what was not told needs no end
    assert at(900, "gone") == ["firing", "resolved"]
    assert at(1_000, "gone") == ["firing", "resolved", "firing"]


def test_only_chosen_events_are_watched() -> None:
    """``events`` leaves the others out, unread; a name is watched once."""
    alerts = alerts_to(events=(AlertName.LOG_FAILING,))
    alerts.watch(AlertName.EMBARGO_HITS, lambda: "never told")
    alerts.watch(AlertName.LOG_FAILING, lambda: "told")
    alerts.look(NOW)
    assert told(alerts) == [("firing", "told")]
    with pytest.raises(ValueError, match="watched twice"):
        alerts.watch(AlertName.LOG_FAILING, lambda: None)


def test_growth_tells_what_is_new() -> None:
    """A counter that stands still is no alert, whatever it stands at."""
    metrics = Metrics()
    labels = ("embargoed", "embargoed_region", "plain", "yes")
    metrics.count("gatekeeper_decisions", *labels, by=7)
    grown = Growth(lambda: metrics.total("gatekeeper_decisions", "embargoed"), "calls")
    assert grown() is None
    metrics.count("gatekeeper_decisions", *labels, by=2)
    metrics.count("gatekeeper_decisions", "allow", "", "plain", "yes", by=5)
    assert grown() == "2 calls"
    assert grown() is None


def test_messages_wait_within_bounds() -> None:
    """With nobody to take them the oldest are given up, and counted."""
    alerts, condition = alerts_to(min_interval_s=1), Condition()
    alerts.watch(AlertName.RULES_REFUSED, condition)
    for round_ in range(80):
        condition.text = f"round {round_}"
        alerts.look(NOW + round_ * 200)
        condition.text = None
        alerts.look(NOW + round_ * 200 + 100)
    assert len(alerts.waiting) == 100
    assert told(alerts)[0] == ("firing", "round 30")
    assert alerts._metrics.value("gatekeeper_alert_messages", "given_up") == 60


# --- how it is sent -----------------------------------------------------------------------------


async def test_a_message_is_a_signed_cloud_event(receiver: Receiver) -> None:
    """CloudEvents 1.0 in structured mode, verified by the receiver from the raw bytes."""
    alerts = alerts_to(receiver.url)
    alerts.watch(AlertName.LOG_FAILING, lambda: "the disk is full")
    async with running(alerts):
        await eventually(
            lambda: _is(alerts._metrics.value("gatekeeper_alert_messages", "delivered") == 1)
        )
    assert receiver.taken == [
        {
            "specversion": "1.0",
            "id": "evt_1",
            "source": "https://models.example.com/gatekeeper/gate",
            "type": "gatekeeper.alert.firing",
            "subject": "log_failing",
            "time": "2026-02-02T02:40:00.000+00:00",
            "datacontenttype": "application/json",
            "data": {
                "alert": "log_failing",
                "state": "firing",
                "text": "the disk is full",
                "since": "2026-02-02T02:40:00.000+00:00",
            },
        }
    ]
    assert receiver.ids == ["evt_1"]
    assert alerts._metrics.value("gatekeeper_alert_messages", "delivered") == 1


async def test_a_wrong_secret_is_noticed(receiver: Receiver) -> None:
    """The receiver of these tests can tell."""
    alerts = alerts_to(receiver.url, secret="another secret")
    alerts.watch(AlertName.LOG_FAILING, lambda: "x")
    async with running(alerts):
        await eventually(lambda: _is(receiver.forged >= 2))
    assert receiver.taken == []


async def test_what_fails_is_tried_again_in_order(receiver: Receiver) -> None:
    """Errors, redirects and hang-ups: the same id again, and the next message after it."""

    async def fail(number: int) -> web.Response | None:
        if number == 1:
            return web.Response(status=500)
        if number == 2:
            raise web.HTTPFound("http://127.0.0.1:9/elsewhere")
        return None

    receiver.before = fail
    alerts = alerts_to(receiver.url)
    alerts.watch(AlertName.LOG_FAILING, lambda: "first")
    alerts.watch(AlertName.NETWORK_DATA, lambda: "second")
    async with running(alerts):
        await eventually(lambda: _is(len(receiver.taken) == 2))
    assert receiver.ids == ["evt_1", "evt_1", "evt_1", "evt_2"]
    assert [each["data"]["text"] for each in receiver.taken] == ["first", "second"]
    assert alerts._metrics.value("gatekeeper_alert_messages", "retried") == 2


async def test_what_is_never_taken_is_given_up(receiver: Receiver) -> None:
    """After a bounded number of tries the next message has its turn."""

    async def refuse(number: int) -> web.Response | None:
        return web.Response(status=503) if number <= 12 else None

    receiver.before = refuse
    alerts = alerts_to(receiver.url)
    alerts._first_retry_s = 1e-6
    alerts.watch(AlertName.LOG_FAILING, lambda: "first")
    alerts.watch(AlertName.NETWORK_DATA, lambda: "second")
    async with running(alerts):
        await eventually(lambda: _is(len(receiver.taken) == 1))
    assert receiver.taken[0]["data"]["text"] == "second"
    assert alerts._metrics.value("gatekeeper_alert_messages", "given_up") == 1


async def test_a_slow_receiver_holds_nothing_up(receiver: Receiver) -> None:
    """Conditions are read on while a message hangs, and stopping does not wait for it."""
    hanging = asyncio.Event()

    async def hang(_number: int) -> web.Response | None:
        await hanging.wait()
        return None

    receiver.before = hang
    alerts = alerts_to(receiver.url)
    reads = itertools.count()
    alerts.watch(AlertName.LOG_FAILING, lambda: f"read {next(reads)}")
    async with running(alerts):
        await eventually(lambda: _is(receiver.asked == 1 and next(reads) >= 2))
    hanging.set()


async def test_a_broken_condition_ends_no_other(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """A defect is counted, and the rest is looked at in the next second."""
    alerts = alerts_to(receiver.url)
    calls = itertools.count()

    def broken() -> str | None:
        if next(calls) == 0:
            raise RuntimeError("a defect")
        return None

    alerts.watch(AlertName.NETWORK_DATA, broken)
    alerts.watch(AlertName.LOG_FAILING, lambda: "still told")
    async with running(alerts):
        await eventually(lambda: _is(len(receiver.taken) == 1))
    assert alerts._metrics.value("gatekeeper_internal_errors") == 1


async def test_the_url_is_never_logged(receiver: Receiver) -> None:
    """Services put their key into it."""
    receiver.before = lambda number: _response(500 if number < 3 else 204)
    alerts = alerts_to(receiver.url)
    with structlog.testing.capture_logs() as said:
        alerts._log = structlog.get_logger()
        alerts.watch(AlertName.LOG_FAILING, lambda: "x")
        async with running(alerts):
            await eventually(lambda: _is(receiver.asked == 3 and not alerts.waiting))
    assert [each["event"] for each in said] == ["alert", "alert_not_taken", "alert_not_taken"]
    assert "hidden" not in str(said)


async def _is(fact: bool) -> bool:
    return fact


async def _response(status: int) -> web.Response:
    return web.Response(status=status)
