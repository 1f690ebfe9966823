"""A form has one meaning, or it is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.dialects.multipart import MOST_FIELD_BYTES, MOST_PARTS, Part, read_form, text_of

TYPE = "multipart/form-data; boundary=XyZ"
HEAD = b'Content-Disposition: form-data; name="%b"\r\n\r\n'


def form(*parts: tuple[bytes, bytes], file: bool = False) -> bytes:
    """Return a form of fields, or of files."""
    more = b'; filename="a.png"\r\nContent-Type: image/png' if file else b""
    head = HEAD.replace(b"\r\n\r\n", more + b"\r\n\r\n")
    pieces = [b"--XyZ\r\n" + head % name + value + b"\r\n" for name, value in parts]
    return b"".join(pieces) + b"--XyZ--\r\n"


@given(
    values=st.lists(st.binary(max_size=50).filter(lambda value: b"--XyZ" not in value), max_size=5)
)
def test_values_are_found_in_place(values: list[bytes]) -> None:
    """Any bytes but the boundary; line ends, dashes and nothing at all among them."""
    names = [b"f%d" % number for number in range(len(values))]
    body = form(*zip(names, values, strict=True), file=True)
    parts = read_form(body, TYPE) if values else []
    assert isinstance(parts, list)
    assert [(part.name.encode(), body[part.start : part.end]) for part in parts] == list(
        zip(names, values, strict=True)
    )
    assert all(part.file for part in parts)


def test_a_field_is_text_and_a_file_is_not() -> None:
    """What bills may not be hidden in a file, which only some servers would read."""
    body = form((b"n", b"2"), (b"odd", b"\xff"))
    parts = read_form(body, TYPE)
    assert isinstance(parts, list)
    assert text_of(body, parts, "n") == "2"
    assert text_of(body, parts, "odd") is None
    assert text_of(body, parts, "missing") is None
    assert text_of(body, [Part("n", 0, 1, file=True)], "n") is None


def test_names_that_are_lists_may_repeat() -> None:
    """As the SDKs send several images."""
    assert isinstance(read_form(form((b"image[]", b"1"), (b"image[]", b"2")), TYPE), list)


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/mixed; boundary=XyZ",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary="a b"',
        "multipart/form-data; boundary=XyZ; boundary=other",
        "multipart/form-data; charset=utf-8; boundary=XyZ",
        f"multipart/form-data; boundary={'x' * 71}",
    ],
)
def test_a_boundary_that_parsers_read_differently_is_refused(content_type: str) -> None:
    """One boundary, in plain characters."""
    assert isinstance(read_form(form((b"n", b"1")), content_type), str)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"preamble\r\n" + form((b"n", b"1")),
        form((b"n", b"1")) + b"epilogue",
        form((b"n", b"1"))[:-6],
        form((b"n", b"1"), (b"n", b"2")),
        form((b"n", b"1\n--XyZ\r\nx")),
        form((b"n", b"1\r\n--XyZo")),
        b"--XyZ\r\nContent-Disposition: form-data; name=\"n\"; name*=utf-8''m\r\n\r\n1\r\n--XyZ--",
        b"--XyZ\r\nContent-Disposition: form-data; name=n\r\n\r\n1\r\n--XyZ--",
        b'--XyZ\r\nContent-Disposition: form-data; name="a\\"b"\r\n\r\n1\r\n--XyZ--',
        b"--XyZ\r\n" + HEAD[:-2] % b"n" + HEAD % b"m" + b"1\r\n--XyZ--",
        b"--XyZ\r\nContent-Type: text/plain\r\n\r\n1\r\n--XyZ--",
        b"--XyZ\r\nnonsense\r\n\r\n1\r\n--XyZ--",
        b"--XyZ\r\nContent-Transfer-Encoding: base64\r\n" + HEAD % b"n" + b"MQ==\r\n--XyZ--",
        b"--XyZ\r\n" + HEAD[:-2] % b"n" + b"X: " + b"x" * 9_000 + b"\r\n\r\n1\r\n--XyZ--",
        form(*((b"f%d" % number, b"") for number in range(MOST_PARTS + 1))),
        form((b"n", b"x" * (MOST_FIELD_BYTES + 1))),
    ],
)
def test_what_parsers_would_read_differently_is_refused(body: bytes) -> None:
    """Twice, in two ways, cut short, encoded, hidden or without bound."""
    assert isinstance(read_form(body, TYPE), str)
