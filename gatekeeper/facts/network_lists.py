"""Lists of networks: AS numbers and prefixes with kind and owner, from ``geoip/networks.yaml``.

A list stands in YAML, with AS numbers (and the name each was verified by) or prefixes, or in a
text file of prefixes, one a line. A source with any mistake is not used at all.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from gatekeeper.facts.prefixes import IPAddress, IPNetwork, PrefixMap, parse_prefix
from gatekeeper.policy.countries import country_problem
from gatekeeper.policy.mistake import Mistake
from gatekeeper.policy.model import Lookup
from gatekeeper.policy.strict_yaml import Document, read_yaml
from gatekeeper.policy.validation import validate
from gatekeeper.policy.words import LookupStatus, NetworkKind
from gatekeeper.settings import LIST_ID, ListKind

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_FILE_BYTES: Final = 64_000_000
"""Text files of prefixes may not be longer; YAML has its own, smaller bound."""
_MAX_MISTAKES: Final = 20


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _System(_Strict):
    asn: Annotated[int, Field(ge=1, le=2**32 - 1)]
    name: Annotated[str, Field(min_length=1, max_length=200)]


class _Entry(_Strict):
    id: Annotated[str, Field(pattern=LIST_ID)] | None = None
    description: Annotated[str, Field(min_length=1, max_length=1000)]
    kind: ListKind | None = None
    owner: Annotated[str, Field(pattern=LIST_ID)] | None = None
    owner_country: str | None = None
    asns: tuple[_System, ...] = ()
    prefixes: tuple[str, ...] = ()
    file: str | None = None


class _File(_Strict):
    lists: Annotated[tuple[_Entry, ...], Field(min_length=1)]


_SCHEMA: Final = TypeAdapter(_File)


@dataclass(frozen=True, slots=True)
class NetworkList:
    """What being on a list means."""

    id: str
    description: str = ""
    kind: NetworkKind | None = None
    owner: str | None = None
    owner_country: str | None = None


@dataclass(frozen=True, slots=True)
class NetworkLists:
    """The lists of one source, ready to be asked; immutable."""

    source: str
    revision: str
    lists: tuple[NetworkList, ...]
    as_names: dict[int, str]
    """Name that each AS number was verified by."""
    sizes: dict[str, int]
    """AS numbers and prefixes of each list, by its id."""
    _by_asn: dict[int, tuple[NetworkList, ...]]
    _by_prefix: PrefixMap[NetworkList]
    lookups: dict[tuple[str, LookupStatus], Lookup]
    """Every way in which asking can end, made beforehand."""
    files: tuple[Path, ...] = ()
    """Files beside the source that hold lists of it."""

    @property
    def owners(self) -> frozenset[str]:
        """Ids of the owners that any list names."""
        return frozenset(entry.owner for entry in self.lists if entry.owner is not None)

    def naming(self, address: IPAddress, asn: int | None) -> list[NetworkList]:
        """Return the lists that name the address or its AS number."""
        found = self._by_prefix.matches(address)
        if asn is not None:
            found += self._by_asn.get(asn, ())
        return found


def load_lists(path: Path) -> NetworkLists | list[Mistake]:
    """Read one source: YAML, or a ``.txt`` of prefixes whose name is the id of its list."""
    digest = hashlib.sha256()
    text = _read(path, digest)
    if isinstance(text, Mistake):
        return [text]
    if path.suffix == ".txt":
        networks, mistakes = _parse_lines(text, path)
        named = NetworkList(path.stem)
        return mistakes or _compile(path, digest, [(named, (), networks)])
    document = read_yaml(text, str(path))
    if isinstance(document, list):
        return document
    content = validate(_SCHEMA, document, str(path))
    if isinstance(content, list):
        return content
    return _build(content, document, path, digest)


def _build(
    content: _File, document: Document, path: Path, digest: hashlib._Hash
) -> NetworkLists | list[Mistake]:
    mistakes: list[Mistake] = []
    parts: list[tuple[NetworkList, tuple[_System, ...], list[IPNetwork]]] = []
    ids: set[str] = set()
    for index, entry in enumerate(content.lists):
        at = f"lists[{index}]"
        line = document.line(("lists", index))
        problems = _problems(entry, ids)
        networks: list[IPNetwork] = []
        for text in entry.prefixes:
            network = parse_prefix(text)
            if isinstance(network, str):
                problems.append(network)
            else:
                networks.append(network)
        if entry.file is not None:
            beside = path.parent / entry.file
            text_or_mistake = _read(beside, digest)
            if isinstance(text_or_mistake, Mistake):
                mistakes.append(text_or_mistake)
            else:
                more, wrong = _parse_lines(text_or_mistake, beside)
                networks += more
                mistakes += wrong
        mistakes += [Mistake(str(path), line, at, problem) for problem in problems]
        named = NetworkList(
            _id(entry),
            entry.description,
            None if entry.kind is None else NetworkKind(entry.kind),
            entry.owner,
            entry.owner_country,
        )
        parts.append((named, entry.asns, networks))
    files = tuple(path.parent / entry.file for entry in content.lists if entry.file is not None)
    return mistakes or replace(_compile(path, digest, parts), files=files)


def _problems(entry: _Entry, ids: set[str]) -> list[str]:
    """Tell what the schema cannot; notes the id as used."""
    problems = []
    if _id(entry) == "":
        problems.append("An `id` is missing (only a list with a `file` may go without).")
    elif _id(entry) in ids:
        problems.append(f"The id `{_id(entry)}` stands twice.")
    ids.add(_id(entry))
    if not (entry.asns or entry.prefixes or entry.file):
        problems.append("This list is empty: give `asns`, `prefixes` or `file`.")
    numbers = [system.asn for system in entry.asns]
    problems += [
        f"AS{number} stands twice in this list."
        for number in sorted({number for number in numbers if numbers.count(number) > 1})
    ]
    if entry.owner_country is not None:
        if entry.owner is None:
            problems.append("An `owner_country` needs an `owner`.")
        problem = country_problem(entry.owner_country)
        if problem is not None:
            problems.append(problem)
    return problems


def _id(entry: _Entry) -> str:
    return entry.id or ("" if entry.file is None else Path(entry.file).stem)


def _compile(
    path: Path,
    digest: hashlib._Hash,
    parts: list[tuple[NetworkList, tuple[_System, ...], list[IPNetwork]]],
) -> NetworkLists:
    by_asn: dict[int, tuple[NetworkList, ...]] = {}
    for named, systems, _ in parts:
        for system in systems:
            by_asn[system.asn] = (*by_asn.get(system.asn, ()), named)
    revision = digest.hexdigest()[:12]
    return NetworkLists(
        source=path.name,
        revision=revision,
        lists=tuple(named for named, _, _ in parts),
        as_names={system.asn: system.name for _, systems, _ in parts for system in systems},
        sizes={named.id: len(systems) + len(networks) for named, systems, networks in parts},
        _by_asn=by_asn,
        _by_prefix=PrefixMap(
            (network, named) for named, _, networks in parts for network in networks
        ),
        lookups=_lookups(path.name, revision),
    )


def source_of(
    source: str,
    revision: str,
    lists: Sequence[NetworkList],
    by_asn: dict[int, tuple[NetworkList, ...]],
    by_prefix: PrefixMap[NetworkList],
) -> NetworkLists:
    """Return a source of lists that were read elsewhere, and whose sizes nobody need compare."""
    return NetworkLists(
        source=source,
        revision=revision,
        lists=tuple(lists),
        as_names={},
        sizes={},
        _by_asn=by_asn,
        _by_prefix=by_prefix,
        lookups=_lookups(source, revision),
    )


def _lookups(source: str, revision: str) -> dict[tuple[str, LookupStatus], Lookup]:
    return {
        (view, status): Lookup(view, status, source, revision)
        for view in ("lists", "kind")
        for status in LookupStatus
    }


def _read(path: Path, digest: hashlib._Hash) -> str | Mistake:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return Mistake(str(path), None, "", f"This list is longer than {MAX_FILE_BYTES} bytes.")
        content = path.read_bytes()
        digest.update(content)
        return content.decode()
    except OSError as error:
        return Mistake(str(path), None, "", f"This list cannot be read: {error.strerror}.")
    except UnicodeDecodeError:
        return Mistake(str(path), None, "", "This list is not UTF-8 text.")


def _parse_lines(text: str, path: Path) -> tuple[list[IPNetwork], list[Mistake]]:
    """Read one prefix a line; ``#`` starts a comment. An empty list is a mistake."""
    networks: list[IPNetwork] = []
    mistakes: list[Mistake] = []
    for number, line in enumerate(text.split("\n"), 1):
        prefix = line.partition("#")[0].strip()
        if not prefix:
            continue
        network = parse_prefix(prefix[:80])
        if not isinstance(network, str):
            networks.append(network)
        elif len(mistakes) < _MAX_MISTAKES:
            mistakes.append(Mistake(str(path), number, "", network))
    if not networks and not mistakes:
        mistakes.append(Mistake(str(path), None, "", "This list is empty."))
    return networks, mistakes
