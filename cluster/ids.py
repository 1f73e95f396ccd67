"""Names of things: fixed-width byte strings, made from a clock and a random source that are passed in."""

from random import Random
from typing import NewType

BucketId = NewType(
    "BucketId", bytes
)  # 16 random bytes, new at every creation: a name's next life is another bucket
DataId = NewType(
    "DataId", bytes
)  # 16 bytes: hlc48 ‖ node32 ‖ rand48; one per body of a PUT or part, never reused
OpId = NewType("OpId", bytes)  # 16 random bytes, one per client request
UploadId = NewType("UploadId", bytes)  # 16 random bytes
DriveId = NewType("DriveId", bytes)  # 16 random bytes, made when a drive is formatted
NodeId = NewType("NodeId", int)  # 32 bits
ClusterId = NewType("ClusterId", bytes)  # 16 random bytes
RowKey = NewType("RowKey", bytes)  # a register's name on a drive; see register.keys

SYSTEM_BUCKET = BucketId(
    bytes(16)
)  # the namespace of the system registers: layout, buckets, root keys


def new_data_id(hlc_ms: int, node: NodeId, rng: Random) -> DataId:
    """A data id whose first six bytes are the hybrid clock in ms, so that ids sort by time."""
    return DataId(hlc_ms.to_bytes(6, "big") + node.to_bytes(4, "big") + rng.randbytes(6))


def data_id_hlc(data_id: DataId) -> int:
    """The hybrid clock, in ms, at which the data id was drawn."""
    return int.from_bytes(data_id[:6], "big")
