"""Text of a condition to tokens, by the grammar of the CEL language definition."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final


class ConditionError(ValueError):
    """A condition that cannot be compiled; the message says what is wrong and what is right."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message, position)
        self.message = message
        self.position = position
        """0-based offset into the source."""

    def __str__(self) -> str:
        return f"{self.message} (at character {self.position + 1})"


class TokenKind(Enum):
    """What the lexer tells apart."""

    NAME = auto()
    INT = auto()
    DOUBLE = auto()
    STRING = auto()
    SYMBOL = auto()
    END = auto()


@dataclass(frozen=True, slots=True)
class Token:
    """One token; ``text`` is the value of a string and the spelling of all others."""

    kind: TokenKind
    text: str
    position: int


_SPACE = re.compile(r"(?:[ \t\n\r\f]|//[^\n]*)*")
_NUMBER = re.compile(
    r"(?P<double>[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+)"
    r"|(?P<int>0x[0-9a-fA-F]+|[0-9]+)"
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_SYMBOL = re.compile(r"&&|\|\||[=!<>]=|[-+*/%<>!?:.,()\[\]]")
_STRING = re.compile(r"""(?P<prefix>[rRbB]?)(?P<quote>\"{3}|'{3}|"|')""")
_ESCAPE = re.compile(
    r"\\(?:(?P<simple>[abfnrtv\\?\"'`])|[xX](?P<x>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})"
    r"|U(?P<U>[0-9a-fA-F]{8})|(?P<octal>[0-3][0-7]{2}))"
)
_SIMPLE_ESCAPES: Final = dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True))
_SURROGATE = re.compile("[\ud800-\udfff]")
_SLIPS: Final = {
    "=": "write == to compare",
    "&": "write && for and",
    "|": "write || for or",
    "{": "maps are not part of the subset",
}


def _unescape(text: str, start: int) -> str:
    """Return the value of the inside ``text`` of a quoted string that begins at ``start``."""
    parts: list[str] = []
    at = 0
    while (backslash := text.find("\\", at)) >= 0:
        parts.append(text[at:backslash])
        escape = _ESCAPE.match(text, backslash)
        if escape is None:
            raise ConditionError(
                f"unknown escape {text[backslash : backslash + 2]}; write \\\\ for a backslash,"
                " or a raw string r'...'",
                start + backslash,
            )
        simple = escape["simple"]
        if simple is not None:
            parts.append(_SIMPLE_ESCAPES.get(simple, simple))
        else:
            digits = escape["x"] or escape["u"] or escape["U"]
            code = int(digits, 16) if digits else int(escape["octal"], 8)
            if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:  # noqa: PLR2004 - Unicode's own bounds
                raise ConditionError(
                    f"{escape[0]} is no Unicode character; the last one is \\U0010ffff and"
                    " surrogates do not count",
                    start + backslash,
                )
            parts.append(chr(code))
        at = escape.end()
    parts.append(text[at:])
    return "".join(parts)


def _string(source: str, opening: re.Match[str]) -> tuple[Token, int]:
    """Return the string token that starts with ``opening`` and the offset behind it."""
    start, prefix, quote = opening.start(), opening["prefix"], opening["quote"]
    if prefix in ("b", "B"):
        raise ConditionError("bytes are not part of the subset; write a string", start)
    raw = prefix != ""
    at = begin = opening.end()
    while not source.startswith(quote, at):
        if at >= len(source) or (len(quote) == 1 and source[at] == "\n"):
            raise ConditionError(f"this string is not closed; end it with {quote}", start)
        if source[at] == "\r":
            raise ConditionError("a carriage return inside a string is written \\r", at)
        at += 2 if source[at] == "\\" and not raw else 1
    inside = source[begin:at]
    if raw and (len(inside) - len(inside.rstrip("\\"))) % 2:
        # the grammar would allow it, Google's implementation does not
        raise ConditionError("a raw string ends in an even number of backslashes", start)
    value = inside if raw else _unescape(inside, begin)
    return Token(TokenKind.STRING, value, start), at + len(quote)


def tokens(source: str) -> list[Token]:
    """Split ``source`` into tokens, the last of which is the end."""
    surrogate = _SURROGATE.search(source)
    if surrogate is not None:
        raise ConditionError("half of a surrogate pair is no character", surrogate.start())
    found: list[Token] = []
    at = 0
    while True:
        space = _SPACE.match(source, at)
        at = at if space is None else space.end()
        if at == len(source):
            found.append(Token(TokenKind.END, "the end", at))
            return found
        if opening := _STRING.match(source, at):
            token, at = _string(source, opening)
            found.append(token)
            continue
        if number := _NUMBER.match(source, at):
            kind = TokenKind.INT if number["double"] is None else TokenKind.DOUBLE
            match = number
        elif name := _NAME.match(source, at):
            kind, match = TokenKind.NAME, name
        elif symbol := _SYMBOL.match(source, at):
            kind, match = TokenKind.SYMBOL, symbol
        else:
            hint = _SLIPS.get(source[at], "see the list of operators in docs/conditions.md")
            raise ConditionError(f"unexpected {source[at]!r}; {hint}", at)
        found.append(Token(kind, match[0], at))
        at = match.end()
