"""The section of the settings that says where network data comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from gatekeeper.settings.parts import Part, SecretSource

LIST_ID: Final = r"^[a-z0-9][a-z0-9-]{0,63}$"
"""Pattern of the ids of lists, feeds and owners."""
ListKind = Literal["hosting", "vpn", "relay", "tor", "residential_proxy", "mobile", "residential"]
FeedFormat = Literal[
    "prefixes",
    "asns",
    "csv",
    "tor_exits",
    "aws",
    "azure",
    "cloudflare",
    "github",
    "google",
    "oracle",
    "mmdb",
]
DATABASE_FORMAT: Final = "mmdb"
"""The one format that is a database; all others are lists."""


class Feed(Part):
    """A list or database that `gatekeeper lists update` or `gatekeeper geoip update` fetches."""

    id: Annotated[str, Field(pattern=LIST_ID)]
    """Name of the source everywhere: metrics, records, and ``network.listed_by`` for a list."""
    url: str | None = None
    """Where it is published: https, or http on this machine. ``{year}`` and ``{month}`` stand for
    today's in UTC. Without a user name; a secret goes into ``credential``."""
    file: Path | None = None
    """A file that somebody else keeps fresh, instead of ``url``."""
    format: FeedFormat
    """What is published there; ``mmdb`` may be packed as .gz or .tar.gz, all others as .gz."""
    description: Annotated[str, Field(max_length=1000)] = ""
    kind: ListKind | None = None
    """What being on the list means; a database has kinds of its own."""
    owner: Annotated[str, Field(pattern=LIST_ID)] | None = None
    """Whose networks these are; embargo rules can name owners."""
    owner_country: str | None = None
    credential: SecretSource | None = None
    """What the publisher wants to see, sent to the host of ``url`` alone."""
    credential_as: Literal["basic", "bearer", "token"] = "basic"
    """How it is sent: ``account:key`` by HTTP Basic (MaxMind), as a bearer token, or as the query
    parameter ``token`` (IPinfo)."""
    ca_file: Path | None = None
    """PEM bundle that signs the publisher's certificate, instead of the system's."""
    max_age_days: Annotated[float, Field(gt=0)] | None = None
    """A list that its source confirmed longer ago, or a database built longer ago, answers
    ``unknown``; unset, a database goes by ``geoip.max_age_days``, and a list stays in use."""


class Geoip(Part):
    """Where network data comes from."""

    databases: tuple[Path, ...] = (
        Path("geoip/country.mmdb"),
        Path("geoip/registration.mmdb"),
        Path("geoip/asn.mmdb"),
    )
    """mmdb files in any supported layout; the first that answers a view wins."""
    networks: tuple[Path, ...] = (Path("geoip/networks.yaml"),)
    """Lists of AS numbers and prefixes with kind and owner."""
    max_age_days: Annotated[float, Field(gt=0)] | None = None
    """A database built longer ago answers ``unknown``; unset, age is only reported."""
    accept_size_changes: bool = False
    """Take files of ``databases`` and ``networks`` that shrink by a third or more than double while
    the gate runs; otherwise their last good state serves on until a restart."""
    feeds: tuple[Feed, ...] = ()
    """What the update commands fetch. Databases of feeds are asked before ``databases``."""
    feeds_dir: Path = Path("var/feeds")
    """Where it is kept. Unset: ``feeds`` in ``data_dir``."""
