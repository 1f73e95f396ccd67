"""Fencing a bucket, and the view of a set in which only fenced drives answer."""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import attrs

from cluster.drives.drive import Drive, DriveError, DriveState, DriveStatus, Stage
from cluster.erasure.shard_format import ShardHeader
from cluster.errors import QuorumError
from cluster.ids import DataId, DriveId
from cluster.metadata.rounds import Round, Watch
from cluster.quorum import Quorum
from cluster.register.messages import Done, Fence, NotVoting, Reply, Request

FENCE_SECONDS = 5.0
LATECOMER_SECONDS = 0.1  # for the drives above the quorum: each one that is fenced has a vote


async def fence_set(drives: Sequence[Drive], fence: Fence, watch: Watch) -> list[Drive]:
    """The set as only its fenced drives know it: the others do not vote. Raises QuorumError."""
    done: set[int] = set()
    needed = Quorum(len(drives)).accept
    wanted = needed

    def hear(index: int, reply: Reply) -> bool:
        if isinstance(reply, Done):
            done.add(index)
        return len(done) >= wanted

    asking = Round(drives, hear, watch)
    for index in range(len(drives)):
        asking.ask(index, fence)
    if await asking.wait(FENCE_SECONDS):
        wanted = len(drives)
        if len(done) < wanted:
            asking.reopen()
            await asking.wait(LATECOMER_SECONDS)
    asking.close()
    if len(done) < needed:
        raise QuorumError(needed, len(done), "were fenced")
    return [d if index in done else _Unfenced(d.drive_id) for index, d in enumerate(drives)]


@attrs.frozen
class _Unfenced:
    """A drive that may hold rows which a writer can still add to: what it says of the bucket proves nothing."""

    drive_id: DriveId
    cost: ClassVar[float] = math.inf

    @property
    def state(self) -> DriveState:
        """Not one to ask."""
        return DriveState.MISSING

    def submit(self, request: Request, reply: Callable[[Reply], None]) -> None:
        """No vote."""
        del request
        reply(NotVoting("not fenced"))

    def open_stage(self, header: ShardHeader, size_hint: int) -> Stage:
        """Never asked."""
        raise DriveError("not fenced")

    async def read_blocks(
        self,
        header: ShardHeader,
        first: int,
        lengths: Sequence[int],
    ) -> Sequence[memoryview]:
        """Never asked."""
        raise DriveError("not fenced")

    async def read_digests(self, header: ShardHeader, stripes: int) -> bytes:
        """Never asked."""
        raise DriveError("not fenced")

    async def stat_shard(self, data_id: DataId, position: int) -> int | None:
        """Never asked."""
        raise DriveError("not fenced")

    def note_bad_shard(self, header: ShardHeader, reason: str) -> None:
        """Nothing to note."""

    async def status(self) -> DriveStatus:
        """Never asked."""
        raise DriveError("not fenced")
