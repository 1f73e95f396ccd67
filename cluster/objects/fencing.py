"""Fencing a bucket, and the view of a set in which only fenced drives answer."""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import attrs
import trio

from cluster.drives.drive import DriveError, DriveState, DriveStatus, Stage
from cluster.erasure.shard_format import ShardHeader
from cluster.errors import QuorumError
from cluster.ids import DataId, DriveId
from cluster.metadata.members import Members
from cluster.metadata.rounds import Round, Watch
from cluster.register.away import Note
from cluster.register.messages import Done, Fence, NotVoting, Reply, Request

FENCE_SECONDS = 5.0
REFUSED_SECONDS = 0.05
LATECOMER_SECONDS = 0.1  # for the drives above the quorum: each one that is fenced has a vote


async def fence_set(members: Members, fence: Fence, watch: Watch) -> Members:
    """The set as only its fenced drives know it: the others do not vote. Raises QuorumError."""
    done = refused = wanted = 0
    drives, electorate = members.drives, members.electorate

    def hear(index: int, reply: Reply) -> bool:
        nonlocal done, refused
        if isinstance(reply, Done):
            done |= 1 << index
        else:
            refused |= 1 << index
        enough = electorate.have_accepted(done) and done.bit_count() >= wanted
        return enough or electorate.cannot_accept(refused)

    asking = Round(drives, hear, watch)
    again = (1 << len(drives)) - 1
    until = trio.current_time() + FENCE_SECONDS
    while (left := until - trio.current_time()) > 0:
        for index in range(len(drives)):
            if again >> index & 1:
                asking.ask(index, fence)
        if not await asking.wait(left) or electorate.have_accepted(done):
            break
        await trio.sleep(REFUSED_SECONDS)  # a node that has too much to do says so at once
        again, refused = refused, 0
        asking.reopen()
    if electorate.have_accepted(done) and done.bit_count() < len(drives):
        wanted = len(drives)
        asking.reopen()
        await asking.wait(LATECOMER_SECONDS)
    asking.close()
    if not electorate.have_accepted(done):
        raise QuorumError(electorate.accept[0].needed, done.bit_count(), "were fenced")
    fenced = [d if done >> i & 1 else _Unfenced(d.drive_id) for i, d in enumerate(drives)]
    return attrs.evolve(members, drives=fenced)


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

    async def look(self, notes: Sequence[Note]) -> None:
        """Never asked."""
        raise DriveError("not fenced")

    def note_bad_shard(self, header: ShardHeader, reason: str) -> None:
        """Nothing to note."""

    async def status(self) -> DriveStatus:
        """Never asked."""
        raise DriveError("not fenced")
