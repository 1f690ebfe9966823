"""Starts real gates for tests: rules, accounts and keys on disk, an upstream with a book."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import anthropic
import openai
from click.testing import CliRunner
from support.upstream import Upstream

from gatekeeper.app import App, system_clock
from gatekeeper.cli import main
from gatekeeper.facts.api_keys import issue_key
from gatekeeper.policy.model import Moment
from gatekeeper.settings import Admin, DecisionLog, Geoip, Listener, Ops, Settings
from gatekeeper.sources import master_secret, records_url
from gatekeeper.storage.account_files import parse_account
from gatekeeper.storage.records import Records
from gatekeeper.storage.secrets import derive

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from click.testing import Result

    from gatekeeper.demo import DemoSettings

ROOT = Path(__file__).parents[2]
PACK = ROOT / "rules"
DAY_S = 86_400.0
SOON_S = 10.0
"""How long tests wait for what must happen; nothing depends on it while all is well."""

OPEN_RULES = """\
version: 1
private: {allow: true}
embargo:
  - {id: embargo-cuba, description: Cuba., countries: [CU], on: [use], unknown: allow, source: law}
tiers:
  - {id: tier-trusted, description: T., tier: trusted, models: ["*"]}
  - {id: tier-standard, description: S., tier: standard, models: ["*"]}
  - {id: tier-elevated, description: E., tier: elevated, models: ["*"], assurance: ial1}
  - {id: tier-restricted, description: R., tier: restricted, models: ["demo-small"]}
models:
  - {model: "*", input_cents_per_million: 100, output_cents_per_million: 400,
     max_output_tokens: 1000}
"""
"""Rules that let nearly everything pass; tests add what they need."""


class Clock:
    """A clock that stands still until told."""

    def __init__(self, unix_s: float | None = None) -> None:
        self.unix_s = time.time() if unix_s is None else unix_s
        self.monotonic_us = 1_000_000

    def __call__(self) -> Moment:
        """Read it."""
        return Moment(self.unix_s, self.monotonic_us)

    def advance(self, seconds: float) -> None:
        """Move both clocks on."""
        self.unix_s += seconds
        self.monotonic_us += round(seconds * 1_000_000)


async def eventually(done: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so; raises :class:`TimeoutError` when that takes too long."""
    async with asyncio.timeout(SOON_S):
        while not await done():  # noqa: ASYNC110 - threads and other processes set no event
            await asyncio.sleep(0.005)


def rules_text(*sections: str) -> str:
    """Return :data:`OPEN_RULES` with further sections."""
    return OPEN_RULES + "".join(section.strip("\n") + "\n" for section in sections) + "...\n"


@dataclass
class RunningGate:
    """A gate under test with all around it."""

    app: App
    settings: Settings
    upstream: Upstream
    keys: dict[str, str]
    """Account to its API key."""
    exit: AsyncExitStack
    http: aiohttp.ClientSession
    folder: Path
    stopped: bool = field(default=False)

    @property
    def url(self) -> str:
        """Base URL of the first listener."""
        return f"http://127.0.0.1:{self.app.ports[0]}"

    def headers(self, account: str = "acme", **more: str) -> dict[str, str]:
        """Return the headers of a caller; underscores in names become dashes."""
        named = {name.replace("_", "-"): value for name, value in more.items()}
        return {"x-api-key": self.keys[account], **named}

    def openai(self, account: str = "acme", **options: Any) -> openai.AsyncOpenAI:
        """Return an OpenAI client of an account; it does not retry unless told."""
        chosen: dict[str, Any] = {"api_key": self.keys.get(account, account), "max_retries": 0}
        chosen |= options
        client = openai.AsyncOpenAI(base_url=f"{self.url}/v1", **chosen)
        self.exit.push_async_callback(client.close)
        return client

    def anthropic(self, account: str = "acme", **options: Any) -> anthropic.AsyncAnthropic:
        """Return an Anthropic client of an account; it does not retry unless told."""
        chosen: dict[str, Any] = {"api_key": self.keys.get(account, account), "max_retries": 0}
        chosen |= options
        client = anthropic.AsyncAnthropic(base_url=self.url, **chosen)
        self.exit.push_async_callback(client.close)
        return client

    async def metrics(self) -> str:
        """Return what the metrics endpoint says."""
        async with self.http.get(f"http://127.0.0.1:{self.app.ops_port}/metrics") as answer:
            return await answer.text()

    async def cli(self, *arguments: str, ok: bool = True) -> Result:
        """Run a command of ours with this gate's settings, beside the running gate."""
        file = self.folder / "settings.json"
        file.write_text(self.settings.model_dump_json(exclude_none=True), encoding="utf-8")
        command = [*arguments, "--settings", str(file)]
        result = await asyncio.to_thread(CliRunner().invoke, main, command)
        assert not ok or result.exit_code == 0, result.output
        return result

    async def decision(self, decision_id: str) -> dict[str, Any]:
        """Return the record of a decision, once it is written."""
        return await self._record("decision", decision_id)

    async def outcome(self, decision_id: str) -> dict[str, Any]:
        """Return how an admitted call ended, once it is written."""
        return await self._record("outcome", decision_id)

    async def _record(self, kind: str, decision_id: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        async def written() -> bool:
            found.extend(
                record
                for record in self.book()
                if (record["kind"], record["id"]) == (kind, decision_id)
            )
            return bool(found)

        await eventually(written)
        return found[0]

    def book(self) -> list[dict[str, Any]]:
        """Return every record written so far."""
        paths = sorted(self.settings.decision_log.directory.glob("*.jsonl"))
        lines = [line for path in paths for line in path.read_bytes().splitlines(keepends=True)]
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    async def stop(self) -> None:
        """Stop, so that every record is on the disk; may be called twice."""
        if not self.stopped:
            self.stopped = True
            await self.exit.aclose()


class Gates:
    """Makes gates; ``await gates(...)``."""

    def __init__(self, folder: Path, geoip: Geoip) -> None:
        self._folder = folder
        self._geoip = geoip
        self._running: list[RunningGate] = []

    async def __call__(
        self,
        *,
        rules: str | Path = PACK,
        accounts: Mapping[str, Mapping[str, object]] | None = None,
        credentials: Sequence[str] = ("api_key",),
        environ: Mapping[str, str] | None = None,
        clock: Callable[[], Moment] = system_clock,
        demo: DemoSettings | None = None,
        upstream: Mapping[str, object] | None = None,
        listener: Mapping[str, object] | None = None,
        **overrides: object,
    ) -> RunningGate:
        """Start a gate before a demo endpoint.

        ``rules`` are a directory or YAML text. Every account of ``accounts`` (default: ``acme``,
        400 days old) gets a key. ``upstream`` and ``listener`` override fields of the first of
        each, ``overrides`` those of the settings. The listener trusts forwarded headers.
        """
        folder = self._folder / f"gate{len(self._running)}"
        folder.mkdir()
        stack = AsyncExitStack()
        fronted = Upstream()
        await fronted.start(demo)
        stack.push_async_callback(fronted.stop)
        settings = Settings.model_validate(
            {
                "data_dir": folder,
                "rules_dir": _rules_dir(rules, folder),
                "listeners": [
                    Listener.model_validate(
                        {
                            "port": 0,
                            "credentials": tuple(credentials),
                            "trusted_proxies": ("127.0.0.1",),
                            **(listener or {}),
                        }
                    )
                ],
                "ops": Ops(port=0),
                "admin": Admin(port=0),
                "upstreams": [{"name": "demo", "urls": (fronted.url,), **(upstream or {})}],
                "geoip": self._geoip,
                "decision_log": DecisionLog(directory=folder / "decisions"),
                **overrides,
            }
        )
        keys = await _make_accounts(settings, accounts, environ or {}, clock)
        app = await App.start(settings, environ or {}, clock)
        await stack.enter_async_context(app)
        http = await stack.enter_async_context(
            aiohttp.ClientSession(f"http://127.0.0.1:{app.ports[0]}")
        )
        gate = RunningGate(app, settings, fronted, keys, stack, http, folder)
        self._running.append(gate)
        return gate

    async def stop(self) -> None:
        """Stop every gate that is still running."""
        for gate in reversed(self._running):
            await gate.stop()


def _rules_dir(rules: str | Path, folder: Path) -> Path:
    if isinstance(rules, Path):
        return rules
    directory = folder / "rules"
    directory.mkdir()
    (directory / "rules.yaml").write_text(rules, encoding="utf-8")
    return directory


async def _make_accounts(
    settings: Settings,
    accounts: Mapping[str, Mapping[str, object]] | None,
    environ: Mapping[str, str],
    clock: Callable[[], Moment],
) -> dict[str, str]:
    now = clock().unix_s
    subkey = derive(master_secret(settings, environ), "credentials")
    chance = iter(range(1, 1_000))
    keys: dict[str, str] = {}
    records = await Records.open(records_url(settings))
    try:
        for name, fields in (accounts or {"acme": {}}).items():
            patch = parse_account({"id": name, "created_at": now - 400 * DAY_S, **fields})
            assert not isinstance(patch, list), patch
            await records.upsert_account(patch, at=now)
            minted = await issue_key(
                records,
                subkey=subkey,
                account_id=name,
                label="",
                at=now,
                expires_at=None,
                random_bytes=lambda size: next(chance).to_bytes(size, "big"),
            )
            keys[name] = minted.text
    finally:
        await records.close()
    return keys
