"""Staging on a LocalDrive: a shard is collected and written, and counts once its index row is committed."""

import threading
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
        """Run file work in a worker thread, which may outlive a cancelled wait."""
        ...

    def judge_write_error(self, error: OSError) -> DriveError:
        """The drive draws its conclusions and says what to raise."""
        ...

    async def commit_shard(
        self, row: ShardRow, body: bytes | None, taken_back: Callable[[], None]
    ) -> None:
        """Add the shard's index row, durably; `taken_back` when that was cancelled, and undone. Raises DriveError."""
        ...

    def discard_later(self, discard: Callable[[], None]) -> None:
        """Remove the file of an aborted stage, soon, in a worker thread."""
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
        self._has_file = False  # or may soon have
        self._dead = False
        # A thread that nobody waits for any more may still be writing when the file is to be removed.
        self._lock = threading.Lock()

    async def write(self, blocks: Sequence[Blob]) -> None:
        """See Stage."""
        if not self._has_file:
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
        self._has_file = True

        def locked() -> None:
            with self._lock:
                if not self._dead:
                    work()

        try:
            await self._drive.offload(locked)
        except OSError as error:
            self._end()
            raise self._drive.judge_write_error(error) from error
        except (trio.Cancelled, DriveError):
            self._end()
            raise
        if self._dead:
            raise DriveError("the stage was aborted")

    def _end(self) -> None:
        if not self._dead:
            self._dead = True
            self._remove()

    def _remove(self) -> None:
        if self._has_file:
            self._drive.discard_later(self._discard)

    def _discard(self) -> None:
        with self._lock:
            if self._writer is not None:
                self._writer.discard()

    async def close(self, digests: bytes) -> None:
        """See Stage."""
        header = self._header
        if not self._has_file:
            body = b"".join(self._buffered)
            row = ShardRow(
                data_id=header.data_id, position=header.position, owner=header.owner,
                payload_bytes=len(body), digests=digests, home=header.home,
            )  # fmt: skip
            await self._commit(row, body)
            return
        writer = self._writer
        if writer is None:
            raise DriveError("the stage has failed")
        await self._file(lambda: writer.finish(digests))
        row = ShardRow(
            data_id=header.data_id, position=header.position, owner=header.owner,
            payload_bytes=writer.payload_bytes, home=header.home,
        )  # fmt: skip
        await self._commit(row, None)

    async def _commit(self, row: ShardRow, body: bytes | None) -> None:
        try:
            await self._drive.commit_shard(row, body, self._remove)
        finally:
            self._dead = True  # the file goes after its row, or stays

    def abort(self) -> None:
        """See Stage."""
        self._end()
