"""The report as one HTML file: no script, nothing from elsewhere, every value escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from gatekeeper.reports import content
from gatekeeper.reports.charts import bars, size_steps, stage_steps, table
from gatekeeper.reports.content import Include, moment, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gatekeeper.policy.campaigns import Campaign
    from gatekeeper.reports.content import ReportOptions

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1a1a1a; --dim: #595959; --paper: #fff; --line: #c8c8c8;
  --bar: #1f5fa8; --track: #e8edf3; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececec; --dim: #b0b0b0; --paper: #16181b;
  --line: #4a4d52; --bar: #7db4f0; --track: #2a2f36; } }
@media print { :root { --ink: #000; --dim: #444; --paper: #fff; --line: #999; --bar: #333;
  --track: #eee; } section { break-inside: avoid; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.tlp { border: 2px solid; padding: .2rem .6rem; font-weight: 700; display: inline-block; }
.dim { color: var(--dim); }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; font-size: .9rem; }
caption { text-align: left; color: var(--dim); }
th, td { text-align: left; border-bottom: 1px solid var(--line); padding: .25rem .5rem .25rem 0;
  vertical-align: top; overflow-wrap: anywhere; }
th { overflow-wrap: normal; }
svg { width: 100%; height: auto; font-size: 13px; } svg text { fill: var(--ink); }
.bar { fill: var(--bar); } .track { fill: var(--track); }
.grid { stroke: var(--line); } .step { fill: none; stroke: var(--bar); stroke-width: 3; }
"""
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


def html_report(campaign: Campaign, options: ReportOptions) -> str:
    """Return the whole file."""
    title = f"Campaign {printable(campaign.id)}"
    parts = (
        _head(title, campaign, options),
        _section("Timeline", _timeline(campaign, options)),
        _section("Size", _size(campaign)),
        _section("Networks", _networks(campaign)),
        _section("Shared traits", _shared(campaign, options)),
        _section("Capability mix", _capabilities(campaign)),
        _section("Models", _models(campaign)),
        _section("Estimate of what was taken", _taken(campaign)),
        _section("Confidence and its limits", _confidence(campaign)),
        _section("What was done about it", _done(campaign)),
        _section("How to act on it", _list(content.ACTIONS)),
        _members(campaign, options),
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<meta name="robots" content="noindex">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{''.join(parts)}</main>\n</body>\n</html>\n"
    )


def _head(title: str, campaign: Campaign, options: ReportOptions) -> str:
    tlp = options.tlp
    return (
        f"<header>\n<h1>{escape(title)}</h1>\n"
        f'<p><span class="tlp">TLP:{escape(tlp.value.upper())}</span> {escape(tlp.meaning)}</p>\n'
        f'<p class="dim">From {escape(printable(options.by))}, {moment(options.made_at)}.</p>\n'
        "</header>\n"
        + _section(
            "What it is",
            _p(content.summary(campaign))
            + _p(
                "Software that links accounts by what they share found that these belong together. "
                "Many accounts that act as one are a way to extract a model's abilities while none "
                "of them is conspicuous. This report holds no text of prompts or answers."
            )
            + _p(content.STATES[campaign.state]),
        )
    )


def _timeline(campaign: Campaign, options: ReportOptions) -> str:
    group, steps = campaign.group, content.stages(campaign)
    until = max(group.last_seen, campaign.staged_at, *(at for at, _ in steps))
    told = "; ".join(f"{stage} from {moment(at)}" for at, stage in steps)
    rows = (
        (moment(row.at), row.what, row.detail, row.by)
        for row in content.timeline(campaign, options)
    )
    seen = f"First seen {moment(group.first_seen)}, last seen {moment(group.last_seen)}."
    return (
        _p(f"{seen} First proposed {moment(campaign.since)}.")
        + stage_steps("stages", "Stages of containment over time", told, steps, until)
        + table(
            "When it came to which stage", ("since", "stage"), ((moment(a), s) for a, s in steps)
        )
        + table("History", ("when", "what", "detail", "by"), rows)
    )


def _size(campaign: Campaign) -> str:
    rows = (
        ("members that the last run found", f"{len(campaign.group.members):,}"),
        ("members not found lately, still contained", f"{len(campaign.missing):,}"),
        ("left, having proven who they are", f"{len(campaign.left):,}"),
    )
    sizes = content.growth(campaign)
    until = max(campaign.group.last_seen, *(at for at, _ in sizes))
    told = "; ".join(f"{size:,} from {moment(at)}" for at, size in sizes)
    return (
        size_steps("growth", "Members over time", told, sizes, until)
        + table("How it grew", ("since", "members"), ((moment(a), f"{n:,}") for a, n in sizes))
        + table("Accounts", ("accounts", "number"), rows)
    )


def _networks(campaign: Campaign) -> str:
    return _share_of_calls("networks", "Calls by kind of network", campaign.group.networks)


def _models(campaign: Campaign) -> str:
    models = content.models(campaign)
    if not models:
        return _p("None are known.")
    rows = ((name, f"{calls:,.0f}") for name, calls in content.most(models))
    return table("Calls by model, as callers named them", ("model", "calls"), rows)


def _share_of_calls(name: str, title: str, counts: Mapping[str, int]) -> str:
    rows, whole = content.most(counts), sum(counts.values())
    if whole <= 0:
        return _p("None are known.")
    drawn = [(label, calls / whole, _percent(calls / whole)) for label, calls in rows]
    desc = "; ".join(f"{label} {told}" for label, _, told in drawn)
    told = ((label, f"{calls:,.0f}", _percent(calls / whole)) for label, calls in rows)
    return bars(name, title, desc, drawn) + table(title, ("kind", "calls", "share"), told)


def _shared(campaign: Campaign, options: ReportOptions) -> str:
    rows, members = content.shared_kinds(campaign), max(1, len(campaign.group.members))
    if not rows:
        return _p("None are known.")
    drawn = [(row.kind, row.members / members, f"{row.members:,}") for row in rows]
    title = "Members by kind of shared trait"
    desc = f"Of {members:,} members, by kind: " + "; ".join(
        f"{label} {told}" for label, _, told in drawn
    )
    told = (
        (row.kind, content.LAYERS[row.layer], f"{row.traits:,}", f"{row.members:,}",
         _percent(row.members / members))
        for row in rows
    )  # fmt: skip
    columns = ("kind", "links by", "different ones", "members with the most common", "share")
    digests = ""
    if Include.DIGESTS in options.include:
        digests = table(
            "Digests",
            ("kind", "digest", "members", "accounts in all"),
            (
                (printable(each.kind), f"{each.digest:016x}", f"{each.members:,}",
                 f"{each.accounts:,}")
                for each in campaign.group.shared
            ),
        )  # fmt: skip
    return (
        _p("At least so many members share something of each kind; a member may share several.")
        + _p(content.KEYED)
        + bars("shared", title, desc, drawn)
        + table(title, columns, told)
        + digests
    )


def _capabilities(campaign: Campaign) -> str:
    shares = content.most(campaign.group.capabilities)
    if not shares:
        return _p("No call fell into a class.")
    drawn = [(label, share, _percent(share)) for label, share in shares]
    title = "Share of calls by capability class"
    desc = "; ".join(f"{label} {told}" for label, _, told in drawn)
    return (
        _p("A call may be in several classes or in none.")
        + bars("capabilities", title, desc, drawn)
        + table(title, ("class", "share of calls"), ((label, told) for label, _, told in drawn))
    )


def _taken(campaign: Campaign) -> str:
    group = campaign.group
    rows = (
        ("calls", f"{group.calls:,}"),
        ("input tokens", f"{group.input_tokens:,}"),
        ("output tokens", f"{group.output_tokens:,}"),
    )
    counted = table("Estimate of what was taken", ("what", "number"), rows)
    return counted + _list(content.TAKEN)


def _confidence(campaign: Campaign) -> str:
    group = campaign.group
    rows = (
        ("score", f"{group.score:.0f} of 100"),
        ("q value", f"{group.q_value:.2g}"),
        ("independent layers that link it", f"{len(set(group.layers))}"),
    )
    layers = ((each, content.LAYERS[each]) for each in dict.fromkeys(group.layers))
    measures = ((printable(name), f"{value:.4g}") for name, value in sorted(group.measures.items()))
    return (
        _p(content.confidence_told(campaign))
        + table("How sure it is", ("measure", "value"), rows)
        + table("Layers", ("layer", "links by"), layers)
        + table("What the score is made of", ("measure", "value"), measures)
        + _list(content.LIMITS)
    )


def _done(campaign: Campaign) -> str:
    rows = (
        ("state", campaign.state, content.STATES[campaign.state]),
        ("stage", campaign.stage, content.STAGES[campaign.stage]),
        ("at this stage since", moment(campaign.staged_at), ""),
        *((("goes on in", printable(campaign.into), ""),) if campaign.into else ()),
    )
    lifted = "" if campaign.state.contains else _p("Nothing is done to its members now.")
    return table("Containment", ("what", "value", "meaning"), rows) + lifted


def _members(campaign: Campaign, options: ReportOptions) -> str:
    if Include.MEMBERS not in options.include:
        return ""
    rows = ((printable(each),) for each in content.members(campaign))
    return _section("Members", table("Ids of accounts", ("account",), rows))


def _section(title: str, inside: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{inside}</section>\n"


def _p(text: str) -> str:
    return f"<p>{escape(text)}</p>\n"


def _list(texts: Iterable[str]) -> str:
    return "<ul>\n" + "".join(f"<li>{escape(each)}</li>\n" for each in texts) + "</ul>\n"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
