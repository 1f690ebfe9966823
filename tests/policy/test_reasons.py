"""The table of reasons and its document."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gatekeeper.policy.reasons import REASONS
from gatekeeper.policy.words import Reason

DOCUMENT = Path(__file__).parents[2] / "docs" / "reasons.md"


def sections() -> dict[str, str]:
    """Return the document's sections by reason code."""
    parts = re.split(r"^## `([a-z_]+)`$", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_reason_is_explained() -> None:
    """The table has a row for each reason and no other."""
    assert list(REASONS) == list(Reason)


def test_document_has_the_reasons_in_order() -> None:
    """One heading per reason, in the order of the code."""
    assert list(sections()) == [reason.value for reason in Reason]


@pytest.mark.parametrize("reason", list(Reason))
def test_document_is_in_step(reason: Reason) -> None:
    """Status, retry and the caller's sentence stand in the document as in the code."""
    row, section = REASONS[reason], sections()[reason.value]
    assert f"- Status: {row.status}\n" in section
    assert f"- SDKs try again: {'yes' if row.retryable else 'no'}\n" in section
    assert f"- The caller reads: {row.message}\n" in section
    assert re.search(r"^What happened: \S.+\.$", section, re.MULTILINE)
    assert re.search(r"^What to do: \S.+\.$", section, re.MULTILINE)


def test_h34_sentences_tell_nothing_of_the_inside() -> None:
    """No sentence names what would help to get around a rule."""
    inside = re.compile(
        r"\b(rules?|signals?|scores?|points?|campaigns?|risk|threshold|proxy|vpn|tor|hosting|"
        r"shared|redis|store|database|degraded|fraud|suspicious|embargo\w*|shadow|tier)\b",
        re.IGNORECASE,
    )
    for row in REASONS.values():
        assert inside.search(row.message) is None
        assert row.message.endswith(".")


def test_statuses_are_those_the_sdks_expect() -> None:
    """Refusals that no retry can mend are final, and server errors are worth another try."""
    for reason, row in REASONS.items():
        if row.retryable:
            assert row.status in {408, 429, 502, 503, 504}
        if row.status in {408, 502, 503, 504}:
            assert row.retryable, reason
    assert REASONS[Reason.REGION_NOT_SUPPORTED].status == 451
    assert REASONS[Reason.IDENTITY_VERIFICATION_REQUIRED].status == 403
    assert not REASONS[Reason.REQUEST_EXCEEDS_LIMIT].retryable
    assert not REASONS[Reason.LOOP_DETECTED].retryable
