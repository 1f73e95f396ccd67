"""What peers tell each other every few seconds: one record, as a ping and as its answer."""

import msgspec

from cluster.errors import ClusterError
from cluster.ids import NodeId
from cluster.layout import MAX_EPOCH, MAX_LAYOUT_BYTES, MAX_NODE_ID, MAX_NODES

VERSION = b"\x01"
MAX_INCARNATION = (1 << 48) - 1  # a clock in ms at the start, and 1 for every refutation
MAX_HEARTBEAT_BYTES = MAX_LAYOUT_BYTES + (64 << 10)


class HeartbeatError(ClusterError):
    """These bytes are no heartbeat of a version that this program knows."""


class Opinion(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The highest incarnation of a node that the sender knows, and what is said of that one."""

    node: NodeId
    incarnation: int
    suspect: bool  # the sender suspects it; this is what counts in a verdict
    accused: (
        bool  # the sender or somebody that it heard does; the accused refutes when it hears of it
    )


class Heartbeat(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A ping or its answer. `layout` is there when the sender thinks that the other's epoch is lower."""

    node: NodeId
    incarnation: int
    epoch: int
    opinions: tuple[Opinion, ...] = ()
    layout: bytes = b""


def encode_heartbeat(heartbeat: Heartbeat) -> bytes:
    """The sent form: a version byte, then MessagePack."""
    return VERSION + msgspec.msgpack.encode(heartbeat)


def decode_heartbeat(data: bytes) -> Heartbeat:
    """Inverse of encode_heartbeat. Raises HeartbeatError on anything else."""
    if len(data) > MAX_HEARTBEAT_BYTES:
        raise HeartbeatError(f"{len(data)} bytes are no heartbeat")
    if data[:1] != VERSION:
        raise HeartbeatError(f"unknown version {data[:1].hex() or 'missing'} of a heartbeat")
    try:
        heartbeat = msgspec.msgpack.decode(memoryview(data)[1:], type=Heartbeat)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise HeartbeatError(f"not a heartbeat: {error}") from error
    pairs = [(o.node, o.incarnation) for o in heartbeat.opinions]
    for node, incarnation in [(heartbeat.node, heartbeat.incarnation), *pairs]:
        if not (0 <= node <= MAX_NODE_ID and 0 <= incarnation <= MAX_INCARNATION):
            raise HeartbeatError(f"node {node}, incarnation {incarnation}: out of range")
    if not 1 <= heartbeat.epoch <= MAX_EPOCH:
        raise HeartbeatError(f"epoch {heartbeat.epoch} is out of range")
    if len(heartbeat.opinions) > MAX_NODES:
        raise HeartbeatError(f"opinions of {len(heartbeat.opinions)} nodes")
    return heartbeat
