"""What callers and vendors reach under ``/gatekeeper/v1/``: pages of a check, and webhooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp.web import Response, json_response

from gatekeeper.policy.bound import Bound
from gatekeeper.policy.lifecycles import CaseState
from gatekeeper.policy.words import Assurance, Reason
from gatekeeper.storage.cases_schema import Opening, is_case_id
from gatekeeper.storage.database import RecordsError
from gatekeeper.verification.flow import WebhookOutcome
from gatekeeper.verification.html import Button, Page, Tone, asset, html
from gatekeeper.verification.links import CHECKS, PREFIX
from gatekeeper.verification.vendor import VendorError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aiohttp.web import StreamResponse

    from gatekeeper.storage.cases_schema import CaseRow
    from gatekeeper.telemetry import Metrics
    from gatekeeper.verification.flow import CaseFlow
    from gatekeeper.verification.links import LinkClaims, LinkSigner

ASSETS: Final = "/gatekeeper/v1/assets/"
WEBHOOKS: Final = "/gatekeeper/v1/webhooks/"
MOST_WEBHOOK_BYTES: Final = 65_536
_MOST_FORM_BYTES: Final = 4_096
_PER_MINUTE: Final = 120
"""Requests of one address for pages; a page that waits asks every two seconds."""
_REFUSED_PER_MINUTE: Final = 60
"""Webhooks of one address that are not believed before the next ones are not read."""
_READ: Final = frozenset({"GET", "HEAD"})
_SAME_SITE: Final = frozenset({"", "same-origin", "none"})
_AGAIN: Final = "Send the refused request again: its answer holds a new link."
_TRY_AGAIN: Final = f"To try once more, {_AGAIN[0].lower()}{_AGAIN[1:]}"
_LEVELS: Final = {
    Assurance.NONE: "none",
    Assurance.IAL1: "basic (ial1)",
    Assurance.IAL2: "document and presence (ial2)",
}
_ENDED: Final = frozenset({CaseState.VERIFIED, CaseState.REJECTED, CaseState.EXPIRED})
_STATUSES: Final = {
    WebhookOutcome.MALFORMED: 400,
    WebhookOutcome.FORGED: 401,
    WebhookOutcome.STALE: 401,
    WebhookOutcome.UNAVAILABLE: 503,
}
"""All others are 204, so that the vendor stops sending."""


@dataclass(frozen=True, slots=True)
class PageCall:
    """One request for a path of the gate itself."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Looked up without regard to case."""
    address_key: str
    """Keyed digest of the caller's address, to count by."""
    at: float
    read: Callable[[int], Awaitable[bytes | Reason]]
    """Reads the body, of that many bytes at most."""


def _us(unix_s: float) -> int:
    return int(unix_s * 1_000_000)


class VerificationPages:
    """Answers the paths that belong to the gate itself."""

    def __init__(
        self, links: LinkSigner, flow: CaseFlow, metrics: Metrics, *, support: str
    ) -> None:
        self._links = links
        self._flow = flow
        self._metrics = metrics
        self._support = support or "Contact the operator of this service."
        self._seen = Bound(_PER_MINUTE)
        self._refused = Bound(_REFUSED_PER_MINUTE)
        self._log = structlog.get_logger("gatekeeper.verification")

    async def answer(self, call: PageCall) -> StreamResponse:
        """Answer one request; what the records or the vendor could not do is 503."""
        if call.path.startswith(WEBHOOKS):
            return await self._webhook(call)
        if not self._seen.take(call.address_key, _us(call.at)):
            response = _page(_TOO_MANY, call, 429)
            response.headers["Retry-After"] = "60"
            return response
        if call.path.startswith(ASSETS):
            found = asset(call.path.removeprefix(ASSETS))
            return found if found is not None and call.method in _READ else _page(_LOST, call, 404)
        try:
            if call.path.startswith(PREFIX):
                return await self._verify(call, call.path.removeprefix(PREFIX))
            if call.path.startswith(CHECKS):
                return await self._check(call, call.path.removeprefix(CHECKS))
        except (RecordsError, VendorError) as error:
            self._log.warning("verification_page", problem=str(error))
            response = _page(_BUSY, call, 503)
            response.headers["Retry-After"] = "10"
            return response
        return _page(_LOST, call, 404)

    async def _verify(self, call: PageCall, token: str) -> StreamResponse:
        """Answer at a link: what is asked, and the button that opens the case."""
        if not token or "/" in token:
            return _page(_LOST, call, 404)
        if call.method not in {*_READ, "POST"}:
            return _not_allowed(call, "GET, HEAD, POST")
        claims = self._links.check(token, call.at)
        if claims is None:
            return _page(_GONE, call, 410)
        if call.method == "POST":
            return await self._open(call, claims)
        case = await self._flow.cases.of_account(claims.account_id, claims.assurance)
        if case is not None and case.link_id == claims.decision_id:
            case = await self._flow.look(case, call.at)
            by_admin = case.state is CaseState.PENDING and not case.vendor
            if by_admin or case.state in _ENDED:
                return _page(self._how_it_stands(case), call)
        return _page(self._invitation(claims, case), call)

    async def _check(self, call: PageCall, rest: str) -> StreamResponse:
        """Answer how a case stands, to whoever knows its id; names no account."""
        case_id, _, what = rest.partition("/")
        if what not in {"", "state"} or not is_case_id(case_id):
            return _page(_LOST, call, 404)
        if call.method not in _READ:
            return _not_allowed(call, "GET, HEAD")
        case = await self._flow.cases.get(case_id)
        if case is None:
            return _page(_LOST, call, 404)
        case = await self._flow.look(case, call.at)
        if what == "state":
            headers = {"Cache-Control": "no-store"}
            return json_response({"state": case.state.value}, headers=headers)
        return _page(self._how_it_stands(case), call)

    async def _open(self, call: PageCall, claims: LinkClaims) -> StreamResponse:
        if call.headers.get("sec-fetch-site", "") not in _SAME_SITE:
            return _page(_ELSEWHERE, call, 403)
        if isinstance(await call.read(_MOST_FORM_BYTES), Reason):
            return _page(_NOT_POSSIBLE, call, 413)
        opened = await self._flow.open(claims, self._links.check_url, call.at)
        if opened.outcome is Opening.NOT_ELIGIBLE:
            return _page(self._not_eligible(claims), call, 403)
        if opened.outcome is Opening.EXHAUSTED:
            return _page(self._exhausted(claims), call, 403)
        if opened.case is None:  # proven without a case, by an operator
            return _page(Page(_VERIFIED, (_GOES_THROUGH,), tone=Tone.GOOD), call)
        # Relative, so that it holds wherever a proxy has put us.
        return _see_other(opened.url or f"../checks/{opened.case.id}")

    async def _webhook(self, call: PageCall) -> StreamResponse:
        vendor = self._flow.vendor
        if vendor is None or call.path != WEBHOOKS + vendor.name:
            return _closing(404)
        if call.method != "POST":
            response = _closing(405)
            response.headers["Allow"] = "POST"
            return response
        if self._refused.spent(call.address_key, _us(call.at)):
            return _closing(429)
        body = await call.read(MOST_WEBHOOK_BYTES)
        if isinstance(body, Reason):
            self._refused.take(call.address_key, _us(call.at))
            outcome = WebhookOutcome.MALFORMED
            self._metrics.count("gatekeeper_webhooks", vendor.name, outcome.value)
            return _closing(413 if body is Reason.BODY_TOO_LARGE else 400)
        outcome = await self._flow.take_webhook(call.headers, body, call.at)
        self._metrics.count("gatekeeper_webhooks", vendor.name, outcome.value)
        status = _STATUSES.get(outcome, 204)
        if status in {400, 401}:
            self._refused.take(call.address_key, _us(call.at))
        return Response(status=status)

    def _invitation(self, claims: LinkClaims, case: CaseRow | None) -> Page:
        """Return the page that a link leads to; nothing happens before its button is pressed."""
        vendor = self._flow.vendor
        rows = (("Account", claims.account_id), ("Level", _LEVELS[claims.assurance]))
        if vendor is None:
            return Page(
                "Verify your identity",
                (
                    _WHY,
                    "Press the button to ask for it; the operator then decides.",
                ),
                rows,
                Button((("", "Ask for verification"),)),
                small=self._whom_to_ask(claims),
            )
        under_way = case is not None and case.state is CaseState.PENDING
        return Page(
            "Verify your identity",
            (
                _WHY,
                "It takes a few minutes, once, on the pages of our verification partner.",
                "Go on only if the refused request was yours: the result counts for this account.",
            ),
            rows,
            Button(
                (("", "Continue verification" if under_way else "Start verification"),),
                vendor.page_origin,
            ),
            small=f"Decision {claims.decision_id}.",
        )

    def _how_it_stands(self, case: CaseRow) -> Page:
        rows = (("Level", _LEVELS[case.assurance]), ("Case", case.id))
        if case.state is CaseState.REQUIRED:
            return Page("Not started yet", ("Open the link of the refused request again.",), rows)
        if case.state is CaseState.VERIFIED:
            return Page(_VERIFIED, (_GOES_THROUGH,), rows, tone=Tone.GOOD)
        if case.state is CaseState.REJECTED:
            text = ("The check did not confirm your identity.", _TRY_AGAIN)
            title = "Your identity could not be verified"
            return Page(title, text, rows, small=self._support, tone=Tone.BAD)
        if case.state is CaseState.EXPIRED:
            text = ("The check ended without a result.", _TRY_AGAIN)
            return Page("The verification has ended", text, rows, small=self._support)
        if not case.vendor:
            return Page(
                "Waiting for the operator",
                ("Your request for verification is recorded. The operator decides on it.",),
                rows,
                small=f"{self._support} Name the case.",
                waiting=case.state.value,
            )
        return Page(
            "Waiting for the result",
            ("This page changes by itself as soon as the result is there.",),
            rows,
            small="You can come back to this page later.",
            waiting=case.state.value,
        )

    def _whom_to_ask(self, claims: LinkClaims) -> str:
        return (
            f"{self._support} Ask for the verification of account {claims.account_id} to level "
            f"{claims.assurance.value} and name the decision {claims.decision_id}."
        )

    def _not_eligible(self, claims: LinkClaims) -> Page:
        text = "This account cannot be verified here."
        return Page(text, (self._whom_to_ask(claims),), tone=Tone.BAD)

    def _exhausted(self, claims: LinkClaims) -> Page:
        text = "There have been too many tries for this account. The operator can allow another."
        return Page("No try is left", (text, self._whom_to_ask(claims)), tone=Tone.BAD)


_VERIFIED: Final = "Your identity is verified"
_GOES_THROUGH: Final = "Send your request again: it goes through now. You can close this page."
_WHY: Final = "This service asks you to prove your identity before it serves your request."
_LOST: Final = Page("Not found", ("There is no such page.",))
_GONE: Final = Page("This link is not valid any more", (_AGAIN,))
_NOT_POSSIBLE: Final = Page("Not possible", ("This page cannot be used like that.",))
_ELSEWHERE: Final = Page(
    "Not from here", ("Open the link itself and press its button; another site sent you here.",)
)
_TOO_MANY: Final = Page("Too many requests", ("Wait a minute, then try again.",))
_BUSY: Final = Page(
    "Try again in a moment", ("The verification cannot be reached just now. Nothing is lost.",)
)


def _page(page: Page, call: PageCall, status: int = 200) -> Response:
    """Return a page that finds its style from whatever depth it was asked at."""
    below = call.path.removeprefix("/gatekeeper/").count("/")
    return html(
        page, assets="../" * (below - 1) + "assets/" if below else "v1/assets/", status=status
    )


def _not_allowed(call: PageCall, allowed: str) -> Response:
    response = _page(_NOT_POSSIBLE, call, 405)
    response.headers["Allow"] = allowed
    return response


def _see_other(target: str) -> Response:
    headers = {
        "Location": target,
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
    }
    return Response(status=303, headers=headers)


def _closing(status: int) -> Response:
    """Refuse a body that was not read to its end."""
    response = Response(status=status)
    response.force_close()
    return response
