"""The arithmetic of log probabilities: rounding, and the guarantee that the noise gives."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.dialects.base import AnswerError
from gatekeeper.dialects.json_spans import applied
from gatekeeper.dialects.shaping.logprobs import CLIP_NATS, Blur, _geometric
from gatekeeper.policy.model import Shaping
from gatekeeper.policy.words import LogprobsChange

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_EPSILON = 20.0
"""The largest that rules may name."""


def rounding(decimals: int = 2) -> Blur:
    """Round to so many digits."""
    return Blur(Shaping(logprobs=LogprobsChange.ROUND, decimals=decimals), b"")


def noise(epsilon: float, decimals: int = 2, seed: bytes = b"seed") -> Blur:
    """Blur by noise."""
    shaping = Shaping(logprobs=LogprobsChange.NOISE, decimals=decimals, epsilon=epsilon)
    return Blur(shaping, seed)


@pytest.mark.parametrize(
    ("raw", "decimals", "written"),
    [
        (b"-0.6931471805599453", 2, b"-0.69"),
        (b"-1.5", 2, b"-1.50"),
        (b"-1.5", 0, b"-2.0"),
        (b"0", 1, b"0.0"),
        (b"-0", 1, b"0.0"),
        (b"-0.0004", 3, b"0.000"),
        (b"-4.3210e-3", 3, b"-0.004"),
        (b"-9999.0", 1, b"-9999.0"),
        (b"-1e400", 1, b"-9999.0"),
        (b"1e400", 1, b"9999.0"),
        (b"-1E308", 6, b"-9999.000000"),
        (b"-Infinity", 1, b"-9999.0"),
        (b"NaN", 1, b"-9999.0"),
        (b"-" + b"9" * 5000, 1, b"-9999.0"),
    ],
)
def test_rounding(raw: bytes, decimals: int, written: bytes) -> None:
    """Few digits, written in full, and never minus zero, infinity or a number of 300 digits."""
    assert rounding(decimals).number(raw, b"0", b"a") == written


@pytest.mark.parametrize("raw", [b"1.2.3", b"--1", b"e", b"0x1p-3"])
def test_what_is_no_number_is_not_passed_on(raw: bytes) -> None:
    """It is not known what it would tell."""
    for blur in (rounding(), noise(1.0)):
        with pytest.raises(AnswerError):
            blur.number(raw, b"0", b"a")


@given(
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(0, 6),
    st.sampled_from([0.01, 1.0, MOST_EPSILON]),
    st.booleans(),
)
def test_noised_numbers_lie_on_the_grid(
    value: float, decimals: int, epsilon: float, chance: bool
) -> None:
    """What comes out has the digits of the grid and no more, whatever went in (Mironov 2012)."""
    raw = json.dumps(value).encode()
    written = noise(epsilon, decimals).number(raw, b"0", b"a", chance=chance)
    whole, _, digits = written.partition(b".")
    assert len(digits) == max(1, decimals)
    assert written == f"{float(written) + 0.0:.{max(1, decimals)}f}".encode()
    low, high = (0, 1) if chance else (-CLIP_NATS, 0)
    assert low <= float(written) <= high
    assert not whole.startswith(b"-0.0")


def test_the_same_is_said_again_in_the_same_way() -> None:
    """It replays: seed, place, token and value decide alone; each of them makes a difference."""
    first = noise(20.0, 6).number(b"-5.5", b"0/1", b"a")
    assert noise(20.0, 6).number(b"-5.5", b"0/1", b"a") == first
    others = [
        noise(20.0, 6, b"other").number(b"-5.5", b"0/1", b"a"),
        noise(20.0, 6).number(b"-5.5", b"0/2", b"a"),
        noise(20.0, 6).number(b"-5.5", b"0/1", b"b"),
        noise(20.0, 6).number(b"-5.50", b"0/1", b"a"),
    ]
    assert len({first, *others}) == 5


def outcomes(epsilon: float, raw: bytes, draws: int = 20_000) -> Counter[bytes]:
    """Noise one value often, on a grid of eleven points."""
    blur = noise(epsilon, 0)
    return Counter(blur.number(raw, b"%d" % n, b"a") for n in range(draws))


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 5.0])
def test_a_value_gives_itself_away_by_no_more_than_epsilon(epsilon: float) -> None:
    """For any two values each outcome is at most e^epsilon times as likely; seeds are fixed."""
    farthest = outcomes(epsilon, b"-0.0"), outcomes(epsilon, b"-50")
    middle = outcomes(epsilon, b"-4.6")
    for one, other in (farthest, farthest[::-1], (farthest[0], middle), (middle, farthest[1])):
        for outcome, often in one.items():
            slack = 4 * math.sqrt(often)  # four standard deviations of a count
            most = math.exp(epsilon) * (other[outcome] + 4 * math.sqrt(other[outcome] + 1))
            assert often - slack <= most, outcome


def test_noise_has_the_distribution_that_it_should_have() -> None:
    """Discrete Laplace: in the middle of the grid each step is exp(-epsilon / steps) as likely."""
    epsilon, draws = 8.0, 40_000
    found = outcomes(epsilon, b"-5", draws)
    ratio = math.exp(-epsilon / CLIP_NATS)
    norm = (1 - ratio) / (1 + ratio)
    for step in range(-4, 5):
        expected = draws * norm * ratio ** abs(step)
        often = found[f"{-5 + step:.1f}".encode()]
        assert abs(often - expected) < 5 * math.sqrt(expected)


@pytest.mark.parametrize("decimals", range(7))
def test_every_outcome_is_possible_for_every_value(decimals: int) -> None:
    """The largest noise that can be drawn crosses the whole grid, also for the largest epsilon."""
    steps = CLIP_NATS * 10**decimals
    assert _geometric(b"\0" * 8, MOST_EPSILON / steps) >= 2 * steps
    assert _geometric(b"\xff" * 8, MOST_EPSILON / steps) == 0


POSITION: dict[str, Any] = {
    "token": " the",
    "logprob": -0.7,
    "bytes": [32],
    "top_logprobs": [
        {"token": " the", "logprob": -0.7, "bytes": None},
        {"token": " a", "logprob": -0.9, "bytes": [32, 97]},
        {"token": "\\x", "logprob": -1.1, "bytes": []},
        {"logprob": -1.3, "token": 'quo"te'},
    ],
}


def blurred(value: Any, blur: Blur, walk: str = "logprobs", indent: int | None = None) -> Any:
    """Blur a value of ``logprobs``, given and returned as Python reads it."""
    text = json.dumps(value, indent=indent).encode()
    edits: Callable[..., Any] = getattr(blur, walk)
    return json.loads(applied(text, edits(text, 0, len(text), b"0")))


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("seed", range(20))
def test_a_token_and_its_entry_agree(seed: int, indent: int | None) -> None:
    """The sampled token has one log probability, and the alternatives stand in their new order."""
    blur = noise(6.0, 1, b"%d" % seed)
    (position,) = blurred({"content": [POSITION]}, blur, indent=indent)["content"]
    entries = position["top_logprobs"]
    values = {entry["token"]: entry["logprob"] for entry in entries}
    assert values.keys() == {entry["token"] for entry in POSITION["top_logprobs"]}
    assert values[" the"] == position["logprob"]
    order = [(-entry["logprob"], entry["token"].encode()) for entry in entries]
    assert order == sorted(order)
    for entry in entries:
        (same,) = (each for each in POSITION["top_logprobs"] if each["token"] == entry["token"])
        assert {**entry, "logprob": 0} == {**same, "logprob": 0}


def test_rounding_keeps_the_order() -> None:
    """Nothing but digits is changed."""
    got = blurred({"content": [POSITION], "refusal": None}, rounding(0))
    assert [entry["logprob"] for entry in got["content"][0]["top_logprobs"]] == [-1, -1, -1, -1]
    assert [entry["token"] for entry in got["content"][0]["top_logprobs"]] == [
        entry["token"] for entry in POSITION["top_logprobs"]
    ]
    assert got["refusal"] is None


@pytest.mark.parametrize("seed", range(20))
def test_columns_agree(seed: int) -> None:
    """In completions the column of sampled tokens has the numbers of the alternatives."""
    value = {
        "tokens": ["a", "é", "b"],
        "token_logprobs": [None, -0.5, -2.0],
        "top_logprobs": [None, {"z": -0.1, "é": -0.5}, {"b": -2.0, "token": -2.0, "c": None}],
        "text_offset": [0, 1, 2],
        "sum": -2.5,
    }
    got = blurred(value, noise(6.0, 2, b"%d" % seed))
    assert got["token_logprobs"][0] is None
    assert got["token_logprobs"][1:] == [got["top_logprobs"][1]["é"], got["top_logprobs"][2]["b"]]
    assert got["top_logprobs"][2]["c"] is None
    assert (got["text_offset"], got["tokens"], got["sum"]) == ([0, 1, 2], value["tokens"], None)
    named = list(got["top_logprobs"][1].values())
    assert named == sorted(named, reverse=True)


def test_columns_without_tokens_are_blurred_all_the_same() -> None:
    """Lists of entries in the place of objects, and fewer tokens than numbers."""
    value = {"tokens": [1], "token_logprobs": [-0.25, -0.75], "top_logprobs": [[POSITION]]}
    got = blurred(value, rounding(1))
    assert got["token_logprobs"] == [-0.2, -0.8]
    assert got["top_logprobs"][0][0]["logprob"] == -0.7


def test_tokens_are_counted_from_event_to_event() -> None:
    """The same token with the same chance, later in a stream, has noise of its own."""
    text = json.dumps([POSITION]).encode()
    blur, replayed = noise(1.0, 6), noise(1.0, 6)
    first = blur.positions(text, 0, len(text), b"0")
    second = blur.positions(text, 0, len(text), b"0")
    assert first != second
    whole = json.dumps([POSITION, POSITION]).encode()
    at_once = json.loads(applied(whole, replayed.positions(whole, 0, len(whole), b"0")))
    assert at_once == [json.loads(applied(text, edits))[0] for edits in (first, second)]
    again = blur.positions(text, 0, len(text), b"0", again=True)
    assert again == first


def test_ranks_of_a_prompt_tell_no_order() -> None:
    """The rank that vLLM adds counts the exact order: with noise it goes."""
    value = [None, {"5": {"logprob": -2.0, "rank": 9, "decoded_token": "a"}, "6": None}]
    assert blurred(value, noise(1.0), "prompt")[1]["5"]["rank"] is None
    assert blurred(value, rounding(1), "prompt")[1]["5"]["rank"] == 9
    assert blurred(5, rounding(1), "prompt") == 5


def test_a_lone_half_of_a_pair_is_a_token() -> None:
    """Tokens may be half a character: Python's parser takes it, and so is it passed on."""
    text = rb'{"content":[{"token":"\ud83d","logprob":-1.25,"top_logprobs":[]}]}'
    got = applied(text, rounding(1).logprobs(text, 0, len(text), b"0"))
    assert got == text.replace(b"-1.25", b"-1.2")
