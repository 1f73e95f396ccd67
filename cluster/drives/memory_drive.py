"""A drive in memory, for the simulator: registers and shard rows hosted by the code of real drives, and every fault a drive can have.

What is written is pending until its batch commits; a crash loses what is pending. No thread, no clock but Trio's, no randomness but
the Random that is passed in, so a run under virtual time is a function of its seed.
"""

from collections.abc import Callable, Sequence
from functools import partial

import attrs
import trio

from cluster.drives.away_notes import AwayNotes
from cluster.drives.drive import (
    ANSWERING,
    STAGING,
    Blob,
    CommitMark,
    DriveError,
    DriveFullError,
    DriveState,
    DriveStatus,
    DriveUsage,
    ShardCorruptError,
    ShardMissingError,
    Stage,
)
from cluster.drives.group_commit import COMMIT_SEQ, GroupCommit, Landed
from cluster.drives.group_read import Deliver, GroupRead, Read, Result
from cluster.drives.index_rows import Batch, ShardRow
from cluster.drives.kept_layout import KeptLayout, has_vote, standing
from cluster.drives.platter import Platter, StoredShard
from cluster.drives.registers import Registers, ReplyTo
from cluster.drives.shard_rows import ShardRows
from cluster.erasure.shard_format import ShardHeader, block_crc
from cluster.ids import DataId, DriveId
from cluster.register.acceptor import Acceptor, Limits
from cluster.register.away import Note
from cluster.register.messages import Failed, Reply, Request
from cluster.runtime import Runtime

_COLLECT_BATCH = 256


@attrs.define(kw_only=True)
class Faults:
    """What is wrong with the drive; the simulator sets and clears it."""

    commit_seconds: float = 0.002
    read_seconds: float = 0.001
    hung: bool = False  # takes everything, answers nothing
    full: bool = False
    crowded: bool = False  # and there is hardly room for records
    fsync_fails: bool = False
    fsync_lies: bool = False  # of shard files; one of the index shows in its commit number
    reads_fail: bool = False
    eio_rate: float = 0.0  # of the writes of blocks and of batches: the share that fails for good


class MemoryDrive:
    """See cluster.drives.drive.Drive. `nursery` outlives it."""

    cost = 0.0

    def __init__(
        self,
        drive_id: DriveId,
        runtime: Runtime,
        nursery: trio.Nursery,
        *,
        set_id: int = 0,
        position: int = 0,
        limits: Limits | None = None,
        grace_ms: int = 900_000,
        cache_bytes: int = 24 << 20,
    ) -> None:
        self.drive_id = drive_id
        self._runtime, self._nursery = runtime, nursery
        self._set_id, self._position = set_id, position
        self._limits, self._grace_ms, self._cache_bytes = limits, grace_ms, cache_bytes
        self.platter = Platter()
        self.faults = Faults()
        self._state, self.reason = DriveState.ACTIVE, ""
        self._boots = 0
        self._boot()

    def _boot(self) -> None:
        self._boots += 1
        index = self.platter.index
        self._commits = GroupCommit(
            partial(self._begin_commit, self._boots),
            self._soon,
            partial(self._commit_failed, self._boots),
            life=self._boots,
            durable=int(index.ctl.get(COMMIT_SEQ, b"0")),
        )
        reads = GroupRead(partial(self._begin_reads, self._boots), self._soon)
        self._acceptor = Acceptor(
            index.control(), set_id=self._set_id, position=self._position, limits=self._limits
        )
        self._registers = Registers(
            self._acceptor,
            self._commits,
            reads,
            cache_bytes=self._cache_bytes,
            last_body=index.last_body(),
            now_ms=self._runtime.wall_ms,
            grace_ms=self._grace_ms,
            on_layout=self._go_by,
        )
        self._go_by(self._acceptor.control.layout)
        self._rows = ShardRows(self._registers, self._commits, reads, now_ms=self._runtime.wall_ms)

    @property
    def state(self) -> DriveState:
        """What it can do now."""
        if self._state is not DriveState.ACTIVE:
            return self._state
        if self.faults.crowded:
            return DriveState.CROWDED
        return DriveState.READONLY if self.faults.full else DriveState.ACTIVE

    # -- the disk

    def _soon(self, call: Callable[[], None]) -> None:
        self._nursery.start_soon(self._next_tick, call)

    async def _next_tick(self, call: Callable[[], None]) -> None:
        call()

    def _begin_commit(self, boots: int, batch: Batch, landed: Landed) -> None:
        self._nursery.start_soon(self._commit, boots, batch, landed)

    async def _commit(self, boots: int, batch: Batch, landed: Landed) -> None:
        await self._wait(self.faults.commit_seconds)
        if boots != self._boots:
            return
        if self.faults.fsync_fails or self.hits_eio():
            landed(batch, "fsync failed")
        else:
            self.platter.index.apply(batch)
            landed(batch, "")

    def _commit_failed(self, boots: int, reason: str) -> None:
        if boots == self._boots and self._state is not DriveState.MISSING:
            self._state, self.reason = DriveState.FAULTY, reason

    def _begin_reads(self, boots: int, reads: list[Read], deliver: Deliver) -> None:
        self._nursery.start_soon(self._answer, boots, reads, deliver)

    async def _answer(self, boots: int, reads: list[Read], deliver: Deliver) -> None:
        # What is committed between the look and its answer is not seen: a thread may be that late, too.
        is_early = self._runtime.rng.random() < 0.5
        results = self._look(reads) if is_early else []
        await self._wait(self.faults.read_seconds)
        if boots == self._boots:
            deliver(results if is_early else self._look(reads))

    def _look(self, reads: list[Read]) -> list[Result]:
        index = self.platter.index
        return [(done, work(index), "", False) for work, done in reads]

    async def _wait(self, seconds: float) -> None:
        await trio.sleep(seconds * (0.5 + self._runtime.rng.random()))

    def hits_eio(self) -> bool:
        """Whether this write is one of those that fail."""
        rate = self.faults.eio_rate
        return rate > 0 and self._runtime.rng.random() < rate

    # -- faults

    def crash(self) -> None:
        """The process or the power is gone: what is pending is lost, promises are forgotten, nobody is answered.

        The batch in flight, which nobody was told of, may be there all the same: as a whole.
        """
        flying = self._commits.flying
        if flying is not None and self._runtime.rng.random() < 0.5:
            self.platter.index.apply(flying)
        self.platter.tear(self._runtime.rng)
        self._restart()

    def _restart(self) -> None:
        old = self._commits
        self._boot()
        old.fail("the drive restarted")  # stages are told; replies of an earlier life go nowhere

    def fail(self, reason: str) -> None:
        """Out of service, for good."""
        self._commits.fail(reason)

    def vanish(self) -> None:
        """The drive is gone, and what was on it."""
        self.platter = Platter()
        self._state, self.reason = DriveState.MISSING, "gone"
        self._restart()

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
        if lost and self._state in ANSWERING:
            self.fail(lost)

    def submit(self, request: Request, reply: ReplyTo) -> None:
        """See Drive."""
        if self.faults.hung or self._state is DriveState.MISSING:
            return
        if self._state not in ANSWERING:
            reply(Failed(self.reason))
            return
        boots = self._boots

        def answer(message: Reply) -> None:
            if boots == self._boots and not self.faults.hung:
                reply(message)

        self._registers.handle(request, answer)

    # -- shards

    def open_stage(self, header: ShardHeader, size_hint: int) -> Stage:
        """See Drive."""
        self.check_writable()
        return _MemoryStage(self, header)

    def check_writable(self) -> None:
        """Raises DriveFullError, DriveError."""
        if self.faults.full or self.faults.crowded:
            raise DriveFullError("full")
        if self._state not in STAGING:
            raise DriveError(self.reason)

    async def keep_shard(self, header: ShardHeader, shard: StoredShard) -> None:
        """Make a shard durable. Raises DriveError."""
        if self.faults.hung or self._state not in STAGING:
            await trio.sleep_forever()
        key = (header.data_id, header.position)
        self.platter.shards[key] = shard
        if self.faults.fsync_lies:
            self.platter.unsynced.add(key)
        row = ShardRow(
            data_id=header.data_id, position=header.position, owner=header.owner,
            payload_bytes=sum(len(payload) for payload, _ in shard.blocks), home=header.home,
        )  # fmt: skip
        await self._rows.add(row, None, lambda: self._take_back(key))

    def _take_back(self, key: tuple[DataId, int]) -> None:
        self.platter.shards.pop(key, None)

    async def read_blocks(
        self, header: ShardHeader, first: int, lengths: Sequence[int]
    ) -> Sequence[memoryview]:
        """See Drive."""
        shard = await self._find(header)
        blocks = []
        for number, length in enumerate(lengths, first):
            if number >= len(shard.blocks):
                raise self._bad(header, "shorter than its record says")
            payload, crc = shard.blocks[number]
            if block_crc(header.data_id, header.position, number, payload) != crc:
                raise self._bad(header, f"block {number} fails its checksum")
            blocks.append(memoryview(payload)[:length])
        return blocks

    async def read_digests(self, header: ShardHeader, stripes: int) -> bytes:
        """See Drive."""
        return (await self._find(header)).digests

    async def _find(self, header: ShardHeader) -> StoredShard:
        if self.faults.hung or self._state is DriveState.MISSING:
            await trio.sleep_forever()
        await self._wait(self.faults.read_seconds)
        if self._state not in ANSWERING:
            raise DriveError(self.reason)
        if self.platter.index.shard(header.data_id, header.position) is None:
            raise ShardMissingError("missing")
        if self.faults.reads_fail:
            raise self._bad(header, "input/output error")
        shard = self.platter.shards.get((header.data_id, header.position))
        if shard is None:
            self.note_bad_shard(header, "lost")
            raise ShardMissingError("lost")
        return shard

    def _bad(self, header: ShardHeader, reason: str) -> ShardCorruptError:
        self.note_bad_shard(header, reason)
        return ShardCorruptError(reason)

    async def stat_shard(self, data_id: DataId, position: int) -> int | None:
        """See Drive."""
        row = self.platter.index.shard(data_id, position)
        is_here = row is not None and self.platter.holds(data_id, position)
        return row.payload_bytes if row is not None and is_here else None

    async def look(self, notes: Sequence[Note]) -> None:
        """See Drive."""
        if self.faults.hung or self._state is DriveState.MISSING:
            await trio.sleep_forever()
        if self._state not in ANSWERING:
            raise DriveError(self.reason)
        await self.notes.add_looks(notes)

    def note_bad_shard(self, header: ShardHeader, reason: str) -> None:
        """See Drive."""
        self._rows.note_bad(header, reason)

    async def collect(self) -> None:
        """Remove superseded shards whose grace is over."""

        async def unlink(shards: Sequence[tuple[DataId, int]]) -> None:
            for key in shards:
                self.platter.shards.pop(key, None)

        await self._rows.collect(_COLLECT_BATCH, unlink)

    async def status(self) -> DriveStatus:
        """See Drive."""
        return DriveStatus(
            drive=self.drive_id, path="memory", set_id=self._set_id, position=self._position, state=self.state,
            reason=self.reason, usage=DriveUsage(total=1 << 40, free=1 << 39),
            heal_debt=self.platter.index.count("heal"),
        )  # fmt: skip


class _MemoryStage:
    """See cluster.drives.drive.Stage."""

    def __init__(self, drive: MemoryDrive, header: ShardHeader) -> None:
        self._drive, self._header = drive, header
        self._blocks: list[tuple[bytes, bytes]] = []

    async def write(self, blocks: Sequence[Blob]) -> None:
        """See Stage."""
        await trio.lowlevel.checkpoint()
        self._drive.check_writable()
        for block in blocks:
            if self._drive.hits_eio():
                self._drive.fail("a write failed: input/output error")
                raise DriveError(self._drive.reason)
            payload = bytes(block)
            crc = block_crc(self._header.data_id, self._header.position, len(self._blocks), payload)
            self._blocks.append((payload, crc))

    async def close(self, digests: bytes) -> None:
        """See Stage."""
        await self._drive.keep_shard(self._header, StoredShard(self._blocks, digests))

    def abort(self) -> None:
        """See Stage."""
        self._blocks = []
