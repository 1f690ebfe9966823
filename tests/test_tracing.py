"""Tracing: which parents are believed, and what is sampled. The spans are in e2e/."""

from __future__ import annotations

import pytest

from gatekeeper.tracing import parent_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("line", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-fe", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", True),
    ],
)
def test_a_parent_is_read(line: str, sampled: bool) -> None:
    """W3C Trace Context, 3.2: ids, and the one flag that means something; later versions too."""
    parent = parent_of((line,))
    assert parent is not None
    assert (f"{parent.trace_id:032x}", f"{parent.span_id:016x}") == (TRACE, SPAN)
    assert parent.trace_flags.sampled is sampled
    assert parent.is_remote


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("",),
        (f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01"),
        (f"00-{TRACE}-{SPAN}",),
        (f"00-{TRACE}-{SPAN}-01-more",),
        (f"ff-{TRACE}-{SPAN}-01",),
        (f"00-{TRACE.upper()}-{SPAN}-01",),
        (f"00-{'0' * 32}-{SPAN}-01",),
        (f"00-{TRACE}-{'0' * 16}-01",),
        (f"00-{TRACE}-{SPAN}-1",),
        (f" 00-{TRACE}-{SPAN}-01",),
        (f"00-{TRACE}-{SPAN}-01\n",),
        ("x" * 10_000,),
    ],
)
def test_a_malformed_parent_is_none(lines: tuple[str, ...]) -> None:
    """What is not exactly a traceparent, or is there twice, begins no trace of another's."""
    assert parent_of(lines) is None
