"""The nouns of the project: what is known of a call, and what was decided about it.

Everything here is an immutable value: msgspec ``Struct``s, because a call makes dozens of them
and a frozen dataclass takes 15 times as long to make. Records leave out what is at its
default. Times are Unix seconds (UTC) unless a name says otherwise.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from msgspec import Struct

from gatekeeper.policy.campaigns import CampaignFacts  # noqa: TC001 - read at run time
from gatekeeper.policy.traits import Traits  # noqa: TC001 - read at run time
from gatekeeper.policy.words import (
    Assurance,
    CredentialKind,
    CredentialStatus,
    LogprobsChange,
    LookupStatus,
    Mode,
    NetworkKind,
    OnFailure,
    Reason,
    Tier,
    Unit,
    Verdict,
)

FOREVER: Final = 253_402_300_799.0
"""The last second of the year 9999: a date without end that JSON can carry."""


class Credential(Struct, frozen=True, gc=False, omit_defaults=True):
    """The outcome of looking at a caller's credential; never the secret itself."""

    kind: CredentialKind
    status: CredentialStatus
    key_id: str | None = None
    """Readable id of the key (API key prefix, or digest for JWT subject and opaque keys)."""
    account_id: str | None = None
    claimed_tier: Tier | None = None
    claimed_organization: str | None = None
    detail: str | None = None
    """A sentence for the caller on what is wrong with it, such as a mistyped key."""


class Lookup(Struct, frozen=True, gc=False, array_like=True):
    """One answer of one source: which view it filled and how it ended."""

    view: str
    """``country``, ``registration``, ``subdivision``, ``asn``, ``kind`` or ``lists``."""
    status: LookupStatus
    source: str
    revision: str


class NetworkFacts(Struct, frozen=True, gc=False, omit_defaults=True):
    """Where a call comes from. Holds digests and a truncated prefix, never the full address.

    A view (country, registration, ...) whose value is ``None`` was a miss or unknown; which of
    the two stands in ``lookups`` and is answered by :meth:`status`.
    """

    prefix: str
    """The address cut to /24 (IPv4) or /48 (IPv6), for people who read records."""
    address_key: str
    """Keyed digest of the address (IPv6: of its /64); the ``address`` partition of limits."""
    prefix_key: str
    """Keyed digest of the /24 or /48; the ``prefix`` partition of limits."""
    kind: NetworkKind = NetworkKind.UNKNOWN
    country: str | None = None
    """Country of use, ISO 3166-1 alpha-2."""
    registered_country: str | None = None
    """Country in which the block is registered, ISO 3166-1 alpha-2."""
    subdivision: str | None = None
    """ISO 3166-2 code with its country, such as ``UA-43``."""
    asn: int | None = None
    as_organization: str | None = None
    owner: str | None = None
    """Who owns the AS, an id from the network list such as ``alibaba``."""
    owner_country: str | None = None
    """Home country of that owner, ISO 3166-1 alpha-2."""
    listed_by: tuple[str, ...] = ()
    """Ids of the lists that name this address or its AS, sorted."""
    lookups: tuple[Lookup, ...] = ()
    revision: str = ""
    """Revision of all network data together."""
    registered_egress: bool | None = None
    """Whether the address lies in a range that the account's organization has registered; ``None``
    when it has registered none, or the address is not known."""

    def uncertain(self, view: str) -> bool:
        """Tell whether a source of ``view`` failed, or none was asked: a miss proves nothing."""
        asked = False
        for lookup in self.lookups:
            if lookup.view == view:
                if lookup.status is LookupStatus.UNKNOWN:
                    return True
                asked = True
        return not asked


class Account(Struct, frozen=True, gc=False, omit_defaults=True):
    """Who is calling, as far as the records know."""

    id: str
    known: bool = False
    """Whether a record of this account exists (an opaque key is known after its first 2xx)."""
    organization: str | None = None
    organization_verified: bool = False
    """Whether somebody has checked that the organization is who it says."""
    tier: Tier = Tier.STANDARD
    assurance: Assurance = Assurance.NONE
    created_at: float | None = None
    banned_until: float | None = None
    """:data:`FOREVER` for a ban without end, ``None`` for no ban."""
    ban_reason: str | None = None
    email_domain: str | None = None
    email_listed_by: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    """Ids of those who own the organization, such as ``bytedance``."""
    owner_countries: tuple[str, ...] = ()
    """Home countries of those owners, ISO 3166-1 alpha-2."""
    payment: int = 0
    """Keyed digest of the payment fingerprint; this and the next two are traits
    (:mod:`gatekeeper.policy.traits`), keyed by the long-lived secret."""
    signup: int = 0
    """Keyed digest of the /24 or /48 from which the account was made."""
    mail: int = 0
    """Keyed digest of domain and pattern of the mail address."""
    status: LookupStatus = LookupStatus.HIT
    """``unknown`` when the records could not be asked."""


class Call(Struct, frozen=True, gc=False, omit_defaults=True):
    """What the client asks, as far as it has been read; prompts are never part of it."""

    method: str
    path: str
    """Canonical path, exactly as matched and as forwarded."""
    dialect: str = "plain"
    model: str | None = None
    stream: bool = False
    input_tokens: int = 0
    """Estimated input tokens."""
    max_output_tokens: int = 0
    """Worst case of billed output tokens over all choices."""
    choices: int = 1
    cost_cents: float = 0.0
    """Worst case in US cents by the price table."""
    body_bytes: int = 0
    client: str | None = None
    """Product name of the User-Agent, such as ``openai-python``; at most 40 characters."""
    logit_bias: bool = False
    """Whether it asks to push single tokens up or down."""
    prefill: bool = False
    """Whether it puts the beginning of the answer into the model's mouth."""
    logprobs: bool = False
    """Whether it asks for log probabilities."""
    asks: tuple[str, ...] = ()
    """What the prompt was seen to ask for, such as ``tools`` or ``reasoning``, sorted."""
    capabilities: tuple[str, ...] = ()
    """Ids of the capability classes of the rules that it falls into, in their order."""


Value: TypeAlias = "str | int | float | bool | tuple[str, ...]"
View: TypeAlias = "dict[str, Value]"
"""Facts as conditions and records see them: dotted name to value; what is not known is absent."""


class Moment(Struct, frozen=True, gc=False):
    """One reading of both clocks: wall time for people and dates, monotonic for local limits."""

    unix_s: float
    monotonic_us: int


class UsageParts(Struct, frozen=True, gc=False, omit_defaults=True):
    """Parts of the tokens that have a price of their own, and what is not billed by tokens."""

    cached_input_tokens: int = 0
    """Of the input: read from the upstream's cache."""
    cache_write_tokens: int = 0
    """Of the input: written to the upstream's cache."""
    cache_write_1h_tokens: int = 0
    """Of the input: written to the upstream's cache for an hour."""
    audio_input_tokens: int = 0
    image_input_tokens: int = 0
    reasoning_tokens: int = 0
    """Of the output: thought, not said."""
    audio_output_tokens: int = 0
    image_output_tokens: int = 0
    images: int = 0
    """Generated images that are billed by the piece."""
    audio_s: float = 0.0
    """Recorded or spoken audio that is billed by its length, in seconds."""
    characters: int = 0
    """Text to speak that is billed by its length."""


NO_PARTS: Final = UsageParts()


class Usage(Struct, frozen=True, gc=False):
    """What an answer consumed. ``estimated`` when the upstream did not report it itself."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_cents: float = 0.0
    estimated: bool = False
    bytes: int = 0
    """Bodies of call and answer, as they crossed the caller's connection."""
    parts: UsageParts = NO_PARTS


class Facts(Struct, frozen=True, gc=False, omit_defaults=True):
    """Everything a decision rests on. ``call`` is ``None`` until the body has been read."""

    at: float
    """When the call arrived, Unix seconds."""
    network: NetworkFacts
    credential: Credential
    account: Account
    call: Call
    traits: tuple[Traits, ...] = ()
    """Of the call once it was read: for each epoch in force, the current one first."""
    campaign: CampaignFacts | None = None
    """The campaign that the caller belongs to, and has not left by proving who it is."""
    containment: str = ""
    """Revision of the containment snapshot that was asked."""


class Contribution(Struct, frozen=True, gc=False):
    """What one signal added to the score."""

    signal: str
    points: int
    mode: Mode


class RiskScore(Struct, frozen=True, gc=False):
    """The sum of the enforced contributions; ``shadow_total`` counts those in shadow too."""

    total: int
    shadow_total: int
    contributions: tuple[Contribution, ...]


class Obligation(Struct, frozen=True, gc=False):
    """What a caller must do before the same call goes through."""

    assurance: Assurance
    rule: str


class LimitStatus(Struct, frozen=True, gc=False, omit_defaults=True):
    """Where one quota stood when the call was judged. Amounts are in whole units of ``unit``.

    Of a caller that only looks, it is that of a call which asks for all there can be.
    """

    rule: str
    unit: Unit
    per: tuple[str, ...]
    partition: str
    """Digest of the partition the quota was counted for."""
    mode: Mode
    limit: float
    """Burst: the most that can be taken at once."""
    period_s: float
    """Seconds in which ``limit_per_period`` flows back; lease length for concurrency."""
    limit_per_period: float
    requested: float
    remaining: float
    """What was left after this call was admitted, or as it stood when it was refused."""
    retry_after_s: float = 0.0
    """0 when the call fitted, ``math.inf`` when it can never fit."""
    failed: OnFailure | None = None
    """What the rule did because the store could not answer; ``None`` when it did."""
    used_up: Assurance | None = None
    """What a caller without room must prove to get out of this quota, rather than wait."""

    @property
    def fits(self) -> bool:
        """Whether this quota had room for the call."""
        return self.retry_after_s == 0


class Finding(Struct, frozen=True, gc=False):
    """One rule that matched and what it asked for; the trail that ``explain`` prints."""

    rule: str
    mode: Mode
    verdict: Verdict
    reason: Reason | None = None
    detail: str = ""
    """For operators only: never sent to a caller."""


class Shaping(Struct, frozen=True, gc=False, omit_defaults=True):
    """What is changed in a call and its answer: of all rules that ask for it, the strictest."""

    rules: tuple[str, ...] = ()
    """Ids of the rules that asked for any of it."""
    logprobs: LogprobsChange | None = None
    decimals: int | None = None
    """Digits behind the point that rounding leaves."""
    epsilon: float | None = None
    """Privacy parameter of the noise: each value is epsilon-locally differentially private."""
    max_output_tokens: int | None = None
    """Most tokens of one choice."""
    max_choices: int | None = None
    """Most answers to one prompt (``n``, ``best_of``)."""
    max_context_tokens: int | None = None
    """Most tokens of input and one choice together."""
    drop_reasoning: bool = False

    @property
    def changes_answer(self) -> bool:
        """Whether bytes of the answer may be changed."""
        return self.logprobs is not None or self.drop_reasoning


class Standing(Struct, frozen=True, gc=False):
    """What the rules say of a call before limits: the most severe finding wins."""

    verdict: Verdict = Verdict.ALLOW
    reason: Reason | None = None
    shadow_verdict: Verdict = Verdict.ALLOW
    """What the verdict would have been with every shadow rule enforced."""
    findings: tuple[Finding, ...] = ()
    score: RiskScore | None = None
    obligation: Obligation | None = None
    tighten: float = 1.0
    """Factor in (0, 1] on burst and rate of every quota."""
    detail: str | None = None
    """A sentence for the caller beyond the reason's own, such as what to lower."""
    exempt: frozenset[str] = frozenset()
    """Ids of the rules that an exemption switched off for this call."""
    binding: bool = False
    """Whether ``observe`` mode enforces it all the same, as it does what an embargo asks for."""
    shaping: Shaping | None = None

    @property
    def admits(self) -> bool:
        """Whether the call may go on to the limits."""
        return self.verdict is Verdict.ALLOW


class Decision(Struct, frozen=True, gc=False):
    """The verdict on one call, with all that explains it."""

    id: str
    at: float
    verdict: Verdict
    reason: Reason | None
    enforced: bool
    """False when ``observe`` mode would let the call through whatever the verdict says."""
    shadow_verdict: Verdict
    findings: tuple[Finding, ...]
    score: RiskScore | None
    obligation: Obligation | None
    tighten: float
    limits: tuple[LimitStatus, ...]
    rules_revision: str
    detail: str | None = None
    """A sentence for the caller beyond the reason's own, such as which header is malformed."""
    shaping: Shaping | None = None
    """What is changed in call and answer; ``None`` for nothing."""

    @property
    def admits(self) -> bool:
        """Whether the call goes to the upstream."""
        return self.verdict is Verdict.ALLOW or not self.enforced
