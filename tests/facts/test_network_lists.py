"""Lists of networks: the form of the files, and the one that is shipped."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import maxminddb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.facts.network_lists import NetworkLists, load_lists
from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.words import NetworkKind

GEOIP = Path(__file__).parents[2] / "geoip"
GOOD = """\
lists:
  - id: cloud-x
    description: A cloud
    kind: hosting
    owner: x
    owner_country: CN
    asns: [{asn: 65001, name: "X Ltd"}]
    prefixes: [192.0.2.0/24, "2001:db8::/32"]
  - description: Exits
    kind: tor
    file: exits.txt
...
"""


def written(folder: Path, text: str) -> Path:
    """Write a list file with a text file beside it."""
    (folder / "exits.txt").write_text("# exits\n198.51.100.7\n\n203.0.113.0/24 # a block\n")
    path = folder / "networks.yaml"
    path.write_text(text)
    return path


def test_reads_numbers_prefixes_and_files(tmp_path: Path) -> None:
    """A list is found by AS number, by prefix, and by a prefix of its text file."""
    lists = load_lists(written(tmp_path, GOOD))
    assert isinstance(lists, NetworkLists)

    def ids(address: str, asn: int | None = None) -> list[str]:
        return [entry.id for entry in lists.naming(ip_address(address), asn)]

    assert ids("8.8.8.8", 65001) == ["cloud-x"]
    assert ids("192.0.2.9") == ["cloud-x"]
    assert ids("2001:db8::1") == ["cloud-x"]
    assert ids("198.51.100.7") == ["exits"]
    assert ids("203.0.113.9", 65001) == ["exits", "cloud-x"]
    assert ids("8.8.8.8", 65002) == []
    cloud, exits = lists.lists
    assert (cloud.kind, cloud.owner, cloud.owner_country) == (NetworkKind.HOSTING, "x", "CN")
    assert (exits.id, exits.kind) == ("exits", NetworkKind.TOR)
    assert lists.as_names == {65001: "X Ltd"}


def test_a_text_file_is_a_list_by_itself(tmp_path: Path) -> None:
    """A ``.txt`` named in the settings is a list whose id is its name."""
    written(tmp_path, GOOD)
    lists = load_lists(tmp_path / "exits.txt")
    assert isinstance(lists, NetworkLists)
    assert [entry.id for entry in lists.naming(IPv4Address("198.51.100.7"), None)] == ["exits"]


def test_the_revision_covers_the_text_files(tmp_path: Path) -> None:
    """A change in a file that the YAML names is another revision."""
    path = written(tmp_path, GOOD)
    first = load_lists(path)
    (tmp_path / "exits.txt").write_text("198.51.100.8\n")
    second = load_lists(path)
    assert isinstance(first, NetworkLists)
    assert isinstance(second, NetworkLists)
    assert first.revision != second.revision


BAD = """\
lists:
  - id: one
    description: Nothing in it
  - id: one
    description: Twice
    kind: hosting
    owner_country: XX
    asns: [{asn: 65001, name: a}, {asn: 65001, name: a}]
    prefixes: [10.0.0.1/8]
  - description: No id
    asns: [{asn: 65001, name: a}]
  - description: No file
    file: absent.txt
...
"""


def test_tells_all_mistakes_with_their_place(tmp_path: Path) -> None:
    """Every mistake in a file is told at once, with line and path."""
    found = load_lists(written(tmp_path, BAD))
    assert isinstance(found, list)
    told = "\n".join(str(each) for each in found)
    for part in (
        ":2: lists[0]: This list is empty",
        ":4: lists[1]: The id `one` stands twice",
        "AS65001 stands twice",
        "needs an `owner`",
        "`XX` is not an ISO 3166-1",
        "10.0.0.0/8",
        "lists[2]: An `id` is missing",
        "absent.txt: This list cannot be read",
    ):
        assert part in told


@pytest.mark.parametrize(
    "text",
    [
        "",
        "lists: []\n...\n",
        "lists:\n  - {id: a, description: b, asns: [{asn: 0, name: a}]}\n...\n",
        "lists:\n  - {id: a, description: b, asns: [{asn: '1', name: a}]}\n...\n",
        "lists:\n  - {id: a, description: b, kind: private, prefixes: [1.1.1.1]}\n...\n",
        "lists:\n  - {id: a, description: b, colour: red, prefixes: [1.1.1.1]}\n...\n",
        "lists:\n  - {id: A B, description: b, prefixes: [1.1.1.1]}\n...\n",
        GOOD.removesuffix("...\n"),
    ],
)
def test_h35_refuses_other_shapes(tmp_path: Path, text: str) -> None:
    """Wrong types, unknown keys and files cut short are mistakes, never a shorter list."""
    found = load_lists(written(tmp_path, text))
    assert isinstance(found, list)
    assert all(isinstance(each, Mistake) for each in found)


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"x\n", b"1.2.3.4/8\n", b"\xff\xfe1"])
def test_refuses_bad_text_files(tmp_path: Path, content: bytes) -> None:
    """Empty lists, lines that are no prefix and other encodings are mistakes."""
    path = tmp_path / "x.txt"
    path.write_bytes(content)
    assert isinstance(load_lists(path), list)


@given(st.text(max_size=200))
def test_any_text_yields_lists_or_mistakes(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    """No text raises, in YAML or in a list of prefixes."""
    folder = tmp_path_factory.getbasetemp()
    for name in ("any.yaml", "any.txt"):
        path = folder / name
        path.write_text(text, encoding="utf-8", errors="replace", newline="")
        assert isinstance(load_lists(path), NetworkLists | list)


@pytest.fixture(scope="module")
def shipped() -> NetworkLists:
    """Load the lists that the project ships."""
    lists = load_lists(GEOIP / "networks.yaml")
    assert isinstance(lists, NetworkLists)
    return lists


@pytest.fixture(scope="module")
def names() -> dict[int, str]:
    """Find the organisation of every AS in the shipped data."""
    found = {}
    with maxminddb.open_database(GEOIP / "asn.mmdb") as reader:
        for family, bits, first, end in (
            (IPv4Address, 32, 0, 2**32),
            (IPv6Address, 128, 0x2000 << 112, 0x4000 << 112),
        ):
            at = first
            while at < end:
                record, length = reader.get_with_prefix_len(family(at))
                if isinstance(record, dict):
                    number = record["autonomous_system_number"]
                    found[number] = record["autonomous_system_organization"]
                at = ((at >> (bits - length)) + 1) << (bits - length)
    return found


def test_shipped_numbers_still_carry_their_names(
    shipped: NetworkLists, names: dict[int, str]
) -> None:
    """Every listed AS is in the shipped data, under the name that it was verified by."""
    wrong = {
        number: (name, names.get(number))
        for number, name in shipped.as_names.items()
        if names.get(number) != name
    }
    assert wrong == {}


def test_shipped_lists_name_the_embargoed_clouds(
    shipped: NetworkLists, names: dict[int, str]
) -> None:
    """Every AS whose organisation carries one of the five names is listed with its owner."""
    owners = {
        "alibaba": "alibaba|aliyun|taobao|alipay",
        "tencent": "tencent",
        "huawei": "huawei",
        "baidu": "baidu",
        "bytedance": "bytedance|byteplus|volcano engine|^tiktok pte",
    }
    not_theirs = {34947}  # a travel company in Iran
    for owner, pattern in owners.items():
        for number, name in names.items():
            if re.search(pattern, name, re.IGNORECASE) and number not in not_theirs:
                listed = shipped.naming(IPv4Address(0), number)
                assert [(entry.owner, entry.owner_country) for entry in listed] == [(owner, "CN")]


def test_shipped_lists_are_wide(shipped: NetworkLists) -> None:
    """Hosting is listed broadly, and each kind that hides callers has entries."""
    assert len(shipped.as_names) > 400
    kinds = {entry.kind for entry in shipped.lists}
    assert {NetworkKind.HOSTING, NetworkKind.VPN, NetworkKind.RELAY, NetworkKind.TOR} <= kinds
