"""The token estimate, held to the real vocabulary."""

from __future__ import annotations

import base64
import json
import random
import sysconfig
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.dialects.estimate import _WEIGHTS, estimate_tokens
from gatekeeper.dialects.exact_tokens import ExactTokens

exact = ExactTokens()
PROSE: dict[str, str] = json.loads(
    (Path(__file__).parents[1] / "data" / "prose.json").read_text(encoding="utf-8")
)
CHANCE = random.Random(12)
MODULES = sorted(
    path for path in Path(sysconfig.get_path("stdlib")).glob("*.py") if path.stat().st_size >= 4_096
)


def ratio(text: str | bytes) -> float:
    """Return the estimate as a multiple of the true count."""
    data = text if isinstance(text, bytes) else text.encode()
    return estimate_tokens(data) / exact(data)


@pytest.mark.parametrize("language", PROSE)
def test_prose_is_never_five_percent_below(language: str) -> None:
    """A paragraph in each of twenty-five languages is estimated at 0.95 to 1.75 times its count."""
    assert 0.95 <= ratio(PROSE[language]) <= 1.75


def test_code_is_never_five_percent_below() -> None:
    """No module of the standard library is; in all they come out at less than 1.4 times."""
    assert len(MODULES) > 100
    texts = [path.read_bytes() for path in MODULES]
    short = [path.name for path, text in zip(MODULES, texts, strict=True) if ratio(text) < 0.95]
    assert short == []
    assert sum(map(estimate_tokens, texts)) < 1.4 * sum(map(exact, texts))


@given(
    st.lists(st.sampled_from(PROSE["Chinese"].split("。")[:-1]), min_size=3, max_size=40),
    st.sampled_from(["。", "\uff0c", "\n", "。\n\n", ""]),
)
def test_chinese_in_any_order_is_never_five_percent_below(parts: list[str], between: str) -> None:
    """Sentences of Chinese, however they are joined."""
    assert ratio(between.join(parts)) >= 0.95


@given(st.binary(min_size=150, max_size=2_000), st.booleans(), st.booleans())
def test_base64_is_never_five_percent_below(data: bytes, url: bool, lines: bool) -> None:
    """Base64 of anything, in both alphabets, in one line or wrapped."""
    encode = base64.urlsafe_b64encode if url else base64.b64encode
    assert ratio(base64.encodebytes(data) if lines else encode(data)) >= 0.95


SAMPLES = {
    "random base64": base64.b64encode(CHANCE.randbytes(3_000)).decode(),
    "base64 of text": base64.b64encode(PROSE["German"].encode()).decode(),
    "hexadecimal": CHANCE.randbytes(1_000).hex(),
    "capital hexadecimal": CHANCE.randbytes(1_000).hex().upper(),
    "uuids": "\n".join(str(uuid.UUID(int=CHANCE.getrandbits(128))) for _ in range(40)),
    "numbers": " ".join(str(CHANCE.randrange(10**9)) for _ in range(200)),
    "a long number": "".join(CHANCE.choices("0123456789", k=3_000)),
    "decimals": "\n".join(f"{CHANCE.random():.3f},{CHANCE.random():.2f}" for _ in range(200)),
    "spaces": " " * 5_000,
    "blank lines": "\n" * 5_000,
    "tabs and spaces": "\t \n  \t" * 800,
    "emoji": "".join(CHANCE.choices("😀😂🤣😍🙏👍🎉🔥✨❤💯🚀🥺😭🤔", k=400)),
    "families of emoji": "👩‍👩‍👧‍👦🏳️‍🌈👍🏽" * 100,
    "rules of a table": "| --- | :---: | ===\n" * 200,
    "one letter": "a" * 5_000,
    "json in a string": json.dumps(json.dumps({"a": [1, 2, {"b": "c\n"}]} | PROSE)),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_other_text_is_never_five_percent_below(name: str) -> None:
    """What is neither prose nor code, random or monotonous, is not below either."""
    assert ratio(SAMPLES[name]) >= 0.95


@given(st.text(min_size=1))
def test_nothing_is_estimated_below_a_fifth(text: str) -> None:
    """Text of any characters, whoever chose them, costs at least a fifth of what is true."""
    assert ratio(text) >= 0.195


def test_the_fifth_holds_for_every_character() -> None:
    """It follows from the weights: no vocabulary of bytes has more tokens than bytes."""
    size = {0xC2: 2, 0xE0: 3, 0xF0: 4}
    for byte in (*range(0x80), *range(0xC2, 0xF5)):
        length = next((size[first] for first in (0xF0, 0xE0, 0xC2) if byte >= first), 1)
        assert _WEIGHTS[byte] >= 0.195 * 64 * length


def test_is_a_plain_sum_over_pieces() -> None:
    """Adding up in pieces loses nothing: a long text is the sum of its weights, once rounded."""
    assert estimate_tokens("🙂".encode() * 10_000) == -(-10_000 * 143 // 64)
    assert estimate_tokens(b"") == 0
    assert estimate_tokens(b"a") == 1
