"""Staging on a LocalDrive: a shard is collected and written, and counts once its index row is committed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import trio

from cluster.drives.drive import STAGING, Blob, DriveError, DriveState
from cluster.drives.file_ops import FileOps
from cluster.drives.index_rows import ShardRow
from cluster.drives.shard_files import ShardWriter
from cluster.erasure.shard_format import ShardHeader
from cluster.ids import ClusterId

ROW_SHARD_BYTES = 16 * 1024  # shards up to this are index rows: a file would cost two more syncs


def is_row_shard(first: int, lengths: Sequence[int]) -> bool:
    """Whether a read is of a shard that is small enough to be an index row: its only block is short."""
    return first == 0 and len(lengths) == 1 and lengths[0] <= ROW_SHARD_BYTES


class StageHost(Protocol):
    """What a stage asks of its drive."""

    reason: str

    @property
    def state(self) -> DriveState:
        """Only ACTIVE and SLOW drives take more bytes."""
        ...

    async def offload(self, work: Callable[[], None]) -> None:
        """Run file work in a worker thread."""
        ...

    def judge_write_error(self, error: OSError) -> DriveError:
        """The drive draws its conclusions and says what to raise."""
        ...

    async def commit_shard(self, row: ShardRow, body: bytes | None) -> None:
        """Add the shard's index row, durably. Raises DriveError."""
        ...

    def discard_later(self, writer: ShardWriter) -> None:
        """Remove the file of an aborted stage, soon."""
        ...


class LocalStage:
    """See cluster.drives.drive.Stage. Small shards are kept until close and become a row, larger ones go to a file."""

    def __init__(
        self, host: StageHost, root: Path, cluster: ClusterId, header: ShardHeader, files: FileOps
    ) -> None:
        self._drive, self._header = host, header
        self._root, self._cluster, self._files = root, cluster, files
        self._buffered: list[bytes] = []
        self._bytes = 0
        self._writer: ShardWriter | None = None
        self._dead = False

    async def write(self, blocks: Sequence[Blob]) -> None:
        """See Stage."""
        if self._writer is None:
            self._bytes += sum(map(len, blocks))
            if self._bytes <= ROW_SHARD_BYTES:
                self._buffered += [bytes(block) for block in blocks]
                return
            blocks, self._buffered = [*self._buffered, *blocks], []
        await self._file(lambda: self._append(blocks))

    def _append(self, blocks: Sequence[Blob]) -> None:
        if self._writer is None:
            self._writer = ShardWriter(self._root, self._cluster, self._header, self._files)
        self._writer.write(blocks)

    async def _file(self, work: Callable[[], None]) -> None:
        if self._dead or self._drive.state not in STAGING:
            raise DriveError(self._drive.reason or "the stage was aborted")
        try:
            await self._drive.offload(work)
        except OSError as error:
            self._end()
            raise self._drive.judge_write_error(error) from error

    def _end(self) -> None:
        self._dead = True
        if self._writer is not None:
            self._drive.discard_later(self._writer)

    async def close(self, digests: bytes) -> None:
        """See Stage."""
        header, writer = self._header, self._writer
        if writer is None:
            body = b"".join(self._buffered)
            row = ShardRow(
                data_id=header.data_id, position=header.position, owner=header.owner,
                payload_bytes=len(body), digests=digests,
            )  # fmt: skip
            await self._commit(row, body)
        else:
            await self._file(lambda: writer.finish(digests))
            row = ShardRow(
                data_id=header.data_id, position=header.position, owner=header.owner,
                payload_bytes=writer.payload_bytes,
            )  # fmt: skip
            await self._commit(row, None)

    async def _commit(self, row: ShardRow, body: bytes | None) -> None:
        try:
            await self._drive.commit_shard(row, body)
        except trio.Cancelled:
            self._end()
            raise
        self._dead = True

    def abort(self) -> None:
        """See Stage."""
        if not self._dead:
            self._end()
