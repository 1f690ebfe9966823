"""The block of feeds in docs/geoip.md can be copied as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from gatekeeper.settings import FeedFormat, Settings
from gatekeeper.settings.load import load_settings

PAGE = (Path(__file__).parents[2] / "docs" / "geoip.md").read_text(encoding="utf-8")
SECTION = PAGE.split("\n## Feeds\n")[1].split("\n## ")[0]


def test_the_example_is_settings(tmp_path: Path) -> None:
    """It loads, and shows each sort of publisher that the page promises."""
    (block,) = re.findall(r"```yaml\n(.*?)```", SECTION, re.DOTALL)
    (tmp_path / "settings.yaml").write_text(block)
    settings = load_settings(tmp_path / "settings.yaml", {}, {})
    assert isinstance(settings, Settings), settings
    feeds = settings.geoip.feeds
    assert {feed.format for feed in feeds} >= {"mmdb", "prefixes", "asns", "csv", "aws", "azure"}
    assert all(feed.kind for feed in feeds if feed.format != "mmdb")


def test_every_format_is_explained() -> None:
    """The table names each that can be set, and no other."""
    table = re.findall(r"^\| (`.+?) \|", SECTION, re.MULTILINE)
    assert {name for row in table for name in re.findall(r"`(\w+)`", row)} == set(
        get_args(FeedFormat)
    )
