"""Which dialect a call speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gatekeeper.dialects import (
    CONTROL,
    DIALECTS,
    PLAIN,
    REALTIME,
    dialect_for,
    dialect_of_socket,
)

if TYPE_CHECKING:
    from gatekeeper.dialects.base import Dialect


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
        ("POST", "/v1/batches", "openai_batches"),
        ("POST", "/v1/files", "openai_files"),
        ("POST", "/v1/images/generations", "openai_images"),
        ("POST", "/v1/audio/speech", "openai_audio"),
        ("POST", "/v1/audio/translations", "openai_audio"),
        ("GET", "/v1/models", "openai_models"),
        ("HEAD", "/v1/models", "openai_models"),
        ("GET", "/v1/models/demo-small", "openai_models"),
        ("GET", "/v1/models/org/name", "openai_models"),
        ("POST", "/v1/embeddings", "openai_embeddings"),
        ("POST", "/v1/moderations", "openai_moderations"),
        ("POST", "/v1/completions", "openai_completions"),
        ("POST", "/openai/deployments/gpt-35/completions", "openai_completions"),
        ("POST", "/openai/deployments/gpt-4o/chat/completions", "openai_chat"),
        ("GET", "/v1/chat/completions", "openai_chat"),
        ("DELETE", "/v1/chat/completions/chatcmpl-1", "openai_chat"),
        ("POST", "/v1/chat/completions/chatcmpl-1", "openai_chat"),
        ("GET", "/v1/chat/completions/chatcmpl-1/messages", "openai_chat"),
        ("POST", "/v1/responses", "openai_responses"),
        ("POST", "/v1/responses/compact", "openai_responses"),
        ("POST", "/v1/responses/input_tokens", "openai_responses"),
        ("GET", "/v1/responses/resp_1", "openai_responses"),
        ("DELETE", "/v1/responses/resp_1", "openai_responses"),
        ("POST", "/v1/responses/resp_1/cancel", "openai_responses"),
        ("GET", "/v1/responses/resp_1/input_items", "openai_responses"),
        ("POST", "/v1/conversations", "openai_responses"),
        ("POST", "/v1/conversations/conv_1", "openai_responses"),
        ("GET", "/v1/conversations/conv_1/items/msg_1", "openai_responses"),
        ("POST", "/completion", "llama_cpp"),
        ("POST", "/completions", "llama_cpp"),
        ("POST", "/infill", "llama_cpp"),
        ("POST", "/embedding", "llama_cpp"),
        ("POST", "/v1/chat/completions/batch", "vllm"),
        ("POST", "/v1/chat/completions/render", "vllm"),
        ("POST", "/inference/v1/generate", "vllm"),
        ("POST", "/invocations", "vllm"),
        ("POST", "/v1/rerank", "vllm"),
        ("POST", "/tokenize", "vllm"),
        ("GET", "/health", "vllm"),
        ("GET", "/props", "vllm"),
    ],
)
def test_known_routes(method: str, path: str, name: str) -> None:
    """Known routes are found under any prefix, in any case, with or without a closing slash."""
    assert dialect_for(method, path).name == name


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("OPTIONS", "/v1/chat/completions"),
        ("POST", "/v1/threads/t1/messages"),
        ("GET", "/v1/realtime"),
        ("POST", "/v1/chat/completions/x"),
        ("POST", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/new"),
        ("POST", "/v1/fine_tuning/jobs/ft_1/pause"),
        ("PUT", "/v1/responses"),
    ],
)
def test_h26_side_doors_are_plain(method: str, path: str) -> None:
    """Routes whose cost a body does not show are plain, which operators may refuse altogether."""
    assert dialect_for(method, path) is PLAIN


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/v1/models/ft:gpt-4o:acme"),
        ("DELETE", "/models"),
        ("POST", "/v1/models"),
        ("POST", "/models/unload"),
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/unload_lora_adapter"),
        ("POST", "/sleep"),
        ("POST", "/pause"),
        ("POST", "/collective_rpc"),
        ("POST", "/Update_Weights/"),
        ("GET", "/server_info"),
        ("GET", "/metrics"),
        ("POST", "/props"),
        ("GET", "/slots"),
        ("POST", "/slots/0"),
        ("POST", "/lora-adapters"),
        ("GET", "/cors-proxy"),
        ("POST", "/v1/chat/completions/control"),
        ("GET", "/v1/organization/costs"),
        ("POST", "/v1/projects/proj_1/roles"),
        ("GET", "/v1/organizations/api_keys"),
        ("POST", "/v1/realtime/client_secrets"),
        ("POST", "/v1/realtime/calls"),
        ("POST", "/v1/live/sessions/s_1/accept"),
        ("POST", "/v1/chatkit/sessions"),
        ("GET", "/v1/stream"),
        ("GET", "/v1/stream/conv_1"),
        ("DELETE", "/v1/stream/conv_1"),
        ("GET", "/v1/streams"),
        ("POST", "/v1/streams/lookup"),
    ],
)
def test_h26_controls_are_known_as_such(method: str, path: str) -> None:
    """What steers a server is neither generation nor plain: it is refused unless allowed."""
    assert dialect_for(method, path) is CONTROL


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/realtime", REALTIME),
        ("/v1/responses", CONTROL),
        ("/api/Responses/", CONTROL),
        ("/openai/realtime", CONTROL),
        ("/openai/v1/realtime", REALTIME),
        ("/v1/live/sessions/s_1", CONTROL),
        ("/anything", PLAIN),
    ],
)
def test_h26_sockets_are_no_way_around(path: str, dialect: Dialect) -> None:
    """Text that would go unread is refused unless allowed; so is what leads past the gate."""
    assert dialect_of_socket(path) is dialect


def test_names_and_order() -> None:
    """The last resort stands last, and nothing before it takes any call."""
    assert DIALECTS[-1] is PLAIN
    assert not any(dialect.matches("GET", "/") for dialect in DIALECTS[:-1])
    assert {dialect.name for dialect in DIALECTS} == {
        "openai_chat",
        "anthropic_messages",
        "anthropic_batches",
        "anthropic_count_tokens",
        "openai_audio",
        "openai_batches",
        "openai_files",
        "openai_images",
        "control",
        "llama_cpp",
        "openai_completions",
        "openai_embeddings",
        "openai_models",
        "openai_moderations",
        "openai_responses",
        "vllm",
        "plain",
    }
