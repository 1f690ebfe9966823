"""Recorded traffic to replay: honest accounts and one campaign, drawn from a seed."""

from __future__ import annotations

import gzip
import json
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400
START = 1_776_816_000  # midnight, UTC

SDK = {
    "authorization": "",
    "accept": "application/json",
    "content-type": "application/json",
    "user-agent": "OpenAI/Python 1.99.1",
    "x-stainless-lang": "python",
    "x-stainless-runtime-version": "3.12.4",
}
_WORDS = ["river", "stone", "amber", "copper", "violet", "maple", "harbor", "engine", "signal"]


class Recording:
    """Accounts, and what they send; one list of calls in the order of time."""

    def __init__(self, seed: int = 5, days: int = 3) -> None:
        self.chance = random.Random(seed)
        self.days = days
        self.accounts: list[dict[str, Any]] = []
        self.calls: list[dict[str, Any]] = []

    def text(self, words: int) -> str:
        """Return words that mean nothing."""
        return " ".join(self.chance.choice(_WORDS) for _ in range(words))

    def honest(self, count: int, calls_per_day: float = 4.0) -> list[str]:
        """Add people who call from home, now and then."""
        chance = self.chance
        names = []
        for n in range(count):
            name = f"honest-{n}"
            home = self._address(73, 0, 255)
            since = START - chance.random() * 300 * DAY
            self._account(name, since, f"{self.text(1)}.{n}@mail.test",
                          f"card_{n}_own", home)  # fmt: skip
            system = None if n % 3 else f"You help with {self.text(6)} {n}."
            own = {
                "user-agent": f"OpenAI/Python 1.{chance.randrange(60, 99)}.{chance.randrange(5)}"
            }
            for day in range(self.days):
                for _ in range(int(chance.expovariate(1 / calls_per_day))):
                    at = START + day * DAY + chance.gauss(14, 4) % 24 * 3_600
                    self._call(at, home, name, system, self.text(30), SDK | own)
            names.append(name)
        return names

    def campaign(self, count: int, calls_per_day: int = 26, since: float = 0.0) -> list[str]:
        """Add one operator's accounts: a pool of addresses, one pipeline, a card for three."""
        chance = self.chance
        pool = [self._address(81, 128, 159) for _ in range(count * 8)]
        made = START + since - 2 * DAY
        names = []
        for n in range(count):
            name = f"fake-{n}"
            self._account(name, made + chance.random() * DAY, f"{self.text(1)}{n:04}@bulk.test",
                          f"card_{n // 3}_shared", chance.choice(pool))  # fmt: skip
            for day in range(self.days):
                for _ in range(calls_per_day):
                    at = START + day * DAY + chance.random() * DAY
                    if at >= START + since:
                        system = "Think step by step and grade the answer by the rubric."
                        self._call(at, chance.choice(pool), name, system, self.text(60), SDK)
            names.append(name)
        return names

    def _address(self, first: int, low: int, high: int) -> str:
        chance = self.chance
        return (
            f"{first}.{chance.randint(low, high)}.{chance.randrange(256)}.{chance.randint(1, 254)}"
        )

    def _account(self, name: str, at: float, email: str, card: str, address: str) -> None:
        self.accounts.append(
            {"id": name, "created_at": at, "email": email, "organization": None,
             "payment_fingerprint": card, "signup_address": address, "tier": "standard"}
        )  # fmt: skip

    def _call(  # noqa: PLR0917 - in the order of a record
        self, at: float, remote: str, account: str, system: str | None, text: str, headers: Any
    ) -> None:
        messages = [{"role": "user", "content": text}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        body = {"model": "gpt-4.1", "max_tokens": 800, "messages": messages}
        usage = {"input_tokens": 120, "output_tokens": self.chance.randrange(50, 700)}
        self.calls.append(
            {"at": at, "remote": remote, "method": "POST", "path": "/v1/chat/completions",
             "headers": headers, "account": account, "body": body,
             "response": {"status": 200, "usage": usage}}
        )  # fmt: skip

    def write(self, folder: Path, *, packed: bool = False) -> tuple[Path, Path]:
        """Write traffic and accounts."""
        self.calls.sort(key=lambda call: call["at"])
        traffic = folder / ("traffic.jsonl.gz" if packed else "traffic.jsonl")
        lines = "".join(json.dumps(call) + "\n" for call in self.calls).encode()
        traffic.write_bytes(gzip.compress(lines) if packed else lines)
        accounts = folder / "accounts.jsonl"
        accounts.write_text("".join(json.dumps(each) + "\n" for each in self.accounts))
        return traffic, accounts
