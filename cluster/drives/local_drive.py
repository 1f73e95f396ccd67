"""A drive on a folder: registers in the index, shards in files, guarded, collected and closed as one.

`open_local_drive` is the block in which the drive lives: its threads and tasks end with it. The first failed write or fsync takes the drive out
for good (an fsync that is tried again reports success for pages that were lost: Rebello et al., 2020).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import apsw
import attrs
import trio

from cluster.drives.ballast import Ballast
from cluster.drives.drive import (
    STAGING,
    VOTING,
    DriveError,
    DriveFullError,
    DriveState,
    DriveStatus,
    DriveUsage,
    ShardCorruptError,
    ShardMissingError,
    Stage,
)
from cluster.drives.file_ops import FileOps
from cluster.drives.format import Member
from cluster.drives.index import CHECKSUM_VFS, Index
from cluster.drives.index_rows import Batch, ShardRow
from cluster.drives.index_threads import COMMIT_SEQ, GroupCommit, Reader
from cluster.drives.local_registers import LocalRegisters, ReplyTo
from cluster.drives.local_stage import LocalStage, is_row_shard
from cluster.drives.root_guard import DriveLock, RootGuard
from cluster.drives.shard_files import (
    ShardWriter,
    has_footer,
    list_shards,
    read_blocks,
    read_footer,
    shard_path,
)
from cluster.drives.trouble import Trouble, judge
from cluster.erasure.shard_format import ShardHeader
from cluster.ids import ClusterId, DataId, DriveId
from cluster.register.acceptor import Acceptor, Limits
from cluster.register.messages import Failed, NotVoting, Request
from cluster.runtime import Runtime

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class DriveSettings:
    """Bounds and periods of one drive."""

    cache_bytes: int = 24 << 20
    read_grace_ms: int = 15 * 60 * 1000  # superseded data stays that long, for reads in flight
    collect_seconds: float = 5.0
    collect_batch: int = 256
    guard_seconds: float = 10.0
    free_seconds: float = 1.0
    hung_seconds: float = 30.0
    checkpoint_bytes: int = 32 << 20  # of the log; at most a 64th of a small file system
    ballast_bytes: int = (
        256 << 20
    )  # given up when the index has no room; at most 1 % of a small file system
    min_free_bytes: int = 1 << 30  # at most a tenth of a small file system
    min_free_ratio: float = 0.02
    bad_shards_allowed: int = 3  # distinct shards with read errors before the drive is taken out
    limits: Limits = attrs.field(factory=Limits)


@attrs.frozen
class DriveTakenOut:
    """Event: a drive left service by itself."""

    drive: DriveId
    path: str
    state: DriveState
    reason: str


class LocalDrive:
    """See cluster.drives.drive.Drive. Made by open_local_drive."""

    def __init__(
        self,
        root: Path,
        cluster: ClusterId,
        member: Member,
        runtime: Runtime,
        settings: DriveSettings,
        files: FileOps,
        vfs: str,
    ) -> None:
        self.root, self.cluster, self.member = root, cluster, member
        self._runtime, self._settings, self.files = runtime, settings, files
        self._state, self.reason = DriveState.ACTIVE, ""
        self._writer_index = Index(root, vfs=vfs, writable=True)
        files.sync_directory(root)
        control = self._writer_index.control()
        self.was_clean = self._writer_index.value("clean") == b"1"
        last_body = self._writer_index.last_body()
        self._writer_index.apply(Batch(ctl={"clean": b"0"}))
        self._ballast = Ballast(root, files, settings.ballast_bytes)
        durable = int(self._writer_index.value(COMMIT_SEQ) or 0)
        self._commits = GroupCommit(self._apply, self._fault, durable=durable)
        self._reader = Reader(lambda: Index(root, vfs=vfs), self._fault)
        self._checkpoint_index = Index(root, vfs=vfs)
        acceptor = Acceptor(
            control, set_id=member.set_id, position=member.position, limits=settings.limits
        )
        self._registers = LocalRegisters(
            acceptor,
            self._commits,
            self._reader,
            cache_bytes=settings.cache_bytes,
            last_body=last_body,
            now_ms=runtime.wall_ms,
            grace_ms=settings.read_grace_ms,
        )
        self.guard = RootGuard(root, member.drive)
        self._checkpointed = 0
        self._bad_shards: set[tuple[DataId, int]] = set()
        self._usage: DriveUsage | None = None
        self._staged_bytes = 0  # promised to stages since the free space was measured
        self._discarded: list[ShardWriter] = []
        # Stages of this process, while the files of an earlier one are looked through.
        self._begun: set[tuple[DataId, int]] | None = None if self.was_clean else set()
        self.on_fault: Callable[[LocalDrive, str], None] = lambda _drive, _reason: None

    @property
    def drive_id(self) -> DriveId:
        """Its identity."""
        return self.member.drive

    @property
    def state(self) -> DriveState:
        """What it can do now."""
        return self._state

    def _apply(self, batch: Batch) -> None:
        """Commit a batch (on the writer's thread). A full file system costs the ballast, not the drive."""
        try:
            self._writer_index.apply(batch)
        except apsw.FullError:
            self._ballast.release()
            self._writer_index.apply(batch)  # the failed transaction was rolled back as a whole

    def _fault(self, reason: str) -> None:
        self._leave(DriveState.FAULTY, reason)

    def _leave(self, state: DriveState, reason: str) -> None:
        """Out of service: no acknowledgement after this."""
        if self._state in {DriveState.FAULTY, DriveState.MISSING, DriveState.WRONG}:
            return
        self._state, self.reason = state, reason
        self._commits.fail(reason)
        self._runtime.emit(DriveTakenOut(self.drive_id, str(self.root), state, reason))
        if state is DriveState.FAULTY:
            self.on_fault(self, reason)

    # -- registers

    def submit(self, request: Request, reply: ReplyTo) -> None:
        """See Drive."""
        if self._state in VOTING:
            self._registers.handle(request, reply)
        elif self._commits.failed:
            reply(Failed(self.reason))
        else:
            reply(NotVoting(self.reason))

    # -- shards

    def open_stage(self, header: ShardHeader, size_hint: int) -> Stage:
        """See Drive."""
        if self._state is DriveState.READONLY:
            raise DriveFullError(self.reason)
        if self._state not in STAGING:
            raise DriveError(self.reason)
        if self._usage is not None:
            if self._staged_bytes + size_hint > self._usage.free - self._reserve(self._usage):
                raise DriveFullError("the object does not fit")
            self._staged_bytes += size_hint
        if self._begun is not None:
            self._begun.add((header.data_id, header.position))
        return LocalStage(self, self.root, self.cluster, header, self.files)

    async def read_blocks(
        self, header: ShardHeader, first: int, lengths: Sequence[int]
    ) -> Sequence[memoryview]:
        """See Drive."""
        self._check_readable()
        if is_row_shard(first, lengths):
            row = await self._small(header)
            if row is not None:
                if len(row[1]) != lengths[0]:
                    raise self._corrupt(header, "the shard's row is not as long as its record says")
                return [memoryview(row[1])]
        return await self._read(
            header, lambda: read_blocks(self.root, header, first, lengths, self.files)
        )

    async def read_digests(self, header: ShardHeader, stripes: int) -> bytes:
        """See Drive."""
        self._check_readable()
        if stripes == 1:
            row = await self._small(header)
            if row is not None and row[0].digests is not None:
                return row[0].digests
        footer = await self._read(
            header, lambda: read_footer(self.root, self.cluster, header, stripes, self.files)
        )
        return footer.digests

    def _check_readable(self) -> None:
        if self._state not in VOTING:
            raise DriveError(self.reason)

    async def _small(self, header: ShardHeader) -> tuple[ShardRow, bytes] | None:
        def work(index: Index) -> tuple[ShardRow, bytes | None] | None:
            row = index.shard(header.data_id, header.position)
            return None if row is None or row.body is None else (row, index.body(row.body))

        found = await self._ask_index(work)
        if found is None:
            return None
        row, data = found
        if data is None:
            raise self._corrupt(header, "the shard's row fails its checksum")
        return row, data

    async def _ask_index(self, work: Callable[[Index], T]) -> T:
        try:
            return await self._reader.run(work)
        except OSError as error:
            raise DriveError(str(error)) from error

    def _corrupt(self, header: ShardHeader, reason: str) -> ShardCorruptError:
        self.note_bad_shard(header, reason)
        return ShardCorruptError(reason)

    async def _read(self, header: ShardHeader, work: Callable[[], T]) -> T:
        try:
            return await self._runtime.offload(work)
        except (ShardMissingError, ShardCorruptError) as error:
            # A file without a row was collected meanwhile, or is still being written: no shard, and no debt.
            if not await self._ask_index(
                lambda index: index.shard(header.data_id, header.position)
            ):
                raise ShardMissingError(str(error)) from error
            self.note_bad_shard(header, str(error))
            raise
        except OSError as error:
            if judge(error) is Trouble.PASSING:
                raise DriveError(str(error)) from error
            self._bad_shards.add((header.data_id, header.position))
            if len(self._bad_shards) >= self._settings.bad_shards_allowed:
                self._fault(f"reads fail: {error}")
            raise self._corrupt(header, str(error)) from error

    async def stat_shard(self, data_id: DataId, position: int) -> int | None:
        """See Drive."""
        self._check_readable()
        row = await self._ask_index(lambda index: index.shard(data_id, position))
        if row is None or (
            row.body is None
            and not await trio.Path(shard_path(self.root, data_id, position)).exists()
        ):
            return None
        return row.payload_bytes

    def note_bad_shard(self, header: ShardHeader, reason: str) -> None:
        """See Drive."""
        if not self._commits.failed:
            debt = (header.owner, reason)
            self._commits.batch.heal[header.data_id, header.position] = debt
            self._commits.touch()

    async def commit_shard(self, row: ShardRow, body: bytes | None) -> None:
        """Add a shard's index row; durable when this returns. Raises DriveError."""
        if self._commits.failed:
            raise DriveError(self.reason)
        batch = self._commits.batch
        if body is not None:
            rowid = self._registers.new_body()
            batch.bodies[rowid] = body
            row = attrs.evolve(row, body=rowid)
        batch.shards.append(row)
        batch.heal[row.data_id, row.position] = None
        seq = self._commits.seq
        self._commits.touch()
        try:
            is_durable = await self._commits.committed(seq)
        except trio.Cancelled:
            self._drop_shard(row)
            raise
        if not is_durable:
            raise DriveError(self.reason)

    def _drop_shard(self, row: ShardRow) -> None:
        """Take back a shard's row with the next commit."""
        batch = self._commits.batch
        batch.drop_shards.append((row.data_id, row.position))
        if row.body is not None:
            batch.drop_bodies.add(row.body)
        self._commits.touch()

    async def offload(self, work: Callable[[], None]) -> None:
        """Run file work in a worker thread."""
        await self._runtime.offload(work)

    def judge_write_error(self, error: OSError) -> DriveError:
        """What a failed write means: full, out of service, or nothing but this failure."""
        trouble = judge(error)
        if trouble is Trouble.FULL:
            if self._state is DriveState.ACTIVE:
                self._state, self.reason = (
                    DriveState.READONLY,
                    f"{self.root} is full: delete objects or add drives",
                )
            return DriveFullError(str(error))
        if trouble is Trouble.BROKEN:
            self._fault(f"a write failed: {error}")
        return DriveError(str(error))

    def discard_later(self, writer: ShardWriter) -> None:
        """Remove the file of an aborted stage, soon."""
        self._discarded.append(writer)

    async def _discard(self) -> None:
        writers, self._discarded = self._discarded, []

        def work() -> None:
            for writer in writers:
                writer.discard()

        if writers:
            await self._runtime.offload(work)

    # -- tasks

    async def run(self) -> None:
        """Guard, measure, checkpoint and collect, until cancelled."""
        async with trio.open_nursery() as nursery:
            if not self.was_clean:
                nursery.start_soon(self._attempt, self._sweep_unfinished)
            nursery.start_soon(self._every, self._settings.free_seconds, self.measure)
            nursery.start_soon(self._every, self._settings.free_seconds, self._discard)
            nursery.start_soon(self._every, self._settings.guard_seconds, self._guard)
            nursery.start_soon(self._every, self._settings.free_seconds, self._checkpoint)
            nursery.start_soon(self._every, self._settings.collect_seconds, self.collect)

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while self._state in VOTING:
            # Spread over the period, so that the drives of a node do not checkpoint at the same moment.
            await trio.sleep(seconds * (0.75 + self._runtime.rng.random() / 2))
            await self._attempt(work)

    async def _attempt(self, work: Callable[[], Awaitable[None]]) -> None:
        """A task's error is the drive's, not the node's."""
        try:
            await work()
        except DriveError:
            return  # the index was busy, or the drive is out
        except OSError as error:
            if judge(error) is Trouble.BROKEN:
                self._fault(f"the drive's files: {error}")
        except apsw.Error as error:
            self._fault(f"the index: {error}")

    def _reserve(self, usage: DriveUsage) -> int:
        wanted = max(
            self._settings.min_free_bytes, int(usage.total * self._settings.min_free_ratio)
        )
        return min(wanted, usage.total // 10)

    async def measure(self) -> None:
        """Look at the free space: READONLY below the reserve, ACTIVE again above one and a half of it."""
        try:
            total, free = await self._runtime.offload(lambda: self.files.free_bytes(self.root))
        except OSError as error:
            reason = f"{self.root} is gone ({error.strerror}): mount the drive and restart the node"
            self._leave(DriveState.MISSING, reason)
            return
        usage = self._usage = DriveUsage(total=total, free=free)
        self._staged_bytes = 0
        reserve = self._reserve(usage)
        if self._state is DriveState.ACTIVE and free < reserve:
            self._state, self.reason = (
                DriveState.READONLY,
                f"{self.root} is full: delete objects or add drives",
            )
        elif self._state is DriveState.READONLY and free > reserve * 3 // 2:
            self._state, self.reason = DriveState.ACTIVE, ""

    def restore_ballast(self) -> None:
        """Set space aside for the index, where there is plenty. Blocking."""
        self._ballast.restore()

    async def _guard(self) -> None:
        if (
            self._commits.is_flying
            and trio.current_time() - self._commits.flying_since > self._settings.hung_seconds
        ):
            self._fault("a commit hung")
            return
        found = await self._runtime.offload(self.guard.check)
        if found is not None:
            self._leave(*found)

    async def _checkpoint(self) -> None:
        limit = self._settings.checkpoint_bytes
        if self._usage is not None:
            limit = min(limit, self._usage.total // 64)
        if self._state is DriveState.READONLY:
            limit = 0  # every page of the log counts now

        def work() -> bool:
            if self._writer_index.log_bytes > limit:
                self._checkpoint_index.checkpoint()
                return True
            return False

        if self._commits.durable != self._checkpointed:
            durable = self._commits.durable
            try:
                if await self._runtime.offload(work):
                    self._checkpointed = durable
            except apsw.FullError:
                await self._runtime.offload(self._ballast.release)
            except apsw.BusyError:
                return  # a reader is in the way: next time

    async def collect(self) -> None:
        """Drop what dead buckets left, and superseded shards whose grace is over, a bounded number at a time."""
        await self._registers.dead_buckets.sweep()
        now = self._runtime.wall_ms()
        limit = self._settings.collect_batch
        due = await self._ask_index(
            lambda index: [(d, index.shards_of(d)) for d in index.due_trash(now, limit)]
        )
        if not due or self._commits.failed:
            return
        paths = [
            shard_path(self.root, d, s.position)
            for d, shards in due
            for s in shards
            if s.body is None
        ]

        def unlink() -> None:
            for path in paths:
                self.files.unlink(path)

        await self._runtime.offload(unlink)
        batch = self._commits.batch
        for data_id, shards in due:
            batch.drop_trash.append(data_id)
            for shard in shards:
                batch.drop_shards.append((data_id, shard.position))
                batch.heal[data_id, shard.position] = None
                if shard.body is not None:
                    batch.drop_bodies.add(shard.body)
        self._commits.touch()

    async def _sweep_unfinished(self) -> None:
        """After a crash: files that were not written to their end are removed; nothing can refer to them."""

        def candidates() -> list[tuple[DataId, int, Path]]:
            found = []
            for data_id, position, path in list_shards(self.root):
                with suppress(FileNotFoundError):  # collected meanwhile
                    if not has_footer(path, data_id):
                        found.append((data_id, position, path))
            return found

        unfinished = await self._runtime.offload(candidates)
        known = await self._ask_index(
            lambda index: {(d, p) for d, p, _ in unfinished if index.shard(d, p) is not None}
        )
        begun, self._begun = self._begun or set(), None
        doomed = [path for d, p, path in unfinished if (d, p) not in known | begun]

        def remove() -> None:
            for path in doomed:
                self.files.unlink(path)

        await self._runtime.offload(remove)

    async def status(self) -> DriveStatus:
        """See Drive."""
        debt = 0
        if self._state in VOTING:
            with suppress(DriveError):  # the state then says what is wrong
                debt = await self._ask_index(lambda index: index.count("heal"))
            await self.measure()
        return DriveStatus(
            drive=self.drive_id,
            path=str(self.root),
            set_id=self.member.set_id,
            position=self.member.position,
            state=self._state,
            reason=self.reason,
            usage=self._usage,
            heal_debt=debt,
        )

    async def aclose(self) -> None:
        """Commit what waits, say that the stop was clean, end the threads."""
        with trio.move_on_after(10) as scope:
            scope.shield = True
            if not self._commits.failed:
                self._commits.batch.ctl["clean"] = b"1"
                self._commits.touch()
                await self._commits.drain()
            self._commits.stop()
            self._reader.stop()
            await trio.to_thread.run_sync(self._join)

    def _join(self) -> None:
        self._commits.join(5)
        self._reader.join(5)
        self._checkpoint_index.close()
        self._writer_index.close()


@asynccontextmanager
async def open_local_drive(
    root: Path,
    cluster: ClusterId,
    member: Member,
    runtime: Runtime,
    *,
    settings: DriveSettings | None = None,
    files: FileOps | None = None,
    vfs: str = CHECKSUM_VFS,
) -> AsyncIterator[LocalDrive]:
    """The drive, while the block runs. Raises ConfigError where another process holds it, OSError, apsw.Error."""
    lock = DriveLock(root)
    try:
        drive = LocalDrive(
            root, cluster, member, runtime, settings or DriveSettings(), files or FileOps(), vfs
        )
        try:
            await runtime.offload(drive.restore_ballast)
            await drive.measure()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drive.run)
                yield drive
                nursery.cancel_scope.cancel()
        finally:
            await drive.aclose()
    finally:
        lock.release()
