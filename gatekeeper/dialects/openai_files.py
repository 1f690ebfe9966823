"""Files, uploads, vector stores and containers: they stream through, however large."""

from __future__ import annotations

import re
from typing import Final

from gatekeeper.dialects.openai import OpenAIErrors
from gatekeeper.dialects.unread import Unread

_PATH: Final = re.compile(r"/v1/(?:files|uploads|vector_stores|containers)(?:/|\Z)")


class OpenAIFiles(Unread, OpenAIErrors):
    """Everything at and under the routes of files: a request and its bytes, no tokens."""

    __slots__ = ()
    name: Final = "openai_files"

    def matches(self, method: str, path: str) -> bool:  # noqa: ARG002 - the protocol's signature
        """Match by the path, whatever prefix an upstream has."""
        return _PATH.search(path.lower()) is not None
