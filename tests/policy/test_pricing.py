"""What a call costs: the first pattern that matches, worked out once per name."""

from __future__ import annotations

import pytest
from support.builders import default_pack, rules

from gatekeeper.policy.model import Usage, UsageParts
from gatekeeper.policy.pricing import PriceBook

MODELS = """
models:
  - {model: "big-mini*", input_cents_per_million: 10, output_cents_per_million: 20,
     max_output_tokens: 100}
  - {model: "big*", input_cents_per_million: 200, output_cents_per_million: 800.5,
     max_output_tokens: 1000}
  - {model: "*", input_cents_per_million: 5000, output_cents_per_million: 9000,
     max_output_tokens: 4096}
"""

PARTS = """
models:
  - {model: "*", input_cents_per_million: 100, output_cents_per_million: 900,
     max_output_tokens: 4096, cached_input_cents_per_million: 10,
     cache_write_cents_per_million: 125, cache_write_1h_cents_per_million: 200,
     audio_input_cents_per_million: 7200,
     audio_output_cents_per_million: 7900, image_input_cents_per_million: 300,
     image_output_cents_per_million: 2900, image_cents: 4, audio_cents_per_minute: 0.6,
     characters_cents_per_million: 1.5}
"""


@pytest.fixture
def book() -> PriceBook:
    """Return a fresh book of three rows."""
    return PriceBook(rules(models=MODELS))


@pytest.mark.parametrize(
    ("model", "pattern"),
    [
        ("big-mini-2", "big-mini*"),
        ("big-2", "big*"),
        ("maker/big-2", "big*"),
        ("router/maker/big-mini", "big-mini*"),
        ("maker/", "*"),
        ("BIG-2", "*"),
        ("", "*"),
        ("x" * 10_000, "*"),
        ("big\n", "big*"),
        (None, "*"),
    ],
)
def test_first_pattern_counts(book: PriceBook, model: str | None, pattern: str) -> None:
    """Case counts, and what no row names costs what the last one says; asked twice, the same."""
    assert book.row(model).model == pattern
    assert book.row(model).model == pattern


@pytest.mark.parametrize(
    ("model", "input_tokens", "output_tokens", "cents"),
    [
        ("big", 0, 0, 0.0),
        ("big", 1_000_000, 0, 200.0),
        ("big", 0, 1_000_000, 800.5),
        ("big-mini", 500, 1000, 0.025),
        (None, 1, 1, 0.014),
    ],
)
def test_cents(
    book: PriceBook, model: str | None, input_tokens: int, output_tokens: int, cents: float
) -> None:
    """Input and output have their own price per million."""
    assert book.cents(model, Usage(input_tokens, output_tokens)) == pytest.approx(cents)


@pytest.mark.parametrize(
    ("parts", "cents"),
    [
        (UsageParts(), 1_000.0),
        (UsageParts(cached_input_tokens=500_000), 955.0),
        (UsageParts(cache_write_tokens=1_000_000), 1_025.0),
        (UsageParts(cache_write_1h_tokens=500_000), 1_050.0),
        (UsageParts(audio_input_tokens=100_000, audio_output_tokens=100_000), 2_410.0),
        (UsageParts(image_input_tokens=1_000_000, image_output_tokens=1_000_000), 3_200.0),
        (UsageParts(reasoning_tokens=1_000_000), 1_000.0),
        (UsageParts(images=3), 1_012.0),
        (UsageParts(audio_s=90.0, characters=2_000_000), 1_003.9),
        (UsageParts(cached_input_tokens=10**9), 0.0),
    ],
)
def test_parts_have_their_own_price(parts: UsageParts, cents: float) -> None:
    """What a row prices apart costs that; what it does not costs as its whole; never below 0."""
    book = PriceBook(rules(models=PARTS))
    found = book.cents("m", Usage(1_000_000, 1_000_000, parts=parts))
    assert found == pytest.approx(cents)


def test_what_is_not_billed_by_tokens_costs_without_any() -> None:
    """Images, minutes and characters are paid for when no token is reported."""
    book = PriceBook(rules(models=PARTS))
    assert book.cents("m", Usage(parts=UsageParts(images=1))) == pytest.approx(4.0)


def test_names_that_callers_choose_do_not_fill_memory(book: PriceBook) -> None:
    """A thousand names are remembered, and none that is long; the others cost the same."""
    for n in range(1_200):
        assert book.row(f"made-up-{n}").model == "*"
    book.row("big" + "x" * 1_000)
    assert len(book._found) == 1_000
    assert max(map(len, book._found)) < 128
    assert book.row("big-mini").model == "big-mini*"


def test_default_pack_prices_what_it_does_not_know() -> None:
    """A model without a price of its own is not free."""
    assert PriceBook(default_pack()).cents("who-knows", Usage(1_000_000, 1_000_000)) > 0
