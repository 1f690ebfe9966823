"""Traits of calls and accounts: comparable among gates, anew in each epoch, never reversible."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.dialects.evidence import Evidence
from gatekeeper.facts.traits import AccountTraits, TraitMaker
from gatekeeper.storage.records_schema import AccountRow

if TYPE_CHECKING:
    from gatekeeper.policy.traits import Traits

DAY_S = 86_400.0
SECRET, NEXT_SECRET = b"s" * 32, b"n" * 32
HEADERS = {
    "Host": "models.example.com",
    "User-Agent": "OpenAI/Python 2.1.0",
    "X-Stainless-OS": "Linux",
    "X-Stainless-Retry-Count": "0",
    "Content-Length": "120",
}
PROMPT = {"model": b'"m"', "system": b'"S"', "messages": b'[{"role":"user","content":"Hi"}]'}
WINDOW_S = 14 * DAY_S


def maker(*secrets: bytes, **changes: Any) -> TraitMaker:
    """Return what a gate makes its traits with."""
    options: dict[str, Any] = {"epoch_s": 30 * DAY_S, "overlap_s": 15 * DAY_S, **changes}
    return TraitMaker(secrets or (SECRET,), **options)


def traits(
    of: TraitMaker, at: float = 20 * DAY_S, headers: dict[str, str] = HEADERS, **changes: Any
) -> tuple[Traits, ...]:
    """Return the traits of a call."""
    return of.traits_of(headers, of.look({**PROMPT, **changes}), at)


def test_gates_with_one_secret_agree() -> None:
    """What one gate sees another one can compare; with another secret nothing is alike."""
    mine, yours, theirs = traits(maker()), traits(maker()), traits(maker(NEXT_SECRET))
    assert mine == yours
    [one], [other] = mine, theirs
    assert one.epoch != other.epoch
    assert one.scaffold != other.scaffold
    assert one.client != other.client


def test_digests_fit_signed_columns_and_nothing_stays_nothing() -> None:
    """1 to 2^63 - 1, or 0 where there is nothing to make a digest of."""
    [found] = traits(maker())
    assert found.tools == found.format == 0
    for digest in (found.client, found.headers, found.system, found.scaffold, found.shape):
        assert 0 < digest < 2**63
    assert all(0 < block < 2**63 for block in found.blocks)


@pytest.mark.parametrize(
    ("changed", "client", "order"),
    [
        ({"X-Stainless-Retry-Count": "2", "Content-Length": "9"}, True, True),
        ({"User-Agent": "curl/8"}, False, True),
        ({"X-Stainless-OS": "MacOS"}, False, True),
        ({"Accept": "*/*"}, True, False),
        ({"X-Forwarded-For": "192.0.2.1", "Via": "1.1 edge"}, True, True),
    ],
)
def test_what_tells_clients_apart(changed: dict[str, str], client: bool, order: bool) -> None:
    """The program and its SDK, and how it writes headers; not what differs from call to call."""
    [plain], [other] = traits(maker()), traits(maker(), headers={**HEADERS, **changed})
    assert (plain.client == other.client) is client
    assert (plain.headers == other.headers) is order


def test_the_order_of_headers_counts() -> None:
    """Two programs may send the same headers."""
    [one], [other] = traits(maker()), traits(maker(), headers=dict(reversed(HEADERS.items())))
    assert one.headers != other.headers


def test_a_fingerprint_is_believed_from_the_edge_alone() -> None:
    """Anybody can send a header."""
    some = maker(edge_header="x-ja4")

    def order(ja4: str, *, from_edge: bool) -> int:
        headers = {**HEADERS, "x-ja4": ja4}
        [found] = some.traits_of(headers, some.look(PROMPT), 20 * DAY_S, from_edge=from_edge)
        return found.headers

    assert order("t13d", from_edge=True) != order("t13i", from_edge=True)
    assert order("t13d", from_edge=False) == order("t13i", from_edge=False)


def test_a_call_that_was_not_looked_at_has_none() -> None:
    """Such as one whose body nobody reads."""
    assert maker().traits_of(HEADERS, (), 0.0) == ()


def test_epochs_cannot_be_compared() -> None:
    """What was keyed a month ago leads to nothing that is keyed today."""
    [old], [new] = traits(maker(), 20 * DAY_S), traits(maker(), 50 * DAY_S)
    assert old.epoch != new.epoch
    assert not {old.scaffold, *old.blocks, old.client} & {new.scaffold, *new.blocks, new.client}


def test_within_an_epoch_shapes_keep_their_distance() -> None:
    """Keyed anew they are as close to each other as they were."""
    some = maker()
    far = some.look({**PROMPT, "temperature": b"0.3", "top_p": b"1"})
    near = some.look(PROMPT)
    for at in (20 * DAY_S, 50 * DAY_S):
        [one] = some.traits_of(HEADERS, near, at)
        [other] = some.traits_of(HEADERS, far, at)
        assert (one.shape ^ other.shape) == (near[0].shape ^ far[0].shape)


@given(st.floats(40, 400))
def test_every_window_has_an_epoch_that_covers_it(day: float) -> None:
    """Dual writing lasts longer than the longest window, so none falls between two epochs."""
    some = maker()
    evidence = (Evidence(system=5, shape=9),)

    def epochs(at: float) -> set[str]:
        return {each.epoch for each in some.traits_of({}, evidence, at)}

    end = day * DAY_S
    moments = [end - WINDOW_S * step / 40 for step in range(41)]
    assert set.intersection(*map(epochs, moments))


def test_a_secret_is_replaced_without_a_gap() -> None:
    """While the old one is named as well both are written; gates that changed later still agree."""
    before, during, after = maker(SECRET), maker(NEXT_SECRET, SECRET), maker(NEXT_SECRET)
    old, both, new = traits(before), traits(during), traits(after)
    assert [each.epoch for each in both] == [new[0].epoch, old[0].epoch]
    assert both == (*new, *old)


def test_an_overlap_during_a_rotation_writes_all_four() -> None:
    """The epoch in force first, by each secret."""
    found = traits(maker(NEXT_SECRET, SECRET), 31 * DAY_S)
    assert len({each.epoch for each in found}) == 4


ROW = AccountRow(
    "a-1",
    email_domain="example.org",
    email_pattern="aaaa99",
    payment_fingerprint="pf_1",
    signup_address="203.0.113.7",
)


def test_accounts_share_what_their_records_share() -> None:
    """Cards, the /24 or /48 of the signup, and domain with pattern of the mail address."""
    made = AccountTraits(SECRET)
    other = replace(ROW, id="a-2", signup_address="203.0.113.99")
    assert made.payment(ROW) == made.payment(other) > 0
    assert made.signup(ROW) == made.signup(other) > 0
    assert made.mail(ROW) == made.mail(other) > 0
    assert made.signup(ROW) != made.signup(replace(ROW, signup_address="203.0.114.7"))
    assert made.mail(ROW) != made.mail(replace(ROW, email_pattern="aaaaa9"))
    assert AccountTraits(NEXT_SECRET).payment(ROW) != made.payment(ROW)


def test_signups_by_ipv6_go_by_the_48() -> None:
    """One customer has a whole one."""
    made = AccountTraits(SECRET)
    here, there, elsewhere = (
        made.signup(replace(ROW, signup_address=address))
        for address in ("2001:db8:1::1", "2001:db8:1:ffff::2", "2001:db8:2::1")
    )
    assert here == there != elsewhere


@pytest.mark.parametrize("address", [None, "", "nowhere"])
def test_what_is_not_recorded_is_not_shared(address: str | None) -> None:
    """0 links nobody; a domain without a pattern is millions of people's."""
    made = AccountTraits(SECRET)
    bare = AccountRow("a-3", email_domain="example.org", signup_address=address)
    assert made.payment(bare) == made.signup(bare) == made.mail(bare) == 0
