"""The exact counter."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.dialects.estimate import estimate_tokens
from gatekeeper.dialects.exact_tokens import ExactTokens
from gatekeeper.settings import Settings
from gatekeeper.sources import StartError, counter_of

exact = ExactTokens()
encode = exact._encode
CODE = (Path(sysconfig.get_path("stdlib")) / "argparse.py").read_text(encoding="utf-8")


# counted once with tiktoken's o200k_base
@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("hello world", 2), ("<|endoftext|>", 7), ("tiktoken", 3)]
)
def test_counts_as_the_vocabulary_does(text: str, tokens: int) -> None:
    """Known texts have their known counts; the names of special tokens are text."""
    assert exact(text.encode()) == tokens


def test_long_text_is_parted_without_a_difference() -> None:
    """A module of 100 kB, counted in pieces, has the tokens of the whole."""
    assert len(CODE) > 90_000
    assert exact(CODE.encode()) == len(encode(CODE))


@given(st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=12))
def test_pieces_add_up_to_no_less(unit: str) -> None:
    """Whatever is repeated until it has to be parted, the parts have the tokens of the whole."""
    text = unit * (40_000 // len(unit.encode()))
    assert exact(text.encode()) >= len(encode(text)) - 2


def test_what_is_not_utf8_is_counted_too() -> None:
    """Stray bytes count as replacement characters: nothing fails, nothing is free."""
    assert exact(b"\xff\xfe" * 10) > 0


def test_the_setting_chooses_the_counter() -> None:
    """The estimate is the default; the exact count is asked for."""
    assert counter_of(Settings()) is estimate_tokens
    assert isinstance(counter_of(Settings(token_count="exact")), ExactTokens)


def test_a_missing_extra_is_told_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for exact counts without the package is told how to get it."""
    monkeypatch.setitem(sys.modules, "bpe_openai", None)
    with pytest.raises(StartError, match=r"pip install 'gatekeeper\[exact-tokens\]'"):
        counter_of(Settings(token_count="exact"))
