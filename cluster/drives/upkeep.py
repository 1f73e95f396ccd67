"""The tasks of a LocalDrive: watch, guard, measure, checkpoint, collect, clean up. Each error is the drive's, not the node's."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import apsw
import trio

from cluster.drives.drive import ANSWERING, FULL, DriveError, DriveState
from cluster.drives.file_ops import FileOps
from cluster.drives.file_threads import FileThreads
from cluster.drives.group_commit import GroupCommit
from cluster.drives.opened_folder import OpenedFolder
from cluster.drives.room import Room
from cluster.drives.shard_files import has_footer, list_shards
from cluster.drives.shard_rows import ShardRows
from cluster.drives.trouble import Trouble, judge
from cluster.ids import DataId
from cluster.runtime import Runtime


class Periods(Protocol):
    """Which of the drive's settings matter here."""

    @property
    def collect_seconds(self) -> float:
        """Between two collections."""
        ...

    @property
    def guard_seconds(self) -> float:
        """Between two looks at the folder, and at what hangs."""
        ...

    @property
    def free_seconds(self) -> float:
        """Between two measurements of the free space, and two looks at the log."""
        ...

    @property
    def hung_seconds(self) -> float:
        """After which a commit or a system call counts as hung."""
        ...

    @property
    def checkpoint_bytes(self) -> int:
        """Of the log; at most a 64th of a small file system."""
        ...


class UpkeepHost(Protocol):
    """The drive."""

    @property
    def state(self) -> DriveState:
        """The tasks end when it is out of service."""
        ...

    def leave(self, state: DriveState, reason: str) -> None:
        """Out of service."""
        ...

    async def measure(self) -> None:
        """Look at the free space."""
        ...

    async def collect(self) -> None:
        """Remove what is superfluous."""
        ...


class Upkeep:
    """`run` it beside the drive."""

    def __init__(
        self,
        drive: UpkeepHost,
        folder: OpenedFolder,
        commits: GroupCommit,
        threads: FileThreads,
        rows: ShardRows,
        room: Room,
        files: FileOps,
        runtime: Runtime,
        periods: Periods,
    ) -> None:
        self._drive, self._folder = drive, folder
        self._commits, self._threads, self._rows = commits, threads, rows
        self._room, self._files, self._runtime, self._periods = room, files, runtime, periods
        self._checkpointed = 0
        self._discarded: list[Callable[[], None]] = []
        # Stages of this process, while the files of an earlier one are looked through.
        self.begun: set[tuple[DataId, int]] | None = None if folder.was_clean else set()

    async def run(self) -> None:
        """Until the drive is out, or cancelled."""
        periods = self._periods
        async with trio.open_nursery() as nursery:
            if self.begun is not None:
                nursery.start_soon(self._attempt, self._sweep_unfinished)
            nursery.start_soon(self._every, periods.free_seconds, self._drive.measure)
            nursery.start_soon(self._every, periods.free_seconds, self.discard)
            # Apart from the guard, which may hang itself.
            nursery.start_soon(self._every, periods.guard_seconds, self._watch)
            nursery.start_soon(self._every, periods.guard_seconds, self._guard)
            nursery.start_soon(self._every, periods.free_seconds, self._checkpoint)
            nursery.start_soon(self._every, periods.collect_seconds, self._drive.collect)

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while self._drive.state in ANSWERING:
            # Spread over the period, so that the drives of a node do not checkpoint at the same moment.
            await trio.sleep(seconds * (0.75 + self._runtime.rng.random() / 2))
            await self._attempt(work)

    async def _attempt(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except DriveError:
            return  # the index was busy, or the drive is out
        except OSError as error:
            if judge(error) is Trouble.BROKEN:
                self._drive.leave(DriveState.FAULTY, f"the drive's files: {error}")
        except apsw.Error as error:
            self._drive.leave(DriveState.FAULTY, f"the index: {error}")

    async def _watch(self) -> None:
        """A commit or a system call that does not return is worse than one that fails: nobody is told."""
        now, limit = trio.current_time(), self._periods.hung_seconds
        if self._commits.flying is not None and now - self._commits.flying_since > limit:
            self._drive.leave(DriveState.FAULTY, "a commit hung")
        elif self._threads.longest(now) > limit:
            self._drive.leave(DriveState.FAULTY, "a read, write or sync of a file hung")

    async def _guard(self) -> None:
        found = await self._threads.run(self._folder.guard.check)
        if found is not None:
            self._drive.leave(*found)

    async def _checkpoint(self) -> None:
        limit, usage = self._periods.checkpoint_bytes, self._room.usage
        if usage is not None:
            limit = min(limit, usage.total // 64)
        if self._drive.state in FULL:
            limit = 0  # every page of the log counts now
        durable = self._commits.durable
        if durable != self._checkpointed and await self._threads.run(
            lambda: self._folder.checkpoint(limit), may_take_long=True
        ):
            self._checkpointed = durable

    def discard_later(self, discard: Callable[[], None]) -> None:
        """Remove the file of an aborted stage, soon."""
        self._discarded.append(discard)

    async def discard(self) -> None:
        """Remove the files of aborted stages."""
        discards, self._discarded = self._discarded, []

        def work() -> None:
            for discard in discards:
                discard()

        if discards:
            await self._threads.run(work)

    async def _sweep_unfinished(self) -> None:
        """After a crash: files that were not written to their end are removed; nothing can refer to them."""

        def candidates() -> list[tuple[DataId, int, Path]]:
            found = []
            for data_id, position, path in list_shards(self._folder.root):
                with suppress(FileNotFoundError):  # collected meanwhile
                    if not has_footer(path, data_id):
                        found.append((data_id, position, path))
            return found

        unfinished = await self._threads.run(candidates, may_take_long=True)
        known = await self._rows.ask(
            lambda index: {(d, p) for d, p, _ in unfinished if index.shard(d, p) is not None}
        )
        begun, self.begun = self.begun or set(), None
        doomed = [path for d, p, path in unfinished if (d, p) not in known | begun]

        def remove() -> None:
            for path in doomed:
                self._files.unlink(path)

        await self._threads.run(remove, may_take_long=True)
