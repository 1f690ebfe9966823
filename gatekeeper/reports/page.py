"""A campaign as one HTML page: no script, nothing from elsewhere, to be read, printed or sent."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from gatekeeper.reports.told import (
    KINDS,
    LIMITS,
    TAKEN,
    confidence,
    kinds_of,
    moment,
    shares,
    why,
    widest,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gatekeeper.policy.campaigns import Campaign
    from gatekeeper.reports.told import Choice

_WIDTH: Final = 720
_ROW: Final = 26
_LABEL: Final = 240
_MOST_BARS: Final = 12
_ACT: Final = (
    "Compare the pattern with your own accounts before you act: several independent things shared "
    "by accounts that are young, even in volume and active at all hours. Ask for identity rather "
    "than refuse, and let go of whoever proves it."
)
_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; width: 100%; }
td, th { text-align: left; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid #8886;
  overflow-wrap: anywhere; vertical-align: top; }
svg { width: 100%; height: auto; } svg text { font-size: 13px; fill: currentColor; }
.bar { fill: #2980b9; } .line { stroke: currentColor; } .dot { fill: #c0392b; }
@media print { body { margin: 0; max-width: none; } }
"""


def page_of(campaign: Campaign, choice: Choice, *, at: float, by: str) -> str:
    """Return the page; ``at`` is when it is made (Unix seconds), ``by`` who sends it."""
    group = campaign.group
    parts = [
        f"<h1>Campaign {escape(campaign.id)}</h1>",
        f"<p>Report of {escape(by)}, {moment(at)}. {escape(why(campaign))}</p>",
        _table(
            ("", ""),
            [
                ("State", campaign.state.value),
                ("Containment", f"{campaign.stage.value}, since {moment(campaign.staged_at)}"),
                ("First and last seen", f"{moment(group.first_seen)} to {moment(group.last_seen)}"),
                ("Found", moment(campaign.since)),
                ("Members", f"{len(campaign.contained)}; {len(campaign.left)} have left by proof"),
                ("Linked by", ", ".join(map(str, group.layers)) or "nothing any more"),
            ],
        ),
        "<h2>Timeline</h2>",
        _timeline(campaign),
        _table(
            ("when", "what", "detail", *(("by",) if choice.people else ())),
            [
                (moment(each.at), each.what, each.detail, *((each.by,) if choice.people else ()))
                for each in campaign.history
            ],
        ),
        "<h2>What the accounts share</h2>",
        _bars(
            "Members that share the most common trait of a kind",
            {
                KINDS.get(kind, kind): most / max(len(campaign.contained), 1)
                for kind, (_, most) in kinds_of(campaign).items()
            },
        ),
        _traits(campaign, choice),
        "<h2>Networks</h2>",
        _bars("Calls by kind of network", shares(group.networks)),
        "<h2>What they ask for</h2>",
        _bars("Share of calls by capability class", dict(group.capabilities)),
        _bars("Calls by model", shares(group.models)),
        "<h2>What was taken</h2>",
        _table(
            ("", "estimate"),
            [
                ("Calls", f"{group.calls:,}"),
                ("Input tokens", f"{group.input_tokens:,}"),
                ("Output tokens", f"{group.output_tokens:,}"),
            ],
        ),
        f"<p>{escape(TAKEN)}</p>",
        "<h2>Confidence, and its limits</h2>",
        _table(
            ("", ""),
            [
                ("Score", f"{group.score:.0f} of 100"),
                ("Share of false ones among groups as sure (q value)", f"{group.q_value:.2g}"),
                ("Confidence told to others", f"{confidence(campaign)} of 100"),
                *((name, f"{value:.4g}") for name, value in sorted(group.measures.items())),
            ],
        ),
        f"<ul>{''.join(f'<li>{escape(each)}</li>' for each in LIMITS)}</ul>",
        f"<h2>How to act on it</h2><p>{_ACT}</p>",
    ]
    if choice.members:
        members = [(name,) for name in sorted(campaign.contained)]
        parts += ["<h2>Members</h2>", _table(("account",), members)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>Campaign {escape(campaign.id)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _traits(campaign: Campaign, choice: Choice) -> str:
    kinds = [
        (KINDS.get(kind, kind), str(count), str(most))
        for kind, (count, most) in kinds_of(campaign).items()
    ]
    found = _table(("what", "how many", "members that share one, at the most"), kinds)
    if choice.digests:
        found += _table(
            ("layer", "kind", "keyed digest", "members", "accounts that have it in all"),
            [
                (str(each.layer), each.kind, f"{each.digest:016x}", str(each.members),
                 str(each.accounts))
                for each in widest(campaign)
            ],
        )  # fmt: skip
    return found


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = list(rows)
    if not cells:
        return ""
    top = "".join(f'<th scope="col">{escape(each)}</th>' for each in head)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in cells
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _svg(title: str, about: str, height: float, drawn: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title><desc>{escape(about)}</desc>{drawn}</svg>"
    )


def _bars(title: str, values: Mapping[str, float]) -> str:
    """Draw shares (0 to 1) as bars, with a table of the same."""
    most = dict(sorted(values.items(), key=lambda each: -each[1])[:_MOST_BARS])
    if not most:
        return ""
    room = _WIDTH - _LABEL - 70
    drawn = "".join(
        f'<text x="0" y="{place * _ROW + 17}">{escape(name[:34])}</text>'
        f'<rect class="bar" x="{_LABEL}" y="{place * _ROW + 3}" width="{room * min(value, 1):.1f}" '
        f'height="{_ROW - 8}"></rect>'
        f'<text x="{_LABEL + 6 + room * min(value, 1):.1f}" y="{place * _ROW + 17}">'
        f"{100 * value:.0f} %</text>"
        for place, (name, value) in enumerate(most.items())
    )
    rows = [(name, f"{100 * value:.1f} %") for name, value in values.items()]
    about = "; ".join(f"{name} {share}" for name, share in rows)
    return (
        f"<h3>{escape(title)}</h3>"
        + _svg(title, about, len(most) * _ROW + 4, drawn)
        + _table(("", "share"), rows)
    )


def _timeline(campaign: Campaign) -> str:
    """Draw when it was first seen, what happened to it, and when it was last seen."""
    group = campaign.group
    begin = min(group.first_seen, campaign.since)
    end = max([group.last_seen, *(each.at for each in campaign.history)])
    span = max(end - begin, 1.0)

    def across(at: float) -> float:
        return 20 + (_WIDTH - 40) * (at - begin) / span

    dots = "".join(
        f'<circle class="dot" cx="{across(each.at):.1f}" cy="30" r="5"><title>'
        f"{escape(f'{moment(each.at)} {each.what} {each.detail}')}</title></circle>"
        for each in campaign.history
    )
    drawn = (
        f'<line class="line" x1="20" x2="{_WIDTH - 20}" y1="30" y2="30"></line>{dots}'
        f'<text x="20" y="56">{moment(begin)}</text>'
        f'<text x="{_WIDTH - 20}" y="56" text-anchor="end">{moment(end)}</text>'
    )
    return _svg("Timeline", f"From {moment(begin)} to {moment(end)}", 64, drawn)
