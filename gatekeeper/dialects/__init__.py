"""API families: what a call asks, what an answer consumed, how a refusal is said.

``dialect_for`` picks one; ``PLAIN`` takes what no other knows. One instance each, so ``is`` works.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from gatekeeper.dialects.anthropic_batches import AnthropicBatchCreate, AnthropicBatches
from gatekeeper.dialects.anthropic_messages import AnthropicMessages, AnthropicTokenCount
from gatekeeper.dialects.control import Control
from gatekeeper.dialects.llama_cpp import LlamaCompletion, LlamaEmbedding
from gatekeeper.dialects.openai_audio import OpenAISpeech, OpenAITranscript
from gatekeeper.dialects.openai_batches import OpenAIBatchCreate, OpenAIBatches
from gatekeeper.dialects.openai_chat import STORED_CHATS, OpenAIChat
from gatekeeper.dialects.openai_completions import OpenAICompletions
from gatekeeper.dialects.openai_files import OpenAIFiles
from gatekeeper.dialects.openai_images import OpenAIImages
from gatekeeper.dialects.openai_input import MODELS, OpenAIEmbeddings, OpenAIModerations
from gatekeeper.dialects.openai_realtime import OpenAIRealtime
from gatekeeper.dialects.openai_responses import (
    CONVERSATIONS,
    STORED_RESPONSES,
    OpenAIResponses,
    OpenAITokenCount,
    OpenAIUnbounded,
)
from gatekeeper.dialects.plain import Plain
from gatekeeper.dialects.vllm import (
    PROBES,
    Tokenizing,
    VllmBatchChat,
    VllmGenerate,
    VllmInvocations,
    VllmPooling,
)

if TYPE_CHECKING:
    from gatekeeper.dialects.base import Dialect

_REMEMBERED: Final = 256
_LONGEST: Final = 128
"""Characters of method and path whose dialect is remembered: callers choose them."""
PLAIN: Final = Plain()
UNREAD_SOCKETS: Final = ("/responses", "/realtime")
REALTIME: Final = OpenAIRealtime()
CONTROL: Final = Control()
DIALECTS: Final[tuple[Dialect, ...]] = (
    OpenAIChat(),
    AnthropicMessages(),
    OpenAIResponses(),
    OpenAIEmbeddings(),
    OpenAICompletions(),
    OpenAIModerations(),
    OpenAIUnbounded(),
    OpenAITokenCount(),
    AnthropicTokenCount(),
    AnthropicBatchCreate(),
    AnthropicBatches(),
    OpenAIImages(),
    OpenAISpeech(),
    OpenAITranscript(),
    OpenAIFiles(),
    OpenAIBatchCreate(),
    OpenAIBatches(),
    LlamaCompletion(),
    LlamaEmbedding(),
    VllmBatchChat(),
    VllmGenerate(),
    VllmInvocations(),
    VllmPooling(),
    Tokenizing(),
    CONTROL,
    MODELS,
    STORED_CHATS,
    STORED_RESPONSES,
    CONVERSATIONS,
    PROBES,
    PLAIN,
)
"""In the order in which they are asked: what generates, what is refused, what is free, the rest."""


def dialect_for(method: str, path: str, *, has_body: bool = False) -> Dialect:
    """Return the dialect of a call to the canonical ``path``; ``PLAIN`` when no other matches.

    Some servers look at path and body alone, so a body that would be read if it were posted is read
    whatever the method (H26).
    """
    if len(method) + len(path) > _LONGEST:
        return _found(method, path, has_body)
    return _remembered(method, path, has_body)


def _found(method: str, path: str, has_body: bool) -> Dialect:  # noqa: FBT001 - what is remembered
    path = path.lower().rstrip("/")
    if has_body and method != "POST":
        for dialect in DIALECTS:
            if dialect.reads_body and dialect.matches("POST", path):
                return dialect
    return next((dialect for dialect in DIALECTS if dialect.matches(method, path)), PLAIN)


_remembered: Final = lru_cache(_REMEMBERED)(_found)


def dialect_of_socket(path: str) -> Dialect:
    """Return the dialect of a WebSocket to the canonical ``path``.

    Responses over WebSocket, and realtime at another address (Azure's names its model otherwise),
    are not read: as plain messages they would be a way around limits on tokens (H26).
    """
    path = path.lower().rstrip("/")
    if REALTIME.matches("GET", path):
        return REALTIME
    if path.endswith(UNREAD_SOCKETS) or CONTROL.matches("GET", path):
        return CONTROL
    return PLAIN
