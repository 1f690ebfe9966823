"""Throw-away mail domains are found however they are spelled."""

from __future__ import annotations

import pytest

from gatekeeper.facts.email_domains import DisposableDomains, normal_domain

LISTED = DisposableDomains({"mailinator.com", "xn--bcher-kva.example"})


@pytest.mark.parametrize(
    "domain",
    [
        "mailinator.com",
        "MailInator.COM",
        "mailinator.com.",
        "a.b.mailinator.com",
        " mailinator.com",
        "bücher.example",
        "BÜCHER.example",
        "x.bücher。example",
    ],
)
def test_a_listed_domain_is_found_in_every_spelling(domain: str) -> None:
    """Case, final dot, subdomain, IDNA form and ideographic dot make no difference."""
    assert LISTED.listed_by(domain) == ("disposable",)


@pytest.mark.parametrize(
    "domain",
    [
        None,
        "",
        ".",
        "com",
        "notmailinator.com",
        "mailinator.com.evil.example",
        "mailinator",
        "xn--",
        "é" * 300,
        "a" * 300 + ".mailinator.com",
        "\x00",
        "�.com",
    ],
)
def test_other_domains_are_not_found(domain: str | None) -> None:
    """Neither a shared ending, nor a shared beginning, nor nonsense is a match."""
    assert LISTED.listed_by(domain) == ()


def test_the_bundled_list_is_of_plausible_size() -> None:
    """The installed package brings thousands of domains, in the form we look up."""
    bundled = DisposableDomains.bundled()
    assert len(bundled) > 3_000
    assert bundled.listed_by("sub.mailinator.com") == ("disposable",)
    assert bundled.listed_by("gmail.com") == ()
    assert normal_domain("MAILINATOR.com") == "mailinator.com"
