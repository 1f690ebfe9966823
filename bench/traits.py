"""CPU time of the traits of a call, by the length of its prompt, beside the reading of its body.

Example: python bench/traits.py

The aim is 60 microseconds for a call of 10,000 tokens. The tokens are those of the gate's estimate.
"""

from __future__ import annotations

import argparse
import json
import timeit
from typing import TYPE_CHECKING, Any

from gatekeeper.dialects import dialect_for
from gatekeeper.dialects.base import Ask, Incoming
from gatekeeper.dialects.body import read_fields
from gatekeeper.facts.traits import TraitMaker

if TYPE_CHECKING:
    from collections.abc import Callable

PATH = "/v1/chat/completions"
DAY_S = 86_400.0
HEADERS = {
    "Host": "models.example.com",
    "Accept-Encoding": "gzip, deflate",
    "Connection": "keep-alive",
    "Accept": "application/json",
    "Content-Type": "application/json",
    "User-Agent": "OpenAI/Python 2.1.0",
    "X-Stainless-Lang": "python",
    "X-Stainless-Package-Version": "2.1.0",
    "X-Stainless-OS": "Linux",
    "X-Stainless-Arch": "x64",
    "X-Stainless-Runtime": "CPython",
    "X-Stainless-Runtime-Version": "3.11.7",
    "Authorization": "Bearer gk_0",
    "X-Stainless-Retry-Count": "0",
    "X-Stainless-Read-Timeout": "600",
    "Content-Length": "1234",
}
TEXT = "Please refactor the function below, step by step, and keep its tests green. "


def body(tokens: int, turns: int) -> bytes:
    """Return a chat of about so many tokens, with eight tools."""
    each = TEXT * max(1, tokens // (16 * turns))
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": f"{n} {each}"} for n in range(turns)]
    tools = [
        {"type": "function", "function": {"name": f"tool_{n}", "parameters": {"type": "object"}}}
        for n in range(8)
    ]
    system = {"role": "system", "content": TEXT * 10}
    fields: dict[str, Any] = {"model": "m", "messages": [system, *messages], "tools": tools}
    return json.dumps({**fields, "temperature": 0.2, "max_tokens": 1000, "stream": True}).encode()


def least_us(work: Callable[[], object], rounds: int) -> float:
    """Return the least time of one turn, in microseconds: what the machine adds is left out."""
    number = 100
    return min(timeit.repeat(work, number=number, repeat=rounds)) / number * 1e6


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="of 100 turns; the least counts")
    options = parser.parse_args()
    maker = TraitMaker((b"s" * 32,), epoch_s=30 * DAY_S, overlap_s=15 * DAY_S)
    dialect = dialect_for("POST", PATH)
    print("  tokens    bytes  read us  look us  key us  key us, two epochs  traits in all")
    for tokens in (100, 1_000, 10_000, 50_000, 100_000, 200_000):
        text = body(tokens, 6)
        bare = Incoming(text, PATH)
        ask = dialect.read(Incoming(text, PATH, look=maker.look))
        if not isinstance(ask, Ask):
            raise SystemExit(ask)
        read = least_us(lambda bare=bare: dialect.read(bare), options.rounds)
        fields = read_fields(text)
        if isinstance(fields, str):
            raise SystemExit(fields)
        look = least_us(lambda fields=fields: maker.look(fields), options.rounds)
        seen = ask.evidence
        key, both = (
            least_us(lambda at=at, seen=seen: maker.traits_of(HEADERS, seen, at), options.rounds)
            for at in (20 * DAY_S, 31 * DAY_S)
        )
        print(
            f"{ask.input_tokens:8} {len(text):8} {read:8.1f} {look:8.1f} {key:7.1f} {both:19.1f}"
            f" {look + key:14.1f}"
        )


if __name__ == "__main__":
    main()
