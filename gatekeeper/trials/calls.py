"""Simulated accounts and calls as a gate meets them: rows of the records, heads and bodies."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Final

import numpy as np

from gatekeeper.policy.model import Usage
from gatekeeper.policy.words import Assurance
from gatekeeper.rehearsal.engine import Answered, RecordedCall
from gatekeeper.simulator.traffic import ipv4, mixed
from gatekeeper.simulator.world import Ask, Net
from gatekeeper.storage.records_schema import AccountRow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gatekeeper.simulator.traffic import Events
    from gatekeeper.simulator.world import World

_PATH: Final = "/v1/chat/completions"
_MODELS: Final = ("gpt-4.1-mini", "gpt-5-mini")
_OPENERS: Final = {
    Ask.CHAT: "Tell me about",
    Ask.CODE: "Fix the bug in this Python function: def run():",
    Ask.TOOLS: "Refactor this repository and run the unit tests:",
    Ask.REASONING: "Think step by step and show your reasoning for",
    Ask.GRADING: "Grade this answer against the rubric, from 1 to 10:",
}
_WORDS: Final = (
    "river", "stone", "amber", "copper", "violet", "maple", "harbor", "engine", "signal", "garden",
    "winter", "market", "silver", "meadow", "canvas", "lantern", "orchard", "pebble", "timber",
)  # fmt: skip
_BY_BYTE: Final = tuple(_WORDS[byte % len(_WORDS)] for byte in range(256))
_TOOL: Final = (
    '{"type":"function","function":{"name":"%s","description":"%s","parameters":'
    '{"type":"object","properties":{"path":{"type":"string"}}}}}'
)
_REMEMBERED: Final = 100_000


def text_of(seed: int, words: int) -> str:
    """Return words that mean nothing, the same for the same seed."""
    drawn = hashlib.shake_128(seed.to_bytes(8, signed=True)).digest(words)
    return " ".join(map(_BY_BYTE.__getitem__, drawn))


@lru_cache(_REMEMBERED)
def _system(number: int) -> str:
    text = f"You are a service that works on {text_of(number, 24)}."
    return json.dumps({"role": "system", "content": text}) + ","


@lru_cache(_REMEMBERED)
def _tools(number: int) -> str:
    tools = (_TOOL % (f"tool_{number}_{n}", text_of(number + n, 8)) for n in range(2))
    return f',"tools":[{",".join(tools)}]'


@lru_cache(_REMEMBERED)
def _headers(client: int) -> dict[str, str]:
    return {
        "Host": "api.example",
        "Accept": "application/json",
        "Content-Type": "application/json",
        "User-Agent": f"OpenAI/Python 1.{60 + client}.{client % 7}",
        "X-Stainless-Lang": "python",
        "X-Stainless-Runtime-Version": f"3.{9 + client % 5}.{client % 11}",
    }


def calls_of(world: World, events: Events) -> Iterator[tuple[int, RecordedCall]]:
    """Yield the calls of some events with the index of who makes each."""
    columns = (
        events.at, events.who, events.address, events.system, events.tools, events.opening,
        events.task, events.shape, events.ask, events.model, events.input_tokens,
        events.output_tokens, world.client[events.who],
    )  # fmt: skip
    for row in zip(*(column.tolist() for column in columns), strict=True):
        at, who, address, system, tools, opening, task, shape, ask, model, told, said, client = row
        body = _body(system, tools, opening, task, shape, ask, _MODELS[model])
        usage = Usage(told, said)
        yield who, RecordedCall(
            at, str(IPv4Address(address)), "POST", _PATH, _headers(client), body, world.names[who],
            Answered(200, usage),
        )  # fmt: skip


def _body(  # noqa: PLR0917 - in the order of an event
    system: int, tools: int, opening: int, task: int, shape: int, ask: int, model: str
) -> bytes:
    """Return a chat completion; bits of the shape say how long it is and what it sets."""
    words = 12 + (shape >> 40 & 7) * 12
    begin = f"{_OPENERS[Ask(ask)]} {text_of(opening, 6) if not system else ''}"
    told = f'{{"role":"user","content":"{begin} {text_of(task, words)}"}}'
    if shape >> 43 & 1:
        told = (
            f'{{"role":"user","content":"{begin}"}},{{"role":"assistant","content":"Yes."}},{told}'
        )
    most, warm = 256 << (shape >> 44 & 3), (shape >> 46 & 7) / 8
    return (
        f'{{"model":"{model}","max_tokens":{most},"temperature":{warm},'
        f'"messages":[{_system(system) if system else ""}{told}]{_tools(tools) if tools else ""}}}'
    ).encode()


def rows_of(world: World) -> list[AccountRow]:
    """Return the accounts as the records have them; those that wait to replace others are not."""
    place = np.where(world.signup >= 0, world.signup * 256 + 7, mixed(world.signup, 8) % 2**24)
    net = np.where(world.signup >= 0, Net.RESIDENTIAL, Net.BUSINESS)
    addresses = ipv4(net, place).tolist()
    waiting = set(world.spare.tolist())
    return [row_of(world, who, addresses[who]) for who in range(world.size) if who not in waiting]


def row_of(world: World, who: int, signup: int | None = None) -> AccountRow:
    """Return one account."""
    mail, organization = int(world.mail[who]), int(world.organization[who])
    return AccountRow(
        world.names[who],
        organization=f"org-{organization}" if organization > 0 else None,
        assurance=Assurance.IAL1 if world.verified[who] else Assurance.NONE,
        created_at=float(world.created[who]),
        email_domain=f"mail{mail}.example",
        email_pattern="a" * (4 + mail % 9) + "9" * (mail % 4),
        payment_fingerprint=f"card_{int(world.card[who])}",
        signup_address=None if signup is None else str(IPv4Address(signup)),
    )
