"""A campaign whose every text is hostile, and what reads the page of a report."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

from support.campaigns import AT, LAYERS, campaign, group, trait

from gatekeeper.policy.campaigns import CampaignState, Event, Stage

if TYPE_CHECKING:
    from gatekeeper.policy.campaigns import Campaign

SCRIPT = "<script>alert(1)</script>"
ATTRIBUTE = "\"'><img src=x onerror=alert(1)>"
MARKUP = "[/bold] [red]"
TURNED = "\u202eevil\x1b[31m"
ADMIN = "ada@example.org (adm_1)"
REASON = "Mr. Doe of 1 Main Street wrote"
DIGEST = 0xABCDEF0123456
MEMBERS = ("acct-1", "acct-2", SCRIPT, ATTRIBUTE, TURNED, *(f"acct-{n}" for n in range(3, 8)))


def hostile(**changes: Any) -> Campaign:
    """Return a campaign of ten accounts that went up, and that an admin has confirmed."""
    found = group(
        sorted(MEMBERS),
        shared=(trait(DIGEST, members=9), trait(12, kind=SCRIPT, members=4), trait(13, members=3)),
        layers=LAYERS,
        score=90.0,
        models={SCRIPT: 3, ATTRIBUTE: 2, "gpt-4.1": 95},
        networks={"hosting": 80, "residential": 20},
        capabilities={"reasoning": 0.8, ATTRIBUTE: 0.1},
        measures={"gini": 0.2},
        input_tokens=1_000,
        output_tokens=2_345,
    )
    ordinary: dict[str, Any] = {
        "stage": Stage.STEP_UP,
        "state": CampaignState.CONFIRMED,
        "left": ("left-1",),
        "history": (
            Event(AT - 300, "found", "10 members, 2 layers"),
            Event(AT - 300, "stage", "observe"),
            Event(AT - 200, "stage", "observe -> step_up, score 90"),
            Event(AT - 100, "confirmed", f"{REASON} {SCRIPT}{MARKUP}{TURNED}", ADMIN),
            Event(AT - 50, "probe_passed", ATTRIBUTE),
        ),
    }
    return campaign(found, **(ordinary | changes))


class Page(HTMLParser):
    """Tags, text and tables of a page; refuses what would run or be fetched."""

    def __init__(self, html: str) -> None:
        """Read it whole."""
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        names = {name for name, _ in attrs}
        assert not names & {"src", "href", "srcset", "style", "xlink:href", "action"}
        assert not any(name.startswith("on") for name in names)
        assert tag not in {"script", "img", "link", "iframe", "object", "base", "form"}
        self.tags.append(tag)
        if tag not in {"meta", "br"}:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag without content, as SVG has them."""
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        """Hold tags to be closed in order."""
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.text += data
        if self._open and self._open[-1] in {"td", "th"}:
            self.rows[-1][-1] += data
