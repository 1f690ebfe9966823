"""Links of one window: which nodes share which telling traits, layer by layer."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gatekeeper.campaigns import queries
from gatekeeper.campaigns.options import DAY_S, WEEK_S
from gatekeeper.campaigns.rarity import Public, surprise
from gatekeeper.campaigns.timing import copies
from gatekeeper.policy.campaigns import Layer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gatekeeper.campaigns.bipartite import Flags, Floats, Ints
    from gatekeeper.campaigns.options import DetectionOptions
    from gatekeeper.campaigns.sightings import Sightings, Window

LAYERS: Final = tuple(Layer)
CAPS: Final = np.array(
    [{Layer.ADDRESS: 4, Layer.TIMING: 1, Layer.RELEASE: 1, Layer.TASKS: 1}.get(each, 2)
     for each in LAYERS]
)  # fmt: skip
"""Traits of an account that count, by layer: copies of one habit are one habit."""
FAMILY: Final = np.array(
    [{Layer.SUBNET_CLIENT: 0, Layer.TASKS: LAYERS.index(Layer.SCAFFOLD)}.get(each, place)
     for place, each in enumerate(LAYERS)]
)  # fmt: skip
"""Layers that see the same thing, by the first of them: who shares addresses shares subnets, who
shares a scaffold shares the beginning of the messages."""

_RECENT_S: Final = 3 * DAY_S
"""Tasks and timing are read this far back, however long the window."""
_SLOTS_A_DAY: Final = 144
_MOST_SLOTS: Final = 0.6
"""Part of the slots from which an account is always there, which is no habit."""
_SHAPE_BANDS: Final = ((0, 16), (16, 16), (32, 16), (48, 15))
"""Shapes that differ in three bits or fewer agree in one of these bands: first bit and width."""
_WIDEST: Final = 16
_BAND_BITS: Final = _WIDEST + 2
"""Bits of a band's content, and of its number before it."""
_LEAST_SHARE: Final = {"scaffold": 0.2, "system": 0.2, "tools": 0.2, "shape": 0.2}


@dataclass(frozen=True, slots=True)
class Links:
    """A graph of nodes and the telling traits that they share."""

    node: Ints
    trait: Ints
    """Parallel to ``node``: one row, one link."""
    layer: Ints
    """By trait, as the place of the layer in its enumeration."""
    kind: NDArray[Any]
    digest: Ints
    other: Ints
    """What the digest was combined with, such as a client or a day; 0 for nothing."""
    holders: Ints
    """How many nodes have the trait, members of organizations as one."""
    weight: Floats

    @property
    def traits(self) -> int:
        """How many traits there are."""
        return self.layer.size

    def only(self, rows: Flags) -> Links:
        """Return the links of some rows; traits keep their codes."""
        return Links(
            self.node[rows], self.trait[rows], self.layer, self.kind, self.digest, self.other,
            self.holders, self.weight,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Found:
    """Rows of one kind of trait, before it is known which are telling."""

    layer: Layer
    kind: str
    node: Ints
    digest: Ints
    other: Ints
    expected: Floats | None = None
    """Holders by chance, by row; ``None`` where the trait alone is rare or not."""
    learned: bool = False
    """Whether the public may have it too, as a template."""
    values: int = 1
    """How many values a trait can have, each of which chance may hit."""


def links_of(
    sightings: Sightings, window: Window, nodes: dict[str, NDArray[Any]], public: Public,
    options: DetectionOptions,
) -> Links:  # fmt: skip
    """Read all layers of the window that ``calls`` shows. ``places`` must have been filled."""
    since = max(window.start, window.end - _RECENT_S)
    active = int(np.count_nonzero(public.volumes))
    exact = [
        _telling(_contents(sightings, column), public, active, options)
        for column in ("scaffold", "system", "tools")
    ]
    found = [
        _addresses(sightings, options),
        _subnet_clients(sightings, public),
        *_signups(nodes, public),
        _shapes(sightings, np.unique(np.concatenate([each.node for each in exact]))),
        _tasks(sightings, since),
        _timing(sightings, since, window.end),
        _pivots(sightings, window),
    ]
    return _joined([*exact, *(_telling(each, public, active, options) for each in found)])


def _addresses(sightings: Sightings, options: DetectionOptions) -> _Found:
    rows = sightings.columns(queries.ADDRESSES.format(address_hub=options.address_hub))
    return _Found(Layer.ADDRESS, "address", rows["node"], rows["digest"], rows["other"])


def _subnet_clients(sightings: Sightings, public: Public) -> _Found:
    rows = sightings.columns(queries.SUBNET_CLIENTS)
    active = max(int(np.count_nonzero(public.volumes)), 1)
    expected = rows["in_prefix"] * (rows["with_client"] / active)
    return _Found(
        Layer.SUBNET_CLIENT, "subnet_client", rows["node"], rows["digest"], rows["other"], expected
    )


def _signups(nodes: dict[str, NDArray[Any]], public: Public) -> list[_Found]:
    """Return cards, and bursts of signups from one network in a day or of one mail in a week."""
    active = public.volumes > 0
    paid = np.flatnonzero(active & (nodes["payment"] != 0))
    found = [_Found(Layer.SIGNUP, "payment", paid, nodes["payment"][paid], np.zeros_like(paid))]
    dated = active & ~np.isnan(nodes["created_at"])
    for kind, length_s in (("signup", DAY_S), ("mail", WEEK_S)):
        node = np.flatnonzero(dated & (nodes[kind] != 0))
        bucket = (nodes["created_at"][node] // length_s).astype(np.int64)
        digest = nodes[kind][node]
        expected = _size_of(digest) * _size_of(bucket) / max(node.size, 1)
        found.append(_Found(Layer.SIGNUP, kind, node, digest, bucket, expected))
    return found


def _size_of(values: Ints) -> Ints:
    """Return for each value how often it occurs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return counts[place]


def _contents(sightings: Sightings, column: str) -> _Found:
    query = queries.CONTENTS.format(
        column=column, least_share=_LEAST_SHARE[column], least_holders=2
    )
    rows = sightings.columns(query)
    none = np.zeros_like(rows["node"])
    return _Found(Layer.SCAFFOLD, column, rows["node"], rows["digest"], none, learned=True)


def _shapes(sightings: Sightings, told: Ints) -> _Found:
    """Return shapes, which stand in for a scaffold where no exact one links: ``told`` are left out.

    Many tools have a shape in common.
    """
    query = queries.CONTENTS.format(
        column="shape", least_share=_LEAST_SHARE["shape"], least_holders=1
    )
    rows = sightings.columns(query)
    free = ~np.isin(rows["node"], told)
    owner, shape = rows["node"][free], rows["digest"][free]
    keys = [
        owner << _BAND_BITS | place << _WIDEST | shape >> first & (1 << width) - 1
        for place, (first, width) in enumerate(_SHAPE_BANDS)
    ]
    pairs = np.unique(np.concatenate(keys))
    node, band = pairs >> _BAND_BITS, pairs & (1 << _BAND_BITS) - 1
    place = band >> _WIDEST
    widths = np.array([width for _, width in _SHAPE_BANDS])
    # Where many shapes are seen, some agree in a band by chance.
    expected = (np.bincount(place, minlength=widths.size) / 2.0**widths)[place]
    none = np.zeros_like(node)
    return _Found(
        Layer.SCAFFOLD, "shape", node, band, none, expected, learned=True, values=1 << _WIDEST
    )


def _tasks(sightings: Sightings, since: float) -> _Found:
    rows = sightings.columns(queries.TASKS.format(since=repr(since)))
    none = np.zeros_like(rows["node"])
    return _Found(Layer.TASKS, "prefix", rows["node"], rows["digest"], none, learned=True)


def _timing(sightings: Sightings, since: float, end: float) -> _Found:
    most = int((end - since) / DAY_S * _SLOTS_A_DAY * _MOST_SLOTS)
    rows = sightings.columns(queries.SLOTS.format(since=repr(since), most=most))
    node, digest, other = copies(rows["node"], rows["slot"])
    return _Found(Layer.TIMING, "slots", node, digest, other, learned=True)


def _pivots(sightings: Sightings, window: Window) -> _Found:
    rows = sightings.columns(queries.PIVOTS.format(start=repr(window.start)))
    names, place = np.unique(rows["model"].astype(str), return_inverse=True)
    digests = np.array([zlib.crc32(str(name).encode()) + 1 for name in names], dtype=np.int64)
    digest = digests[place] if names.size else np.zeros(0, dtype=np.int64)
    none = np.zeros_like(rows["node"])
    return _Found(Layer.RELEASE, "model", rows["node"], digest, none, learned=True)


def _telling(found: _Found, public: Public, active: int, options: DetectionOptions) -> Links:
    """Keep of one kind what is rare, more than chance, and no public template."""
    node = found.node.astype(np.int64)
    ends = np.stack([found.digest.astype(np.int64), found.other.astype(np.int64)])
    if not node.size:
        return _joined([])
    order = np.lexsort((node, ends[1], ends[0]))
    node, ends = node[order], ends[:, order]
    fresh = np.ones(node.size, dtype=bool)
    fresh[1:] = (ends[:, 1:] != ends[:, :-1]).any(axis=0)
    trait = np.cumsum(fresh) - 1
    holders = np.bincount(trait)
    weight = np.log(active / holders)
    keep = (holders > 1) & (weight >= options.least_weight)
    if found.expected is not None:
        least = options.surprise + math.log(found.values)
        keep &= surprise(holders, found.expected[order][fresh]) >= least
    if found.learned:
        keep &= ~public.among(node, trait, holders)
    code = np.cumsum(keep) - 1
    rows = keep[trait]
    size = int(keep.sum())
    return Links(
        node=node[rows],
        trait=code[trait[rows]],
        layer=np.full(size, LAYERS.index(found.layer)),
        kind=np.full(size, found.kind, dtype=object),
        digest=ends[0][fresh][keep],
        other=ends[1][fresh][keep],
        holders=holders[keep],
        weight=weight[keep],
    )


def _joined(parts: list[Links]) -> Links:
    """Put graphs of several kinds side by side, over the same nodes."""
    empty = np.zeros(0, dtype=np.int64)
    if not parts:
        words, weights = np.zeros(0, dtype=object), np.zeros(0)
        return Links(empty, empty, empty, words, empty, empty, empty, weights)
    before = np.cumsum([0, *(each.traits for each in parts[:-1])])
    return Links(
        node=np.concatenate([each.node for each in parts]),
        trait=np.concatenate(
            [each.trait + first for each, first in zip(parts, before, strict=True)]
        ),
        layer=np.concatenate([each.layer for each in parts]),
        kind=np.concatenate([each.kind for each in parts]),
        digest=np.concatenate([each.digest for each in parts]),
        other=np.concatenate([each.other for each in parts]),
        holders=np.concatenate([each.holders for each in parts]),
        weight=np.concatenate([each.weight for each in parts]),
    )
