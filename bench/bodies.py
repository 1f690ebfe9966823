"""Time how request bodies are read: CPU time, the longest single step, copies in memory.

Run with ``python -m bench.bodies`` or ``python bench/bodies.py`` from the root. Small bodies are
read on the event loop, large ones in a thread; of those it is the longest step that the loop waits
for, as the interpreter changes threads between two.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import sys
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

# the root rather than this folder, whose file names would hide packages such as limits
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from gatekeeper.dialects.base import Ask, Incoming  # noqa: E402 - as above
from gatekeeper.dialects.estimate import estimate_tokens  # noqa: E402 - as above
from gatekeeper.dialects.exact_tokens import ExactTokens  # noqa: E402 - as above
from gatekeeper.dialects.openai_chat import OpenAIChat  # noqa: E402 - as above
from gatekeeper.listener.intake import ON_LOOP_BYTES  # noqa: E402 - as above

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

MB = 1_000_000
CHAT = OpenAIChat()


def chat(*contents: Any) -> bytes:
    """Return a chat call with these contents."""
    messages = [{"role": "user", "content": content} for content in contents]
    return json.dumps({"model": "m", "max_tokens": 5, "messages": messages}).encode()


def bodies() -> dict[str, bytes]:
    """Return what is read."""
    prose = "The harbour was quiet when the last boat came in, and nobody could say why. " * 130_000
    code = "\n".join(path.read_text() for path in sorted(Path("gatekeeper").rglob("*.py")))
    code = (code * (10 * MB // len(code) + 1))[: 9 * MB]
    image = base64.b64encode(random.Random(1).randbytes(7_500_000)).decode()
    url = {"url": f"data:image/png;base64,{image}"}
    return {
        "short question": chat("What is the capital of France?"),
        "64 KiB of code": chat(code[:58_000]),
        "100,000 tokens of prose": chat(prose[:430_000]),
        "10 MB of prose": chat(prose),
        "10 MB of code": chat(code),
        "10 MB of image": chat([{"type": "image_url", "image_url": url}]),
        "5,000 messages": chat(*[prose[:1_000]] * 5_000),
    }


class Steps:
    """Times calls into C, during which no other thread runs: the event loop waits for the longest.

    In CPU time, as on a busy machine the clock on the wall shows what others do.
    """

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.name = ""
        self._began = 0.0

    def __call__(self, _frame: FrameType, event: str, argument: Any) -> None:
        """Take an event of the profiler."""
        if event == "c_call":
            self._began = time.thread_time()
        elif event == "c_return":
            took_s = time.thread_time() - self._began
            if took_s > self.longest_s:
                self.longest_s, self.name = took_s, argument.__name__


def measure(name: str, body: bytes, count: Callable[[bytes], int], rounds: int) -> None:
    """Print one line; of all rounds the best counts, as others disturb and nothing helps."""
    incoming = Incoming(body, count=count)
    found: list[tuple[float, float, str]] = []
    for _ in range(rounds):
        began = time.process_time()
        ask = CHAT.read(incoming)
        cpu_s = time.process_time() - began
        steps = Steps()
        sys.setprofile(steps)
        CHAT.read(incoming)
        sys.setprofile(None)
        found.append((cpu_s, steps.longest_s, steps.name))
    cpu_s = min(each[0] for each in found)
    _, step_s, step = min(found, key=lambda each: each[1])
    tracemalloc.start()
    CHAT.read(incoming)
    copies = tracemalloc.get_traced_memory()[1] / len(body)
    tracemalloc.stop()
    tokens = ask.input_tokens if isinstance(ask, Ask) else 0
    where = "in a thread" if len(body) > ON_LOOP_BYTES else "on the loop"
    print(
        f"  {name:24} {len(body) / MB:7.3f} MB {tokens:9,} tokens {cpu_s * 1e3:8.2f} ms {where},"
        f" longest step {step_s * 1e3:5.2f} ms ({step}), {copies:4.1f} copies"
    )


def main() -> None:
    """Measure both counters."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    for title, count in (("estimate", estimate_tokens), ("exact", ExactTokens())):
        print(f"token_count: {title}")
        for name, body in bodies().items():
            measure(name, body, count, rounds)


if __name__ == "__main__":
    main()
