"""A drive's book of shards: which are here, which are owed, which may go. A shard counts once its row is durable."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias, TypeVar

import attrs
import trio

from cluster.drives.drive import DriveError
from cluster.drives.group_commit import GroupCommit
from cluster.drives.group_read import GroupRead
from cluster.drives.index_rows import IndexReads, ShardRow
from cluster.drives.registers import Registers
from cluster.erasure.shard_format import ShardHeader
from cluster.ids import DataId

T = TypeVar("T")
Shard: TypeAlias = tuple[DataId, int]  # data id and position


class ShardRows:
    """The rows of shards, over the same commits and reads as the registers."""

    def __init__(
        self,
        registers: Registers,
        commits: GroupCommit,
        reads: GroupRead,
        *,
        now_ms: Callable[[], int],
    ) -> None:
        self._registers, self._commits, self._reads = registers, commits, reads
        self._now_ms = now_ms
        self._going: set[Shard] = set()

    @property
    def is_collecting(self) -> bool:
        """Whether shards are on their way out."""
        return bool(self._going)

    async def ask(self, work: Callable[[IndexReads], T]) -> T:
        """Ask the index. Raises DriveError."""
        try:
            return await self._reads.run(work)
        except OSError as error:
            raise DriveError(str(error)) from error

    async def find(self, data_id: DataId, position: int) -> ShardRow | None:
        """The row of a durable shard. Raises DriveError."""
        return await self.ask(lambda index: index.shard(data_id, position))

    async def add(
        self, row: ShardRow, body: bytes | None, taken_back: Callable[[], None] = lambda: None
    ) -> None:
        """A shard is here; durable when this returns. Raises DriveError.

        Cancelled, it is taken back; when that is durable `taken_back` is called, and not before: a row whose file is gone
        would say that the shard is here, and nothing would owe it.
        """
        commits = self._commits
        if commits.failed:
            raise DriveError(commits.failed)
        batch = commits.batch
        if body is not None:
            rowid = self._registers.bodies.draw()
            batch.bodies[rowid] = body
            row = attrs.evolve(row, body=rowid)
        batch.shards.append(row)
        if row.home is not None:
            self._registers.notes.on_staged(row, row.home)
        batch.heal[row.data_id, row.position] = None
        seq = commits.seq
        commits.touch()
        try:
            is_durable = await commits.committed(seq)
        except trio.Cancelled:
            self._drop(row)
            commits.when_durable(commits.seq, lambda ok: taken_back() if ok else None)
            raise
        if not is_durable:
            raise DriveError(commits.failed)

    def _drop(self, row: ShardRow) -> None:
        """Take back a shard's row with the next commit. It may have paid a debt, or kept one from being noted."""
        batch = self._commits.batch
        batch.drop_shards.append((row.data_id, row.position))
        batch.heal[row.data_id, row.position] = (row.owner, "it was taken back")
        if row.body is not None:
            batch.drop_bodies.add(row.body)
        self._commits.touch()

    def note_bad(self, header: ShardHeader, reason: str) -> None:
        """Heal debt, durable soon. Never blocks. None for a shard on its way out: its file goes before its row."""
        shard = header.data_id, header.position
        if not self._commits.failed and shard not in self._going:
            self._commits.batch.heal[shard] = (header.owner, reason)
            self._commits.touch()

    async def count_debt(self) -> int:
        """Rows of heal debt. Raises DriveError."""
        return await self.ask(lambda index: index.count("heal"))

    async def collect(
        self, limit: int, unlink: Callable[[Sequence[Shard]], Awaitable[None]]
    ) -> None:
        """Drop what dead buckets left, and at most `limit` superseded bodies whose grace is over.

        `unlink` removes the files of such shards, before their rows go. Raises what it raises, DriveError, OSError.
        """
        await self._registers.sweep()
        now = self._now_ms()
        due = await self.ask(
            lambda index: [(d, index.shards_of(d)) for d in index.due_trash(now, limit)]
        )
        if not due or self._commits.failed:
            return
        going = {(d, s.position) for d, shards in due for s in shards}
        self._going |= going
        try:
            await unlink([(d, s.position) for d, shards in due for s in shards if s.body is None])
        except BaseException:
            self._going -= going
            raise
        batch = self._commits.batch
        for data_id, shards in due:
            batch.drop_trash.append(data_id)
            for shard in shards:
                batch.drop_shards.append((data_id, shard.position))
                batch.heal[data_id, shard.position] = None
                if shard.body is not None:
                    batch.drop_bodies.add(shard.body)
        self._commits.touch()
        self._commits.when_durable(
            self._commits.seq, lambda _: self._going.difference_update(going)
        )
