"""What every operation on objects works with: the registers, the drives, buffers, the machine."""

from collections.abc import Callable, Sequence

import attrs
import trio

from cluster.clock import HybridClock
from cluster.drives.drive import Drive
from cluster.ids import DataId, NodeId, new_data_id
from cluster.layout import Layout
from cluster.metadata.table import RegisterRef, Table
from cluster.objects.ack import AckPolicy
from cluster.objects.buffers import BufferPool
from cluster.objects.free_space import FreeSpace
from cluster.objects.model import Bucket
from cluster.objects.read_times import ReadTimes
from cluster.placement import home_set
from cluster.register.keys import object_row
from cluster.runtime import Runtime

# Hashing or coding so many bytes costs less than handing it to a thread, which must wait for the interpreter's lock.
SMALL_WORK = 64 * 1024


@attrs.frozen(kw_only=True)
class ObjectSettings:
    """Seconds and bytes; `ack` says which spread of shards a PUT waits for, up to `straggler_max_seconds`."""

    ack: AckPolicy = "shards"
    buffer_budget: int = 96 * 1024 * 1024
    straggler_min_seconds: float = 0.05
    straggler_max_seconds: float = 1.0
    straggler_feed_seconds: float = 30.0
    queue_chunks: int = 4  # chunks that may wait for one drive
    overflow_seconds: float = 1.0  # a drive whose queue stays full for so long is left out
    stage_seconds: float = 30.0  # without D durable shards by then the PUT fails
    retry_seconds: float = 3.0  # the same, while the body can still be coded anew for fewer drives
    fast_fill_seconds: float = 0.25  # a client that fills a buffer faster gets a whole chunk next
    hedge_share: float = (
        0.03  # of the shard reads that may be doubled because they are late; 0: none
    )
    hedge_min_seconds: float = 0.02  # no read is late before
    stall_seconds: float = 2.0  # a shard read that takes longer is joined by one of parity


@attrs.frozen(kw_only=True)
class Context:
    """Shared by all operations of one store."""

    table: Table
    drives_of: Callable[[int], Sequence[Drive]]
    layout: Callable[[], Layout]
    clock: HybridClock
    runtime: Runtime
    node_id: NodeId
    nursery: trio.Nursery  # lives as long as the server: stragglers are fed in it
    settings: ObjectSettings
    buffers: BufferPool
    read_times: ReadTimes
    free_space: FreeSpace

    def key_ref(self, bucket: Bucket, key: bytes) -> RegisterRef:
        """Where the register of an object key is."""
        home = home_set(bucket.bucket_id, key, bucket.generation)
        return RegisterRef(object_row(bucket.bucket_id, key), home, bucket.epoch)

    def draw_data_id(self) -> DataId:
        """A data id that was never used."""
        return new_data_id(self.clock.tick().hlc, self.node_id, self.runtime.rng)
