"""Request targets (H1): one reading for the rules, for the log and for the upstream."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from gatekeeper.listener.target import Target, parse_target
from gatekeeper.upstream.routes import Endpoint


@pytest.mark.parametrize(
    ("raw", "path", "query"),
    [
        ("/", "/", ""),
        ("/v1/chat/completions", "/v1/chat/completions", ""),
        ("/v1/files/", "/v1/files/", ""),
        ("/v1/models/a:b@c~d_e-f.g", "/v1/models/a:b@c~d_e-f.g", ""),
        ("/.well-known/x", "/.well-known/x", ""),
        ("/v1/...", "/v1/...", ""),
        ("/v1/a..b", "/v1/a..b", ""),
        ("/v1/%63hat", "/v1/chat", ""),
        ("/v1/%7Eme", "/v1/~me", ""),
        ("/v1/caf%c3%a9", "/v1/caf%C3%A9", ""),
        ("/v1/a%20b", "/v1/a%20b", ""),
        ("/v1/a%40b", "/v1/a%40b", ""),
        ("/v1?a=1&b=%2F%00", "/v1", "a=1&b=%2F%00"),
        ("/v1?a=/../b", "/v1", "a=/../b"),
        ("/v1??x", "/v1", "?x"),
        ("/v1?", "/v1", ""),
    ],
)
def test_h1_plain_targets(raw: str, path: str, query: str) -> None:
    """Ordinary targets pass; letters that were encoded are decoded, the query stays as it came."""
    assert parse_target(raw) == Target(path, query)


@pytest.mark.parametrize(
    "raw",
    [
        "/v1/../admin",
        "/v1/./admin",
        "/..",
        "/v1/..",
        "/v1/.",
        "/v1/%2e%2e/admin",
        "/v1/.%2E/admin",
        "/v1/%2e/admin",
        "/v1/%2e%2e%2fadmin",
        "//admin",
        "/v1//admin",
        "/v1//",
        "/v1/%2fadmin",
        "/v1%2Fadmin",
        "/v1/%5cadmin",
        "/v1/\\admin",
        "/v1\\..\\admin",
        "/v1/%00",
        "/v1/a%0d%0aHost:x",
        "/v1/a%7f",
        "/v1/%252e%252e/admin",
        "/v1/%25",
        "/v1/..;/admin",
        "/v1/a;b=c",
        "/v1/%3bx",
        "/v1/%3Fx",
        "/v1/%23x",
        "/v1#x",
        "/v1?x#y",
        "/v1/%",
        "/v1/%2",
        "/v1/%zz",
        "/v1/%u002e",
        "/v1/%+1",
        "/v1/%c0%af",
        "/v1/%c0%ae%c0%ae/admin",
        "/v1/%e0%80%af",
        "/v1/%ff",
        "/v1/%ed%a0%80",
        "/v1/é",
        "/v1/\udcff%41",
        "/v1/a b",
        "/v1/a\tb",
        "/v1/a\nb",
        "/v1/a\n",
        "/v1\x00",
        "/v1/<x>",
        "/v1/{x}",
        "/v1/`x`",
        '/v1/"x"',
        "/v1?a b",
        "/v1?a\n",
        "/v1?a=é",
        "/v1?a=%2",
        "/v1?a=%zz",
        "/v1?<",
        "/v1?\\",
        "/v1?\x7f",
        "",
        "v1",
        "*",
        "?x",
        "http://evil/v1",
        "evil:443",
        "/" + "a" * 8_000,
    ],
)
def test_h1_tricks_are_refused(raw: str) -> None:
    """What two servers could read differently gets a sentence that echoes nothing."""
    said = parse_target(raw)
    assert isinstance(said, str)
    assert said.endswith(".")
    assert raw in {"", "*", "?x", "v1", "/."} or raw not in said


def test_h1_every_encoded_byte() -> None:
    """Each escape is decoded, kept in upper case or refused; never turned into another segment."""
    for number in range(256):
        char, escape = chr(number), f"%{number:02x}"
        target = parse_target(f"/v1/a{escape}b")
        if char in "/\\.%;#?" or number < 0x20 or number >= 0x7F:
            assert isinstance(target, str), escape
        elif char.isalnum() or char in "-_~":
            assert target == Target(f"/v1/a{char}b", "")
        else:
            assert target == Target(f"/v1/a{escape.upper()}b", "")


PIECES = st.sampled_from(
    [
        *("/", "//", ".", "..", "%2e", "%2F", "%5c", "%41", "%7e", "%c3%a9", "%c0%af", "%25", "%"),
        *("a", "B", "9", "~", "_", "-", ":", "@", "!", "$", "&", "'", "(", ")", "*", "+", ",", "="),
        *(";", "?", "#", "\\", " ", "\n", "\x00", "\x7f", "é", "\udc80", "v1", "%00", "%3f", "|"),
    ]
)
TARGETS = st.lists(PIECES, max_size=8).map(lambda pieces: "/" + "".join(pieces)) | st.text()


@settings(max_examples=400, deadline=None)
@given(raw=TARGETS)
@example(raw="/a?b?c")
@example(raw="/%41%42")
def test_h1_what_is_accepted_is_unambiguous(raw: str) -> None:
    """However it is decoded, resolved or joined, an accepted path stays the same path."""
    target = parse_target(raw)
    if isinstance(target, str):
        return
    assert parse_target(target.path) == Target(target.path, "")
    assert parse_target(target.raw) == target
    decoded = unquote(target.path, errors="strict")
    assert unquote(decoded) == decoded
    assert decoded.count("/") == target.path.count("/")
    assert posixpath.normpath(decoded) in {decoded, decoded.rstrip("/")}
    assert not set(decoded) & set("\\;#?\0")
    assert decoded.isprintable()
    assert target.raw.isascii()
    assert target.raw.isprintable()


@settings(max_examples=400, deadline=None)
@given(raw=TARGETS)
@example(raw="/a:b")
@example(raw="/a?b=%2f&c=[1]|{}^")
@example(raw="/a/?")
def test_h1_forwarded_as_matched(raw: str) -> None:
    """The client under the gate sends the canonical target to the byte, behind any base path."""
    target = parse_target(raw)
    if isinstance(target, str):
        return
    for base in ("http://upstream:8000", "http://upstream:8000/base/"):
        url = Endpoint(URL(base)).at(target.raw)
        assert url.raw_path_qs == URL(base).raw_path.rstrip("/") + target.raw
        assert (url.host, url.port, url.user) == ("upstream", 8000, None)
