"""Pages for people: no inline style or script, nothing from elsewhere, nothing kept."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from html import escape
from importlib import resources
from typing import Final

from aiohttp.web import Response

STYLE_FILE: Final = "page.css"
SCRIPT_FILE: Final = "page.js"
_TYPES: Final = {STYLE_FILE: "text/css", SCRIPT_FILE: "text/javascript"}
_RELOAD_S: Final = 4
"""How often a waiting page reloads itself where no script runs."""


class Tone(StrEnum):
    """How a page looks at a glance; its heading says the same in words."""

    NEUTRAL = "neutral"
    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Button:
    """A form with one or more ways to send it; the first is the likely one."""

    labels: tuple[tuple[str, str], ...]
    """Value and label of each; a value that is empty sends nothing."""
    leads_to: str = ""
    """Origin that the answer may lead to, besides our own."""


@dataclass(frozen=True, slots=True)
class Page:
    """What one page says. All text is escaped here."""

    title: str
    text: tuple[str, ...]
    rows: tuple[tuple[str, str], ...] = ()
    button: Button | None = None
    small: str = ""
    note: str = ""
    """Stands out above everything else."""
    tone: Tone = Tone.NEUTRAL
    waiting: str = ""
    """The state that the page waits to see changed."""


def html(page: Page, *, assets: str, status: int = 200) -> Response:
    """Return ``page`` as a document; ``assets`` leads from it to style and script."""
    waiting = f' data-state="{escape(page.waiting)}"' if page.waiting else ""
    live = ' role="status"' if page.waiting else ""
    text = "".join(f"<p>{escape(each)}</p>" for each in page.text)
    rows = "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in page.rows)
    heading_class = ' class="waiting"' if page.waiting else ""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(page.title)}</title>",
        f'<link rel="stylesheet" href="{assets}{STYLE_FILE}">',
        f'<noscript><meta http-equiv="refresh" content="{_RELOAD_S}"></noscript>'
        f'<script src="{assets}{SCRIPT_FILE}" defer></script>'
        if page.waiting
        else "",
        f'</head><body><main class="{page.tone.value}"{waiting}>',
        f'<p class="note">{escape(page.note)}</p>' if page.note else "",
        f"<h1{heading_class}>{escape(page.title)}</h1>",
        f"<div{live}>{text}</div>" if text else "",
        f"<dl>{rows}</dl>" if rows else "",
        _form(page.button) if page.button is not None else "",
        f'<p class="small">{escape(page.small)}</p>' if page.small else "",
        "</main></body></html>",
    ]
    leads_to = "" if page.button is None else page.button.leads_to
    return Response(
        status=status,
        text="".join(parts),
        content_type="text/html",
        headers=_headers(leads_to, form=page.button is not None),
    )


def asset(name: str) -> Response | None:
    """Return style or script, ``None`` for any other name."""
    kind = _TYPES.get(name)
    if kind is None:
        return None
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "public, max-age=300"}
    return Response(body=_file(name), content_type=kind, charset="utf-8", headers=headers)


@cache
def _file(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()


def _form(button: Button) -> str:
    buttons = "".join(
        f'<button type="submit"{" name=result" if value else ""}'
        f"{f' value={escape(value)}' if value else ''}"
        f"{'' if number == 0 else ' class=plain'}>{escape(label)}</button>"
        for number, (value, label) in enumerate(button.labels)
    )
    return f'<form method="post">{buttons}</form>'


def _headers(leads_to: str, *, form: bool) -> dict[str, str]:
    # Browsers hold the redirect that answers a form to form-action too.
    action = f"'self' {leads_to}".strip() if form else "'none'"
    return {
        "Content-Security-Policy": (
            "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
            f"base-uri 'none'; form-action {action}; frame-ancestors 'none'"
        ),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
        "X-Robots-Tag": "noindex",
        "Cache-Control": "no-store",
    }
