"""The drives of a node, each in its seat: opened, watched, and taken in again when its folder comes back.

A drive that cannot be used is replaced in its seat by one that answers every question with what is wrong. What a drive missed
while it was away does it no harm: its votes are old and never wrong, and its missing shards are debts of the others. A drive
that failed (FAULTY) does not come back: the other drives remember it, until it is replaced.
"""

import errno
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import apsw
import attrs
import trio

from cluster.drives.absent_drive import AbsentDrive
from cluster.drives.drive import DriveState
from cluster.drives.file_ops import FileOps
from cluster.drives.format import Plan, Seat, heal_copies, look_again, remember_fault
from cluster.drives.local_drive import LocalDrive, open_local_drive
from cluster.drives.opened_folder import NO_ROOM
from cluster.drives.settings import DriveSettings
from cluster.drives.trouble import Trouble, judge
from cluster.errors import ConfigError
from cluster.ids import DriveId
from cluster.runtime import Runtime

_MENDABLE = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_REMEMBER_SECONDS = 5.0  # for small files on drives that may hang
LOOK_SECONDS = 5.0  # between two looks for a folder that is not there


@attrs.frozen
class DriveNotOpened:
    """Event: a drive of the node is not in service."""

    path: str
    state: DriveState
    reason: str


@attrs.frozen
class DriveReturned:
    """Event: a drive that was not in service is."""

    drive: DriveId
    path: str


class Seats:
    """Made by open_seats."""

    def __init__(
        self,
        plan: Plan,
        runtime: Runtime,
        *,
        settings: DriveSettings,
        files: FileOps,
        look_seconds: float,
    ) -> None:
        self._plan, self._runtime = plan, runtime
        self._settings, self._files, self._look_seconds = settings, files, look_seconds
        self._remembering = trio.Lock()
        self._paths = [seat.path for seat in plan.seats]
        self.drives: Sequence[LocalDrive | AbsentDrive] = [AbsentDrive(s) for s in plan.seats]
        self.by_id = {drive.drive_id: drive for drive in self.drives}

    def _place(self, index: int, drive: LocalDrive | AbsentDrive) -> None:
        # Another list and another mapping: whoever works with the former ones is not disturbed.
        self.drives = [*self.drives[:index], drive, *self.drives[index + 1 :]]
        self.by_id = {drive.drive_id: drive for drive in self.drives}

    async def keep(self, index: int, known: trio.Event) -> None:
        """Keep one seat for ever; sets `known` when its drive serves or cannot. Raises ConfigError before that."""
        seat = self._plan.seats[index]
        while True:
            if seat.state is DriveState.ACTIVE:
                try:
                    seat = await self._serve(index, seat, known)
                except ConfigError as error:
                    if not known.is_set():
                        raise
                    seat = attrs.evolve(seat, state=DriveState.WRONG, reason=str(error))
            self._place(index, AbsentDrive(seat))
            if not known.is_set():
                self._runtime.emit(DriveNotOpened(str(seat.path), seat.state, seat.reason))
                known.set()
            if seat.state is DriveState.FAULTY:
                return
            seat = await self._wait_for(index, seat)

    async def _serve(self, index: int, seat: Seat, known: trio.Event) -> Seat:
        """Run the drive until it is out of service; the seat as it is then. Raises ConfigError: another process has it."""
        left = seat
        try:
            async with open_local_drive(
                seat.path, self._plan.cluster, seat.member, self._runtime,
                settings=self._settings, files=self._files,
            ) as drive:  # fmt: skip
                self._place(index, drive)
                if known.is_set():
                    self._runtime.emit(DriveReturned(drive.drive_id, str(seat.path)))
                known.set()
                await drive.left.wait()
                left = attrs.evolve(seat, state=drive.state, reason=drive.reason)
                self._place(index, AbsentDrive(left))
                if drive.state is DriveState.FAULTY:
                    await self._remember(drive)
        except (OSError, apsw.Error) as error:
            if left.state is DriveState.ACTIVE:
                return _not_opened(seat, error)
        return left

    async def _remember(self, failed: LocalDrive) -> None:
        """The other drives write down that one failed, so that a restart does not take it in again.

        Where all fail at once there are only those that have failed themselves; else they are left alone: one may hang.
        """
        with trio.move_on_after(_REMEMBER_SECONDS) as scope:
            scope.shield = True  # a node that is stopped meanwhile must know at its next start
            async with self._remembering:  # each reads what the one before has written
                others = [drive for drive in self.drives if drive.drive_id != failed.drive_id]
                serving = [drive.root for drive in others if isinstance(drive, LocalDrive)]
                faulty = [drive.root for drive in others if drive.state is DriveState.FAULTY]
                roots = serving or faulty
                await self._runtime.offload(
                    partial(remember_fault, roots, failed.drive_id, failed.reason, self._files)
                )

    async def _wait_for(self, index: int, seat: Seat) -> Seat:
        """Look for the drive from time to time, until it can be used."""
        while seat.state is not DriveState.ACTIVE:
            await trio.sleep(self._look_seconds)
            found = await self._runtime.offload(
                partial(look_again, seat.member, self._plan.cluster, self._paths)
            )
            if found != seat and found.state is not DriveState.ACTIVE:
                self._place(index, AbsentDrive(found))
            seat = found
        with suppress(OSError):  # opening it tells what is wrong
            await self._runtime.offload(partial(heal_copies, seat.path, self._files))
        return seat


def _not_opened(seat: Seat, error: OSError | apsw.Error) -> Seat:
    """What can be mended by room, a mount or a chmod is tried again; the rest is the drive's end."""
    reason = f"{seat.path} cannot be opened: {error}"
    code = error.errno if isinstance(error, OSError) else None
    if isinstance(error, apsw.FullError) or (
        isinstance(error, OSError) and judge(error) is Trouble.FULL
    ):
        return attrs.evolve(seat, state=DriveState.MISSING, reason=f"{NO_ROOM}: {reason}")
    if code in _MENDABLE or isinstance(error, apsw.ReadOnlyError | apsw.CantOpenError):
        return attrs.evolve(
            seat, state=DriveState.WRONG, reason=f"{reason}: let storectl read and write there"
        )
    return attrs.evolve(seat, state=DriveState.FAULTY, reason=reason)


@asynccontextmanager
async def open_seats(
    plan: Plan,
    runtime: Runtime,
    *,
    settings: DriveSettings,
    files: FileOps,
    look_seconds: float = LOOK_SECONDS,
) -> AsyncIterator[Seats]:
    """The drives of the node, while the block runs. Raises (in a group) ConfigError where another process has one."""
    seats = Seats(plan, runtime, settings=settings, files=files, look_seconds=look_seconds)
    async with trio.open_nursery() as nursery:
        known = [trio.Event() for _ in plan.seats]
        for index, event in enumerate(known):
            nursery.start_soon(seats.keep, index, event)
        for event in known:
            await event.wait()
        yield seats
        nursery.cancel_scope.cancel()
