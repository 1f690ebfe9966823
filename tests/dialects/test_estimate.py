"""The token estimate, held to counts of the real vocabulary."""

# ruff: noqa: RUF001 - the Chinese and Russian samples are meant to be what they are
from __future__ import annotations

import base64
import hashlib
import json

import pytest

from gatekeeper.dialects.estimate import estimate_tokens, without_escapes

PROSE = (
    "The harbour was quiet when the last boat came in, and nobody on the pier could say how long "
    "it had been away. Old Marta counted the crates twice, wrote a number on the back of her hand "
    "and asked the boy to fetch the lamp. He ran, stumbled over a rope, and laughed about it all "
    "the way up to the house. In the morning there would be questions from the customs office, "
    "but for now there was soup, bread and a warm stove.\n\nWhy had they sailed so late in the "
    "year? The captain gave three different answers, and each of them was partly true."
)
CODE = '''\
def merge(left: list[int], right: list[int]) -> list[int]:
    """Merge two sorted lists into one."""
    result: list[int] = []
    i = j = 0
    while i < len(left) and j < len(right):
        if left[i] <= right[j]:
            result.append(left[i])
            i += 1
        else:
            result.append(right[j])
            j += 1
    result.extend(left[i:])
    result.extend(right[j:])
    return result


for (let k = 0; k < rows.length; k++) {
    const total = rows[k].items.reduce((sum, item) => sum + item.price * item.count, 0);
    console.log(`${rows[k].name}: ${total.toFixed(2)}`);
}
'''
CHINESE = (
    "港口很安静，最后一条船回来的时候，码头上没有人说得清它离开了多久。老玛尔塔把箱子数了两遍，"
    "在手背上写下一个数字，然后让男孩去拿灯。他跑了起来，被一根绳子绊了一下，一路笑着走回家里。"
    "明天早上海关的人会来问问题，但是现在有汤、有面包，还有一个温暖的炉子。"
)
BASE64 = base64.b64encode(
    b"".join(hashlib.sha256(bytes([number])).digest() for number in range(30))
).decode()
RUSSIAN = (
    "Гавань была тиха, когда вернулась последняя лодка, и никто на причале не мог сказать, "
    "сколько времени её не было. Старая Марта дважды пересчитала ящики и попросила мальчика "
    "принести лампу."
)


# counted once with the vocabulary o200k_base
@pytest.mark.parametrize(
    ("text", "tokens"),
    [(PROSE, 120), (CODE, 166), (CHINESE, 102), (BASE64, 884), (RUSSIAN, 52)],
    ids=["prose", "code", "chinese", "base64", "russian"],
)
def test_never_more_than_five_percent_below_the_vocabulary(text: str, tokens: int) -> None:
    """The estimate is at least 95 % of what o200k_base counts, and not beyond 1.6 times it."""
    inside_json = json.dumps(text, ensure_ascii=False)[1:-1].encode()
    estimate = estimate_tokens(inside_json)
    assert 0.95 * tokens <= estimate <= 1.6 * tokens


def test_is_a_plain_sum_over_pieces() -> None:
    """Adding up in pieces loses nothing: a long text is the sum of its weights, once rounded."""
    assert estimate_tokens("🙂".encode() * 10_000) == -(-10_000 * 143 // 64)
    assert estimate_tokens(b"") == 0
    assert estimate_tokens(b"a") == 1


def test_no_printable_byte_is_free_in_bulk() -> None:
    """Repeating any one character still costs something, so that no prompt is free."""
    for code in range(32, 127):
        assert estimate_tokens(bytes([code]) * 6_400) >= 100


def test_escapes_weigh_what_they_stand_for() -> None:
    r"""Chinese sent as ``\uXXXX`` is estimated like the same text in UTF-8."""
    plain = json.dumps(CHINESE, ensure_ascii=False).encode()
    escaped = json.dumps(CHINESE).encode()
    assert without_escapes(escaped) == plain


def test_broken_escapes_are_left_alone() -> None:
    """What cannot be decoded comes back as it was, to be weighed as it stands."""
    lone = b'"\\ud800"'
    assert without_escapes(lone) == lone
    deep = b'["\\u0041",' + b"[" * 100_000 + b"]" * 100_000 + b"]"
    assert without_escapes(deep) == deep
