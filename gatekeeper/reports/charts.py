"""Charts as inline SVG, each with a title, a description, and a table that says the same."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from gatekeeper.policy.campaigns import Stage
from gatekeeper.reports.content import moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WIDTH: Final = 640
_NAMES: Final = 250
_BARS: Final = 310
_ROW: Final = 26
_SHORT: Final = 30
_STEP_HEIGHT: Final = 28
_SIZES: Final = 110
_TOP: Final = 8
_LEFT: Final = 80
_RIGHT: Final = 20


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; all texts are escaped. Without rows there is none."""
    rows = list(rows)
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows
    )
    return (
        f"<table><caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}</tbody></table>\n"
    )


def bars(name: str, title: str, desc: str, rows: Sequence[tuple[str, float, str]]) -> str:
    """Draw one bar for each row: its name, its share of the whole (0 to 1), and how to tell it.

    ``name`` is an id that no other chart of the page has.
    """
    height = _ROW * len(rows) + 8
    drawn = []
    for place, (label, share, told) in enumerate(rows):
        top = _ROW * place + 4
        width = _BARS * max(0.0, min(1.0, share))
        short = label if len(label) <= _SHORT else f"{label[: _SHORT - 1]}\u2026"
        drawn.append(
            f'<text x="{_NAMES - 8}" y="{top + 15}" text-anchor="end">{escape(short)}</text>'
            f'<rect class="track" x="{_NAMES}" y="{top}" width="{_BARS}" height="18"/>'
            f'<rect class="bar" x="{_NAMES}" y="{top}" width="{width:.1f}" height="18"/>'
            f'<text x="{_NAMES + _BARS + 8}" y="{top + 15}">{escape(told)}</text>'
        )
    return _svg(name, title, desc, height, "\n".join(drawn))


def stage_steps(
    name: str, title: str, desc: str, steps: Sequence[tuple[float, Stage]], until: float
) -> str:
    """Draw which stage held when, as a line of steps from left to right."""
    order = list(Stage)
    levels = [(stage.value, (stage.rank - 0.5) / len(order)) for stage in order]
    heights = dict(zip(order, (level for _, level in levels), strict=True))
    points = [(at, heights[stage]) for at, stage in steps]
    return _steps(name, title, desc, (points, levels, until), _STEP_HEIGHT * len(order))


def size_steps(
    name: str, title: str, desc: str, sizes: Sequence[tuple[float, int]], until: float
) -> str:
    """Draw how many there were when, as a line of steps from nought to the most."""
    most = max(1, *(size for _, size in sizes))
    points = [(at, size / most) for at, size in sizes]
    return _steps(name, title, desc, (points, [("0", 0.0), (f"{most:,}", 1.0)], until), _SIZES)


def _steps(
    name: str,
    title: str,
    desc: str,
    drawn: tuple[Sequence[tuple[float, float]], Sequence[tuple[str, float]], float],
    height: int,
) -> str:
    """Draw points (when, and how high from 0 to 1), levels by name, and how long the last held."""
    points, levels, until = drawn
    first = points[0][0]
    span = max(until - first, 1.0)

    def across(at: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * max(0.0, min(1.0, (at - first) / span))

    def down(level: float) -> float:
        return _TOP + height * (1.0 - level)

    lines = [
        f'<text x="{_LEFT - 8}" y="{down(level) + 4:.1f}" text-anchor="end">{escape(label)}</text>'
        f'<line class="grid" x1="{_LEFT}" y1="{down(level):.1f}" x2="{_WIDTH - _RIGHT}" '
        f'y2="{down(level):.1f}"/>'
        for label, level in levels
    ]
    path = [f"M{across(first):.1f} {down(points[0][1]):.1f}"]
    for at, level in points[1:]:
        path.append(f"H{across(at):.1f}V{down(level):.1f}")
    path.append(f"H{across(max(until, first)):.1f}")
    bottom = _TOP + height
    lines.append(f'<path class="step" d="{"".join(path)}"/>')
    lines.append(
        f'<text x="{_LEFT}" y="{bottom + 18}">{escape(moment(first))}</text>'
        f'<text x="{_WIDTH - _RIGHT}" y="{bottom + 18}" text-anchor="end">'
        f"{escape(moment(max(until, first)))}</text>"
    )
    return _svg(name, title, desc, bottom + 26, "\n".join(lines))


def _svg(name: str, title: str, desc: str, height: int, inside: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-labelledby="{escape(name)}-title {escape(name)}-desc">\n'
        f'<title id="{escape(name)}-title">{escape(title)}</title>\n'
        f'<desc id="{escape(name)}-desc">{escape(desc)}</desc>\n{inside}\n</svg>\n'
    )
