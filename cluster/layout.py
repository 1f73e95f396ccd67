"""The layout document: which drives form which erasure sets. Epochs are totally ordered, one content each (I18)."""

import msgspec

from cluster.ids import ClusterId, DriveId, NodeId

BLOCK_BYTES = 64 * 1024
CHUNK_BYTES = 4 * 1024 * 1024


class _Document(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class Position(_Document, frozen=True):
    """One position of a set."""

    drive: DriveId
    node: NodeId
    voting: bool = True  # a rebuilding drive takes accepts and shards, and does not vote
    data_complete: bool = True


class ErasureSet(_Document, frozen=True):
    """n = k + m drives, interleaved across nodes; position p of an object's shards lives on positions[p]."""

    set_id: int
    positions: tuple[Position, ...]


class Node(_Document, frozen=True):
    """A member of the cluster."""

    node: NodeId
    address: str


class Layout(_Document, frozen=True):
    """The whole layout. Stored in a register on the system set, and its epoch on every drive."""

    epoch: int
    cluster: ClusterId
    nodes: tuple[Node, ...]
    sets: tuple[ErasureSet, ...]
    system_set: int  # the set whose drives hold the system registers
    k: int
    m: int
    codec: str  # identity of the code: matrix and word size
    block: int = BLOCK_BYTES
    chunk: int = CHUNK_BYTES

    @property
    def n(self) -> int:
        """Drives in a set."""
        return self.k + self.m

    def erasure_set(self, set_id: int) -> ErasureSet:
        """The set of that id. Raises KeyError for one that the layout does not have."""
        if 0 <= set_id < len(self.sets) and self.sets[set_id].set_id == set_id:
            return self.sets[set_id]
        raise KeyError(set_id)


def encode_layout(layout: Layout) -> bytes:
    """The stored form."""
    return msgspec.msgpack.encode(layout)


def decode_layout(data: bytes) -> Layout:
    """Inverse of encode_layout. Raises msgspec.DecodeError on anything else."""
    try:
        return msgspec.msgpack.decode(data, type=Layout)
    except UnicodeDecodeError as error:  # msgspec lets it through
        raise msgspec.DecodeError(str(error)) from error
