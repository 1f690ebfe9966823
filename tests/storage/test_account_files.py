"""Files of accounts: read whole or refused with every mistake in its place."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.words import Assurance, Tier
from gatekeeper.storage.account_files import AccountFormat, parse_account, parse_accounts
from gatekeeper.storage.records_schema import AccountPatch

JSONL = AccountFormat.JSON_LINES
CSV = AccountFormat.CSV


def mistakes_of(content: str | bytes, kind: AccountFormat) -> list[str]:
    """Return each mistake as text, asserting that there are some."""
    data = content.encode() if isinstance(content, str) else content
    found = parse_accounts(data, file="accounts", kind=kind)
    assert isinstance(found, list)
    return [str(mistake) for mistake in found]


def test_json_lines_and_csv_say_the_same() -> None:
    """Both formats give the same patches, typed."""
    lines = (
        '{"id": "acme", "organization": "Acme AG", "tier": "trusted", "assurance": "ial2",'
        ' "created_at": "2026-01-02T03:04:05Z", "email_domain": "ACME.example",'
        ' "banned_until": "forever", "owners": ["bytedance", "acme"], "owner_countries": ["CN"]}\n'
        '\n{"id": "b", "created_at": 1700000000.5}\n'
    )
    table = (
        "\ufeffid,organization,tier,assurance,created_at,email_domain,banned_until,owners,"
        "owner_countries\r\n"
        "acme,Acme AG,trusted,ial2,2026-01-02T03:04:05+00:00,acme.example,forever,"
        "bytedance; acme,CN\r\n"
        ",,\r\n"
        "b,,,,1700000000.5,,,,\r\n"
    )
    from_json = parse_accounts(lines.encode(), file="f", kind=JSONL)
    assert from_json == parse_accounts(table.encode(), file="f", kind=CSV)
    assert from_json == (
        AccountPatch(
            "acme",
            {
                "organization": "Acme AG",
                "tier": Tier.TRUSTED,
                "assurance": Assurance.IAL2,
                "created_at": 1_767_323_045.0,
                "email_domain": "acme.example",
                "banned_until": math.inf,
                "owners": ("bytedance", "acme"),
                "owner_countries": ("CN",),
            },
        ),
        AccountPatch("b", {"created_at": 1_700_000_000.5}),
    )


def test_null_clears_only_what_may_be_absent() -> None:
    """A ban can be lifted by null; a tier cannot be taken away."""
    assert parse_account({"id": "a", "banned_until": None}) == AccountPatch(
        "a", {"banned_until": None}
    )
    assert parse_account({"id": "a", "tier": None}) == [("tier", "cannot be null")]


def test_every_mistake_is_told_with_its_line() -> None:
    """One bad line hides no other, and one good line is not imported alone."""
    lines = [
        '{"id": "good"}',
        '{"id": "a b", "tier": "emperor"}',
        "[1]",
        '{"id": "good"}',
        '{"id": "x", "id": "y"}',
        '{"id": "z", "created_at": NaN}',
        '{"id": "z", "colour": 1}',
        "{",
    ]
    found = mistakes_of("\n".join(lines), JSONL)
    assert [text.split(": ")[0] for text in found] == [
        "accounts:2",
        "accounts:2",
        "accounts:3",
        "accounts:4",
        "accounts:5",
        "accounts:6",
        "accounts:7",
        "accounts:8",
    ]
    assert found[3] == "accounts:4: id: stands in line 1 already"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tier", "TRUSTED"),
        ("tier", ["trusted"]),
        ("assurance", 2),
        ("created_at", "2026-01-02T03:04:05"),
        ("created_at", True),
        ("created_at", -1),
        ("created_at", 1_790_000_000_000),
        ("created_at", float("inf")),
        ("created_at", 10**400),
        ("banned_until", "never"),
        ("email_domain", "someone@example.com"),
        ("email_domain", "localhost"),
        ("organization", "a\nb"),
        ("organization", ""),
        ("ban_reason", "x" * 201),
        ("owners", "bytedance"),
        ("owners", [1]),
        ("owner_countries", ["cn"]),
        ("owner_countries", ["CN"] * 65),
        ("opaque", True),
        ("seq", 1),
    ],
)
def test_values_of_the_wrong_kind_are_refused(name: str, value: object) -> None:
    """Nothing is guessed: not units, not zones, not letter case, not a list from a text."""
    found = parse_account({"id": "a", name: value})
    assert isinstance(found, list)
    assert found[0][0] == name


@pytest.mark.parametrize("account_id", [None, 7, "", "a b", "a\n", "é", "x" * 256])
def test_ids_that_cannot_be_are_refused(account_id: object) -> None:
    """An id is 1 to 255 visible ASCII characters."""
    assert isinstance(parse_account({"id": account_id}), list)


def test_csv_header_cells_and_quotes_are_checked() -> None:
    """A column named twice, a row cut short and an open quote each have their line."""
    assert mistakes_of("id,id\na,b\n", CSV)[0].startswith("accounts:1:")
    assert mistakes_of("name\na\n", CSV)[0].startswith("accounts:1:")
    assert mistakes_of("id,tier\na\n", CSV)[0].startswith("accounts:2: has 1 cells")
    assert mistakes_of('id,tier\na,"trus\n', CSV)[0].startswith("accounts:2: is not CSV")


def test_bytes_that_are_no_utf8_are_told_with_their_line() -> None:
    """A file in another encoding is refused as a whole."""
    assert mistakes_of(b'{"id": "a"}\n{"id": "\xff"}\n', JSONL) == ["accounts:2: is not UTF-8"]


def test_a_flood_of_mistakes_is_cut() -> None:
    """Ten thousand bad lines do not print ten thousand mistakes."""
    found = mistakes_of("x\n" * 10_000, JSONL)
    assert len(found) == 201
    assert found[-1] == "accounts: and 9800 more mistakes"


def test_a_nested_bomb_is_one_mistake() -> None:
    """Deep nesting does not end the interpreter."""
    assert len(mistakes_of("[" * 100_000, JSONL)) == 1


@settings(max_examples=60, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["id", "tier", "owners", "x"]), inner, max_size=3)
            ),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode()),
    ),
    kind=st.sampled_from(AccountFormat),
)
def test_any_bytes_give_patches_or_mistakes(content: bytes, kind: AccountFormat) -> None:
    """No input raises."""
    found = parse_accounts(content, file="f", kind=kind)
    kinds = {type(item) for item in found}
    assert kinds <= ({Mistake} if isinstance(found, list) else {AccountPatch})


def test_what_an_operator_pushes_of_an_account_is_read() -> None:
    """Patterns, digests and fingerprints stay as they are; an address gets its one spelling."""
    record = {
        "id": "a",
        "email_pattern": "aaaa.99",
        "email_digest": "mZ0-_" * 5 + "==",
        "payment_fingerprint": "pm_1NqX/=+:.-",
        "signup_address": "2001:DB8:0::7",
    }
    assert parse_account(record) == AccountPatch(
        "a",
        {name: value for name, value in record.items() if name != "id"}
        | {"signup_address": "2001:db8::7"},
    )
    mapped = parse_account({"id": "a", "signup_address": "::ffff:192.0.2.7"})
    assert mapped == AccountPatch("a", {"signup_address": "192.0.2.7"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("email_pattern", "john.smith"),
        ("email_pattern", "aaaa@example.com"),
        ("email_pattern", "a" * 65),
        ("email_pattern", ""),
        ("email_digest", "john@example.com"),
        ("email_digest", "abc"),
        ("email_digest", "f" * 129),
        ("email_digest", b"0123456789abcdef"),
        ("payment_fingerprint", "4111111111111111"),
        ("payment_fingerprint", "4111-1111-1111-1111"),
        ("payment_fingerprint", "4111 1111 1111 1111"),
        ("payment_fingerprint", "x" * 129),
        ("signup_address", "192.0.2.7:80"),
        ("signup_address", "[2001:db8::7]"),
        ("signup_address", "fe80::1%eth0"),
        ("signup_address", "192.0.2.07"),
        ("signup_address", "192.0.2.0/24"),
        ("signup_address", 3_221_225_991),
        ("signup_address", "example.com"),
    ],
)
def test_what_would_give_a_person_away_is_refused(name: str, value: object) -> None:
    """A mail address, its readable part or a card number is refused, and not repeated."""
    found = parse_account({"id": "a", name: value})
    assert isinstance(found, list)
    ((path, text),) = found
    assert path == name
    assert str(value) not in text or not value
