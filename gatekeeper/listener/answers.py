"""Answers of the gate itself: refusals in the caller's dialect, CORS, headers on admitted calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp.web import Response
from multidict import CIMultiDict

from gatekeeper.dialects.base import RefusalText
from gatekeeper.policy.ratelimit_headers import rate_limit_headers, retry_after_s
from gatekeeper.policy.reasons import REASONS
from gatekeeper.policy.words import CredentialKind, Reason, Verdict

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest

    from gatekeeper.dialects.base import Dialect
    from gatekeeper.policy.model import Decision
    from gatekeeper.settings import Cors, Settings
    from gatekeeper.verification.links import VerificationLink

DECISION_HEADER: Final = "Gatekeeper-Decision"
_EXPOSED: Final = "Gatekeeper-Decision, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id"
_UNAUTHORIZED: Final = 401
_LEGAL: Final = 451


def refuse(
    request: BaseRequest,
    decision: Decision,
    dialect: Dialect,
    settings: Settings,
    *,
    kind: CredentialKind = CredentialKind.NONE,
    link: VerificationLink | None = None,
    said: str | None = None,
) -> Response:
    """Refuse a call in its dialect, so that its SDK raises the right exception (H33, H34).

    ``said`` is what the check of the credential has to say to the caller.
    """
    text = refusal_text(decision, settings, kind=kind, link=link, said=said)
    status = text.status
    headers = CIMultiDict[str]()
    if status == _UNAUTHORIZED:
        headers["WWW-Authenticate"] = _challenge(decision, settings)
    if status == _LEGAL:
        headers["Link"] = f'<{settings.public_url}>; rel="blocked-by"'  # RFC 7725
    if decision.verdict is not Verdict.STEP_UP:  # it looks the same, whatever asks for it (H34)
        headers.extend(rate_limit_headers(decision.limits))
    headers.update(dialect.refusal_headers(text))
    headers[DECISION_HEADER] = decision.id
    add_cors(headers, request, settings.cors)
    return Response(status=status, headers=headers, body=dialect.refusal_body(text))


def refusal_text(
    decision: Decision,
    settings: Settings,
    *,
    kind: CredentialKind = CredentialKind.NONE,
    link: VerificationLink | None = None,
    said: str | None = None,
) -> RefusalText:
    """Return what a caller is told of a refusal, before it is written in a dialect."""
    reason = decision.reason or Reason.SERVICE_UNAVAILABLE
    row = REASONS[reason]
    status = row.status
    if decision.verdict is Verdict.STEP_UP and kind is CredentialKind.JWT:
        status = _UNAUTHORIZED
    # In observe mode a quota may have had no room for a call that failed for another reason.
    limited = decision.verdict is Verdict.RATE_LIMITED
    detail = said if decision.verdict is Verdict.UNAUTHENTICATED else decision.detail
    return RefusalText(
        status=status,
        reason=reason,
        message=_message(
            row.message, detail, link, settings.step_up.support if row.person else "", decision.id
        ),
        decision_id=decision.id,
        verification_url=None if link is None else link.url,
        verification_expires_at=None if link is None else link.expires_at,
        retry_after_s=retry_after_s(decision.limits) if limited else None,
    )


def grant_headers(request: BaseRequest, decision: Decision, cors: Cors) -> CIMultiDict[str]:
    """Return the headers that the gate adds to an upstream's answer."""
    headers = CIMultiDict[str](rate_limit_headers(decision.limits))
    headers[DECISION_HEADER] = decision.id
    add_cors(headers, request, cors)
    return headers


def preflight(request: BaseRequest, cors: Cors) -> Response | None:
    """Answer a CORS preflight (Fetch standard, 3.2.2) from an allowed origin."""
    if request.method != "OPTIONS" or not cors.allow_origins:
        return None
    headers = CIMultiDict[str]()
    if "access-control-request-method" not in request.headers:
        return None
    add_cors(headers, request, cors)
    if not headers:
        return None
    headers["Access-Control-Allow-Methods"] = "GET, POST, PUT, PATCH, DELETE"
    headers["Access-Control-Allow-Headers"] = ", ".join(cors.allow_headers)
    headers["Access-Control-Max-Age"] = str(cors.max_age_s)
    return Response(status=204, headers=headers)


def add_cors(headers: CIMultiDict[str], request: BaseRequest, cors: Cors) -> None:
    """Let pages of an allowed origin read the answer."""
    if not cors.allow_origins:
        return
    origin = request.headers.get("origin")
    anyone = "*" in cors.allow_origins
    if origin is None or not (anyone or origin in cors.allow_origins):
        return
    headers["Access-Control-Allow-Origin"] = "*" if anyone else origin
    headers["Access-Control-Expose-Headers"] = _EXPOSED
    if not anyone:
        headers["Vary"] = "Origin"


def _challenge(decision: Decision, settings: Settings) -> str:
    """Return the Bearer challenge; for a step-up the one of RFC 9470."""
    challenge = f'Bearer realm="{settings.name}"'
    if decision.obligation is not None:
        return (
            f'{challenge}, error="insufficient_user_authentication", '
            f'error_description="Prove your identity first", '
            f'acr_values="{decision.obligation.assurance.value}"'
        )
    if decision.reason is Reason.CREDENTIALS_MISSING:
        return challenge
    return f'{challenge}, error="invalid_token"'


def _message(
    sentence: str,
    detail: str | None,
    link: VerificationLink | None,
    support: str,
    decision_id: str,
) -> str:
    """Return the whole text: some SDKs show nothing else, so it names link and decision too."""
    parts = [sentence]
    if detail:
        parts.append(detail)
    if link is not None:
        parts.append(f"Open {link.url} to verify.")
    if support:
        parts.append(support)
    parts.append(f"Decision id: {decision_id}.")
    return " ".join(parts)
