"""No side door: every route that the real SDK can call is metered or refused (H26)."""

from __future__ import annotations

import re

import pytest
from support.sdk_routes import sdk_routes

from gatekeeper.dialects import CONTROL, PLAIN, dialect_for
from gatekeeper.dialects.base import Ask, Incoming

ROUTES = sorted(sdk_routes())
GENERATING = {
    "openai_chat": {"/chat/completions"},
    "openai_completions": {"/completions"},
    "openai_responses": {"/responses", "/responses/compact", "/decisions"},
}
"""Where a model writes text."""
COUNTED = {
    "openai_chat": r"(GET|DELETE) /chat/completions.*",
    "openai_responses": r"(GET|DELETE) /(responses|conversations)/.*|POST /conversations.*|"
    r"POST /responses/(id_1/cancel|input_tokens)",
    "openai_models": r"GET /models.*",
}
"""Where families know that nothing is generated: requests and bytes alone are counted."""
OTHERS = {"openai_images", "openai_audio", "openai_files", "openai_batches"}
"""Families with tests of their own."""
STEERING = re.compile(
    r".* /(organization|projects|live)(/.*)?|DELETE /models/.*|"
    r".* /realtime/(calls|client_secrets|sessions|transcription_sessions|translations)(/.*)?|"
    r".* /chatkit/sessions(/.*)?"
)


def test_h26_the_sdk_is_walked_whole() -> None:
    """The walk finds what the SDK documents as its largest families."""
    assert len(ROUTES) > 300
    assert {("POST", "/responses"), ("DELETE", "/models/id_1"), ("GET", "/files")} <= {*ROUTES}


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_h26_every_route_is_metered_or_refused(method: str, path: str) -> None:
    """Read and held, known to generate nothing, plain (counted, or refused by setting), control."""
    dialect, route = dialect_for(method, f"/v1{path}"), f"{method} {path}"
    if STEERING.fullmatch(route):
        assert dialect is CONTROL
    elif dialect is PLAIN:
        assert not dialect.reads_body
    elif method == "POST" and path in GENERATING.get(dialect.name, ()):
        body = b'{"model":"m","input":"x","prompt":"x","messages":[],"max_tokens":7}'
        ask = dialect.read(Incoming(body, f"/v1{path}"))
        assert isinstance(ask, Ask)
        unbounded = path in {"/decisions", "/responses/compact"}  # whatever a body says
        assert ask.max_output_tokens == (None if unbounded else 7)
        assert ask.input_tokens > 0
    elif dialect.name in {"openai_embeddings", "openai_moderations"}:
        ask = dialect.read(Incoming(b'{"model":"m","input":"some text"}'))
        assert isinstance(ask, Ask)
        assert ask.input_tokens > 0
    elif dialect.name not in OTHERS:
        assert re.fullmatch(COUNTED[dialect.name], route)
