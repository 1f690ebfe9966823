"""Searching the log from its end: everything that fits, once, in bounded pieces."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatekeeper.storage.decision_search import (
    DecisionQuery,
    Place,
    find_decision,
    search_back,
)

if TYPE_CHECKING:
    from pathlib import Path

AT = 1_790_000_000.0


def record(number: int, **more: Any) -> dict[str, Any]:
    """Return what the log keeps of a decision, as far as a search reads it."""
    at = AT + number
    return {
        "kind": "decision",
        "id": f"dec_{int(at * 1_000):012x}{number:016x}",
        "at": at,
        "verdict": "allow",
        "reason": None,
        "findings": [],
        "facts": {"account": {"id": "acme"}},
        **more,
    }


def outcome(number: int) -> dict[str, Any]:
    """Return how that call ended."""
    return {"kind": "outcome", "id": record(number)["id"], "at": AT + number + 1, "status": 200}


def write(directory: Path, number: int, *records: dict[str, Any], tail: bytes = b"") -> Path:
    """Write a file of the log."""
    path = directory / f"decisions-20260921T14132{number}-0.jsonl"
    lines = [json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in records]
    path.write_bytes(b"".join(lines) + tail)
    return path


def everything(
    directory: Path, query: DecisionQuery, *, limit: int = 3, most_bytes: int = 1_000_000
) -> list[str]:
    """Follow the pieces of a search to its end."""
    found: list[str] = []
    place: Place | None = None
    for _ in range(1_000):
        piece = search_back(directory, query, start=place, limit=limit, most_bytes=most_bytes)
        found += [each["id"] for each in piece.records]
        if piece.rest is None:
            return found
        place = piece.rest
    raise AssertionError("the search has no end")


def ids(*numbers: int) -> list[str]:
    """Return the ids of these records."""
    return [record(number)["id"] for number in numbers]


@pytest.mark.parametrize("most_bytes", [1, 200, 1_000_000])
@pytest.mark.parametrize("limit", [1, 3, 100])
def test_newest_first_over_all_files(tmp_path: Path, limit: int, most_bytes: int) -> None:
    """However small the pieces, each record comes once, and outcomes are not decisions."""
    write(tmp_path, 0, *(record(number) for number in range(4)))
    write(tmp_path, 1, record(4), outcome(3), record(5), tail=b'{"kind":"decision","id":"torn')
    found = everything(tmp_path, DecisionQuery(), limit=limit, most_bytes=most_bytes)
    assert found == ids(5, 4, 3, 2, 1, 0)


def test_filters(tmp_path: Path) -> None:
    """Account, verdict, reason, rule and time, alone and together."""
    write(
        tmp_path,
        0,
        record(0),
        record(1, facts={"account": {"id": 'quo"te'}}),
        record(2, verdict="deny", reason="request_denied", findings=[{"rule": "r1"}]),
        record(3, verdict="deny", reason="request_denied", findings=[{"rule": "r2"}]),
    )
    assert everything(tmp_path, DecisionQuery(account='quo"te')) == ids(1)
    assert everything(tmp_path, DecisionQuery(verdict="deny")) == ids(3, 2)
    assert everything(tmp_path, DecisionQuery(reason="request_denied", rule="r1")) == ids(2)
    assert everything(tmp_path, DecisionQuery(since=AT + 1, until=AT + 3)) == ids(2, 1)
    assert everything(tmp_path, DecisionQuery(account="deny")) == []


def test_a_search_of_the_last_hour_does_not_read_the_week(tmp_path: Path) -> None:
    """It ends at the first record that is clearly too old."""
    old = [record(-10_000 - number) for number in range(500)]
    write(tmp_path, 0, *reversed(old), record(0))
    piece = search_back(
        tmp_path, DecisionQuery(since=AT - 1), start=None, limit=100, most_bytes=1_000_000
    )
    assert [each["id"] for each in piece.records] == ids(0)
    assert piece.rest is None


def test_a_file_that_is_rotated_away_is_passed_over(tmp_path: Path) -> None:
    """The next piece goes on with the file before it; new files are not begun."""
    write(tmp_path, 0, record(0), record(1))
    gone = write(tmp_path, 1, record(2), record(3))
    piece = search_back(tmp_path, DecisionQuery(), start=None, limit=1, most_bytes=1_000_000)
    gone.unlink()
    write(tmp_path, 2, record(4))
    rest = search_back(tmp_path, DecisionQuery(), start=piece.rest, limit=9, most_bytes=1_000_000)
    assert [each["id"] for each in rest.records] == ids(1, 0)


def test_foreign_and_damaged_lines_do_no_harm(tmp_path: Path) -> None:
    """What is no decision of ours is no result and no error."""
    path = write(tmp_path, 0, record(0))
    with path.open("ab") as file:
        file.write(b"\n\xff\xfe\n[]\nnull\n{}\n" + b"[" * 5_000 + b"\n" + b"x" * 3_000_000 + b"\n")
        file.write(json.dumps({"kind": "decision", "at": "noon"}).encode() + b"\n")
    assert everything(tmp_path, DecisionQuery()) == ids(0)
    assert everything(tmp_path, DecisionQuery(since=AT)) == ids(0)
    assert everything(tmp_path / "missing", DecisionQuery()) == []


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(0, 70_000), max_size=8), limit=st.integers(1, 4))
def test_lines_of_any_length_are_read_whole(tmp_path: Path, lengths: list[int], limit: int) -> None:
    """Blocks end anywhere in a line, and no line is cut or lost."""
    records = [record(number, detail="x" * length) for number, length in enumerate(lengths)]
    write(tmp_path, 0, *records)
    assert everything(tmp_path, DecisionQuery(), limit=limit) == ids(*reversed(range(len(lengths))))


def test_one_decision_is_found_with_its_outcome(tmp_path: Path) -> None:
    """Its outcome may stand in a later file; a refusal has none."""
    write(tmp_path, 0, record(0), record(1))
    write(tmp_path, 1, outcome(1))
    kept = find_decision(tmp_path, record(1)["id"])
    assert kept is not None
    assert (kept.decision, kept.outcome) == (record(1), outcome(1))
    refused = find_decision(tmp_path, record(0)["id"])
    assert refused is not None
    assert refused.outcome is None
    assert find_decision(tmp_path, "dec_" + "f" * 28) is None
    assert find_decision(tmp_path, "../../etc/passwd") is None
