"""The layout document: which drives form which erasure sets. Epochs are totally ordered, one content each (I18).

Stored and sent as `SCLY` ‖ version ‖ msgpack, canonical: equal layouts have equal bytes, and bytes that are not what
encode_layout makes of their content are refused.
"""

from collections import Counter
from typing import Literal

import msgspec

from cluster.errors import ClusterError
from cluster.ids import ClusterId, DriveId, NodeId

BLOCK_BYTES = 64 * 1024
# A stripe holds whatever is read before a body turns out to be none for a record.
MIN_BLOCK_BYTES = 8 * 1024
CHUNK_BYTES = 4 * 1024 * 1024

MAGIC = b"SCLY"
VERSION = 1
MAX_LAYOUT_BYTES = 4 << 20  # 20 000 drives fit; more is no layout of ours
MAX_NODES = 1024
MAX_SETS = 4096
MAX_TEXT = 255  # characters of an address, a pool's name, a codec
MAX_NODE_ID = (1 << 32) - 1
MAX_EPOCH = (1 << 48) - 1
DRIVE_ID_BYTES = 16
FINGERPRINT_BYTES = 32
SYSTEM_SIZES = (1, 3, 5, 7)
SYSTEM = -1  # instead of a set's id: the registers of the cluster itself; as `system_set`: they lie on drives that are named


class LayoutError(ClusterError):
    """These bytes, or this value, are no layout."""


class _Document(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class Seat(_Document, frozen=True):
    """A drive and the node that it is in."""

    drive: DriveId
    node: NodeId


class Position(_Document, frozen=True):
    """One position of a set.

    While a drive takes a position over from another: `learner` is copied to and does not count; `previous` is the
    drive that voted last, a source of rows until this one votes and of shards until its data is complete.
    """

    drive: DriveId
    node: NodeId
    voting: bool = True  # a rebuilding drive takes accepts and shards, and does not vote
    data_complete: bool = True
    since: int = 1  # the epoch in which this drive came here
    learner: Seat | None = None
    previous: Seat | None = None
    vote_since: int = 1  # the epoch in which the position began to vote, or ceased to

    @property
    def seat(self) -> Seat:
        """The drive that has the position."""
        return Seat(self.drive, self.node)

    @property
    def data(self) -> Literal["complete", "partial"]:
        """Whether every shard of the position lies on its drive, as far as the layout knows."""
        return "complete" if self.data_complete else "partial"


class ErasureSet(_Document, frozen=True):
    """n = k + m drives, interleaved across nodes; position p of an object's shards lives on positions[p]."""

    set_id: int
    positions: tuple[Position, ...]


class Node(_Document, frozen=True):
    """A member of the cluster."""

    node: NodeId
    address: str
    fingerprint: bytes = b""  # SHA-256 of its certificate's public key; empty: not bound yet
    state: Literal["active", "draining"] = "active"


class Pool(_Document, frozen=True):
    """Sets that came together; new objects choose among the pools by free space."""

    name: str
    sets: tuple[int, ...]


class Layout(_Document, frozen=True):
    """The whole layout. Stored in a register on the system set, and its epoch on every drive."""

    epoch: int
    cluster: ClusterId
    nodes: tuple[Node, ...]
    sets: tuple[ErasureSet, ...]
    system_set: int  # the set whose drives hold the system registers, or SYSTEM
    k: int
    m: int
    codec: str  # identity of the code: matrix and word size
    block: int = BLOCK_BYTES
    chunk: int = CHUNK_BYTES
    pools: tuple[Pool, ...] = ()  # none: all sets are one nameless pool
    system: tuple[Seat, ...] = ()
    system_next: tuple[Seat, ...] = ()  # they learn the system registers: accepts count with them
    system_previous: tuple[Seat, ...] = ()  # were the system set before: accepts count with them
    system_since: int = 0  # the epoch in which the one or the other began

    @property
    def n(self) -> int:
        """Drives in a set."""
        return self.k + self.m

    def erasure_set(self, set_id: int) -> ErasureSet:
        """The set of that id. Raises KeyError for one that the layout does not have."""
        if 0 <= set_id < len(self.sets) and self.sets[set_id].set_id == set_id:
            return self.sets[set_id]
        raise KeyError(set_id)

    @property
    def system_seats(self) -> tuple[Seat, ...]:
        """The drives that hold the system registers and are in force (not those of a change under way)."""
        if self.system_set == SYSTEM:
            return self.system
        return tuple(p.seat for p in self.erasure_set(self.system_set).positions)

    @property
    def all_pools(self) -> tuple[Pool, ...]:
        """The pools, with the nameless one of a layout that names none."""
        return self.pools or (Pool("", tuple(s.set_id for s in self.sets)),)

    def seats(self) -> tuple[Seat, ...]:
        """Every drive that the layout mentions, each once, in order of mention."""
        found: dict[Seat, None] = {}
        for erasure_set in self.sets:
            for position in erasure_set.positions:
                for seat in (position.seat, position.learner, position.previous):
                    if seat is not None:
                        found[seat] = None
        for seats in (self.system, self.system_next, self.system_previous):
            found |= dict.fromkeys(seats)
        return tuple(found)


def encode_layout(layout: Layout) -> bytes:
    """The stored form. Raises LayoutError for a layout that could not be read back."""
    check_layout(layout)
    data = MAGIC + bytes([VERSION]) + msgspec.msgpack.encode(layout)
    if len(data) > MAX_LAYOUT_BYTES:
        raise LayoutError(f"the layout is {len(data)} bytes long; {MAX_LAYOUT_BYTES} is the limit")
    return data


def decode_layout(data: bytes) -> Layout:
    """Inverse of encode_layout. Raises LayoutError on anything else."""
    if len(data) > MAX_LAYOUT_BYTES:
        raise LayoutError(f"{len(data)} bytes are no layout; {MAX_LAYOUT_BYTES} is the limit")
    if data[: len(MAGIC)] != MAGIC:
        raise LayoutError("not a layout")
    version = data[len(MAGIC) : len(MAGIC) + 1]
    if version != bytes([VERSION]):
        raise LayoutError(
            f"version {version.hex() or 'missing'} of the layout is not one that this program knows"
        )
    layout = _decode(data[len(MAGIC) + 1 :])
    if encode_layout(layout) != data:
        raise LayoutError("the layout is not in canonical form")
    return layout


def _decode(data: bytes) -> Layout:
    try:
        layout = msgspec.msgpack.decode(data, type=Layout)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise LayoutError(f"not a layout: {error}") from error
    check_layout(layout)
    return layout


def check_layout(layout: Layout) -> None:
    """Raise LayoutError unless the parts of the layout fit together."""
    _check(1 <= layout.epoch <= MAX_EPOCH, f"epoch {layout.epoch}")
    _check(len(layout.cluster) == 16, "the cluster's id is not 16 bytes long")
    _check(layout.k >= 1 and 0 <= layout.m <= layout.k, f"no code {layout.k}+{layout.m}")
    _check(0 < len(layout.codec) <= MAX_TEXT, "the codec's name")
    _check(layout.block >= MIN_BLOCK_BYTES, f"blocks of {layout.block} bytes")
    _check(layout.chunk > 0, f"chunks of {layout.chunk} bytes")
    _check_nodes(layout)
    _check_sets(layout)
    _check_pools(layout)
    _check_system(layout)


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise LayoutError(f"the layout does not hold together: {what}")


def _check_nodes(layout: Layout) -> None:
    _check(len(layout.nodes) <= MAX_NODES, f"{len(layout.nodes)} nodes")
    ids = [node.node for node in layout.nodes]
    _check(len(set(ids)) == len(ids), "a node is named twice")
    for node in layout.nodes:
        _check(0 <= node.node <= MAX_NODE_ID, f"node id {node.node}")
        _check(len(node.address) <= MAX_TEXT, f"the address of node {node.node}")
        _check(len(node.fingerprint) in {0, FINGERPRINT_BYTES}, f"fingerprint of node {node.node}")
    if ids:
        for seat in layout.seats():
            _check(seat.node in ids, f"drive {seat.drive.hex()} is on an unknown node {seat.node}")


def _check_sets(layout: Layout) -> None:
    _check(1 <= len(layout.sets) <= MAX_SETS, f"{len(layout.sets)} sets")
    taken: Counter[DriveId] = Counter()
    for index, erasure_set in enumerate(layout.sets):
        _check(erasure_set.set_id == index, f"set {erasure_set.set_id} stands at {index}")
        _check(
            len(erasure_set.positions) == layout.n,
            f"set {index} has {len(erasure_set.positions)} positions, not {layout.n}",
        )
        for number, position in enumerate(erasure_set.positions):
            where = f"set {index} position {number}"
            _check(1 <= position.since <= layout.epoch, f"{where}: since epoch {position.since}")
            voting = position.vote_since
            _check(1 <= voting <= layout.epoch, f"{where}: vote since epoch {voting}")
            seats = [s for s in (position.seat, position.learner, position.previous) if s]
            taken.update(seat.drive for seat in seats)
    _check(all(len(drive) == DRIVE_ID_BYTES for drive in taken), "a drive id is not 16 bytes long")
    twice = [drive.hex() for drive, count in taken.items() if count > 1]
    _check(not twice, f"drives with two places: {', '.join(twice)}")


def _check_pools(layout: Layout) -> None:
    if layout.pools:
        pooled = sorted(set_id for pool in layout.pools for set_id in pool.sets)
        _check(pooled == list(range(len(layout.sets))), "not every set is in one pool")
        names = [pool.name for pool in layout.pools]
        _check(len(set(names)) == len(names), "two pools have one name")
        _check(all(len(name) <= MAX_TEXT for name in names), "the name of a pool")


def _check_system(layout: Layout) -> None:
    if layout.system_set == SYSTEM:
        _check(len(layout.system) in SYSTEM_SIZES, f"{len(layout.system)} system drives")
    else:
        _check(0 <= layout.system_set < len(layout.sets), f"system set {layout.system_set}")
        _check(not layout.system, "the system set is both a set and a list of drives")
    for seats in (layout.system, layout.system_next, layout.system_previous):
        drives = {seat.drive for seat in seats}
        _check(len(drives) == len(seats), "a drive is twice in the system set")
        _check(all(len(drive) == DRIVE_ID_BYTES for drive in drives), "the id of a system drive")
    following, leaving = layout.system_next, layout.system_previous
    changing = bool(following or leaving)
    _check(not (following and leaving), "two changes of the system set at once")
    _check(not following or len(following) in SYSTEM_SIZES, "the next system set's size")
    _check(not leaving or layout.system_set == SYSTEM, "the system set that was left")
    _check(changing == (layout.system_since > 0), "the beginning of the system set's change")
    _check(layout.system_since <= layout.epoch, f"system set since epoch {layout.system_since}")
