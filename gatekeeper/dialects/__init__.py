"""API families: what a call asks, what an answer consumed, how a refusal is said.

``dialect_for`` picks one; ``PLAIN`` takes what no other knows. One instance each, so ``is`` works.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gatekeeper.dialects.anthropic_batches import AnthropicBatchCreate, AnthropicBatches
from gatekeeper.dialects.anthropic_messages import AnthropicMessages, AnthropicTokenCount
from gatekeeper.dialects.openai import OPENAI_ROUTES
from gatekeeper.dialects.openai_audio import OpenAISpeech, OpenAITranscript
from gatekeeper.dialects.openai_batches import OpenAIBatchCreate, OpenAIBatches
from gatekeeper.dialects.openai_chat import OpenAIChat
from gatekeeper.dialects.openai_files import OpenAIFiles
from gatekeeper.dialects.openai_images import OpenAIImages
from gatekeeper.dialects.openai_realtime import OpenAIRealtime
from gatekeeper.dialects.plain import Plain

if TYPE_CHECKING:
    from gatekeeper.dialects.base import Dialect

PLAIN: Final = Plain()
REALTIME: Final = OpenAIRealtime()
DIALECTS: Final[tuple[Dialect, ...]] = (
    OpenAIChat(),
    AnthropicMessages(),
    AnthropicTokenCount(),
    AnthropicBatchCreate(),
    AnthropicBatches(),
    OpenAIImages(),
    OpenAISpeech(),
    OpenAITranscript(),
    OpenAIFiles(),
    OpenAIBatchCreate(),
    OpenAIBatches(),
    *OPENAI_ROUTES,
    PLAIN,
)


def dialect_for(method: str, path: str) -> Dialect:
    """Return the dialect of a call to the canonical ``path``; ``PLAIN`` when no other matches."""
    return next((dialect for dialect in DIALECTS if dialect.matches(method, path)), PLAIN)


def dialect_of_socket(path: str) -> Dialect:
    """Return the dialect of a WebSocket to the canonical ``path``."""
    return REALTIME if REALTIME.matches("GET", path) else PLAIN
