"""The demo behind ``gatekeeper serve --demo``: an endpoint, a few accounts, and what to try."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from aiohttp import web

from gatekeeper.demo import build_demo_app
from gatekeeper.facts.api_keys import issue_key
from gatekeeper.policy.words import Assurance, Tier
from gatekeeper.sandbox_vendor import Sandbox, SandboxSettings
from gatekeeper.settings import SecretSource
from gatekeeper.sources import master_secret, records_url
from gatekeeper.storage.records import Records
from gatekeeper.storage.records_schema import AccountPatch
from gatekeeper.storage.secrets import derive
from gatekeeper.verification.pages import WEBHOOKS

if TYPE_CHECKING:
    from gatekeeper.settings import Settings
    from gatekeeper.storage.records_schema import FieldValue

_DAY_S: Final = 86_400.0
_ACCOUNTS: Final = {
    "demo": (Tier.STANDARD, Assurance.NONE),
    "demo-watched": (Tier.ELEVATED, Assurance.NONE),
    "demo-restricted": (Tier.RESTRICTED, Assurance.IAL1),
}
"""Accounts of the tour: tier, and how well their identity is proven."""
_AGE_S: Final = 400 * _DAY_S
"""Old enough for no rule about new accounts to apply."""
_LABEL: Final = "tour"
_MOST_TRIES: Final = 1_000
"""For whoever wants to see it again and again."""
_SECRETS: Final = ("GATEKEEPER_TOUR_VENDOR_KEY", "GATEKEEPER_TOUR_WEBHOOK_SECRET")
"""Variables that exist in this process alone."""


class Tour:
    """Starts the demo endpoint and a sandbox vendor, makes accounts, prints commands to try."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._vendor_socket = socket.create_server(("127.0.0.1", 0))
        self._runners: list[web.AppRunner] = []
        self._keys: dict[str, str] = {}
        secrets_of_today = (secrets.token_urlsafe(32), secrets.token_urlsafe(32))
        self._secrets = dict(zip(_SECRETS, secrets_of_today, strict=True))
        vendor_url = f"http://127.0.0.1:{self._vendor_socket.getsockname()[1]}"
        api_key, webhook_secret = secrets_of_today
        self._vendor = Sandbox(SandboxSettings(api_key, (webhook_secret,), public_url=vendor_url))

    @property
    def endpoint_url(self) -> str:
        """Where the demo endpoint listens."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def prepared(self, settings: Settings) -> Settings:
        """Trust forwarded headers from this machine, and let links lead to the chosen port."""
        first, *rest = settings.listeners
        open_first = first.model_copy(update={"trusted_proxies": ("127.0.0.1", "::1")})
        update: dict[str, object] = {"listeners": (open_first, *rest)}
        if settings.step_up.vendor == "none":
            key, webhook_secret = (SecretSource(env=name) for name in _SECRETS)
            sandbox = {
                "vendor": "sandbox",
                "vendor_url": self._vendor.settings.public_url,
                "vendor_key": key,
                "webhook_secrets": (webhook_secret,),
                "max_attempts": _MOST_TRIES,
            }
            update["step_up"] = settings.step_up.model_copy(update=sandbox)
        return settings.model_copy(update=update)

    def environ(self) -> dict[str, str]:
        """Return the environment with the secrets that gate and sandbox share until it ends."""
        return {**os.environ, **self._secrets}

    async def start(self, settings: Settings) -> None:
        """Start the endpoint and make accounts with fresh keys; the last run's are revoked."""
        served = ((build_demo_app(), self._socket), (self._vendor.app(), self._vendor_socket))
        for served_app, listening in served:
            runner = web.AppRunner(served_app, access_log=None)
            self._runners.append(runner)
            await runner.setup()
            await web.SockSite(runner, listening).start()
        subkey = derive(master_secret(settings, os.environ), "credentials")
        now = time.time()
        records = await Records.open(records_url(settings))
        try:
            for account_id, (tier, assurance) in _ACCOUNTS.items():
                for old in await records.keys(account_id=account_id):
                    if old.label == _LABEL and old.revoked_at is None:
                        await records.revoke_key(old.key_id, at=now)
                fields: dict[str, FieldValue] = {
                    "tier": tier,
                    "assurance": assurance,
                    "created_at": now - _AGE_S,
                }
                await records.upsert_account(AccountPatch(account_id, fields), at=now)
                minted = await issue_key(
                    records,
                    subkey=subkey,
                    account_id=account_id,
                    label=_LABEL,
                    at=now,
                    expires_at=None,
                    random_bytes=os.urandom,
                )
                self._keys[account_id] = minted.text
        finally:
            await records.close()

    async def stop(self) -> None:
        """Stop the endpoint and the vendor."""
        for runner in self._runners:
            await runner.cleanup()

    def tell(self, port: int) -> None:
        """Print the commands, one line each; the gate listens on ``port``."""
        self._vendor.reports_to(f"http://127.0.0.1:{port}{WEBHOOKS}sandbox")
        key, watched, restricted = (self._keys[name] for name in _ACCOUNTS)
        burst = _call(port, restricted, model="gpt-4.1-mini", flags=_STATUS_ONLY)
        for title, command in (
            ("an allowed call, from an ordinary address", _call(port, key)),
            ("an address of an embargoed region: 451", _call(port, key, address="175.45.176.1")),
            (
                "a burst on a restricted account: five calls go through, then 429",
                f"for i in 1 2 3 4 5 6 7; do {burst}; done",
            ),
            (
                _STEP_UP,
                _call(port, watched, model="gpt-5"),
            ),
            ("streamed", _call(port, key, flags="-sN", more=',"stream":true')),
            (
                "why it was so: take the id from a Gatekeeper-Decision header",
                f"{_own_name()} explain ID",
            ),
        ):
            click.echo(f"\n# {title}\n{command}")
        click.echo()


_STEP_UP: Final = (
    "step-up: an account under observation asks for a frontier model: 403 with a link; "
    "open it in a browser, pass, and call again: 200"
)
_STATUS_ONLY: Final = "-so /dev/null -w '%{http_code}\\n'"


def _own_name() -> str:
    """Return how this command was called, so that it can be called again as it is printed."""
    called = Path(sys.argv[0])
    if called.name != "gatekeeper" or shutil.which("gatekeeper") == str(called.absolute()):
        return "gatekeeper"
    return os.path.relpath(called)


def _call(
    port: int,
    key: str,
    *,
    address: str = "8.8.4.4",
    model: str = "demo-small",
    flags: str = "-si",
    more: str = "",
) -> str:
    message = '{"role":"user","content":"Hello"}'
    body = f'{{"model":"{model}","max_tokens":50,"messages":[{message}]{more}}}'
    return (
        f"curl {flags} http://127.0.0.1:{port}/v1/chat/completions"
        f" -H 'content-type: application/json' -H 'x-api-key: {key}'"
        f" -H 'x-forwarded-for: {address}' -d '{body}'"
    )
