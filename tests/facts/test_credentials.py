"""Who is calling: one credential or a clear refusal, whatever the headers say."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from gatekeeper.facts.api_keys import (
    MintedKey,
    is_well_formed,
    issue_key,
    key_digest,
)
from gatekeeper.facts.credentials import NOBODY, Authenticator, claimed
from gatekeeper.facts.directory import Directory
from gatekeeper.facts.jwt_tokens import JwtVerifier, TokenResult
from gatekeeper.facts.key_shapes import _checksum
from gatekeeper.facts.replica import KeyEntry, Replica
from gatekeeper.policy.model import Account, Credential
from gatekeeper.policy.words import CredentialKind, CredentialStatus, LookupStatus, Tier
from gatekeeper.storage.organizations import OrganizationRow
from gatekeeper.storage.records import Records

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

AT = 1_790_000_000.0
SUBKEY = b"k" * 32
JWT_SHAPE = "eyJhbGciOiJub25lIn0.e30."
API_KEY = frozenset({CredentialKind.API_KEY})
JWT = frozenset({CredentialKind.JWT})
OPAQUE = frozenset({CredentialKind.OPAQUE})
ALL = API_KEY | JWT | OPAQUE


class Book(Directory):
    """A directory filled by hand."""

    def __init__(self) -> None:
        Replica.__init__(self, lambda _: ())
        self.entries: dict[bytes, KeyEntry] = {}
        self.known: dict[str, Account] = {}
        self._failing = False

    def key(self, digest: bytes) -> KeyEntry | None:
        """Return what was put in."""
        return self.entries.get(digest)

    def account(self, account_id: str, at: float) -> Account:
        """Return what was put in, or an account that is not known."""
        return self.known.get(account_id, Account(account_id, status=LookupStatus.MISS))


class Answer(JwtVerifier):
    """A verifier that says what it is told to."""

    def __init__(self, result: TokenResult) -> None:
        self.result = result
        self.asked: list[str] = []

    def verify(self, text: str, at: float) -> TokenResult:
        """Return the prepared result."""
        self.asked.append(text)
        return self.result


@pytest.fixture
async def records(tmp_path: Path) -> AsyncIterator[Records]:
    """Open fresh records."""
    opened = await Records.open(f"sqlite:///{tmp_path / 'records.db'}")
    yield opened
    await opened.close()


async def mint(records: Records, *, seed: int = 1, expires_at: float | None = None) -> MintedKey:
    """Issue a key for ``acme`` with chance that repeats."""
    return await issue_key(
        records,
        subkey=SUBKEY,
        account_id="acme",
        label="ci",
        at=AT,
        expires_at=expires_at,
        random_bytes=random.Random(seed).randbytes,
    )


def headers(*pairs: tuple[str, str]) -> CIMultiDictProxy[str]:
    """Return headers as aiohttp gives them."""
    return CIMultiDictProxy(CIMultiDict(pairs))


def bearer(secret: str) -> CIMultiDictProxy[str]:
    """Return the header that the OpenAI SDK sends."""
    return headers(("Authorization", f"Bearer {secret}"))


def in_a_book(minted: MintedKey) -> Book:
    """Return a directory that knows one key and its account."""
    book = Book()
    row = minted.row
    book.entries[row.digest] = KeyEntry(row.key_id, row.account_id, row.expires_at)
    book.known["acme"] = Account("acme", known=True, tier=Tier.TRUSTED)
    return book


async def test_a_key_is_shown_once_and_only_its_digest_is_stored(records: Records) -> None:
    """The text has the announced form; neither the records nor the object's repr hold it."""
    minted = await mint(records)
    assert minted.text.startswith(minted.row.key_id + "_")
    assert len(minted.text) == 51
    assert is_well_formed(minted.text)
    assert minted.account_created
    secret = minted.text.removeprefix(minted.row.key_id + "_")
    (row,) = await records.keys()
    assert row == minted.row
    assert row.digest == key_digest(minted.text, SUBKEY)
    assert secret not in repr(row)
    assert secret not in repr(minted)


async def test_a_taken_key_id_is_drawn_again(records: Records) -> None:
    """Chance that repeats itself costs a draw, never a key of somebody else."""
    draws = iter([b"twice", bytes(20), b"twice", bytes(20), b"other", bytes(20)])

    async def issue(random_bytes: Callable[[int], bytes]) -> MintedKey:
        return await issue_key(
            records,
            subkey=SUBKEY,
            account_id="acme",
            label="",
            at=AT,
            expires_at=None,
            random_bytes=random_bytes,
        )

    first = await issue(lambda _: next(draws))
    second = await issue(lambda _: next(draws))
    assert second.row.key_id != first.row.key_id
    assert next(draws, None) is None
    await issue(bytes)
    with pytest.raises(RuntimeError, match="chance is broken"):
        await issue(bytes)


async def test_a_key_for_an_impossible_account_is_refused(records: Records) -> None:
    """Nothing is written for an id that no account can have."""
    with pytest.raises(ValueError, match="visible ASCII"):
        await issue_key(
            records,
            subkey=SUBKEY,
            account_id="a b",
            label="",
            at=AT,
            expires_at=None,
            random_bytes=bytes,
        )
    assert await records.accounts() == ()


async def test_every_mistyped_character_is_noticed(records: Records) -> None:
    """The checksum finds any single change and any cut."""
    text = (await mint(records)).text
    for place in range(len(text)):
        other = "a" if text[place] != "a" else "b"
        assert not is_well_formed(text[:place] + other + text[place + 1 :])
        assert not is_well_formed(text[:place])


@pytest.mark.parametrize("name", ["Authorization", "X-API-Key", "api-key"])
async def test_a_key_is_read_from_each_header(records: Records, name: str) -> None:
    """The headers of the OpenAI, Anthropic and Azure SDKs all serve."""
    minted = await mint(records)
    value = f"Bearer {minted.text}" if name == "Authorization" else minted.text
    found = Authenticator(in_a_book(minted), subkey=SUBKEY).identify(
        headers((name, value)), API_KEY, AT
    )
    expected = Credential(CredentialKind.API_KEY, CredentialStatus.VALID, minted.row.key_id, "acme")
    assert found == (expected, Account("acme", known=True, tier=Tier.TRUSTED))


@pytest.mark.parametrize("form", ["bearer {}", "BEARER {}", "Bearer  {} ", " Bearer {}"])
async def test_the_scheme_is_read_as_http_has_it(records: Records, form: str) -> None:
    """Case and extra spaces of the scheme do not matter (RFC 9110)."""
    minted = await mint(records)
    credential, _ = Authenticator(in_a_book(minted), subkey=SUBKEY).identify(
        headers(("Authorization", form.format(minted.text))), API_KEY, AT
    )
    assert credential.status is CredentialStatus.VALID


async def test_an_expired_key_says_so_and_names_its_account(records: Records) -> None:
    """The last second is over at ``expires_at``."""
    minted = await mint(records, expires_at=AT + 10)
    gate = Authenticator(in_a_book(minted), subkey=SUBKEY)
    before, _ = gate.identify(bearer(minted.text), API_KEY, AT + 9.9)
    after, account = gate.identify(bearer(minted.text), API_KEY, AT + 10)
    assert before.status is CredentialStatus.VALID
    assert after.status is CredentialStatus.EXPIRED
    assert account.id == "acme"


async def test_unknown_mistyped_and_unverifiable_keys_are_told_apart(records: Records) -> None:
    """A well-formed stranger is refused, a mistyped key explained, a failing look-up is unknown."""
    minted = await mint(records)
    book = Book()
    gate = Authenticator(book, subkey=SUBKEY)
    stranger, account = gate.identify(bearer(minted.text), ALL, AT)
    assert (stranger.status, stranger.key_id) == (CredentialStatus.INVALID, minted.row.key_id)
    assert account is NOBODY
    mistyped, _ = gate.identify(bearer(minted.text[:-1]), ALL, AT)
    assert mistyped.status is CredentialStatus.INVALID
    assert "mistyped" in str(mistyped.detail)
    assert mistyped.key_id is None
    book._failing = True
    unsure, _ = gate.identify(bearer(minted.text), ALL, AT)
    assert unsure.status is CredentialStatus.UNKNOWN
    assert gate.identify(bearer(minted.text[:-1]), ALL, AT)[0].status is CredentialStatus.INVALID


async def test_another_subkey_knows_no_key(records: Records) -> None:
    """The stored digests are of no use without the subkey."""
    minted = await mint(records)
    gate = Authenticator(in_a_book(minted), subkey=b"x" * 32)
    assert gate.identify(bearer(minted.text), API_KEY, AT)[0].status is CredentialStatus.INVALID


def test_no_credential_is_missing() -> None:
    """No header, and blank headers that SDKs send for an empty key, are all missing."""
    gate = Authenticator(Book(), subkey=SUBKEY)
    for given_headers in (
        headers(),
        headers(("Authorization", "")),
        headers(("Authorization", "Bearer ")),
        headers(("Authorization", "Bearer"), ("x-api-key", "")),
    ):
        credential, account = gate.identify(given_headers, ALL, AT)
        assert credential == Credential(CredentialKind.NONE, CredentialStatus.MISSING)
        assert account is NOBODY


@pytest.mark.parametrize(
    "pairs",
    [
        [("Authorization", "Bearer a"), ("Authorization", "Bearer a")],
        [("Authorization", "Bearer a"), ("AUTHORIZATION", "")],
        [("x-api-key", "a"), ("X-Api-Key", "b")],
        [("x-api-key", "a"), ("api-key", "b")],
        [("Authorization", "Bearer a"), ("x-api-key", "b")],
        [("Authorization", "Basic YTpi"), ("x-api-key", "a")],
    ],
)
def test_h5_doubled_or_differing_credentials_are_refused(pairs: list[tuple[str, str]]) -> None:
    """The gate never picks one of two that the upstream might not."""
    credential, account = Authenticator(Book(), subkey=SUBKEY).identify(headers(*pairs), ALL, AT)
    assert (credential.kind, credential.status) == (CredentialKind.NONE, CredentialStatus.INVALID)
    assert account is NOBODY


def test_h5_one_value_in_several_headers_is_one_credential() -> None:
    """Clients that fill both headers with one key are served; blank ones beside it count not."""
    gate = Authenticator(Book(), subkey=SUBKEY)
    one, _ = gate.identify(bearer("sk-1"), OPAQUE, AT)
    same, _ = gate.identify(
        headers(("Authorization", "Bearer sk-1"), ("x-api-key", "sk-1"), ("api-key", "")),
        OPAQUE,
        AT,
    )
    assert one == same
    assert one.status is CredentialStatus.VALID


@pytest.mark.parametrize(
    "secret",
    ["a b", "a,Bearer b", "a\tb", "a\x00", "é", "\udcff", "x" * 8193, "a\r\nb"],
)
def test_secrets_that_none_can_have_are_refused(secret: str) -> None:
    """Joined lines, control and non-ASCII characters and giants never reach a digest."""
    gate = Authenticator(Book(), subkey=SUBKEY)
    for given_headers in (bearer(secret), headers(("x-api-key", secret))):
        credential, _ = gate.identify(given_headers, ALL, AT)
        assert credential.status is CredentialStatus.INVALID


@pytest.mark.parametrize("key", ["gk_x.y.z", "gka_x.y.z"])
@pytest.mark.parametrize("modes", [OPAQUE, JWT, OPAQUE | JWT, frozenset()])
def test_a_gatekeeper_key_never_falls_through(modes: frozenset[CredentialKind], key: str) -> None:
    """A key of ours that is not taken here is refused, not sent on to the upstream as opaque."""
    gate = Authenticator(Book(), subkey=SUBKEY, tokens=Answer(TokenResult(CredentialStatus.VALID)))
    credential, _ = gate.identify(bearer(key), modes, AT)
    assert credential.status is CredentialStatus.INVALID
    assert credential.account_id is None


def test_a_token_never_falls_through_to_opaque() -> None:
    """Three parts are a JWT wherever JWT is a mode, and opaque only where it is not."""
    invalid = Answer(TokenResult(CredentialStatus.INVALID, "no"))
    gate = Authenticator(Book(), subkey=SUBKEY, tokens=invalid)
    refused, account = gate.identify(bearer(JWT_SHAPE), ALL, AT)
    assert (refused.kind, refused.status) == (CredentialKind.JWT, CredentialStatus.INVALID)
    assert account is NOBODY
    passed, _ = gate.identify(bearer(JWT_SHAPE), OPAQUE, AT)
    assert (passed.kind, passed.status) == (CredentialKind.OPAQUE, CredentialStatus.VALID)
    assert invalid.asked == [JWT_SHAPE]


@pytest.mark.parametrize(
    ("modes", "word"),
    [(API_KEY, "gk_"), (JWT, "JWT"), (API_KEY | JWT, "or a bearer token"), (frozenset(), "gk_")],
)
def test_a_credential_of_no_accepted_kind_is_refused_with_what_is(
    modes: frozenset[CredentialKind], word: str
) -> None:
    """The caller learns which kind of credential to send."""
    credential, _ = Authenticator(Book(), subkey=SUBKEY).identify(bearer("sk-1"), modes, AT)
    assert credential.status is CredentialStatus.INVALID
    assert word in str(credential.detail)


def test_an_opaque_key_is_an_account_by_keyed_digest() -> None:
    """The account depends on the secret and the subkey, is known when recorded, shows neither."""
    book = Book()
    gate = Authenticator(book, subkey=SUBKEY)
    credential, account = gate.identify(bearer("sk-secret"), ALL, AT)
    assert credential.account_id == credential.key_id == account.id
    assert account.id.startswith("opaque-")
    assert len(account.id) == len("opaque-") + 20
    assert not account.known
    assert gate.identify(bearer("sk-secret2"), ALL, AT)[1].id != account.id
    other = Authenticator(book, subkey=b"x" * 32)
    assert other.identify(bearer("sk-secret"), ALL, AT)[1].id != account.id
    book.known[account.id] = Account(account.id, known=True)
    assert gate.identify(bearer("sk-secret"), ALL, AT)[1].known


def test_claims_of_a_token_join_the_record() -> None:
    """The stricter tier wins both ways; the claimed organization fills a gap only."""
    book = Book()
    book.known["acme"] = Account("acme", known=True, organization="Acme", tier=Tier.ELEVATED)
    book.known["blank"] = Account("blank", known=True, tier=Tier.TRUSTED)

    def call(account_id: str, tier: Tier | None) -> Account:
        result = TokenResult(CredentialStatus.VALID, None, account_id, "Claimed", tier, "jwt-1")
        gate = Authenticator(book, subkey=SUBKEY, tokens=Answer(result))
        credential, account = gate.identify(bearer(JWT_SHAPE), JWT, AT)
        assert credential.claimed_tier is tier
        assert credential.claimed_organization == "Claimed"
        assert credential.account_id == account_id
        return account

    assert call("acme", Tier.TRUSTED) == book.known["acme"]
    assert call("acme", Tier.RESTRICTED).tier is Tier.RESTRICTED
    assert call("blank", None).organization == "Claimed"
    assert call("blank", Tier.STANDARD).tier is Tier.STANDARD
    assert not call("blank", None).organization_verified
    book.apply_organization(OrganizationRow("Claimed", "Claimed", verified=True))
    assert call("blank", None).organization_verified
    assert not call("acme", None).organization_verified
    stranger = call("new", Tier.TRUSTED)
    assert (stranger.tier, stranger.known) == (Tier.STANDARD, False)


def test_claimed_leaves_an_account_alone_without_claims() -> None:
    """No claim, no new object."""
    account = Account("a", organization="Acme")
    assert claimed(account, Credential(CredentialKind.JWT, CredentialStatus.VALID)) is account


@settings(max_examples=150, deadline=None)
@given(
    pairs=st.lists(
        st.tuples(
            st.sampled_from(["Authorization", "x-api-key", "API-Key", "x_api_key"]),
            st.one_of(
                st.text(max_size=30),
                st.sampled_from(["Bearer gk_aaaaaaaa_b", "gk_", "Bearer a.b.c", "..", "sk-1"]),
            ),
        ),
        max_size=4,
    ),
    modes=st.sets(st.sampled_from([*ALL])),
)
def test_any_headers_give_one_answer_without_the_secret(
    pairs: list[tuple[str, str]], modes: set[CredentialKind]
) -> None:
    """No headers raise, nothing unknown is valid but an opaque key, and no text is repeated."""
    tokens = Answer(TokenResult(CredentialStatus.INVALID, "no"))
    gate = Authenticator(Book(), subkey=SUBKEY, tokens=tokens)
    credential, account = gate.identify(headers(*pairs), modes, AT)
    if credential.status is CredentialStatus.VALID:
        assert credential.kind is CredentialKind.OPAQUE
        assert CredentialKind.OPAQUE in modes
        assert account.id == credential.account_id
    else:
        assert account is NOBODY
    for _, value in pairs:
        if len(value) > 12 and value != "Bearer gk_aaaaaaaa_b":
            assert value not in repr((credential, account))


async def test_h19_keys_that_are_nearly_alike_are_apart(records: Records) -> None:
    """A secret that differs in any one character, checksum put right, is another credential."""
    minted = await mint(records)
    auth = Authenticator(in_a_book(minted), subkey=SUBKEY)
    stem = minted.text[:-7]
    for at in range(12, len(stem)):
        other = stem[:at] + ("b" if stem[at] == "a" else "a") + stem[at + 1 :]
        text = other + _checksum(other)
        assert is_well_formed(text)
        credential, account = auth.identify(bearer(text), API_KEY, AT)
        assert (credential.status, account) == (CredentialStatus.INVALID, NOBODY)
    credential, account = auth.identify(bearer(minted.text), API_KEY, AT)
    assert (credential.status, account.id) == (CredentialStatus.VALID, "acme")


def test_h19_what_is_looked_up_cannot_be_steered() -> None:
    """Look-ups compare keyed digests: who guesses a secret does not know what is compared.

    Secrets that begin alike have digests that do not, so the time of a look-up tells nothing.
    """
    chance = random.Random(3)
    stem = "gk_aaaaaaaa_" + "a" * 30
    digests = sorted(
        key_digest(stem + "".join(chance.choices("abcdefgh234567", k=9)), SUBKEY)
        for _ in range(2_000)
    )
    alike = max(
        next(n for n, (a, b) in enumerate(zip(one, two, strict=True)) if a != b)
        for one, two in pairwise(digests)
    )
    assert alike <= 4, "as far as chance goes among two thousand, and no further"
    assert key_digest(stem, SUBKEY)[:4] != key_digest(stem, b"x" * 32)[:4]


async def test_h19_each_kind_of_credential_has_digests_of_its_own() -> None:
    """One text as API key and as opaque key never leads to the same entry."""
    book = Book()
    auth = Authenticator(book, subkey=SUBKEY)
    credential, _ = auth.identify(bearer("sk-upstream"), OPAQUE, AT)
    assert credential.account_id is not None
    opaque = bytes.fromhex(credential.account_id.rpartition("-")[2])
    assert key_digest("sk-upstream", SUBKEY)[: len(opaque)] != opaque
