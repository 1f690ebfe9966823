"""Routes that steer a model server or an organization, show what others do, or lead past the gate.

The first were not meant for callers, but stand on the same port. The last hand out keys or
connections with which a caller talks to the upstream alone. They are refused unless
``control_routes`` says otherwise.
"""

from __future__ import annotations

from typing import Final

from gatekeeper.dialects.openai import OpenAIErrors
from gatekeeper.dialects.unread import Unread

_POST: Final = frozenset({"POST"})
_READ: Final = frozenset({"GET", "HEAD"})
_ANY: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_WORDS: Final = {
    # vLLM
    **dict.fromkeys(
        (
            "abort_requests",
            "collective_rpc",
            "init_weight_transfer_engine",
            "load_lora_adapter",
            "reset_encoder_cache",
            "reset_mm_cache",
            "reset_prefix_cache",
            "scale_elastic_ep",
            "start_profile",
            "stop_profile",
            "unload_lora_adapter",
            "update_weights",
            "wake_up",
        ),
        _POST,
    ),
    "server_info": _READ,
    "tokenizer_info": _READ,
    # llama.cpp
    "cors-proxy": _ANY,
    "lora-adapters": _ANY,
    "props": _POST,
    "slots": _ANY,  # shows the prompts of others
    "models": _POST | {"DELETE"},
}
"""Last words of paths, and the methods that make them control."""
_ENDS: Final = ("/models/load", "/models/unload", "/chat/completions/control")
_AT_THE_ROOT: Final = frozenset(
    {"/is_paused", "/is_sleeping", "/load", "/metrics", "/pause", "/resume", "/sleep", "/tools"}
)
"""Words that other APIs use further down."""
_UNDER: Final = (
    # OpenAI's and Anthropic's administration: keys, members, bills
    "/v1/organization/",
    "/v1/organizations/",
    "/v1/projects/",
    # Keys for browsers, and calls by WebRTC or SIP, past the gate
    "/v1/realtime/calls/",
    "/v1/realtime/client_secrets/",
    "/v1/realtime/sessions/",
    "/v1/realtime/transcription_sessions/",
    "/v1/realtime/translations/",
    "/v1/live/",
    "/v1/chatkit/sessions/",
    # llama.cpp: answers, also of others, that were written on after their callers had left
    "/v1/stream/",
    "/v1/streams/",
)


class Control(Unread, OpenAIErrors):
    """What only operators should reach."""

    __slots__ = ()
    name: Final = "control"

    def matches(self, method: str, path: str) -> bool:
        """Match by method and the last word of the path; some words only where they stand alone."""
        before, _, word = path.rpartition("/")
        if method in _WORDS.get(word, ()) or path in _AT_THE_ROOT:
            return True
        if method == "DELETE" and "/v1/models/" in path:
            return True
        if method == "POST" and (path.endswith(_ENDS) or before.endswith("/slots")):
            return True
        return any(each in f"{path}/" for each in _UNDER)
