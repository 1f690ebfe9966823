"""Files of accounts for import: JSON lines or CSV, every mistake told with its line.

In JSON ``null`` clears a field; in CSV an empty cell leaves it as it is and lists are separated by
semicolons. Times are Unix seconds or ISO 8601 with a zone; ``banned_until`` may be ``forever``.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.words import Assurance, Tier
from gatekeeper.storage.records_schema import (
    PATCH_FIELDS,
    AccountPatch,
    FieldValue,
    is_account_id,
    is_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

_CLEARABLE: Final = PATCH_FIELDS - {"tier", "assurance", "owners", "owner_countries"}
_LIST_FIELDS: Final = frozenset({"owners", "owner_countries"})
_DOMAIN: Final = re.compile(r"(?=.{1,253}$)[^\s@/:.]+(\.[^\s@/:.]+)+")
_PATTERN: Final = re.compile(r"[a9._+-]{1,64}")
_DIGEST: Final = re.compile(r"[A-Za-z0-9_-]{16,126}={0,2}")
_FINGERPRINT: Final = re.compile(r"[A-Za-z0-9_.:+/=-]{6,128}")
_CARD_NUMBER: Final = re.compile(r"[0-9][0-9.-]{10,22}")
_LONGEST_ADDRESS: Final = 45
_OWNER: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_COUNTRY: Final = re.compile(r"[A-Z]{2}")
_LAST_SECOND: Final = 253_402_300_800.0
"""Start of the year 10000: what is later was not meant as seconds."""
_MISTAKES_SHOWN: Final = 200
_MAX_LIST: Final = 64

_Choice = TypeVar("_Choice", Tier, Assurance)


class AccountFormat(StrEnum):
    """How a file of accounts is written."""

    JSON_LINES = "jsonl"
    CSV = "csv"


def parse_accounts(
    content: bytes, *, file: str, kind: AccountFormat
) -> tuple[AccountPatch, ...] | list[Mistake]:
    """Read a whole file of accounts: all of its patches, or all of its mistakes."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return [Mistake(file, line, "", "is not UTF-8")]
    records = _json_records(text) if kind is AccountFormat.JSON_LINES else _csv_records(text)
    patches: list[AccountPatch] = []
    mistakes: list[Mistake] = []
    first_line: dict[str, int] = {}
    for line, record in records:
        found = record if isinstance(record, str) else parse_account(record)
        if isinstance(found, str):
            mistakes.append(Mistake(file, line, "", found))
        elif isinstance(found, list):
            mistakes.extend(Mistake(file, line, path, text) for path, text in found)
        elif found.id in first_line:
            earlier = first_line[found.id]
            mistakes.append(Mistake(file, line, "id", f"stands in line {earlier} already"))
        else:
            first_line[found.id] = line
            patches.append(found)
    if len(mistakes) > _MISTAKES_SHOWN:
        rest = len(mistakes) - _MISTAKES_SHOWN
        mistakes[_MISTAKES_SHOWN:] = [Mistake(file, None, "", f"and {rest} more mistakes")]
    return mistakes or tuple(patches)


def parse_account(record: Mapping[str, object]) -> AccountPatch | list[tuple[str, str]]:
    """Read one account from named values, or return pairs of field and what is wrong with it."""
    mistakes: list[tuple[str, str]] = []
    account_id = record.get("id")
    if not isinstance(account_id, str) or not is_account_id(account_id):
        mistakes.append(("id", "must be 1 to 255 visible ASCII characters without spaces"))
    values: dict[str, FieldValue] = {}
    for name, value in record.items():
        if name == "id":
            continue
        if name not in PATCH_FIELDS:
            known = ", ".join(sorted(PATCH_FIELDS))
            mistakes.append((str(name)[:40], f"is not a field of an account; fields are {known}"))
            continue
        try:
            values[name] = _parse_field(name, value)
        except ValueError as error:
            mistakes.append((name, str(error)))
    if mistakes:
        return mistakes
    return AccountPatch(str(account_id), values)


def _parse_field(name: str, value: object) -> FieldValue:
    if value is None:
        if name in _CLEARABLE:
            return None
        raise ValueError("cannot be null")
    return _PARSERS[name](value)


def _tier(value: object) -> Tier:
    return _choice(Tier, value)


def _assurance(value: object) -> Assurance:
    return _choice(Assurance, value)


def _choice(choices: type[_Choice], value: object) -> _Choice:
    for choice in choices:
        if value == choice.value:
            return choice
    raise ValueError("must be one of " + ", ".join(choice.value for choice in choices))


def _name(value: object) -> str:
    if isinstance(value, str) and is_name(value):
        return value
    raise ValueError("must be 1 to 200 printable characters")


def _domain(value: object) -> str:
    if isinstance(value, str) and value.isprintable() and _DOMAIN.fullmatch(value):
        return value.lower()
    raise ValueError("must be a mail domain such as example.com, without the part before the @")


def _pattern(value: object) -> str:
    if isinstance(value, str) and _PATTERN.fullmatch(value):
        return value
    raise ValueError(
        "must be the part before the @ with a for each letter and 9 for each digit, such as aaaa.99"
    )


def _digest(value: object) -> str:
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return value
    raise ValueError(
        "must be a keyed digest of the mail address: 16 to 128 characters of hex or base64url"
    )


def _fingerprint(value: object) -> str:
    if not isinstance(value, str) or not _FINGERPRINT.fullmatch(value):
        raise ValueError("must be 6 to 128 characters A-Z a-z 0-9 _ . : + / = -")
    if _CARD_NUMBER.fullmatch(value):
        raise ValueError("looks like a card number: send the payment provider's fingerprint of it")
    return value


def _ip_address(value: object) -> str:
    """Return the one spelling; a zone id, a port or brackets are mistakes."""
    if isinstance(value, str) and len(value) <= _LONGEST_ADDRESS and "%" not in value:
        try:
            if ":" not in value:
                return str(IPv4Address(value))
            address = IPv6Address(value)
            return str(address.ipv4_mapped or address)
        except ValueError:
            pass
    raise ValueError("must be an IP address such as 192.0.2.7 or 2001:db8::7")


def _time(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value) if abs(value) < _LAST_SECOND else math.nan
    else:
        seconds = _time_of_text(value)
    if 0 <= seconds < _LAST_SECOND:
        return seconds
    raise ValueError("must be Unix seconds or an ISO 8601 time with a zone")


def _time_of_text(value: object) -> float:
    if not isinstance(value, str):
        return math.nan
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", value):
        return float(value)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return math.nan
    # Without a zone the same file would mean another time on another machine.
    return math.nan if moment.tzinfo is None else moment.timestamp()


def _ban(value: object) -> float:
    return math.inf if value == "forever" else _time(value)


def _owners(value: object) -> tuple[str, ...]:
    return _texts(value, _OWNER, "must be a list of owner ids such as bytedance")


def _countries(value: object) -> tuple[str, ...]:
    return _texts(value, _COUNTRY, "must be a list of ISO 3166-1 alpha-2 codes such as DE")


def _texts(value: object, form: re.Pattern[str], message: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > _MAX_LIST:
        raise ValueError(message)
    for item in value:
        if not isinstance(item, str) or not form.fullmatch(item):
            raise ValueError(message)
    return tuple(value)


_PARSERS: Final[dict[str, Callable[[object], FieldValue]]] = {
    "organization": _name,
    "tier": _tier,
    "assurance": _assurance,
    "assurance_expires": _time,
    "created_at": _time,
    "email_domain": _domain,
    "email_pattern": _pattern,
    "email_digest": _digest,
    "payment_fingerprint": _fingerprint,
    "signup_address": _ip_address,
    "banned_until": _ban,
    "ban_reason": _name,
    "owners": _owners,
    "owner_countries": _countries,
}


def _json_records(text: str) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=_object, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            yield number, f"is not JSON: {_short(error)}"
            continue
        yield number, record if isinstance(record, dict) else "must be a JSON object"


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:40]!r} stands twice")
        found[name] = value
    return found


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _csv_records(text: str) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        if "id" not in names or len(set(names)) != len(names):
            yield 1, "the first line must name the columns, id among them, each once"
            return
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(names):
                yield reader.line_num, f"has {len(row)} cells where the header has {len(names)}"
                continue
            cells = zip(names, (cell.strip() for cell in row), strict=True)
            yield reader.line_num, {name: _cell(name, cell) for name, cell in cells if cell}
    except csv.Error as error:
        yield reader.line_num, f"is not CSV: {_short(error)}"


def _cell(name: str, cell: str) -> object:
    if name in _LIST_FIELDS:
        return [item.strip() for item in cell.split(";") if item.strip()]
    return cell


def _short(error: Exception) -> str:
    return (str(error) or type(error).__name__).replace("\n", " ")[:120]
