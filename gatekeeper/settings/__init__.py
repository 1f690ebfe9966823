"""Process settings: file < environment < flags, validated once, all mistakes told together."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gatekeeper.policy.words import OnFailure


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class ForwardedHeader(StrEnum):
    """Which header of a trusted proxy names the client."""

    X_FORWARDED_FOR = "x_forwarded_for"
    FORWARDED = "forwarded"
    NONE = "none"


Port = Annotated[int, Field(ge=0, le=65535)]
PositiveSeconds = Annotated[float, Field(gt=0, le=86_400)]
Credential = Literal["api_key", "jwt", "opaque"]


class Tls(_Part):
    """Certificate and key of a listener, PEM files."""

    certificate: Path
    key: Path


class Listener(_Part):
    """One address that callers reach."""

    host: str = "127.0.0.1"
    port: Port = 8080
    tls: Tls | None = None
    credentials: tuple[Credential, ...] = ("api_key",)
    """Modes in which callers may identify themselves, freely combined. ``opaque`` (keys of the
    upstream's own, which it alone checks) is refused beside an upstream's ``credential``."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or prefixes of proxies whose forwarded header (or PROXY header) is believed."""
    forwarded_header: ForwardedHeader = ForwardedHeader.X_FORWARDED_FOR
    """Read only from trusted proxies."""
    proxy_protocol: bool = False
    """Expect a PROXY protocol v1 or v2 header on each connection from a trusted proxy."""


class SecretSource(_Part):
    """Where a secret comes from: an environment variable or a file, never the settings file."""

    env: str | None = None
    file: Path | None = None


class Upstream(_Part):
    """A model endpoint, or several equal ones."""

    name: str
    urls: tuple[str, ...]
    """Base URLs; a path that they carry is put before the caller's."""
    models: tuple[str, ...] = ("*",)
    """Shell-style patterns of model names served here."""
    paths: tuple[str, ...] = ("/",)
    """Path prefixes served here; the first upstream whose path and model match is used."""
    credential: SecretSource | None = None
    """Swapped in for the caller's own; without it the caller's credential is passed through."""
    credential_header: Literal["authorization", "x-api-key", "api-key"] = "authorization"
    ca_file: Path | None = None
    """PEM bundle that signs the upstream's certificate, instead of the system's."""


class JwtIssuer(_Part):
    """One identity provider whose bearer tokens are accepted (RFC 7519, RFC 8725)."""

    issuer: str
    audience: str
    jwks_url: str | None = None
    jwks_file: Path | None = None
    algorithms: tuple[
        Literal["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA"], ...
    ] = ("RS256", "ES256", "EdDSA")
    account_claim: str = "sub"
    organization_claim: str | None = None
    tier_claim: str | None = None
    leeway_s: Annotated[float, Field(ge=0, le=300)] = 30
    refresh_s: PositiveSeconds = 300


class Geoip(_Part):
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


class DecisionLog(_Part):
    """Where decisions are written, as JSON lines."""

    directory: Path = Path("var/decisions")
    """Unset: ``decisions`` in ``data_dir``."""
    max_file_bytes: Annotated[int, Field(ge=4096)] = 100_000_000
    keep_files: Annotated[int, Field(ge=1)] = 20
    on_failure: Literal["refuse", "spool"] = "refuse"
    """When the disk refuses: refuse calls (503), or keep going and drop the oldest records."""
    spool_records: Annotated[int, Field(ge=1)] = 100_000
    """Records kept in memory while the disk cannot take them."""


class Deadlines(_Part):
    """How long each step may take, in seconds."""

    headers_s: PositiveSeconds = 10
    body_s: PositiveSeconds = 60
    """Whole request body."""
    connect_s: PositiveSeconds = 5
    first_byte_s: PositiveSeconds = 300
    """From the forwarded request to the upstream's status line."""
    idle_s: PositiveSeconds = 120
    """Longest silence inside an answer."""
    write_s: PositiveSeconds = 60
    """Longest time a client may stop reading."""
    keepalive_s: PositiveSeconds = 75
    drain_s: PositiveSeconds = 30
    """From SIGTERM until open streams are cut."""
    readiness_s: Annotated[float, Field(ge=0, le=300)] = 1
    """How long readiness is red before the listeners close."""


class Sizes(_Part):
    """What a request may weigh, in bytes."""

    max_header_bytes: Annotated[int, Field(ge=1024)] = 16_384
    max_headers: Annotated[int, Field(ge=8)] = 100
    max_body_bytes: Annotated[int, Field(ge=1)] = 20_000_000
    max_inflated_bytes: Annotated[int, Field(ge=1)] = 40_000_000
    """After gzip or deflate is undone."""


class Cors(_Part):
    """Answer CORS preflight requests (Fetch standard) for these origins; empty: not at all."""

    allow_origins: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ("authorization", "content-type", "x-api-key", "api-key")
    max_age_s: Annotated[int, Field(ge=0)] = 600


class Ops(_Part):
    """Listener of probes and metrics."""

    host: str = "127.0.0.1"
    port: Port = 9090


class Log(_Part):
    """Process log (structlog) on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class Health(_Part):
    """Passive health of upstream URLs."""

    failures: Annotated[int, Field(ge=1)] = 3
    """Connection failures in a row that take a URL out."""
    retry_after_s: PositiveSeconds = 10
    """How long it stays out."""


class StoreTls(_Part):
    """TLS to the store (``rediss``); ``{}`` trusts the system's certificates."""

    ca_file: Path | None = None
    """PEM bundle that signs the store's certificate, instead of the system's."""
    certificate: Path | None = None
    """Client certificate, PEM, where the store asks for one; needs ``key``."""
    key: Path | None = None


class Store(_Part):
    """Where limits are kept: in this process alone, or shared by a fleet in Redis or Valkey.

    The store needs ``maxmemory-policy noeviction``: an evicted bucket is a free burst.
    """

    kind: Literal["memory", "standalone", "sentinel", "cluster"] = "memory"
    addresses: tuple[str, ...] = ()
    """``host:port`` of the server, or of Sentinels or Cluster nodes to ask first; for a standalone
    server ``unix:/path`` too."""
    master: str = ""
    """Name under which the Sentinels know the server (``kind: sentinel`` only)."""
    username: str = ""
    """ACL user of the store; empty: the default user."""
    password: SecretSource | None = None
    sentinel_username: str = ""
    sentinel_password: SecretSource | None = None
    """For the Sentinels themselves, where they ask for one."""
    database: Annotated[int, Field(ge=0, le=1023)] = 0
    """Must be 0 in a Cluster."""
    tls: StoreTls | None = None
    prefix: str = Field(default="gatekeeper", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """Begins every key, as the hash tag ``{prefix}``. Gates with the same one share limits."""
    deadline_ms: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Longest wait of a call for the store; then ``on_failure`` holds until it answers again."""
    connect_ms: Annotated[int, Field(ge=1, le=60_000)] = 1_000
    """Longest wait for a connection, which no call ever waits for."""
    on_failure: OnFailure = OnFailure.LOCAL_SHARE
    """While the store cannot answer: let pass, refuse with 503, or count on this node with each
    limit divided by the number of nodes. A limit rule may say its own (``on_store_failure``); of
    the rules that apply to a call, the strictest wins. With ``closed`` readiness turns red too."""
    nodes: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """How many gate processes share the limits, for ``local_share``. Unset: those that were seen
    in the store last; at least 1."""


class StepUp(_Part):
    """Links to identity verification."""

    link_ttl_s: PositiveSeconds = 3600
    support: str = ""
    """A sentence with a contact, added to refusals that a person must resolve."""


class Settings(_Part):
    """Everything a gate needs to know to start."""

    name: str = Field(default="gatekeeper", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """Name in ``Via``; a call that already carries it is a loop. Chained gates need two names."""
    mode: Literal["enforce", "observe"] = "enforce"
    """``observe`` decides and records but refuses only embargo and bad credentials."""
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
    listeners: tuple[Listener, ...] = (Listener(),)
    ops: Ops = Ops()
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

    @model_validator(mode="after")
    def _logs_beside_the_data(self) -> Self:
        if "directory" not in self.decision_log.model_fields_set:
            update = {"directory": self.data_dir / "decisions"}
            # Frozen is for those who use settings; here they are still being made.
            self.__dict__["decision_log"] = self.decision_log.model_copy(update=update)
        return self
