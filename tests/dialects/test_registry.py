"""Which dialect a call speaks."""

from __future__ import annotations

import pytest

from gatekeeper.dialects import DIALECTS, PLAIN, dialect_for


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/v1/chat/completions", "openai_chat"),
        ("POST", "/v1/chat/completions/", "openai_chat"),
        ("POST", "/V1/Chat/Completions", "openai_chat"),
        ("POST", "/api/openai/v1/chat/completions", "openai_chat"),
        ("POST", "/chat/completions", "openai_chat"),
        ("POST", "/v1/messages", "anthropic_messages"),
        ("POST", "/anthropic/v1/messages/", "anthropic_messages"),
        ("POST", "/v1/messages/count_tokens", "anthropic_count_tokens"),
        ("POST", "/v1/messages/batches", "anthropic_batches"),
        ("GET", "/v1/messages/batches/b1/results", "anthropic_batches"),
        ("GET", "/v1/models", "openai"),
        ("HEAD", "/v1/models", "openai"),
        ("GET", "/v1/models/demo-small", "openai"),
        ("POST", "/v1/batches", "openai_batches"),
        ("POST", "/v1/files", "openai_files"),
        ("POST", "/v1/images/generations", "openai_images"),
        ("POST", "/v1/audio/speech", "openai_audio"),
        ("POST", "/v1/audio/translations", "openai_audio"),
        ("POST", "/v1/embeddings", "openai"),
        ("POST", "/v1/moderations", "openai"),
        ("POST", "/v1/completions", "openai"),
        ("POST", "/v1/responses", "openai"),
    ],
)
def test_known_routes(method: str, path: str, name: str) -> None:
    """Known routes are found under any prefix, in any case, with or without a closing slash."""
    assert dialect_for(method, path).name == name


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v1/chat/completions"),
        ("OPTIONS", "/v1/chat/completions"),
        ("DELETE", "/v1/models/demo-small"),
        ("POST", "/v1/models"),
        ("POST", "/v1/threads/t1/messages"),
        ("GET", "/v1/realtime"),
        ("POST", "/completion"),
        ("POST", "/v1/chat/completions/x"),
    ],
)
def test_h26_side_doors_are_plain(method: str, path: str) -> None:
    """Routes whose cost a body does not show are plain, which operators may refuse altogether."""
    assert dialect_for(method, path) is PLAIN


def test_names_and_order() -> None:
    """The last resort stands last, and nothing before it takes any call."""
    assert DIALECTS[-1] is PLAIN
    assert not any(dialect.matches("GET", "/") for dialect in DIALECTS[:-1])
    assert {dialect.name for dialect in DIALECTS} == {
        "openai_chat",
        "anthropic_messages",
        "anthropic_batches",
        "anthropic_count_tokens",
        "openai",
        "openai_audio",
        "openai_batches",
        "openai_files",
        "openai_images",
        "plain",
    }
