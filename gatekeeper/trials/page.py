"""A page with charts of one trial: one file, no script."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from gatekeeper.simulator.scenario import RANGES
from gatekeeper.trials.measured import ColumnTrial, LoopTrial
from gatekeeper.trials.words import rows_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gatekeeper.simulator.scenario import Scenario

_WIDTH: Final = 720
_HEIGHT: Final = 200
_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { text-align: left; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid #8886; }
svg { width: 100%; height: auto; } svg text { font-size: 12px; fill: currentColor; }
.asked { fill: #8888; } .got { fill: #c0392b; } .bar { fill: #2980b9; }
"""


def page_of(scenario: Scenario, trial: LoopTrial | ColumnTrial) -> str:
    """Return the page of a trial."""
    drawn = scenario.drawn()
    parts = [
        f"<h1>Scenario {escape(scenario.name)}</h1>",
        f"<p>{escape(_about(scenario, trial))}</p>",
        _table(("what", "measured"), rows_of(trial)),
    ]
    if isinstance(trial, LoopTrial):
        parts.append(_days(trial))
    else:
        parts.append(_looks(trial))
    parts.append("<h2>Parameters</h2>")
    parts.append(_table(("name", "drawn"), [(name, f"{drawn[name]:.3g}") for name in RANGES]))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>Scenario {escape(scenario.name)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _about(scenario: Scenario, trial: LoopTrial | ColumnTrial) -> str:
    if isinstance(trial, LoopTrial):
        view, days = (
            f"Closed loop of {trial.days} days",
            f"{trial.watcher_runs} runs of the watcher",
        )
    else:
        view, days = "The detector alone", f"{len(trial.looks)} looks"
    return (
        f"{view}, {days}: {scenario.honest} honest accounts, {scenario.accounts} of adversary "
        f"{scenario.adversary.upper()} from day {scenario.first_day} on, seed {scenario.seed}, "
        f"{scenario.ranges} ranges. {trial.calls} calls in {trial.seconds:.0f} s."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(each)}</th>" for each in head)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _svg(title: str, drawn: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 40}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{drawn}</svg>"
    )


def _days(trial: LoopTrial) -> str:
    """Draw what the campaign asked for and got, day by day."""
    most = max((*trial.asked_by_day, 1))
    step = _WIDTH / max(len(trial.asked_by_day), 1)
    bars = []
    for day, (asked, got) in enumerate(zip(trial.asked_by_day, trial.admitted_by_day, strict=True)):
        for kind, count in (("asked", asked), ("got", got)):
            high = _HEIGHT * count / most
            bars.append(
                f'<rect class="{kind}" x="{day * step:.1f}" y="{_HEIGHT - high:.1f}" '
                f'width="{step * 0.8:.1f}" height="{high:.1f}"><title>day {day}: {count}</title>'
                "</rect>"
            )
        if day % 5 == 0:
            bars.append(f'<text x="{day * step:.1f}" y="{_HEIGHT + 18}">{day}</text>')
    title = "Exchanges by day: asked for (grey) and admitted (red)"
    rows = [
        (str(day), str(asked), str(got))
        for day, (asked, got) in enumerate(
            zip(trial.asked_by_day, trial.admitted_by_day, strict=True)
        )
        if asked
    ]
    return (
        f"<h2>{title}</h2>{_svg(title, ''.join(bars))}"
        f"<details><summary>As a table</summary>{_table(('day', 'asked', 'admitted'), rows)}"
        "</details>"
    )


def _looks(trial: ColumnTrial) -> str:
    """Draw the part of the campaign that is found, by hours, beside simpler ways."""
    if not trial.looks:
        return ""
    bars = [(f"{look.hours:.0f} h", look.recall.value) for look in trial.looks]
    bars += [(name, theirs.value) for name, (theirs, _) in trial.looks[-1].baselines.items()]
    row = _HEIGHT / len(bars)
    drawn = "".join(
        f'<text x="0" y="{place * row + row * 0.6:.1f}">{escape(name)}</text>'
        f'<rect class="bar" x="220" y="{place * row:.1f}" width="{value * 460:.1f}" '
        f'height="{row * 0.8:.1f}"></rect>'
        f'<text x="{226 + value * 460:.1f}" y="{place * row + row * 0.6:.1f}">{100 * value:.0f} %'
        "</text>"
        for place, (name, value) in enumerate(bars)
    )
    title = "Accounts of the campaign found, and by simpler ways at the last look"
    return f"<h2>{title}</h2>{_svg(title, drawn)}"
