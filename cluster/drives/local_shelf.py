"""Reading shards of a LocalDrive: small ones are index rows, the others files. What cannot be read becomes heal debt."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from cluster.drives.drive import DriveError, ShardCorruptError, ShardMissingError
from cluster.drives.file_ops import FileOps
from cluster.drives.file_threads import FileThreads
from cluster.drives.index_rows import IndexReads, ShardRow
from cluster.drives.local_stage import is_row_shard
from cluster.drives.shard_files import read_blocks, read_footer, shard_path
from cluster.drives.shard_rows import ShardRows
from cluster.drives.trouble import Trouble, judge
from cluster.erasure.shard_format import ShardHeader
from cluster.ids import ClusterId, DataId

T = TypeVar("T")


class LocalShelf:
    """The reading half of cluster.drives.drive.Drive's shards."""

    def __init__(
        self,
        root: Path,
        cluster: ClusterId,
        files: FileOps,
        threads: FileThreads,
        rows: ShardRows,
        *,
        bad_shards_allowed: int,
        on_broken: Callable[[str], None],
    ) -> None:
        self._root, self._cluster, self._files = root, cluster, files
        self._threads, self._rows = threads, rows
        self._bad_shards_allowed, self._on_broken = bad_shards_allowed, on_broken
        self._bad_shards: set[tuple[DataId, int]] = set()

    async def read_blocks(
        self, header: ShardHeader, first: int, lengths: Sequence[int]
    ) -> Sequence[memoryview]:
        """See Drive."""
        if is_row_shard(first, lengths):
            row = await self._small(header)
            if row is not None:
                if len(row[1]) != lengths[0]:
                    raise self._corrupt(header, "the shard's row is not as long as its record says")
                return [memoryview(row[1])]
        return await self._read(
            header, lambda: read_blocks(self._root, header, first, lengths, self._files)
        )

    async def read_digests(self, header: ShardHeader, stripes: int) -> bytes:
        """See Drive."""
        if stripes == 1:
            row = await self._small(header)
            if row is not None and row[0].digests is not None:
                return row[0].digests
        footer = await self._read(
            header, lambda: read_footer(self._root, self._cluster, header, stripes, self._files)
        )
        return footer.digests

    async def stat(self, data_id: DataId, position: int) -> int | None:
        """See Drive.stat_shard."""
        row = await self._rows.find(data_id, position)
        if row is None:
            return None
        path = shard_path(self._root, data_id, position)
        is_here = row.body is not None or await self._threads.run(path.exists)
        return row.payload_bytes if is_here else None

    async def _small(self, header: ShardHeader) -> tuple[ShardRow, bytes] | None:
        def work(index: IndexReads) -> tuple[ShardRow, bytes | None] | None:
            row = index.shard(header.data_id, header.position)
            return None if row is None or row.body is None else (row, index.body(row.body))

        found = await self._rows.ask(work)
        if found is None:
            return None
        row, data = found
        if data is None:
            raise self._corrupt(header, "the shard's row fails its checksum")
        return row, data

    def _corrupt(self, header: ShardHeader, reason: str) -> ShardCorruptError:
        self._rows.note_bad(header, reason)
        return ShardCorruptError(reason)

    async def _read(self, header: ShardHeader, work: Callable[[], T]) -> T:
        try:
            return await self._threads.run(work)
        except (ShardMissingError, ShardCorruptError) as error:
            # A file without a row was collected meanwhile, or is still being written: no shard, and no debt.
            if not await self._rows.find(header.data_id, header.position):
                raise ShardMissingError(str(error)) from error
            self._rows.note_bad(header, str(error))
            raise
        except OSError as error:
            if judge(error) is Trouble.PASSING:
                raise DriveError(str(error)) from error
            self._bad_shards.add((header.data_id, header.position))
            if len(self._bad_shards) >= self._bad_shards_allowed:
                self._on_broken(f"reads fail: {error}")
            raise self._corrupt(header, str(error)) from error
