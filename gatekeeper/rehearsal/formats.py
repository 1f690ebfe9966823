"""Files that a replay reads: one JSON object in each line, packed by gzip or not."""

from __future__ import annotations

import gzip
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final, TypeVar, cast

import msgspec
from msgspec import Meta, Raw, Struct

from gatekeeper.facts.address import parse_address
from gatekeeper.facts.email_domains import normal_domain
from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.model import Usage
from gatekeeper.policy.words import Tier
from gatekeeper.rehearsal.engine import Answered, RecordedCall
from gatekeeper.storage.records_schema import AccountRow, is_account_id, is_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_GZIP: Final = b"\x1f\x8b"
_LONGEST_LINE: Final = 64_000_000
_MOST_MISTAKES: Final = 20
_MOST_SECONDS: Final = 4e9
_LONGEST_PATTERN: Final = 64
_OTHER: Final = re.compile(r"[^a9._+-]")
_LETTER: Final = re.compile(r"[^\W\d_]")
_DIGIT: Final = re.compile(r"\d")

Seconds = Annotated[float, Meta(ge=0, le=_MOST_SECONDS)]
Count = Annotated[int, Meta(ge=0, le=10**12)]


class UsageLine(Struct):
    """Tokens of an answer, as Anthropic and the Responses API name them, or as chats do."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None


class ResponseLine(Struct):
    """What came back for a call."""

    status: Annotated[int, Meta(ge=100, le=599)] = 200
    usage: UsageLine | None = None


class TrafficLine(Struct):
    """One call of a recording."""

    at: Seconds
    remote: str
    path: str
    method: str = "POST"
    headers: dict[str, str] = {}
    account: str | None = None
    body: Raw = Raw(b"")
    response: ResponseLine | None = None


class AccountLine(Struct):
    """One account of a recording."""

    id: str
    created_at: Seconds | None = None
    email: str | None = None
    organization: str | None = None
    payment_fingerprint: str | None = None
    signup_address: str | None = None
    tier: Tier = Tier.STANDARD


class VerificationLine(Struct):
    """How one account fares when it is first asked who it is."""

    account: str
    passes: bool
    after_s: Annotated[float, Meta(ge=0, le=_MOST_SECONDS)] = 0.0


class FormatError(Exception):
    """A file cannot be used; ``mistakes`` says where and why."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        """Keep the mistakes for whoever prints them."""
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = mistakes


_Line = TypeVar("_Line")
_Made = TypeVar("_Made")
_TRAFFIC: Final = msgspec.json.Decoder(TrafficLine)


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Open a file, packed or not: what lines are read of, and the file, to tell how far.

    Raises :class:`FormatError`.
    """
    try:
        plain = path.open("rb")
    except OSError as error:
        raise FormatError([Mistake(str(path), None, "", error.strerror or "unreadable")]) from error
    with plain:
        packed = plain.read(2) == _GZIP
        plain.seek(0)
        if packed:
            with gzip.open(plain) as file:
                yield cast("BinaryIO", file), plain
        else:
            yield plain, plain


def lines_of(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file; raises :class:`FormatError` where it is damaged."""
    number = 0
    try:
        while line := file.readline(_LONGEST_LINE):
            number += 1
            yield line
    except (OSError, EOFError) as error:
        wrong = f"damaged after this line: {error}"
        raise FormatError([Mistake(str(path), number, "", wrong)]) from error


def recorded(line: bytes) -> RecordedCall | str:
    """Return the call that a line of traffic tells; a sentence when it tells none."""
    try:
        found = _TRAFFIC.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _said(error)
    if parse_address(found.remote) is None:
        return "`remote` is not an IPv4 or IPv6 address"
    if found.account is not None and not is_account_id(found.account):
        return "`account` is not 1 to 255 visible ASCII characters"
    answer = found.response
    return RecordedCall(
        found.at,
        found.remote,
        found.method,
        found.path,
        found.headers,
        _body(found.body),
        found.account,
        Answered() if answer is None else Answered(answer.status, _usage(answer.usage)),
    )


def _body(raw: Raw) -> bytes:
    """Return a body as it was sent: an object as JSON, text as it is, null as nothing."""
    body = bytes(raw)
    if body == b"null":
        return b""
    if body.startswith(b'"'):
        return msgspec.json.decode(body, type=str).encode(errors="replace")
    return body


def _usage(usage: UsageLine | None) -> Usage | None:
    if usage is None:
        return None
    return Usage(
        usage.input_tokens or usage.prompt_tokens or 0,
        usage.output_tokens or usage.completion_tokens or 0,
    )


def accounts_in(path: Path) -> list[AccountRow]:
    """Return the accounts of a file; raises :class:`FormatError` with all that is wrong."""
    return _all(path, AccountLine, _account)


def verifications_in(path: Path) -> dict[str, VerificationLine]:
    """Return by account how it fares; raises :class:`FormatError` with all that is wrong."""
    return {each.account: each for each in _all(path, VerificationLine, lambda line: line)}


def _all(path: Path, kind: type[_Line], make: Callable[[_Line], _Made | str]) -> list[_Made]:
    decoder = msgspec.json.Decoder(kind)
    found: list[_Made] = []
    mistakes: list[Mistake] = []
    with opened(path) as (file, _):
        for number, line in enumerate(lines_of(path, file), start=1):
            if not line.strip():
                continue
            try:
                made = make(decoder.decode(line))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                made = _said(error)
            if isinstance(made, str):
                mistakes.append(Mistake(str(path), number, "", made))
                if len(mistakes) == _MOST_MISTAKES:
                    break
            else:
                found.append(made)
    if mistakes:
        raise FormatError(mistakes)
    return found


def _account(line: AccountLine) -> AccountRow | str:
    if not is_account_id(line.id):
        return "`id` is not 1 to 255 visible ASCII characters"
    if line.organization is not None and not is_name(line.organization):
        return "`organization` is not 1 to 200 printable characters"
    if line.signup_address is not None and parse_address(line.signup_address) is None:
        return "`signup_address` is not an IPv4 or IPv6 address"
    local, at, domain = (line.email or "").rpartition("@")
    return AccountRow(
        line.id,
        organization=line.organization,
        tier=line.tier,
        created_at=line.created_at,
        email_domain=(normal_domain(domain) or None) if at else None,
        email_pattern=pattern_of(local) or None,
        payment_fingerprint=line.payment_fingerprint or None,
        signup_address=line.signup_address,
    )


def pattern_of(local: str) -> str:
    """Return the shape of the part before the ``@``: ``a`` for a letter, ``9`` for a digit."""
    shape = _DIGIT.sub("9", _LETTER.sub("a", local))
    return _OTHER.sub("-", shape)[:_LONGEST_PATTERN]


def _said(error: Exception) -> str:
    """Return what is wrong without what the line says: it may be a prompt."""
    if isinstance(error, msgspec.ValidationError):
        return str(error)
    return "not a JSON object in UTF-8"
