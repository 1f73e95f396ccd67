"""One body on its way to n drives: bounded queues, drives that fall behind are left out, D durable shards or nothing."""

from collections.abc import Sequence

import trio

from cluster.drives.drive import STAGING, Blob, Drive, DriveError, DriveFullError, Stage
from cluster.erasure.shard_format import ShardHeader
from cluster.errors import QuorumError, StorageFullError
from cluster.objects.context import Context
from cluster.quorum import durable_shards


class _Shard:
    """One drive's share: a queue, and the task that empties it."""

    def __init__(self, position: int, stage: Stage, room: int) -> None:
        self.position = position
        self.stage = stage
        self.send, self.receive = trio.open_memory_channel[list[Blob]](room)
        self.scope = trio.CancelScope()
        self.dead = False

    @property
    def has_room(self) -> bool:
        """Whether another chunk can be queued."""
        stats = self.send.statistics()
        return stats.current_buffer_used < stats.max_buffer_size

    def drop(self) -> None:
        """Leave the drive out of this PUT."""
        self.dead = True
        self.scope.cancel()
        self.stage.abort()


class Staging:
    """The shards of one body. `abort` after anything but success."""

    def __init__(self, context: Context, drives: Sequence[Drive], header: ShardHeader) -> None:
        self._context = context
        self._digests = b""
        self._needed = durable_shards(header.k, header.k + header.m)
        self._shards: list[_Shard] = []
        self._durable = 0
        self._first_at = 0.0
        self._full = False
        self._changed = trio.Event()
        self._drives = drives
        self._header = header

    def open(self, size_hint: int) -> None:
        """Begin on every drive that can stage. Raises StorageFullError, QuorumError."""
        header = self._header
        for position, drive in enumerate(self._drives):
            if drive.state not in STAGING:
                continue
            own = ShardHeader(
                data_id=header.data_id, owner=header.owner, position=position, k=header.k,
                m=header.m, block=header.block, codec=header.codec,
            )  # fmt: skip
            try:
                stage = drive.open_stage(own, size_hint)
            except DriveFullError:
                self._full = True
            except DriveError:
                pass
            else:
                shard = _Shard(position, stage, self._context.settings.queue_chunks)
                self._shards.append(shard)
                self._context.nursery.start_soon(self._feed, shard)
        self._require()

    async def write(self, blocks: Sequence[list[Blob]]) -> None:
        """Queue the next blocks of every position. Raises when fewer than D drives are left."""
        with trio.move_on_after(self._context.settings.overflow_seconds):
            while not all(shard.has_room for shard in self._alive):
                await self._wait()
        with trio.move_on_after(self._context.settings.stage_seconds):
            while sum(shard.has_room for shard in self._alive) < self._needed <= len(self._alive):
                await self._wait()
        for shard in self._alive:
            if shard.has_room:
                shard.send.send_nowait(blocks[shard.position])
            else:
                shard.drop()
        self._require()

    async def close(self, digests: bytes) -> int:
        """Make the shards durable. The bitmap of positions that are; stragglers go on for a while."""
        settings = self._context.settings
        self._digests = digests
        for shard in self._alive:
            shard.send.close()
        with trio.move_on_after(settings.stage_seconds):
            while self._durable.bit_count() < self._needed <= len(self._alive):
                await self._wait()
        self._require(durable=True)
        spent = trio.current_time() - self._first_at
        grace = min(max(2 * spent, settings.straggler_min_seconds), settings.straggler_max_seconds)
        if self._durable.bit_count() < len(self._alive):
            with trio.move_on_after(grace):
                while self._durable.bit_count() < len(self._alive):
                    await self._wait()
        deadline = trio.current_time() + settings.straggler_feed_seconds
        for shard in self._alive:
            shard.scope.deadline = deadline
        return self._durable

    def abort(self) -> None:
        """Forget all shards."""
        for shard in self._shards:
            shard.drop()

    @property
    def _alive(self) -> list[_Shard]:
        return [shard for shard in self._shards if not shard.dead]

    def _require(self, *, durable: bool = False) -> None:
        have = self._durable.bit_count() if durable else len(self._alive)
        if have < self._needed:
            if self._full:
                raise StorageFullError(f"{have} of {self._needed} needed drives have room")
            raise QuorumError(self._needed, have, "can take shards")

    async def _wait(self) -> None:
        await self._changed.wait()

    def _wake(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def _feed(self, shard: _Shard) -> None:
        try:
            with shard.scope:
                async for blocks in shard.receive:
                    self._wake()
                    await shard.stage.write(blocks)
                await shard.stage.close(self._digests)
                if not self._durable:
                    self._first_at = trio.current_time()
                self._durable |= 1 << shard.position
        except DriveError as error:
            self._full = self._full or isinstance(error, DriveFullError)
            shard.dead = True
        if shard.scope.cancelled_caught:
            shard.dead = True
            shard.stage.abort()
        shard.send.close()
        self._wake()
