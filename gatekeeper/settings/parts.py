"""The sections of the settings, each with what it is for."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from gatekeeper.policy.words import OnFailure


class Part(BaseModel):
    """What all sections have in common: nothing unknown is taken, nothing changes afterwards."""

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


class Tls(Part):
    """Certificate and key of a listener, PEM files."""

    certificate: Path
    key: Path


class Listener(Part):
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


class SecretSource(Part):
    """Where a secret comes from: an environment variable or a file, never the settings file."""

    env: str | None = None
    file: Path | None = None


class Upstream(Part):
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
    stream_usage: Literal["force", "continuous", "leave"] = "force"
    """Make OpenAI-style streams report their usage (``stream_options.include_usage``), and take
    the report out again for callers that did not ask; ``continuous`` with every chunk, so that a
    stream that is cut settles exactly too (vLLM's ``continuous_usage_stats``); ``leave`` for
    upstreams that refuse the field: such streams are then settled to an estimate."""
    chat_bound: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    """How the upstream calls the bound on a chat completion, for calls that name none and get one
    from a limit or from shaping."""
    on_disconnect: Literal["cancel", "drain"] = "cancel"
    """When a caller leaves before its answer is over: ``cancel`` drops the upstream's connection at
    once, and what was delivered is charged, estimated; ``drain`` reads the answer on for nobody,
    within the bounds below, so that what the upstream reports is charged."""
    drain_s: PositiveSeconds = 30
    """Longest time that an answer is read on."""
    drain_bytes: Annotated[int, Field(ge=1)] = 4_000_000
    """Most that is read of it."""
    drains: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Most answers that are read on at once, in each process; beyond it they are cancelled."""


class JwtIssuer(Part):
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


class DecisionLog(Part):
    """Where decisions are written, as JSON lines."""

    directory: Path = Path("var/decisions")
    """Unset: ``decisions`` in ``data_dir``."""
    max_file_bytes: Annotated[int, Field(ge=4096)] = 100_000_000
    keep_files: Annotated[int, Field(ge=1)] = 20
    on_failure: Literal["refuse", "spool"] = "refuse"
    """When the disk refuses: refuse calls (503), or keep going and drop the oldest records."""
    spool_records: Annotated[int, Field(ge=1)] = 100_000
    """Records kept in memory while the disk cannot take them."""


class Deadlines(Part):
    """How long each step may take, in seconds."""

    headers_s: PositiveSeconds = 10
    body_s: PositiveSeconds = 60
    """Whole request body."""
    connect_s: PositiveSeconds = 5
    first_byte_s: PositiveSeconds = 300
    """From the forwarded request to the upstream's status line."""
    idle_s: PositiveSeconds = 120
    """Longest silence inside an answer."""
    websocket_idle_s: PositiveSeconds = 600
    """Longest silence of a WebSocket, both ways; pings end it too."""
    write_s: PositiveSeconds = 60
    """Longest time a client may stop reading."""
    keepalive_s: PositiveSeconds = 75
    drain_s: PositiveSeconds = 30
    """From SIGTERM until open streams are cut."""
    hold_s: PositiveSeconds = 3_600
    """How long a call may last until what it holds of its limits is charged as it stands. A
    WebSocket ends then, and its caller connects anew."""
    readiness_s: Annotated[float, Field(ge=0, le=300)] = 1
    """How long readiness is red before the listeners close."""


class Sizes(Part):
    """What a request may weigh, in bytes."""

    max_header_bytes: Annotated[int, Field(ge=1024)] = 16_384
    max_headers: Annotated[int, Field(ge=8)] = 100
    max_body_bytes: Annotated[int, Field(ge=1)] = 20_000_000
    max_upload_bytes: Annotated[int, Field(ge=1)] = 536_870_912
    """Of bodies that stream through unread: files, and routes of no known dialect."""
    max_batch_file_bytes: Annotated[int, Field(ge=1)] = 50_000_000
    """Input file of an OpenAI batch, which the gate reads at the endpoint to know what it costs."""
    max_inflated_bytes: Annotated[int, Field(ge=1)] = 40_000_000
    """After gzip or deflate is undone."""
    max_message_bytes: Annotated[int, Field(ge=1)] = 20_000_000
    """One message of a WebSocket, either way."""


class Cors(Part):
    """Answer CORS preflight requests (Fetch standard) for these origins; empty: not at all."""

    allow_origins: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ("authorization", "content-type", "x-api-key", "api-key")
    max_age_s: Annotated[int, Field(ge=0)] = 600


class Ops(Part):
    """Listener of probes and metrics."""

    host: str = "127.0.0.1"
    port: Port = 9090


class Admin(Part):
    """Listener of the management API. Nothing opens it but a key made by `admin-keys create`."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 9091
    tls: Tls | None = None
    """Wanted as soon as the listener is reached from other machines."""
    hosts: tuple[str, ...] = ()
    """Names by which it is reached, besides its addresses and ``localhost``: requests that name
    another are refused, so that no web page can reach it through a browser (DNS rebinding)."""
    failures_per_minute: Annotated[int, Field(ge=1)] = 30
    """Requests without a valid key that are answered from one network (/24 or /48), and kept in
    the audit trail, before it gets 429. A valid key is always heard."""
    max_body_bytes: Annotated[int, Field(ge=10_000, le=100_000_000)] = 20_000_000
    """Of an import of accounts; other bodies are bounded at 2 MB."""


class Log(Part):
    """Process log (structlog) on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class Health(Part):
    """Passive health of upstream URLs."""

    failures: Annotated[int, Field(ge=1)] = 3
    """Connection failures in a row that take a URL out."""
    retry_after_s: PositiveSeconds = 10
    """How long it stays out."""


class StoreTls(Part):
    """TLS to the store (``rediss``); ``{}`` trusts the system's certificates."""

    ca_file: Path | None = None
    """PEM bundle that signs the store's certificate, instead of the system's."""
    certificate: Path | None = None
    """Client certificate, PEM, where the store asks for one; needs ``key``."""
    key: Path | None = None


class Store(Part):
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


class StepUp(Part):
    """Identity verification: the links to it, who carries it out, how long a proof is good."""

    link_ttl_s: PositiveSeconds = 3600
    support: str = ""
    """A sentence with a contact, added to refusals that a person must resolve."""
    vendor: Literal["none", "sandbox"] = "none"
    """Who checks identities. ``none``: an admin decides each case. ``sandbox``: a stand-in that
    checks nothing and lets whoever opens its page choose the result; for trying out only."""
    vendor_url: str = ""
    """Base URL of the vendor's API."""
    vendor_pages: str = ""
    """Origin of the vendor's hosted pages, as browsers reach it; empty: that of ``vendor_url``."""
    vendor_key: SecretSource | None = None
    """Key for the vendor's API."""
    vendor_timeout_s: Annotated[float, Field(gt=0, le=60)] = 10
    """How long one question to the vendor may take."""
    webhook_secrets: tuple[SecretSource, ...] = ()
    """Secrets that the vendor signs webhooks with; two while a secret is being changed."""
    webhook_tolerance_s: Annotated[float, Field(gt=0, le=3600)] = 300
    """How far a webhook's time of signing may be from now."""
    valid_for_days: Annotated[float, Field(ge=0)] = 365
    """How long a proven identity is good; 0: without end."""
    pending_for_days: Annotated[float, Field(gt=0, le=90)] = 7
    """How long a check may take until it lapses."""
    max_attempts: Annotated[int, Field(ge=1)] = 3
    """Checks that one account may begin in a period; after that an admin decides."""
    attempts_period_days: Annotated[float, Field(gt=0)] = 30


class TracingHeader(Part):
    """A header for the collector of traces, such as its API key."""

    name: str = Field(pattern=r"^[A-Za-z0-9-]{1,64}$")
    value: SecretSource


class TracingSettings(Part):
    """Traces in OpenTelemetry's form; needs ``pip install gatekeeper[tracing]``."""

    endpoint: str = ""
    """OTLP over HTTP, the whole URL (``http://collector:4318/v1/traces``). Empty: no traces."""
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Part of the calls that begin a trace here."""
    follow_parents: Literal["trusted_proxies", "everyone"] = "trusted_proxies"
    """Whose ``traceparent`` is continued, sampled or not as it says. Others' calls begin a trace
    of their own: a stranger decides neither what is sampled nor which trace it joins."""
    service_name: str = Field(default="gatekeeper", pattern=r"^[ -~]{1,64}$")
    headers: tuple[TracingHeader, ...] = ()


class AlertName(StrEnum):
    """What the gate alerts of by itself."""

    EMBARGO_HITS = "embargo_hits"
    """Calls were refused by an embargo rule."""
    STORE_DEGRADED = "store_degraded"
    """The shared store of limits does not answer; the rules' ``on_store_failure`` is in force."""
    RECORDS_STALE = "records_stale"
    """Accounts and keys cannot be read anew: bans and revocations do not arrive."""
    LOG_FAILING = "log_failing"
    """Decisions cannot be written."""
    NETWORK_DATA = "network_data"
    """A database or list cannot be used, or is too old."""
    RULES_REFUSED = "rules_refused"
    """Changed rules have a mistake; the last good ones serve on."""
    NOT_ENFORCING = "not_enforcing"
    """The gate observes only, or the kill switch is on."""


class AlertSettings(Part):
    """Alerts by webhook: CloudEvents, signed by the Standard Webhooks specification."""

    webhook_url: str = ""
    """Where messages are posted. Empty: no alerts."""
    secret: SecretSource | None = None
    """Signs each message; needed with ``webhook_url``. ``whsec_`` and base64, or any text."""
    events: tuple[AlertName, ...] = ()
    """Which alerts are sent; empty: all."""
    min_interval_s: PositiveSeconds = 300
    """Least time between two beginnings of the same alert."""
