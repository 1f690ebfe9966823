"""CPU time of one chunk of a chat stream that is shaped, beside one that is only read along.

Example: python bench/shaping.py
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from gatekeeper.dialects.answer import AnswerReader
from gatekeeper.dialects.base import UNCHANGED, AnswerPlan, Ask
from gatekeeper.dialects.family import Family
from gatekeeper.dialects.shaping.chat import ChatShaper
from gatekeeper.dialects.usage import text_pattern
from gatekeeper.policy.model import Shaping
from gatekeeper.policy.words import LogprobsChange

if TYPE_CHECKING:
    from collections.abc import Callable

FAMILY = Family(text_pattern("content", "reasoning_content"), frozenset(), shaper=ChatShaper)
PLANS = {
    "not shaped": UNCHANGED,
    "remove": AnswerPlan(shaping=Shaping(logprobs=LogprobsChange.REMOVE)),
    "round": AnswerPlan(shaping=Shaping(logprobs=LogprobsChange.ROUND, decimals=1)),
    "noise": AnswerPlan(
        shaping=Shaping(logprobs=LogprobsChange.NOISE, decimals=1, epsilon=8.0), seed=b"seed"
    ),
    "drop reasoning": AnswerPlan(shaping=Shaping(drop_reasoning=True)),
}


def chunk(alternatives: int | None, *, reasoning: bool = False) -> bytes:
    """Return one chunk, as OpenAI writes it; ``None``: without log probabilities."""
    entry: dict[str, Any] = {"token": " the", "logprob": -0.31326168, "bytes": [32, 116, 104, 101]}
    top = [{**entry, "logprob": -0.31326168 - n} for n in range(alternatives or 0)]
    logprobs = {"content": [{**entry, "top_logprobs": top}], "refusal": None}
    choice = {
        "index": 0,
        "delta": {"reasoning_content" if reasoning else "content": " the"},
        "logprobs": None if alternatives is None else logprobs,
        "finish_reason": None,
    }
    named = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-4.1"}
    return b"data: %b\n\n" % json.dumps({**named, "choices": [choice]}).encode()


def best_us(work: Callable[[], object], times: int, rounds: int = 5) -> float:
    """Return the CPU time of one call in microseconds, of the fastest round."""
    found = []
    for _ in range(rounds):
        before = time.process_time()
        for _ in range(times):
            work()
        found.append((time.process_time() - before) / times * 1e6)
    return min(found)


def reader(plan: AnswerPlan, kind: str = "text/event-stream") -> AnswerReader:
    """Return a reader of one answer."""
    return AnswerReader(FAMILY, Ask(max_output_tokens=10**6), {"content-type": kind}, plan)


def main() -> None:
    """Print a table of chunks, and of a whole answer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--times", type=int, default=400, help="chunks a round")
    times = parser.parse_args().times
    chunks = {
        "plain text": chunk(None),
        "1 token, no alternatives": chunk(0),
        "1 token, 5 alternatives": chunk(5),
        "1 token, 20 alternatives": chunk(20),
        "reasoning": chunk(None, reasoning=True),
    }
    print(f"{'us a chunk':>26}" + "".join(f"{name:>16}" for name in PLANS))
    for name, said in chunks.items():
        costs = [best_us(partial(reader(plan).feed, said), times) for plan in PLANS.values()]
        print(f"{name:>26}" + "".join(f"{cost:16.1f}" for cost in costs))
    content = json.loads(chunk(20)[6:])["choices"][0]["logprobs"]["content"] * 500
    document = json.dumps({"choices": [{"index": 0, "logprobs": {"content": content}}]}).encode()
    costs = [best_us(partial(whole, plan, document), 1) for plan in PLANS.values()]
    each = (cost / len(document) * 1e3 for cost in costs)  # us a byte is s a MB
    print(f"{'whole answer, ms a MB':>26}" + "".join(f"{cost:16.1f}" for cost in each))


def whole(plan: AnswerPlan, document: bytes) -> None:
    """Read an answer in one piece."""
    reading = reader(plan, "application/json")
    reading.feed(document)
    reading.end()


if __name__ == "__main__":
    main()
