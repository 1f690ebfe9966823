"""The closed lists of words: YAML, code, records and metrics use the same ones."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class LookupStatus(StrEnum):
    """How one look-up ended; ``unknown`` means it could not be made or could not be trusted."""

    HIT = "hit"
    MISS = "miss"
    UNKNOWN = "unknown"


class NetworkKind(StrEnum):
    """What sort of network an address belongs to."""

    RESIDENTIAL = "residential"
    RESIDENTIAL_PROXY = "residential_proxy"
    HOSTING = "hosting"
    MOBILE = "mobile"
    VPN = "vpn"
    RELAY = "relay"
    TOR = "tor"
    PRIVATE = "private"
    UNKNOWN = "unknown"


class Tier(StrEnum):
    """Risk tier of an account; ``elevated`` means elevated risk."""

    TRUSTED = "trusted"
    STANDARD = "standard"
    ELEVATED = "elevated"
    RESTRICTED = "restricted"

    def stricter(self, other: Tier) -> Tier:
        """Return whichever of the two tiers grants less."""
        return self if _TIER_ORDER[self] >= _TIER_ORDER[other] else other


_TIER_ORDER = {tier: rank for rank, tier in enumerate(Tier)}


class Assurance(StrEnum):
    """How well an account's identity is proven (NIST SP 800-63A levels)."""

    NONE = "none"
    IAL1 = "ial1"
    IAL2 = "ial2"

    @property
    def rank(self) -> int:
        """Place in the order of levels, 0 for none."""
        return _ASSURANCE_ORDER[self]

    def meets(self, required: Assurance) -> bool:
        """Tell whether this level is at least ``required``."""
        return _ASSURANCE_ORDER[self] >= _ASSURANCE_ORDER[required]


_ASSURANCE_ORDER = {level: rank for rank, level in enumerate(Assurance)}


class Mode(StrEnum):
    """Whether a rule takes effect or is only recorded."""

    ENFORCE = "enforce"
    SHADOW = "shadow"


class GateMode(StrEnum):
    """What the whole gate does with its verdicts; embargo holds in each of them."""

    ENFORCE = "enforce"
    OBSERVE = "observe"
    """Decides and records, but refuses only embargo, bad credentials and malformed calls."""
    BYPASS = "bypass"
    """Embargo, bans and credentials hold; nothing that rests on score, tier or limits is asked."""
    CLOSED = "closed"
    """Refuses every call that is not embargoed with 503."""


class OnFailure(StrEnum):
    """What a rule does when the store it depends on cannot answer."""

    OPEN = "open"
    CLOSED = "closed"
    LOCAL_SHARE = "local_share"


class Unit(StrEnum):
    """What a limit counts. ``cost`` is in US cents, ``bytes`` are of both bodies."""

    REQUESTS = "requests"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    COST = "cost"
    BYTES = "bytes"
    CONCURRENCY = "concurrency"


class AtEnd(StrEnum):
    """What an output limit does when less is left than a call may write."""

    REFUSE = "refuse"
    STOP = "stop"
    """Let the call write what is left, and end its answer there."""


class LogprobsChange(StrEnum):
    """What shaping does to the log probabilities in an answer, from mild to strict."""

    ROUND = "round"
    NOISE = "noise"
    REMOVE = "remove"


class Parameter(StrEnum):
    """What a call may be refused for using."""

    LOGIT_BIAS = "logit_bias"
    PREFILL = "prefill"
    """The beginning of the answer, put into the model's mouth."""
    LOGPROBS = "logprobs"
    BATCH = "batch"
    """Calls whose answers come later, in a file that is not shaped."""


class Verdict(IntEnum):
    """What happens to a call; the most severe of all that apply wins.

    The first five are policy's scale. The last three say that the call could not be judged on it.
    """

    ALLOW = 0
    RATE_LIMITED = 1
    STEP_UP = 2
    DENY = 3
    EMBARGOED = 4
    INVALID = 5
    UNAUTHENTICATED = 6
    UNAVAILABLE = 7

    @property
    def word(self) -> str:
        """The verdict as it is written in YAML, records and metrics."""
        return self.name.lower()


class Reason(StrEnum):
    """Stable code a caller sees for a refusal. Never tells which rule or signal it was (H34)."""

    # policy
    REGION_NOT_SUPPORTED = "region_not_supported"
    ACCOUNT_SUSPENDED = "account_suspended"
    REQUEST_DENIED = "request_denied"
    PARAMETER_NOT_PERMITTED = "parameter_not_permitted"
    MODEL_NOT_PERMITTED = "model_not_permitted"
    IDENTITY_VERIFICATION_REQUIRED = "identity_verification_required"
    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded"
    TOKEN_LIMIT_EXCEEDED = "token_limit_exceeded"  # noqa: S105 - a reason code
    SPENDING_LIMIT_EXCEEDED = "spending_limit_exceeded"
    CONCURRENCY_LIMIT_EXCEEDED = "concurrency_limit_exceeded"
    REQUEST_EXCEEDS_LIMIT = "request_exceeds_limit"
    # credentials
    CREDENTIALS_MISSING = "credentials_missing"
    CREDENTIALS_INVALID = "credentials_invalid"
    CREDENTIALS_EXPIRED = "credentials_expired"
    # the request itself
    INVALID_REQUEST = "invalid_request"
    INVALID_PATH = "invalid_path"
    INVALID_HEADERS = "invalid_headers"
    INVALID_BODY = "invalid_body"
    BODY_TOO_LARGE = "body_too_large"
    REQUEST_TIMEOUT = "request_timeout"
    ROUTE_NOT_SERVED = "route_not_served"
    MODEL_NOT_SERVED = "model_not_served"
    UPGRADE_NOT_SUPPORTED = "upgrade_not_supported"
    LOOP_DETECTED = "loop_detected"
    # could not
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_INVALID = "upstream_invalid"
    SERVICE_UNAVAILABLE = "service_unavailable"


class CredentialKind(StrEnum):
    """Which of the credential modes recognised the caller."""

    API_KEY = "api_key"
    JWT = "jwt"
    OPAQUE = "opaque"
    NONE = "none"


class CredentialStatus(StrEnum):
    """How the check of the credential ended; ``unknown`` means it could not be checked."""

    VALID = "valid"
    MISSING = "missing"
    INVALID = "invalid"
    EXPIRED = "expired"
    UNKNOWN = "unknown"
