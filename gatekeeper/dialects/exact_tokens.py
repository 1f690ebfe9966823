"""Counts tokens exactly as ``o200k_base`` does, by a package with the vocabulary inside (an extra).

Other vocabularies (Anthropic's, those of open models) are not this one: for them it is an estimate
too.
"""

from __future__ import annotations

import warnings
from typing import Final

from gatekeeper.dialects.json_text import pieces_of

_VOCABULARY: Final = "o200k_base"


class ExactTokens:
    """Counts the tokens of UTF-8 text."""

    __slots__ = ("_encode",)

    def __init__(self) -> None:
        """Load the vocabulary: 150 MB, within a second. Raises :class:`ImportError`."""
        with warnings.catch_warnings():
            # The package reads its own files in a deprecated way.
            warnings.simplefilter("ignore", DeprecationWarning)
            import bpe_openai  # noqa: PLC0415 - an extra that not everybody has

            self._encode = bpe_openai.get_encoding(_VOCABULARY).encode_ordinary

    def __call__(self, text: bytes) -> int:
        """Return the number of tokens; what is not UTF-8 counts as replacement characters."""
        encode = self._encode
        return sum(len(encode(piece.decode(errors="replace"))) for piece in pieces_of(text))
