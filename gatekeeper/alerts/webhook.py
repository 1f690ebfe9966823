"""Alerts by webhook: conditions of this process are watched, and their changes posted, signed.

A message is a CloudEvent (1.0, structured mode), signed as the Standard Webhooks specification
says. Each condition is told once when it begins to hold and once when it has ended; a condition
that flutters is one alert. Messages wait in a bounded queue and are tried again, in order. For
fleets there are deploy/prometheus/alerts.yaml and an Alertmanager; this needs neither.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import aiohttp
import msgspec
import structlog

from gatekeeper.verification.standard_webhooks import key_of, sign

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatekeeper.settings import AlertName, AlertSettings
    from gatekeeper.telemetry import Metrics

    Read = Callable[[], str | None]

_LOOK_S: Final = 1.0
_SETTLE_S: Final = 60.0
"""How long a condition must not hold before it has ended."""
_QUEUED: Final = 100
"""Messages kept while nobody takes them; then the oldest is given up."""
_ATTEMPTS: Final = 12
_FIRST_RETRY_S: Final = 1.0
_LONGEST_RETRY_S: Final = 300.0
_REQUEST_S: Final = 10.0
_SUCCESS: Final = 2


@dataclass(slots=True)
class _Watch:
    """One condition, and what was told of it."""

    read: Read
    began: float | None = None
    last_held: float = 0.0
    told: bool = False
    quiet_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Message:
    """One change of an alert, ready to be signed and sent."""

    id: str
    alert: AlertName
    body: bytes


class Alerts:
    """Watches conditions and posts their changes; start :meth:`run` as a task."""

    def __init__(
        self,
        settings: AlertSettings,
        secret: str,
        *,
        source: str,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        chance: Callable[[], float],
        metrics: Metrics,
        first_retry_s: float = _FIRST_RETRY_S,
    ) -> None:
        """``source`` names this gate in each message; ``clock`` is in Unix seconds."""
        self.waiting: deque[Message] = deque()
        self._settings = settings
        self._key = key_of(secret)
        self._source = source
        self._clock = clock
        self._new_id = new_id
        self._chance = chance
        self._metrics = metrics
        self._first_retry_s = first_retry_s
        self._watches: dict[AlertName, _Watch] = {}
        self._more = asyncio.Event()
        self._log = structlog.get_logger("gatekeeper.alerts")

    def watch(self, name: AlertName, read: Read) -> None:
        """Alert while ``read`` returns a text, which says what is the case, without secrets.

        It is called once a second on the event loop, so it must be cheap.
        """
        if name in self._watches:
            raise ValueError(f"the alert {name} is watched twice")
        if not self._settings.events or name in self._settings.events:
            self._watches[name] = _Watch(read)

    def look(self, now: float) -> None:
        """Read every condition, and queue what has begun or ended; ``now`` in Unix seconds."""
        for name, each in self._watches.items():
            text = each.read()
            if text is not None:
                each.last_held = now
                if each.began is None:
                    each.began = now
                if not each.told and now >= each.quiet_until:
                    each.told = True
                    each.quiet_until = now + self._settings.min_interval_s
                    self._queue(name, "firing", text, each.began, now)
            elif each.began is not None and now - each.last_held >= _SETTLE_S:
                began, told = each.began, each.told
                each.began, each.told = None, False
                if told:
                    self._queue(name, "resolved", "It has ended.", began, now)

    async def run(self) -> None:
        """Look once a second and send, until cancelled."""
        timeout = aiohttp.ClientTimeout(total=_REQUEST_S)
        async with (
            aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self._send_all(session))
            while True:
                try:
                    self.look(self._clock())
                except Exception as defect:  # noqa: BLE001 - no condition may end the others
                    self._metrics.count("gatekeeper_internal_errors")
                    self._log.error("defect", exc_info=defect)
                await asyncio.sleep(_LOOK_S)

    def _queue(self, name: AlertName, state: str, text: str, began: float, now: float) -> None:
        message_id = self._new_id()
        event = {
            "specversion": "1.0",
            "id": message_id,
            "source": self._source,
            "type": f"gatekeeper.alert.{state}",
            "subject": name,
            "time": _rfc3339(now),
            "datacontenttype": "application/json",
            "data": {"alert": name, "state": state, "text": text, "since": _rfc3339(began)},
        }
        if len(self.waiting) >= _QUEUED:
            self.waiting.popleft()
            self._metrics.count("gatekeeper_alert_messages", "given_up")
        self.waiting.append(Message(message_id, name, msgspec.json.encode(event)))
        self._more.set()
        self._log.warning("alert", alert=name, state=state, text=text)

    async def _send_all(self, session: aiohttp.ClientSession) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while self.waiting:
                message = self.waiting[0]
                taken = await self._send(session, message)
                if self.waiting and self.waiting[0] is message:
                    self.waiting.popleft()
                    outcome = "delivered" if taken else "given_up"
                    self._metrics.count("gatekeeper_alert_messages", outcome)

    async def _send(self, session: aiohttp.ClientSession, message: Message) -> bool:
        """Try until the receiver takes it (2xx); false when it never did."""
        pause_s = self._first_retry_s
        for attempt in range(1, _ATTEMPTS + 1):
            headers = sign([self._key], message.id, int(self._clock()), message.body)
            headers["Content-Type"] = "application/cloudevents+json; charset=utf-8"
            try:
                async with session.post(
                    self._settings.webhook_url,
                    data=message.body,
                    headers=headers,
                    allow_redirects=False,
                ) as answer:
                    if answer.status // 100 == _SUCCESS:
                        return True
                    why = str(answer.status)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                why = type(error).__name__
            # The URL is not logged: services put their secret into it.
            self._log.warning("alert_not_taken", alert=message.alert, attempt=attempt, why=why)
            self._metrics.count("gatekeeper_alert_messages", "retried")
            if attempt == _ATTEMPTS:
                break
            await asyncio.sleep(pause_s * (0.5 + self._chance() / 2))
            pause_s = min(pause_s * 2, _LONGEST_RETRY_S)
        return False


class Growth:
    """A condition that holds when a counter has grown since it was last read."""

    def __init__(self, count: Callable[[], float], text: str) -> None:
        """``text`` follows the number of new cases."""
        self._count = count
        self._text = text
        self._last = count()

    def __call__(self) -> str | None:
        """Tell how much the counter has grown since the last call."""
        now = self._count()
        grown, self._last = now - self._last, now
        return f"{grown:.0f} {self._text}" if grown > 0 else None


def _rfc3339(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds")
