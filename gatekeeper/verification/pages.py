"""What a caller sees behind a verification link while no vendor is connected."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from aiohttp.web import Response

from gatekeeper.verification.links import PREFIX

if TYPE_CHECKING:
    from gatekeeper.policy.model import Moment
    from gatekeeper.verification.links import LinkSigner

_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class VerificationPages:
    """Answers the paths that belong to the gate itself."""

    def __init__(self, links: LinkSigner, support: str) -> None:
        self._links = links
        self._support = support or "Contact the operator of this service."

    def page(self, path: str, at: Moment) -> Response:
        """Return the page of a verification link, or say that it is none."""
        if not path.startswith(PREFIX):
            return _html(404, "Not found", "There is no such page.")
        claims = self._links.check(path.removeprefix(PREFIX), at.unix_s)
        if claims is None:
            return _html(
                410,
                "This link is not valid any more",
                "Repeat the call that was refused: its answer holds a new link.",
            )
        return _html(
            200,
            "Identity verification",
            f"{self._support} Ask for the verification of account {claims.account_id} to level "
            f"{claims.assurance.value} and name the decision {claims.decision_id}.",
        )


def _html(status: int, title: str, text: str) -> Response:
    body = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title>"
        "<style>body{font:1.1rem/1.5 system-ui;max-width:36rem;margin:4rem auto;padding:0 1rem}"
        "</style>"
        f"<main><h1>{escape(title)}</h1><p>{escape(text)}</p></main></html>"
    )
    return Response(status=status, text=body, content_type="text/html", headers=_HEADERS)
