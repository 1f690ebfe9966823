"""The lifecycle of an identity check: the table, held against what it is for."""

from __future__ import annotations

import pytest

from gatekeeper.policy.lifecycles import TRANSITIONS, CaseEvent, CaseState, step

S, E = CaseState, CaseEvent


@pytest.mark.parametrize(
    ("events", "end"),
    [
        ((E.OPENED, E.APPROVED), S.VERIFIED),
        ((E.OPENED, E.DECLINED), S.REJECTED),
        ((E.APPROVED,), S.VERIFIED),
        ((E.LAPSED,), S.EXPIRED),
        ((E.OPENED, E.APPROVED, E.LAPSED, E.RESTARTED), S.REQUIRED),
        ((E.DECLINED, E.RESTARTED, E.OPENED), S.PENDING),
    ],
)
def test_walks(events: tuple[CaseEvent, ...], end: CaseState) -> None:
    """The ordinary ways through a check."""
    state: CaseState | None = S.REQUIRED
    for event in events:
        assert state is not None
        state = step(state, event)
    assert state is end


@pytest.mark.parametrize("late", [E.OPENED, E.APPROVED, E.DECLINED, E.RESTARTED])
def test_h39_a_late_event_changes_no_verified_identity(late: CaseEvent) -> None:
    """Webhooks come twice and out of order: only time ends a proof."""
    assert step(S.VERIFIED, late) is None


@pytest.mark.parametrize("state", [S.REJECTED, S.EXPIRED])
def test_h39_no_approval_without_a_new_try(state: CaseState) -> None:
    """An approval that arrives after the end verifies nobody."""
    assert step(state, E.APPROVED) is None


def test_every_state_is_reached_and_left() -> None:
    """No dead end: whoever failed may try again."""
    assert {state for state, _ in TRANSITIONS} == set(CaseState)
    assert set(TRANSITIONS.values()) == set(CaseState)
