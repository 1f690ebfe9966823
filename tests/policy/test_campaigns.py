"""Words of campaigns."""

from __future__ import annotations

from gatekeeper.policy.campaigns import CampaignState, Stage


def test_stages_are_in_order() -> None:
    """Each stage is stricter than those before it."""
    assert [stage.rank for stage in Stage] == [1, 2, 3, 4, 5, 6]
    assert max(Stage, key=lambda stage: stage.rank) is Stage.BAN


def test_only_open_campaigns_are_contained() -> None:
    """Dismissed, released and merged ones leave their members alone."""
    assert {state for state in CampaignState if state.contains} == {
        CampaignState.PROPOSED,
        CampaignState.CONFIRMED,
    }
