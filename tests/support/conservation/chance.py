"""Makes the plan of a conservation test from a seed: how often what is asked, and goes wrong."""

from __future__ import annotations

import random
from typing import Any, Final

from support.conservation.plan import (
    MID_BODY,
    MODEL,
    MOST_OUTPUT,
    SHAPED,
    UNREAD,
    WORDS,
    YIELDING,
    Chaos,
    Cut,
    Disaster,
    Family,
    Fault,
    Plan,
    Planned,
)

_FAMILIES: Final = {
    Family.CHAT: 36,
    Family.COMPLETIONS: 12,
    Family.RESPONSES: 15,
    Family.EMBEDDINGS: 5,
    Family.MODERATIONS: 3,
    Family.MODELS: 3,
    Family.MESSAGES: 20,
    Family.COUNT_TOKENS: 2,
    Family.BATCHES: 1,
    Family.IMAGES: 2,
    Family.SPEECH: 2,
    Family.TRANSCRIPTS: 2,
    Family.FILES: 3,
    Family.FILE_BATCHES: 1,
    Family.REALTIME: 2,
    Family.PLAIN: 4,
}
_FAULTS: Final = {
    Fault.NONE: 60,
    Fault.SLOW: 6,
    Fault.RESET_BEFORE_HEAD: 2,
    Fault.CLOSED_BEFORE_HEAD: 2,
    Fault.RESET_AFTER_HEAD: 2,
    Fault.RESET_MID_BODY: 4,
    Fault.TRUNCATED: 4,
    Fault.MALFORMED_CHUNK: 2,
    Fault.SILENT: 0.3,
    Fault.SERVER_ERROR: 3,
    Fault.BUSY: 2,
    Fault.BAD_REQUEST: 2,
    Fault.NO_END: 4,
    Fault.NO_USAGE: 6,
    Fault.TWICE: 4,
    Fault.ZERO: 3,
    Fault.OVERRUN: 2,
}
_CUTS: Final = {
    Cut.NONE: 66,
    Cut.MID_REQUEST: 3,
    Cut.BEFORE_HEAD: 6,
    Cut.AFTER_HEAD: 5,
    Cut.FIRST_CHUNK: 6,
    Cut.MID_BODY: 9,
    Cut.LAST_EVENT: 4,
    Cut.STALL: 0.4,
}


def make_plan(seed: int, requests: int, workers: int, disasters: int) -> Plan:
    """Return the plan of a seed. Worker 0 is left alone: its memory tells of the whole run."""
    chance = random.Random(seed)
    planned = tuple(_request(chance, number, workers) for number in range(requests))
    kinds = list(Chaos)
    happens = tuple(
        Disaster(
            at=(number + 1) * requests // (disasters + 2),
            kind=kinds[number % len(kinds)],
            worker=chance.randrange(1, workers),
            lasts_s=chance.uniform(0.2, 0.9),
        )
        for number in range(disasters)
    )
    return Plan(seed, planned, happens)


def _request(chance: random.Random, number: int, workers: int) -> Planned:
    family = _drawn(chance, _FAMILIES)
    generates = family.generates
    stream = generates and chance.random() < 0.6
    openai = family in {Family.CHAT, Family.COMPLETIONS}
    words = 4 if family is Family.SPEECH else chance.randint(3, 60)
    prompt = "".join(f" {chance.choice(WORDS)}" for _ in range(words))
    bound = chance.choice((8, 20, 40, 80))
    names_bound = family in {Family.MESSAGES, Family.BATCHES} or chance.random() < 0.8
    cut = _drawn(chance, _CUTS)
    fault = _drawn(chance, _FAULTS)
    if cut is Cut.STALL:
        fault, stream = Fault.NONE, generates
    stalls = cut is Cut.STALL and stream
    compressed = chance.random() < 0.1 and fault not in MID_BODY and not stream
    if compressed and fault is Fault.NO_END:
        fault = Fault.NONE
    most = bound if names_bound else MOST_OUTPUT
    play = {
        "seed": chance.getrandbits(32),
        "family": family.value,
        "fault": fault.value,
        "at": round(chance.random(), 4),
        "words": min(chance.randint(1, 90), most),
        "given": words + chance.randint(0, 9),
        "hidden": chance.choice((0, 0, 0, 3)),
        "cached": chance.choice((0, 0, 2)),
        "turns": chance.randint(1, 3),
        "pause_ms": chance.choice((0, 0, 1, 5, 20, 60)),
        "bulk_kb": 8_192 if stalls else 0,
        "gzip": compressed,
    }
    # Accounts come and go, so that some have plenty and some are at their end at all times.
    account = f"sk-{number // 160}-{chance.randrange(4)}"
    return Planned(
        id=f"c{number:06d}",
        account=account,
        worker=chance.randrange(workers),
        family=family,
        stream=stream,
        wants_usage=stream and openai and chance.random() < 0.4,
        model=chance.choices((MODEL, YIELDING, SHAPED), (7, 2, 1))[0] if generates else MODEL,
        choices=2 if openai and chance.random() < 0.2 else 1,
        prompt=prompt,
        prompt_words=words,
        bound=bound if names_bound else None,
        gzip=compressed,
        keeps_open=chance.random() < 0.5,
        chunked=family in UNREAD and chance.random() < 0.3,
        fault=fault,
        cut=cut if cut is not Cut.STALL or stalls else Cut.NONE,
        cut_at=chance.random(),
        play=play,
    )


def _drawn(chance: random.Random, weights: Any) -> Any:
    return chance.choices(list(weights), list(weights.values()))[0]
