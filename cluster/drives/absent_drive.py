"""The seat of a drive that cannot be opened: it answers every question with what is wrong."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.drives.drive import CommitMark, DriveError, DriveState, DriveStatus, Stage
from cluster.drives.format import Seat
from cluster.erasure.shard_format import ShardHeader
from cluster.ids import DataId, DriveId
from cluster.register.away import Note
from cluster.register.messages import NotVoting, Reply, Request


class AbsentDrive:
    """See cluster.drives.drive.Drive: never a vote, never "absent"."""

    cost = math.inf

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    layout = None  # it keeps none
    notes = None  # nor these
    mark = None

    @property
    def root(self) -> Path:
        """Where its folder is, or was."""
        return self._seat.path

    @property
    def drive_id(self) -> DriveId:
        """Its identity, as the other drives remember it."""
        return self._seat.member.drive

    @property
    def state(self) -> DriveState:
        """MISSING, WRONG or FAULTY."""
        return self._seat.state

    def submit(self, request: Request, reply: Callable[[Reply], None]) -> None:
        """See Drive."""
        del request
        reply(NotVoting(self._seat.reason))

    def open_stage(self, header: ShardHeader, size_hint: int) -> Stage:
        """See Drive."""
        raise DriveError(self._seat.reason)

    async def read_blocks(
        self, header: ShardHeader, first: int, lengths: Sequence[int]
    ) -> Sequence[memoryview]:
        """See Drive."""
        raise DriveError(self._seat.reason)

    async def read_digests(self, header: ShardHeader, stripes: int) -> bytes:
        """See Drive."""
        raise DriveError(self._seat.reason)

    async def stat_shard(self, data_id: DataId, position: int) -> int | None:
        """See Drive."""
        raise DriveError(self._seat.reason)

    async def look(self, notes: Sequence[Note]) -> None:
        """See Drive."""
        raise DriveError(self._seat.reason)

    def note_bad_shard(self, header: ShardHeader, reason: str) -> None:
        """See Drive: there is nowhere to note it."""

    def confront(self, mark: CommitMark) -> None:
        """See MarkedDrive: it is out already."""

    async def status(self) -> DriveStatus:
        """See Drive."""
        seat = self._seat
        return DriveStatus(
            drive=seat.member.drive, path=str(seat.path), set_id=seat.member.set_id, position=seat.member.position,
            state=seat.state, reason=seat.reason, usage=None, heal_debt=0,
        )  # fmt: skip
