"""Removing shards from a LocalDrive: superseded ones after their grace, aborted stages, and what a crash left unfinished."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

from cluster.drives.file_ops import FileOps
from cluster.drives.index import Index
from cluster.drives.index_threads import GroupCommit
from cluster.drives.shard_files import ShardWriter, has_footer, list_shards, shard_path
from cluster.ids import DataId

T = TypeVar("T")
Shard = tuple[DataId, int]  # data id and position


class CollectorHost(Protocol):
    """What the collector asks of its drive."""

    @property
    def root(self) -> Path:
        """The drive's folder."""
        ...

    @property
    def files(self) -> FileOps:
        """How files are touched."""
        ...

    def offload(self, work: Callable[[], T]) -> Awaitable[T]:
        """Run file work in one of the drive's threads."""
        ...

    def ask_index(self, work: Callable[[Index], T]) -> Awaitable[T]:
        """Read the index on its reading thread. Raises DriveError."""
        ...


class ShardCollector:
    """One drive's."""

    def __init__(self, host: CollectorHost, commits: GroupCommit, *, was_clean: bool) -> None:
        self._host, self._commits = host, commits
        self._going: set[Shard] = set()
        self._aborted: list[ShardWriter] = []
        # Stages of this process, while the files of an earlier one are looked through.
        self._begun: set[Shard] | None = None if was_clean else set()

    @property
    def is_collecting(self) -> bool:
        """Whether shards are on their way out."""
        return bool(self._going)

    @property
    def has_swept(self) -> bool:
        """Whether nothing is left to look through of an earlier process."""
        return self._begun is None

    def is_going(self, shard: Shard) -> bool:
        """Whether a shard is on its way out: its file goes before its row, which is no damage."""
        return shard in self._going

    def begin(self, shard: Shard) -> None:
        """A stage was opened: its file is not one that an earlier process left."""
        if self._begun is not None:
            self._begun.add(shard)

    def discard_later(self, writer: ShardWriter) -> None:
        """Remove the file of an aborted stage, soon."""
        self._aborted.append(writer)

    async def discard(self) -> None:
        """Remove the files of aborted stages."""
        writers, self._aborted = self._aborted, []

        def work() -> None:
            for writer in writers:
                writer.discard()

        if writers:
            await self._host.offload(work)

    async def collect(self, now_ms: int, limit: int) -> None:
        """Remove at most `limit` superseded bodies whose grace is over. Raises DriveError, OSError."""
        due = await self._host.ask_index(
            lambda index: [(d, index.shards_of(d)) for d in index.due_trash(now_ms, limit)]
        )
        if not due or self._commits.failed:
            return
        going = {(d, s.position) for d, shards in due for s in shards}
        root, files = self._host.root, self._host.files
        paths = [
            shard_path(root, d, s.position) for d, shards in due for s in shards if s.body is None
        ]

        def unlink() -> None:
            for path in paths:
                files.unlink(path)

        self._going |= going
        try:
            await self._host.offload(unlink)
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

    async def sweep_unfinished(self) -> None:
        """After a crash: files that were not written to their end are removed; nothing can refer to them."""
        root, files = self._host.root, self._host.files

        def candidates() -> list[tuple[DataId, int, Path]]:
            found = []
            for data_id, position, path in list_shards(root):
                with suppress(FileNotFoundError):  # collected meanwhile
                    if not has_footer(path, data_id):
                        found.append((data_id, position, path))
            return found

        unfinished = await self._host.offload(candidates)
        known = await self._host.ask_index(
            lambda index: {(d, p) for d, p, _ in unfinished if index.shard(d, p) is not None}
        )
        begun, self._begun = self._begun or set(), None
        doomed = [path for d, p, path in unfinished if (d, p) not in known | begun]

        def remove() -> None:
            for path in doomed:
                files.unlink(path)

        await self._host.offload(remove)
