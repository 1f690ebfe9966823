"""Tokens of a condition to a syntax tree, by the grammar of the CEL language definition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Never, TypeAlias

from gatekeeper.policy.cel.tokens import ConditionError, Token, TokenKind, tokens

MAX_CHARACTERS: Final = 2_000
MAX_HEIGHT: Final = 32
"""How deep brackets and the syntax tree may nest; chains of ``&&`` and ``||`` count once."""

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant."""

    position: int
    height: int
    value: bool | int | float | str


@dataclass(frozen=True, slots=True)
class Name:
    """An identifier: the root of a field, or a variable of a macro."""

    position: int
    height: int
    name: str


@dataclass(frozen=True, slots=True)
class Select:
    """``target.name``."""

    position: int
    height: int
    target: Node
    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """``name(arguments)`` or ``target.name(arguments)``."""

    position: int
    height: int
    target: Node | None
    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Unary:
    """A run of ``!`` or of ``-``; as in CEL an even run only keeps its operand."""

    position: int
    height: int
    operator: str
    odd: bool
    operand: Node


@dataclass(frozen=True, slots=True)
class Binary:
    """Arithmetic, comparison or ``in``."""

    position: int
    height: int
    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Logic:
    """A whole chain of ``&&`` or of ``||``."""

    position: int
    height: int
    operator: str
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Ternary:
    """``test ? yes : no``."""

    position: int
    height: int
    test: Node
    yes: Node
    no: Node


@dataclass(frozen=True, slots=True)
class ListOf:
    """``[items]``."""

    position: int
    height: int
    items: tuple[Node, ...]


Node: TypeAlias = "Literal | Name | Select | Call | Unary | Binary | Logic | Ternary | ListOf"

RESERVED: Final = frozenset(
    {
        *("as", "break", "const", "continue", "else", "false", "for", "function", "if", "import"),
        *("in", "let", "loop", "namespace", "null", "package", "return", "true", "var", "void"),
        "while",
    }
)
"""Words CEL keeps for itself."""

_PYTHONISMS: Final = {"and": "&&", "or": "||", "not": "!"}
_BY_PRECEDENCE: Final = (
    (),
    ("||",),
    ("&&",),
    ("==", "!=", "<", "<=", ">", ">=", "in"),
    ("+", "-"),
    ("*", "/", "%"),
)
_TIGHTEST: Final = len(_BY_PRECEDENCE) - 1


class _Parser:
    """Precedence climbing over the tokens of one source."""

    def __init__(self, source: str) -> None:
        self._tokens = tokens(source)
        self._at = 0
        self._open = 0

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._next
        self._at += 1
        return token

    def _sees(self, *texts: str) -> bool:
        """Tell whether the next token is one of these symbols (or the word ``in``)."""
        token = self._next
        return token.kind in (TokenKind.SYMBOL, TokenKind.NAME) and token.text in texts

    def _accept(self, text: str) -> bool:
        seen = self._sees(text)
        self._at += seen
        return seen

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            self._unexpected(f"{text} belongs here")

    def _unexpected(self, hint: str) -> Never:
        token = self._next
        if token.kind is TokenKind.NAME and token.text in _PYTHONISMS:
            hint = f"write {_PYTHONISMS[token.text]}"
        shown = repr(token.text) if token.kind is TokenKind.STRING else token.text
        raise ConditionError(f"unexpected {shown}; {hint}", token.position)

    def _height(self, position: int, *children: Node) -> int:
        height = 1 + max((child.height for child in children), default=0)
        if height > MAX_HEIGHT:
            raise ConditionError(
                f"nested deeper than {MAX_HEIGHT} levels; split it into several rules", position
            )
        return height

    def whole(self) -> Node:
        """Parse all of the source."""
        node = self._expression()
        if self._next.kind is not TokenKind.END:
            self._unexpected("the condition should end here or go on with an operator")
        return node

    def _expression(self) -> Node:
        position = self._next.position
        self._open += 1
        if self._open > MAX_HEIGHT:
            raise ConditionError(
                f"nested deeper than {MAX_HEIGHT} levels; split it into several rules", position
            )
        node = self._chain(1)
        if self._accept("?"):
            yes = self._chain(1)
            self._expect(":")
            no = self._expression()
            node = Ternary(position, self._height(position, node, yes, no), node, yes, no)
        self._open -= 1
        return node

    def _chain(self, precedence: int) -> Node:
        """Parse operators that bind at least as tightly as ``precedence``."""
        node = self._chain(precedence + 1) if precedence < _TIGHTEST else self._unary()
        while self._sees(*_BY_PRECEDENCE[precedence]):
            operator = self._take()
            right = self._chain(precedence + 1) if precedence < _TIGHTEST else self._unary()
            position = operator.position
            if operator.text not in ("&&", "||"):
                height = self._height(position, node, right)
                node = Binary(position, height, operator.text, node, right)
                continue
            operands = [node, right]
            while self._accept(operator.text):
                operands.append(self._chain(precedence + 1))
            height = self._height(position, *operands)
            node = Logic(position, height, operator.text, tuple(operands))
        return node

    def _unary(self) -> Node:
        first = self._next
        if not self._sees("!", "-"):
            return self._member(self._primary())
        run = 0
        while self._accept(first.text):
            run += 1
        number = self._next.kind in (TokenKind.INT, TokenKind.DOUBLE)
        if first.text == "-" and run == 1 and number:
            return self._member(self._number(first))
        operand = self._member(self._primary())
        height = self._height(first.position, operand)
        return Unary(first.position, height, first.text, run % 2 == 1, operand)

    def _member(self, node: Node) -> Node:
        while self._accept("."):
            name = self._take()
            if name.kind is not TokenKind.NAME or name.text in RESERVED:
                raise ConditionError(
                    f"unexpected {name.text} after the dot; the name of a field or function"
                    " belongs here",
                    name.position,
                )
            height = self._height(name.position, node)
            if self._accept("("):
                arguments = self._items(")")
                height = self._height(name.position, node, *arguments)
                node = Call(name.position, height, node, name.text, arguments)
            else:
                node = Select(node.position, height, node, name.text)
        if self._sees("["):
            self._unexpected("picking an element is not part of the subset; use in or exists")
        return node

    def _items(self, closing: str) -> tuple[Node, ...]:
        """Parse expressions with commas between them, and the bracket that closes them."""
        items: list[Node] = []
        while not self._accept(closing):
            if items:
                self._expect(",")
                if closing == "]" and self._accept(closing):
                    break
            items.append(self._expression())
        return tuple(items)

    def _primary(self) -> Node:
        token = self._next
        if token.kind in (TokenKind.INT, TokenKind.DOUBLE):
            return self._number(None)
        if token.kind is TokenKind.STRING:
            self._take()
            return Literal(token.position, 1, token.text)
        if token.kind is TokenKind.NAME:
            return self._word()
        if self._accept("("):
            inside = self._expression()
            self._expect(")")
            return inside
        if self._accept("["):
            items = self._items("]")
            return ListOf(token.position, self._height(token.position, *items), items)
        return self._unexpected("a field, a literal or a bracket belongs here")

    def _word(self) -> Node:
        """Parse what begins with a name: a bool, a field or a call."""
        token = self._next
        if token.text in ("true", "false"):
            self._take()
            return Literal(token.position, 1, token.text == "true")
        if token.text == "null":
            self._unexpected("nothing is null here; has(field) tells whether a field is known")
        if token.text in RESERVED or token.text in _PYTHONISMS:
            self._unexpected("this word is reserved")
        self._take()
        if not self._accept("("):
            return Name(token.position, 1, token.text)
        arguments = self._items(")")
        height = self._height(token.position, *arguments)
        return Call(token.position, height, None, token.text, arguments)

    def _number(self, minus: Token | None) -> Literal:
        token = self._take()
        position = token.position if minus is None else minus.position
        sign = 1 if minus is None else -1
        after = self._next
        if after.kind is TokenKind.NAME and after.position == token.position + len(token.text):
            hint = "unsigned numbers are not part of the subset" if after.text in "uU" else ""
            self._unexpected(hint or "put a space or an operator behind the number")
        if token.kind is TokenKind.DOUBLE:
            number = sign * float(token.text)
            if number in (float("inf"), float("-inf")):
                raise ConditionError("this number is too large for a double", position)
            return Literal(position, 1, number)
        # at most 2,000 digits, well below the length at which int() refuses
        whole = sign * int(token.text, 16 if token.text.startswith("0x") else 10)
        if not INT_MIN <= whole <= INT_MAX:
            raise ConditionError("an int lies between -2^63 and 2^63-1; write a double", position)
        return Literal(position, 1, whole)


def parse(source: str) -> Node:
    """Parse a condition; raise :class:`ConditionError` for anything that is not one."""
    if len(source) > MAX_CHARACTERS:
        raise ConditionError(
            f"a condition has at most {MAX_CHARACTERS} characters, this one has {len(source)};"
            " split it into several rules",
            MAX_CHARACTERS,
        )
    return _Parser(source).whole()
