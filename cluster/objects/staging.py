"""One body on its way to n drives: bounded queues, drives that fall behind are left out, D durable shards or nothing."""

from collections import deque
from collections.abc import Sequence

import attrs
import trio

from cluster.drives.drive import STAGING, Blob, Drive, DriveError, DriveFullError, Stage
from cluster.erasure.shard_format import ShardHeader
from cluster.errors import QuorumError, StorageFullError
from cluster.ids import NodeId
from cluster.objects.ack import is_spread
from cluster.objects.buffers import Lease
from cluster.objects.context import Context
from cluster.quorum import durable_shards


class _Shard:
    """One drive's share: a queue, and the task that empties it."""

    def __init__(self, position: int, stage: Stage, room: int) -> None:
        self.position = position
        self.stage = stage
        self.queue: deque[tuple[Sequence[Blob], Lease]] = deque()
        self.scope = trio.CancelScope()
        self.dead = False
        self.closing = False
        self._room = room
        self._writing = False
        self._wake = trio.Event()

    @property
    def has_room(self) -> bool:
        """Whether another chunk can be queued."""
        return len(self.queue) < self._room

    def put(self, blocks: Sequence[Blob], lease: Lease) -> None:
        """Queue blocks, which lie in the leased buffer or in the room beside it."""
        lease.hold()
        self.queue.append((blocks, lease))
        self._wake.set()

    def finish(self) -> None:
        """Nothing more will be queued."""
        self.closing = True
        self._wake.set()

    async def has_work(self) -> bool:
        """Wait for blocks; False: there will be none."""
        while not self.queue and not self.closing:
            self._wake = trio.Event()
            await self._wake.wait()
        return bool(self.queue)

    async def write_first(self) -> None:
        """Write the first blocks in the queue, and take them out of it."""
        self._writing = True
        await self.stage.write(self.queue[0][0])
        self._writing = False
        if self.queue:  # it was not left out meanwhile
            self.queue.popleft()[1].release()

    def let_go(self) -> None:
        """Keep no memory."""
        if self.queue:
            self.drop()

    def drop(self) -> None:
        """Leave the drive out of this PUT."""
        self.dead = True
        if self.queue and self._writing:
            self.queue.popleft()[1].forfeit()
        while self.queue:
            self.queue.popleft()[1].release()
        self.scope.cancel()
        self.stage.abort()


@attrs.define(eq=False)
class Staging:
    """The shards of one body. `abort` after anything but success."""

    _context: Context
    _drives: Sequence[Drive]
    _nodes: Sequence[NodeId]  # by position
    _header: ShardHeader
    _avoid: frozenset[int]  # positions that failed this body before
    _shards: list[_Shard] = attrs.field(factory=list, init=False)
    _digests: bytes = attrs.field(default=b"", init=False)
    _written: int = attrs.field(default=0, init=False)  # bitmaps of positions
    _durable: int = attrs.field(default=0, init=False)
    _judged: int = attrs.field(default=0, init=False)  # positions that are worth another try
    _first_at: float = attrs.field(default=0.0, init=False)
    _full: bool = attrs.field(default=False, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    def open(self, size_hint: int) -> None:
        """Begin on every drive that can stage. Raises StorageFullError, QuorumError."""
        header = self._header
        for position, drive in enumerate(self._drives):
            if drive.state not in STAGING or position in self._avoid:
                continue
            own = ShardHeader(
                data_id=header.data_id, owner=header.owner, position=position, k=header.k,
                m=header.m, block=header.block, codec=header.codec, home=header.home,
            )  # fmt: skip
            try:
                stage = drive.open_stage(own, size_hint)
            except DriveFullError:
                self._full = True
            except DriveError:
                pass
            else:
                self._shards.append(_Shard(position, stage, self._context.settings.queue_chunks))
        self._judged = sum(1 << shard.position for shard in self._shards)
        self._require(self._judged)
        for shard in self._shards:
            self._context.nursery.start_soon(self._feed, shard)

    @property
    def lost(self) -> frozenset[int]:
        """Positions without which the body can be tried again."""
        return frozenset(p for p in range(len(self._drives)) if not self._judged >> p & 1)

    @property
    def _needed(self) -> int:
        return durable_shards(self._header.k, self._header.k + self._header.m)

    @property
    def _is_spread(self) -> bool:
        ack, k = self._context.settings.ack, self._header.k
        return is_spread(ack, self._durable, self._alive_bits(), self._nodes, k)

    async def write(self, blocks: Sequence[Sequence[Blob]], lease: Lease) -> None:
        """Queue the next blocks of every position. Raises when fewer than D drives are left."""
        settings = self._context.settings
        if not all(shard.has_room for shard in self._alive):
            with trio.move_on_after(settings.overflow_seconds):
                while not all(shard.has_room for shard in self._alive):
                    await self._changed.wait()
            with trio.move_on_after(settings.stage_seconds):
                while self._count_room() < self._needed <= len(self._alive):
                    await self._changed.wait()
        for shard in self._alive:
            if shard.has_room:
                shard.put(blocks[shard.position], lease)
            else:
                shard.drop()
        self._require_alive()

    def _count_room(self) -> int:
        return sum(shard.has_room for shard in self._alive)

    async def settle(self) -> None:
        """Wait until D drives have written their first blocks; the others get no more time than a retry would."""
        with trio.move_on_after(self._context.settings.retry_seconds):
            while self._written.bit_count() < self._needed <= len(self._alive):
                await self._changed.wait()
        self._judge(self._written & self._alive_bits())

    async def close(self, digests: bytes, patience: float) -> int:
        """Make the shards durable. The bitmap of positions that are; stragglers go on for a while."""
        settings = self._context.settings
        self._digests = digests
        for shard in self._alive:
            shard.finish()
        with trio.move_on_after(patience):
            while self._durable.bit_count() < self._needed <= len(self._alive):
                await self._changed.wait()
        self._judge(self._durable)
        if self._durable.bit_count() < len(self._alive):
            spent = trio.current_time() - self._first_at
            grace = max(2 * spent, settings.straggler_min_seconds)
            patient_until = trio.current_time() + settings.straggler_max_seconds
            with trio.move_on_after(min(grace, settings.straggler_max_seconds)):
                while self._durable.bit_count() < len(self._alive):
                    await self._changed.wait()
            with trio.move_on_at(patient_until):
                while not self._is_spread:
                    await self._changed.wait()
        deadline = trio.current_time() + settings.straggler_feed_seconds
        for shard in self._alive:
            shard.scope.deadline = deadline
            if (
                shard.queue
            ):  # it keeps memory: when other requests wait for that, healing will owe it a shard
                self._context.buffers.hold_until_asked(shard, shard.let_go)
        return self._durable

    def abort(self) -> None:
        """Forget all shards."""
        for shard in self._shards:
            shard.drop()

    @property
    def _alive(self) -> list[_Shard]:
        return [shard for shard in self._shards if not shard.dead]

    def _alive_bits(self) -> int:
        return sum(1 << shard.position for shard in self._alive)

    def _judge(self, done: int) -> None:
        """Lost are those that failed; where enough are left, those that are too late."""
        alive = self._alive_bits()
        self._judged = done if alive.bit_count() >= self._needed else alive
        self._require(done)

    def _require_alive(self) -> None:
        self._judged = self._alive_bits()
        self._require(self._judged)

    def _require(self, positions: int) -> None:
        have = positions.bit_count()
        if have < self._needed:
            if self._full:
                raise StorageFullError(f"{have} of {self._needed} needed drives have room")
            raise QuorumError(self._needed, have, "can take shards")

    def _wake(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def _feed(self, shard: _Shard) -> None:
        bit = 1 << shard.position
        try:
            with shard.scope:
                while await shard.has_work():
                    await shard.write_first()
                    self._written |= bit
                    self._wake()
                await shard.stage.close(self._digests)
                if not self._durable:
                    self._first_at = trio.current_time()
                self._durable |= bit
        except DriveError as error:
            self._full = self._full or isinstance(error, DriveFullError)
            shard.drop()
        if shard.scope.cancelled_caught:
            shard.drop()
        self._context.buffers.forget(shard)
        self._wake()
