"""What trials measured, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekeeper.trials.measured import LoopTrial, Share

if TYPE_CHECKING:
    from gatekeeper.trials.measured import ColumnTrial


def percent(share: Share) -> str:
    """Return a share with its interval of 95 %."""
    if not share.whole:
        return "-"
    low, high = share.interval()
    return f"{100 * share.value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def rows_of(trial: LoopTrial | ColumnTrial) -> list[tuple[str, str]]:
    """Return what was measured, one row each."""
    if isinstance(trial, LoopTrial):
        rows = [
            ("accounts of the campaign found", percent(trial.recall)),
            ("hours until it is contained", _hours(trial.hours)),
            ("exchanges leaked", percent(trial.leaked)),
        ]
        for label, harm in trial.harm.items():
            if harm.throttled or harm.shaped or harm.stepped_up or harm.refused:
                told = (
                    f"{harm.stepped_up} stepped up, {harm.throttled} throttled, "
                    f"{harm.shaped} shaped, {harm.refused} refused of {harm.accounts}"
                )
                rows.append((f"honest: {label}", told))
        return rows
    rows = []
    for look in trial.looks:
        rows.append((f"found after {look.hours:.0f} h", percent(look.recall)))
        flagged = Share.sum(look.harm.values())
        rows.append((f"honest flagged after {look.hours:.0f} h", percent(flagged)))
        rows += [
            (f"  {label}", f"{share.part} of {share.whole}")
            for label, share in look.harm.items()
            if share.part
        ]
        rows += [
            (f"  by {name}", f"{percent(theirs)}, honest {percent(honest)}")
            for name, (theirs, honest) in look.baselines.items()
        ]
    return rows


def _hours(hours: float | None) -> str:
    return "never" if hours is None else f"{hours:.0f}"
