"""A drive on a folder: registers in the index, shards in files, guarded, collected and closed as one.

`open_local_drive` is the block in which the drive lives: its threads and tasks end with it. The first failed write or fsync takes the drive out
for good (an fsync that is tried again reports success for pages that were lost: Rebello et al., 2020).
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import attrs
import trio

from cluster.drives.away_notes import AwayNotes
from cluster.drives.drive import (
    ANSWERING,
    FULL,
    STAGING,
    CommitMark,
    DriveError,
    DriveFullError,
    DriveState,
    DriveStatus,
    Stage,
)
from cluster.drives.file_ops import FileOps
from cluster.drives.file_threads import FileThreads
from cluster.drives.format import Member
from cluster.drives.group_commit import FORGOT, GroupCommit
from cluster.drives.group_read import GroupRead
from cluster.drives.index import CHECKSUM_VFS
from cluster.drives.index_rows import ShardRow
from cluster.drives.index_threads import ReaderThread, WriterThread
from cluster.drives.kept_layout import KeptLayout, has_vote, standing
from cluster.drives.local_shelf import LocalShelf
from cluster.drives.local_stage import LocalStage
from cluster.drives.opened_folder import NO_ROOM, OpenedFolder
from cluster.drives.registers import Registers, ReplyTo
from cluster.drives.room import Room
from cluster.drives.settings import DriveSettings
from cluster.drives.shard_files import shard_path
from cluster.drives.shard_rows import ShardRows
from cluster.drives.trouble import Trouble, judge
from cluster.drives.upkeep import Upkeep
from cluster.erasure.shard_format import ShardHeader
from cluster.ids import ClusterId, DataId, DriveId
from cluster.register.acceptor import Acceptor
from cluster.register.away import Note
from cluster.register.messages import Failed, NotVoting, Request
from cluster.runtime import Runtime


@attrs.frozen
class DriveTakenOut:
    """Event: a drive left service by itself."""

    drive: DriveId
    path: str
    state: DriveState
    reason: str


class LocalDrive:
    """See cluster.drives.drive.Drive. Made by open_local_drive."""

    cost = 0.0

    def __init__(
        self,
        folder: OpenedFolder,
        cluster: ClusterId,
        member: Member,
        runtime: Runtime,
        settings: DriveSettings,
        files: FileOps,
        threads: FileThreads,
    ) -> None:
        self.folder, self.root = folder, folder.root
        self.cluster, self.member = cluster, member
        self._runtime, self._settings, self.files = runtime, settings, files
        self._threads = threads
        self._state, self.reason = DriveState.ACTIVE, ""
        soon = trio.lowlevel.current_trio_token().run_sync_soon
        self._writer = WriterThread(folder.apply)
        self._reader = ReaderThread(folder.open_reader)
        self._commits = GroupCommit(
            self._writer.begin, soon, self._commit_failed,
            life=runtime.rng.getrandbits(63), durable=folder.durable,
        )  # fmt: skip
        reads = GroupRead(self._reader.begin, soon, self._fault)
        self._acceptor = Acceptor(
            folder.control, set_id=member.set_id, position=member.position, limits=settings.limits
        )
        self._registers = Registers(
            self._acceptor,
            self._commits,
            reads,
            cache_bytes=settings.cache_bytes,
            last_body=folder.last_body,
            now_ms=runtime.wall_ms,
            grace_ms=settings.read_grace_ms,
            on_layout=self._go_by,
        )
        self._go_by(folder.control.layout)
        self._rows = ShardRows(self._registers, self._commits, reads, now_ms=runtime.wall_ms)
        self._shelf = LocalShelf(
            self.root, cluster, files, threads, self._rows,
            bad_shards_allowed=settings.bad_shards_allowed, on_broken=self._fault,
        )  # fmt: skip
        self._room = Room(
            min_free_bytes=settings.min_free_bytes, min_free_ratio=settings.min_free_ratio
        )
        self._upkeep = Upkeep(
            self, folder, self._commits, threads, self._rows, self._room, files, runtime, settings
        )
        self.left = trio.Event()  # it took itself out of service; `state` and `reason` say why

    @property
    def drive_id(self) -> DriveId:
        """Its identity."""
        return self.member.drive

    @property
    def state(self) -> DriveState:
        """What it can do now."""
        return self._state

    @property
    def was_clean(self) -> bool:
        """Whether the stop before this start was."""
        return self.folder.was_clean

    def _fault(self, reason: str) -> None:
        self.leave(DriveState.FAULTY, reason)

    def _commit_failed(self, reason: str) -> None:
        """What the drive holds is whole; where it is only full, it is taken in again when there is room."""
        if self.folder.is_out_of_room:
            self.leave(DriveState.MISSING, f"{NO_ROOM}: {reason}")
        else:
            self._fault(reason)

    def leave(self, state: DriveState, reason: str) -> None:
        """Out of service: no acknowledgement after this, and whoever waits is told."""
        if self._state in {DriveState.FAULTY, DriveState.MISSING, DriveState.WRONG}:
            return
        self._state, self.reason = state, reason
        self._commits.fail(reason)
        self._threads.fail(reason)
        self._runtime.emit(DriveTakenOut(self.drive_id, str(self.root), state, reason))
        self.left.set()

    def _go_by(self, layout: bytes) -> None:
        """The layout's word."""
        voting = self._acceptor.voting = has_vote(layout, self.drive_id)
        self._state, self.reason = standing(self._state, self.reason, voting=voting)

    # -- registers

    @property
    def layout(self) -> KeptLayout:
        """The layout that the drive keeps."""
        return self._registers.layout

    @property
    def notes(self) -> AwayNotes:
        """What the drive knows of bodies in other sets than their registers."""
        return self._registers.notes

    @property
    def mark(self) -> CommitMark:
        """See MarkedDrive."""
        return self._commits.mark

    def confront(self, mark: CommitMark) -> None:
        """See MarkedDrive."""
        lost = self._commits.forgot(mark)
        if lost:
            # The drive remembers it by itself: its node may have no other.
            self._commits.batch.ctl[FORGOT] = lost.encode()
            self._commits.when_durable(self._commits.seq, lambda _: self._fault(lost))

    def submit(self, request: Request, reply: ReplyTo) -> None:
        """See Drive."""
        if self._state in ANSWERING:
            self._registers.handle(request, reply)
        elif self._commits.failed:
            reply(Failed(self.reason))
        else:
            reply(NotVoting(self.reason))

    # -- shards

    def open_stage(self, header: ShardHeader, size_hint: int) -> Stage:
        """See Drive."""
        if self._state in FULL:
            raise DriveFullError(self.reason)
        if self._state not in STAGING:
            raise DriveError(self.reason)
        if not self._room.take(size_hint):
            raise DriveFullError("the object does not fit")
        if self._upkeep.begun is not None:
            self._upkeep.begun.add((header.data_id, header.position))
        return LocalStage(self, self.root, self.cluster, header, self.files)

    async def read_blocks(
        self, header: ShardHeader, first: int, lengths: Sequence[int]
    ) -> Sequence[memoryview]:
        """See Drive."""
        self._check_readable()
        return await self._shelf.read_blocks(header, first, lengths)

    async def read_digests(self, header: ShardHeader, stripes: int) -> bytes:
        """See Drive."""
        self._check_readable()
        return await self._shelf.read_digests(header, stripes)

    async def stat_shard(self, data_id: DataId, position: int) -> int | None:
        """See Drive."""
        self._check_readable()
        return await self._shelf.stat(data_id, position)

    def _check_readable(self) -> None:
        if self._state not in ANSWERING:
            raise DriveError(self.reason)

    async def look(self, notes: Sequence[Note]) -> None:
        """See Drive."""
        if self._state not in ANSWERING:
            raise DriveError(self.reason)
        await self.notes.add_looks(notes)

    def note_bad_shard(self, header: ShardHeader, reason: str) -> None:
        """See Drive."""
        self._rows.note_bad(header, reason)

    async def commit_shard(
        self, row: ShardRow, body: bytes | None, taken_back: Callable[[], None]
    ) -> None:
        """See StageHost."""
        await self._rows.add(row, body, taken_back)

    async def offload(self, work: Callable[[], None]) -> None:
        """See StageHost."""
        await self._threads.run(work)

    def discard_later(self, discard: Callable[[], None]) -> None:
        """See StageHost."""
        self._upkeep.discard_later(discard)

    def judge_write_error(self, error: OSError) -> DriveError:
        """What a failed write means: full, out of service, or nothing but this failure."""
        trouble = judge(error)
        if trouble is Trouble.FULL:
            if self._state is DriveState.ACTIVE:
                self._become(DriveState.READONLY)
            return DriveFullError(str(error))
        if trouble is Trouble.BROKEN:
            self._fault(f"a write failed: {error}")
        return DriveError(str(error))

    def _become(self, state: DriveState) -> None:
        """Full, or not any more."""
        self._state, self.reason = state, ""
        if state in FULL:
            self.reason = f"{self.root} is full: delete objects or add drives"
        if state is DriveState.CROWDED:
            self.reason = (
                f"{self.root} hardly has room for records: delete objects there, or make it larger"
            )

    # -- upkeep

    async def run(self) -> None:
        """Guard, measure, checkpoint and collect, until cancelled."""
        await self._upkeep.run()

    async def measure(self) -> None:
        """Look at the free space, and go by it. See Room."""
        try:
            total, free = await self._threads.run(lambda: self.files.free_bytes(self.root))
        except OSError as error:
            reason = f"{self.root} is gone ({error.strerror}): mount the drive"
            self.leave(DriveState.MISSING, reason)
            return
        with suppress(DriveError):  # the index is busy: the next look will tell
            spare = await self._rows.ask(lambda index: index.spare_bytes())
            self._room.measured(total, free, spare)
        judged = self._room.judge(self._state)
        if judged is not self._state:
            self._become(judged)

    async def collect(self) -> None:
        """Drop what dead buckets left, and superseded shards whose grace is over, a bounded number at a time."""

        async def unlink(shards: Sequence[tuple[DataId, int]]) -> None:
            def work() -> None:
                for data_id, position in shards:
                    self.files.unlink(shard_path(self.root, data_id, position))

            await self._threads.run(work)

        await self._rows.collect(self._settings.collect_batch, unlink)

    async def status(self) -> DriveStatus:
        """See Drive."""
        debt = 0
        if self._state in ANSWERING:
            with suppress(DriveError):  # the state then says what is wrong
                debt = await self._rows.count_debt()
                await self.measure()
        return DriveStatus(
            drive=self.drive_id,
            path=str(self.root),
            set_id=self.member.set_id,
            position=self.member.position,
            state=self._state,
            reason=self.reason,
            usage=self._room.usage,
            heal_debt=debt,
        )

    async def aclose(self) -> None:
        """Commit what waits, say that the stop was clean, end the threads. At most some seconds, whatever hangs."""
        with trio.move_on_after(8) as scope:
            scope.shield = True
            if await self._settle():
                self._commits.batch.ctl["clean"] = b"1"
                self._commits.touch()
            await self._commits.drain()
        self._writer.stop()
        self._reader.stop()
        with trio.move_on_after(3) as scope:
            scope.shield = True
            await trio.to_thread.run_sync(self._join, abandon_on_cancel=True)

    async def _settle(self) -> bool:
        """Whether no file is being written any more, and those of aborted stages are gone."""
        if self._commits.failed:
            return False
        with trio.move_on_after(2) as scope:
            try:
                await self._upkeep.discard()
            except OSError:
                return False
            await self._threads.settle()
        return not scope.cancelled_caught

    def _join(self) -> None:
        # A commit that hangs may land yet, over what is written after it: until then nobody has the folder.
        self._writer.join()
        self._reader.join()
        try:
            self.folder.close()
        finally:
            self.folder.release()


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
    settings, files, threads = settings or DriveSettings(), files or FileOps(), FileThreads()
    folder = await _open_folder(
        threads,
        partial(OpenedFolder, root, member.drive, files, vfs, ballast_bytes=settings.ballast_bytes),
    )
    drive = LocalDrive(folder, cluster, member, runtime, settings, files, threads)
    try:
        await drive.measure()
        if folder.forgot:
            drive.leave(DriveState.FAULTY, folder.forgot)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drive.run)
            yield drive
            nursery.cancel_scope.cancel()
    finally:
        await drive.aclose()


async def _open_folder(threads: FileThreads, opening: Callable[[], OpenedFolder]) -> OpenedFolder:
    """Open it in a thread; one that nobody waits for any more closes what it opened."""
    is_given_up = False

    def work() -> OpenedFolder:
        folder = opening()
        if is_given_up:
            folder.close()
            folder.release()
        return folder

    try:
        return await threads.run(work, may_take_long=True)
    except trio.Cancelled:
        is_given_up = True
        raise
