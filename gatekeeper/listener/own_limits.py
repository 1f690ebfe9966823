"""``GET /gatekeeper/v1/limits``: a caller reads where its own limits stand, and takes nothing."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp.web import Response
from multidict import CIMultiDict

from gatekeeper.listener.answers import add_cors
from gatekeeper.policy.bound import Bound
from gatekeeper.policy.ratelimit_headers import own_limits, rate_limit_headers
from gatekeeper.policy.words import OnFailure, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiohttp.web import BaseRequest

    from gatekeeper.policy.limits import Claim
    from gatekeeper.policy.model import Facts, Moment
    from gatekeeper.settings import Cors
    from gatekeeper.storage.limiter import Limiter
    from gatekeeper.telemetry import Metrics

OWN_LIMITS: Final = "/gatekeeper/v1/limits"
_PER_MINUTE: Final = 60
"""Looks of one caller: they cost no quota, and shall be no way to try out a thousand networks."""
_AGAIN_S: Final = 60 // _PER_MINUTE


class OwnLimits:
    """Answers callers that were screened."""

    def __init__(self, limiter: Limiter, metrics: Metrics, cors: Cors) -> None:
        self._limiter = limiter
        self._metrics = metrics
        self._cors = cors
        self._seen = Bound(_PER_MINUTE)

    def unanswerable(self, request: BaseRequest, facts: Facts, at: Moment) -> Response | None:
        """Refuse what is no look, and one look too many; ``None`` when neither is so.

        Nothing is recorded of either: no call was judged, and a flood shall not fill the log.
        """
        if request.method not in {"GET", "HEAD"}:
            return self._problem(
                request,
                HTTPStatus.METHOD_NOT_ALLOWED,
                Reason.INVALID_REQUEST,
                "Use GET or HEAD.",
                {"Allow": "GET, HEAD"},
            )
        # Anybody can make up an account that is not on record, but not an address.
        account = facts.account
        caller = f"account {account.id}" if account.known else facts.network.address_key
        if self._seen.take(caller, at.monotonic_us):
            return None
        self._metrics.count("gatekeeper_limit_looks", "too_many")
        return self._problem(
            request,
            HTTPStatus.TOO_MANY_REQUESTS,
            Reason.RATE_LIMIT_EXCEEDED,
            "The limits were asked for too often. Answers of calls carry them too: see RateLimit.",
            {"Retry-After": str(_AGAIN_S)},
        )

    async def tell(
        self, request: BaseRequest, facts: Facts, claims: Sequence[Claim], at: Moment
    ) -> Response | None:
        """Tell of the quotas of ``claims``; ``None`` when where one stands cannot be known."""
        statuses = await self._limiter.look(claims, at)
        if any(status.failed is OnFailure.CLOSED for status in statuses):
            return None
        self._metrics.count("gatekeeper_limit_looks", "told")
        told = {"account": facts.account.id, "limits": own_limits(statuses, at.unix_s)}
        headers = CIMultiDict[str](rate_limit_headers(statuses))
        headers["Content-Type"] = "application/json"
        return self._response(request, HTTPStatus.OK, told, headers)

    def _problem(
        self,
        request: BaseRequest,
        status: HTTPStatus,
        code: Reason,
        detail: str,
        headers: dict[str, str],
    ) -> Response:
        """Return problem details (RFC 9457), with the ``error`` that SDKs show."""
        problem = {
            "type": "about:blank",
            "title": status.phrase,
            "status": status.value,
            "detail": detail,
            "code": code,
            "error": {"message": detail, "code": code},
        }
        more = CIMultiDict[str](headers)
        more["Content-Type"] = "application/problem+json"
        return self._response(request, status, problem, more)

    def _response(
        self,
        request: BaseRequest,
        status: HTTPStatus,
        content: Mapping[str, object],
        headers: CIMultiDict[str],
    ) -> Response:
        headers["Cache-Control"] = "no-store"
        add_cors(headers, request, self._cors)
        return Response(status=status, body=msgspec.json.encode(content), headers=headers)
