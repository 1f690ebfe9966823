"""Process settings: file < environment < flags, validated once, all mistakes told together."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from gatekeeper.settings.campaign_parts import TraitSettings, WatchSettings
from gatekeeper.settings.network_parts import (
    DATABASE_FORMAT,
    LIST_ID,
    Feed,
    FeedFormat,
    Geoip,
    ListKind,
)
from gatekeeper.settings.parts import (
    Admin,
    AlertName,
    AlertSettings,
    Cors,
    Credential,
    Deadlines,
    DecisionLog,
    ForwardedHeader,
    Health,
    JwtIssuer,
    Listener,
    Log,
    Ops,
    Part,
    Port,
    PositiveSeconds,
    SecretSource,
    Sizes,
    StepUp,
    Store,
    StoreTls,
    Tls,
    TracingHeader,
    TracingSettings,
    Upstream,
)

__all__ = [
    "DATABASE_FORMAT",
    "LIST_ID",
    "Admin",
    "AlertName",
    "AlertSettings",
    "Cors",
    "Credential",
    "Deadlines",
    "DecisionLog",
    "Feed",
    "FeedFormat",
    "ForwardedHeader",
    "Geoip",
    "Health",
    "JwtIssuer",
    "ListKind",
    "Listener",
    "Log",
    "Ops",
    "Port",
    "PositiveSeconds",
    "SecretSource",
    "Settings",
    "Sizes",
    "StepUp",
    "Store",
    "StoreTls",
    "Tls",
    "TracingHeader",
    "TracingSettings",
    "TraitSettings",
    "Upstream",
    "WatchSettings",
]


class Settings(Part):
    """Everything a gate needs to know to start."""

    name: str = Field(default="gatekeeper", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """Name in ``Via``; a call that already carries it is a loop. Chained gates need two names."""
    mode: Literal["enforce", "observe"] = "enforce"
    """``observe`` decides and records but refuses only embargo and bad credentials. What
    ``gatekeeper mode`` sets for all gates stands above it."""
    data_dir: Path = Path("var")
    public_url: str = ""
    """How callers reach this gate from outside; base of verification links. Empty: the address of
    the first listener."""
    secret: SecretSource | None = None
    """Keys digests, API-key hashes and links; made in ``data_dir/secret`` when absent."""
    records_url: str = ""
    """SQLAlchemy URL of the records; empty: SQLite in ``data_dir``."""
    rules_dir: Path = Path("rules")
    plain_http: Literal["meter", "refuse"] = "meter"
    """Routes of no known dialect: count requests and bytes, or refuse with 404."""
    control_routes: Literal["meter", "refuse"] = "refuse"
    """Routes that steer a model server or show what others do on it (vLLM ``/sleep``, llama.cpp
    ``/slots``), delete models, administer an organization or hand out keys that lead past the gate:
    refuse with 404, or count as plain."""
    token_count: Literal["estimate", "exact"] = "estimate"  # noqa: S105 - a word, not a secret
    """How tokens are counted before the upstream tells: by the weight of bytes, or exactly as
    ``o200k_base`` does (``pip install 'gatekeeper[exact-tokens]'``; 150 MB of memory)."""
    listeners: tuple[Listener, ...] = (Listener(),)
    ops: Ops = Ops()
    admin: Admin = Admin()
    upstreams: tuple[Upstream, ...] = ()
    jwt: tuple[JwtIssuer, ...] = ()
    geoip: Geoip = Geoip()
    decision_log: DecisionLog = DecisionLog()
    deadlines: Deadlines = Deadlines()
    sizes: Sizes = Sizes()
    cors: Cors = Cors()
    health: Health = Health()
    store: Store = Store()
    step_up: StepUp = StepUp()
    log: Log = Log()
    traits: TraitSettings = TraitSettings()
    watch: WatchSettings = WatchSettings()
    tracing: TracingSettings = TracingSettings()
    alerts: AlertSettings = AlertSettings()

    @model_validator(mode="after")
    def _logs_beside_the_data(self) -> Self:
        if "directory" not in self.decision_log.model_fields_set:
            update = {"directory": self.data_dir / "decisions"}
            # Frozen is for those who use settings; here they are still being made.
            self.__dict__["decision_log"] = self.decision_log.model_copy(update=update)
        if "feeds_dir" not in self.geoip.model_fields_set:
            update = {"feeds_dir": self.data_dir / "feeds"}
            self.__dict__["geoip"] = self.geoip.model_copy(update=update)
        return self
