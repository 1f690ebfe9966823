"""The frames of WebSocket: what is taken, what breaks the protocol, and how it is cut."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.frames import BINARY, CLOSE, MORE, PING, PONG, TEXT, close, frame

from gatekeeper.websocket.frames import (
    CloseCode,
    FrameError,
    FrameReader,
    Message,
    Opcode,
    close_code,
    close_payload,
    frame_head,
    masked_with,
)

MOST = 70_000


def read(data: bytes, *, masked: bool = True, most: int = MOST, step: int = 0) -> list[Message]:
    """Read all messages of ``data``, fed in pieces of ``step`` bytes."""
    reader = FrameReader(masked=masked, most_bytes=most)
    found = []
    for start in range(0, len(data), step or len(data) or 1):
        reader.feed(data[start : start + (step or len(data))])
        while (message := reader.next()) is not None:
            found.append(message)
    return found


def broken(data: bytes, **options: int) -> CloseCode:
    """Return the code with which ``data`` is refused."""
    with pytest.raises(FrameError) as error:
        read(data, **options)  # type: ignore[arg-type]
    return error.value.code


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, MOST])
@pytest.mark.parametrize("mask", [None, b"\x01\x80\xff\x00"])
def test_every_length_is_read(size: int, mask: bytes | None) -> None:
    """Each of the three forms of a length, at its edges; the weight is that of the wire."""
    payload = bytes(i % 251 for i in range(size))
    wire = frame(BINARY, payload, mask=mask)
    assert read(wire, masked=mask is not None) == [Message(Opcode.BINARY, payload, len(wire))]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_what_is_written_is_what_is_read(size: int) -> None:
    """Head, mask and payload of ours are well-formed, in the shortest form."""
    payload = bytes(i % 251 for i in range(size))
    mask = b"\x01\x80\xff\x00"
    assert frame_head(Opcode.BINARY, size, masked=True) + mask + masked_with(
        mask, payload
    ) == frame(BINARY, payload, mask=mask)
    assert frame_head(Opcode.TEXT, size, masked=False) + payload == frame(TEXT, payload, mask=None)


def test_fragments_are_joined_and_control_frames_stand_between() -> None:
    """A message in three frames comes as one; a ping between them comes first, as it was sent."""
    parts = [
        frame(TEXT, "ü".encode()[:1], fin=False),
        frame(PING, b"?"),
        frame(MORE, "ü".encode()[1:], fin=False),
        frame(MORE, b"", fin=False),
        frame(PONG),
        frame(MORE, b"!"),
        frame(TEXT, b"next"),
    ]
    ping, pong, whole, after = read(b"".join(parts), step=3)
    assert [ping.opcode, pong.opcode] == [Opcode.PING, Opcode.PONG]
    assert (whole.opcode, whole.payload.decode(), after.payload) == (Opcode.TEXT, "ü!", b"next")
    assert whole.wire_bytes == sum(map(len, (parts[0], parts[2], parts[3], parts[5])))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(TEXT, b"a", mask=None), id="not masked"),
        *(pytest.param(frame(TEXT, reserved=bit), id=f"reserved {bit}") for bit in (1, 2, 4)),
        *(pytest.param(frame(code), id=f"opcode {code}") for code in (3, 7, 11, 15)),
        pytest.param(frame(PING, fin=False), id="fragmented ping"),
        pytest.param(frame(CLOSE, b"\x03\xe8", fin=False), id="fragmented close"),
        pytest.param(frame(PING, b"x" * 126), id="long ping"),
        pytest.param(frame(MORE, b"a"), id="continues nothing"),
        pytest.param(frame(MORE, b"a", fin=False), id="continues nothing, not at its end"),
        pytest.param(frame(TEXT, fin=False) + frame(TEXT), id="text in a message"),
        pytest.param(frame(TEXT, fin=False) + frame(BINARY, fin=False), id="binary in a message"),
        pytest.param(frame(TEXT, b"a", form=126), id="125 in the middle form"),
        pytest.param(frame(TEXT, b"a" * 200, form=127), id="200 in the long form"),
        pytest.param(b"\x82\xff" + b"\xff" * 8, id="the highest bit of a length"),
        pytest.param(frame(CLOSE, b"\x03"), id="half a code"),
        *(
            pytest.param(close(code), id=f"code {code}")
            for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535)
        ),
    ],
)
def test_h8_what_breaks_the_protocol_is_refused(data: bytes) -> None:
    """Two servers could read it differently, so it is not passed on."""
    assert broken(data) is CloseCode.PROTOCOL_ERROR


def test_a_server_does_not_mask() -> None:
    """A client must refuse what a server masks (5.1)."""
    assert broken(frame(TEXT, b"a"), masked=False) is CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, b"\xff"),
        frame(TEXT, b"\xc3", fin=False) + frame(MORE, b"a"),
        frame(TEXT, b"\xed\xa0\x80"),
        close(1000, b"\xff"),
    ],
)
def test_text_is_utf8(data: bytes) -> None:
    """Text and the reason of a close are UTF-8, over all fragments together."""
    assert broken(data) is CloseCode.INVALID_TEXT


@pytest.mark.parametrize("code", [None, 1000, 1003, 1007, 1011, 1014, 3000, 4999])
def test_close_codes(code: int | None) -> None:
    """Codes that may be sent are read; a close may name none."""
    [found] = read(close(code, b"why" if code else b""))
    assert close_code(found.payload) == code


def test_a_message_is_bounded_before_it_comes() -> None:
    """The announced length decides, and that of all fragments together."""
    assert broken(frame(BINARY, b"a" * 11)[:2], most=10) is CloseCode.MESSAGE_TOO_BIG
    parts = frame(BINARY, b"a" * 6, fin=False) + frame(MORE, b"a" * 5)[:2]
    assert broken(parts, most=10) is CloseCode.MESSAGE_TOO_BIG
    assert len(read(frame(PING, b"a" * 11), most=10)) == 1  # of its own kind and bound


def test_a_reason_is_cut_at_a_character() -> None:
    """A close frame holds 123 bytes of reason; half a character would not be UTF-8."""
    payload = close_payload(1008, "ü" * 100)
    assert len(payload) == 2 + 122
    assert payload[2:].decode() == "ü" * 61


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 40), st.booleans())
def test_it_does_not_matter_where_bytes_are_cut(
    payloads: list[bytes], step: int, masked: bool
) -> None:
    """Messages are the same however the bytes come."""
    mask = b"\x9a\x00\x01\x7f" if masked else None
    wire = b"".join(frame(BINARY, each, mask=mask) for each in payloads)
    found = read(wire, masked=masked, step=step)
    assert [each.payload for each in found] == payloads
    assert sum(each.wire_bytes for each in found) == len(wire)


@given(st.binary(max_size=200), st.booleans())
@example(b"\x81\xfe", True)
def test_any_bytes_are_read_or_refused(data: bytes, masked: bool) -> None:
    """Nothing but messages and the one exception comes out, and no byte is counted twice."""
    try:
        found = read(data, masked=masked, most=1_000)
    except FrameError:
        return
    assert sum(each.wire_bytes for each in found) <= len(data)
