"""A drive in memory, for the simulator: the same acceptor, the same promises about durability, and every fault a drive can have.

What is written is pending until its batch commits; a crash loses what is pending. No thread, no clock but Trio's, no randomness but
the Random that is passed in, so a run under virtual time is a function of its seed.
"""

from collections.abc import Callable, Sequence

import attrs
import trio

from cluster.drives.drive import (
    STAGING,
    VOTING,
    Blob,
    DriveError,
    DriveFullError,
    DriveState,
    DriveStatus,
    DriveUsage,
    ShardCorruptError,
    ShardMissingError,
    Stage,
)
from cluster.erasure.shard_format import ShardHeader, block_crc
from cluster.ids import DataId, DriveId, RowKey
from cluster.register.acceptor import CORRUPT, Acceptor, Chosen, Control, Limits, Promised, Write
from cluster.register.keys import bucket_of, is_part, object_row, successor
from cluster.register.messages import (
    CHOSEN,
    LIVE,
    Accept,
    Accepted,
    Body,
    Done,
    Failed,
    Fence,
    Learn,
    NotVoting,
    Page,
    Prepare,
    Query,
    ReadBody,
    Reply,
    Request,
    Scan,
    ScanRow,
    ScanUploads,
    Value,
)
from cluster.register.mutations import record_data
from cluster.register.records import BOTTOM, BodyId, Register, encode_state
from cluster.runtime import Runtime

ReplyTo = Callable[[Reply], None]


@attrs.define
class Record:
    """One register as it is stored."""

    register: Register = BOTTOM
    bodies: dict[BodyId, bytes] = attrs.field(factory=dict)
    corrupt: bool = False


@attrs.define
class StoredShard:
    """Blocks with their CRCs, and the digests."""

    blocks: list[tuple[bytes, bytes]]
    digests: bytes
    owner: RowKey


@attrs.define
class Platter:
    """What survives a crash."""

    rows: dict[RowKey, Record] = attrs.field(factory=dict)
    shards: dict[tuple[DataId, int], StoredShard] = attrs.field(factory=dict)
    heal: dict[tuple[DataId, int], str] = attrs.field(factory=dict)
    hints: dict[RowKey, int] = attrs.field(factory=dict)
    trash: dict[DataId, int] = attrs.field(factory=dict)
    control: Control = attrs.field(factory=Control)
    commit_seq: int = 0
    unsynced: set[tuple[DataId, int]] = attrs.field(factory=set)  # acknowledged by a lying fsync


@attrs.define(kw_only=True)
class Faults:
    """What is wrong with the drive; the simulator sets and clears it."""

    commit_seconds: float = 0.002
    read_seconds: float = 0.001
    hung: bool = False  # takes everything, answers nothing
    full: bool = False
    fsync_fails: bool = False
    fsync_lies: bool = False  # of shard files; one of the index shows in commit_seq
    reads_fail: bool = False


class MemoryDrive:
    """See cluster.drives.drive.Drive. `nursery` outlives it."""

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
    ) -> None:
        self.drive_id = drive_id
        self._runtime, self._nursery = runtime, nursery
        self._set_id, self._position = set_id, position
        self._limits = limits if limits is not None else Limits()
        self._grace_ms = grace_ms
        self.platter = Platter()
        self.faults = Faults()
        self._state, self.reason = DriveState.ACTIVE, ""
        self._boots = 0
        self._boot()

    def _boot(self) -> None:
        self._boots += 1
        kept = self.platter.control
        # The acceptor changes its control values before they are durable: it works on a copy.
        self._control = Control(
            epoch=kept.epoch,
            ceiling_ms=kept.ceiling_ms,
            gc_floor=kept.gc_floor,
            fences=dict(kept.fences),
            dead=set(kept.dead),
        )
        self._acceptor = Acceptor(
            self._control, set_id=self._set_id, position=self._position, limits=self._limits
        )
        self._rows: dict[RowKey, Record] = {}  # newer than the platter
        self._waiting: list[Callable[[bool], None]] = []
        self._flying = False
        self._seq = self.platter.commit_seq + 1

    @property
    def state(self) -> DriveState:
        """What it can do now."""
        return (
            self._state
            if not (self.faults.full and self._state is DriveState.ACTIVE)
            else DriveState.READONLY
        )

    # -- faults

    def crash(self) -> None:
        """The process or the power is gone: what is pending is lost, promises are forgotten, nobody is answered."""
        for key in sorted(self.platter.unsynced):
            shard = self.platter.shards.get(key)
            if shard is not None:  # torn: some blocks made it
                del shard.blocks[self._runtime.rng.randrange(len(shard.blocks) + 1) :]
        self.platter.unsynced.clear()
        self._boot()

    def fail(self, reason: str) -> None:
        """Out of service, for good."""
        self._state, self.reason = DriveState.FAULTY, reason
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call(False)

    def vanish(self) -> None:
        """The drive is gone, and what was on it."""
        self.platter = Platter()
        self._state, self.reason = DriveState.MISSING, "gone"
        self._boot()

    def rot(self) -> bool:
        """Flip a bit of some shard's block; False: there is none."""
        shards = [
            shard
            for _, shard in sorted(self.platter.shards.items())
            if shard.blocks and shard.blocks[0][0]
        ]
        if not shards:
            return False
        shard = self._runtime.rng.choice(shards)
        number = self._runtime.rng.randrange(len(shard.blocks))
        payload, crc = shard.blocks[number]
        damaged = bytearray(payload)
        damaged[self._runtime.rng.randrange(len(damaged))] ^= 1
        shard.blocks[number] = (bytes(damaged), crc)
        return True

    def misdirect(self) -> bool:
        """A write went to another block's place: one block of a shard is found where another belongs."""
        shards = [shard for _, shard in sorted(self.platter.shards.items()) if shard.blocks]
        if len(shards) < 2:
            return False
        here, there = self._runtime.rng.sample(shards, 2)
        here.blocks[0] = there.blocks[0]
        return True

    def corrupt_row(self) -> bool:
        """A row fails its checksum from now on."""
        rows = sorted(set(self.platter.rows) - set(self._rows))
        if not rows:
            return False
        self.platter.rows[self._runtime.rng.choice(rows)].corrupt = True
        return True

    # -- registers

    def submit(self, request: Request, reply: ReplyTo) -> None:
        """See Drive."""
        if self.faults.hung or self._state is DriveState.MISSING:
            return
        if self._state not in VOTING:
            reply(NotVoting(self.reason))
            return
        boots = self._boots

        def answer(message: Reply) -> None:
            if boots == self._boots and not self.faults.hung:
                reply(message)

        match request:
            case Scan():
                self._scan(request, answer)
            case ScanUploads():
                self._scan_uploads(request, answer)
            case Fence():
                if self._acceptor.fence(request):
                    self._commit(self._keep_control)
                self._when_durable(lambda: answer(Done()), answer)
            case _:
                self._on_row(request, answer)

    def _record(self, row: RowKey) -> Record:
        found = self._rows.get(row) or self.platter.rows.get(row)
        return found if found is not None else Record()

    def _on_row(self, request: Prepare | Accept | Learn | Query | ReadBody, reply: ReplyTo) -> None:
        record = self._record(request.row)
        held: Register | object = CORRUPT if record.corrupt else record.register
        shown = request.row in self._rows
        match request:
            case Query():
                answer = self._acceptor.gate(request.row, request.epoch, request.bucket_epoch)
                if answer is None:
                    answer = (
                        NotVoting("the row is corrupt")
                        if record.corrupt
                        else Value(record.register, dict(record.bodies))
                    )
                self._show(reply, answer, wait=shown)
            case ReadBody():
                self._show(reply, Body(record.bodies.get(request.body)), wait=shown)
            case Prepare():
                decision = self._acceptor.prepare(request, held)
                if isinstance(decision, Promised):
                    if decision.ceiling_ms is not None:
                        self._commit(self._keep_control)
                    # An earlier promise's ceiling may still be on its way to the platter.
                    wait = shown or self._control.ceiling_ms != self.platter.control.ceiling_ms
                    self._show(reply, decision.reply, wait=wait)
                else:
                    reply(decision)
            case Accept():
                verdict = self._acceptor.accept(request, held, record.bodies.keys())
                if isinstance(verdict, Write):
                    self._write(request.row, record, verdict)
                if isinstance(verdict, Write | Accepted):
                    self._show(reply, Accepted(self._seq), wait=True)
                else:
                    reply(verdict)
            case Learn():
                self._learn(request, record, held)
                reply(Done())

    def _write(self, row: RowKey, record: Record, write: Write) -> None:
        bodies = {b: data for b, data in record.bodies.items() if b not in write.drop_bodies}
        bodies |= {
            b: write.message.bodies[b] for b in write.register.state.body_ids() if b not in bodies
        }
        new = Record(write.register, bodies)
        self._rows[row] = new

        def commit() -> None:
            self.platter.rows[row] = new
            for part in write.debt:
                if (part.data_id, self._position) not in self.platter.shards:
                    self.platter.heal[part.data_id, self._position] = "not staged at commit"
            if self._rows.get(row) is new:
                del self._rows[row]

        self._commit(commit)

    def _learn(self, request: Learn, record: Record, held: Register | object) -> None:
        decision = self._acceptor.learn(request, held)
        if isinstance(decision, Chosen):
            record.register = decision.register
            state = decision.register.state
            if not is_part(request.row):
                due = self._runtime.wall_ms() + self._grace_ms
                removed = {data_id for applied in state.ring for data_id in applied.removed}
                for data_id in removed - record_data(state):
                    self.platter.trash[data_id] = due
        if request.acceptors != -1:
            self.platter.hints[request.row] = ~request.acceptors & 0xFFFFFFFF

    def _keep_control(self) -> None:
        now = self._control
        self.platter.control = Control(
            epoch=now.epoch,
            ceiling_ms=now.ceiling_ms,
            gc_floor=now.gc_floor,
            fences=dict(now.fences),
            dead=set(now.dead),
        )

    # -- group commit

    def _commit(self, apply: Callable[[], None]) -> None:
        def call(durable: bool) -> None:
            if durable:
                apply()

        self._waiting.append(call)
        self._fly()

    def _show(self, reply: ReplyTo, answer: Reply, *, wait: bool) -> None:
        if wait:
            self._when_durable(lambda: reply(answer), reply)
        else:
            self._nursery.start_soon(self._after_read, reply, answer)

    async def _after_read(self, reply: ReplyTo, answer: Reply) -> None:
        await trio.sleep(self.faults.read_seconds * (0.5 + self._runtime.rng.random()))
        reply(answer)

    def _when_durable(self, then: Callable[[], None], reply: ReplyTo) -> None:
        def call(durable: bool) -> None:
            if durable:
                then()
            else:
                reply(Failed(self.reason))

        self._waiting.append(call)
        self._fly()

    def _fly(self) -> None:
        if not self._flying:
            self._flying = True
            self._nursery.start_soon(self._land, self._boots)

    async def _land(self, boots: int) -> None:
        await trio.sleep(self.faults.commit_seconds * (0.5 + self._runtime.rng.random()))
        if boots != self._boots:
            return
        self._flying = False
        batch, self._waiting = self._waiting, []
        if self.faults.fsync_fails:
            self._waiting = batch
            self.fail("fsync failed")
            return
        self.platter.commit_seq = self._seq
        self._seq += 1
        for call in batch:
            call(True)
        if self._waiting:
            self._fly()

    # -- scans: durable rows only

    def _scan(self, request: Scan, reply: ReplyTo) -> None:
        refusal = self._acceptor.gate(request.start, request.epoch, request.bucket_epoch)
        if refusal is not None:
            reply(refusal)
            return
        rows: list[ScanRow] = []
        skip_to = b""
        more: RowKey | None = None
        for row in sorted(self.platter.rows):
            if (
                row < request.start
                or row < skip_to
                or (request.stop is not None and row >= request.stop)
            ):
                continue
            if len(rows) == request.limit:
                more = row
                break
            found = self._scan_row(row)
            cut = row.find(request.delimiter, request.prefix_len) if request.delimiter else -1
            if cut < 0:
                rows.append(found)
            elif found.live or not found.chosen or found.ballot is None:
                rows.append(found._replace(rolled_up=True))
                skip_to = successor(row[: cut + len(request.delimiter)]) or b""
        self._show(reply, Page(rows, more), wait=False)

    def _scan_row(self, row: RowKey) -> ScanRow:
        record = self.platter.rows[row]
        register = record.register
        return ScanRow(
            row,
            None if record.corrupt else register.ballot.pack(),
            (CHOSEN if register.chosen else 0) | (LIVE if register.state.live is not None else 0),
            encode_state(register.state),
        )

    def _scan_uploads(self, request: ScanUploads, reply: ReplyTo) -> None:
        refusal = self._acceptor.gate(request.start, request.epoch, request.bucket_epoch)
        if refusal is not None:
            reply(refusal)
            return
        stop = successor(object_row(request.bucket, b"")) or b""
        found = [
            row
            for row in sorted(self.platter.rows)
            if request.start <= row < stop and self.platter.rows[row].register.state.uploads
        ]
        more = RowKey(found[request.limit - 1] + b"\0") if len(found) > request.limit else None
        page = [ScanRow(row, None, 0, b"") for row in found[: request.limit]]
        self._show(reply, Page(page, more), wait=False)

    # -- shards

    def open_stage(self, header: ShardHeader, size_hint: int) -> Stage:
        """See Drive."""
        if self.faults.full:
            raise DriveFullError("full")
        if self._state not in STAGING:
            raise DriveError(self.reason)
        return _MemoryStage(self, header)

    async def keep_shard(self, header: ShardHeader, shard: StoredShard) -> None:
        """Make a shard durable. Raises DriveError."""
        landed = trio.Event()
        verdict: list[bool] = []

        def call(durable: bool) -> None:
            verdict.append(durable)
            landed.set()

        if self.faults.hung or self._state not in STAGING:
            await trio.sleep_forever()

        def keep() -> None:
            self.platter.shards[header.data_id, header.position] = shard
            if self.faults.fsync_lies:
                self.platter.unsynced.add((header.data_id, header.position))
            self.platter.heal.pop((header.data_id, header.position), None)

        self._commit(keep)
        self._waiting.append(call)
        boots = self._boots
        while not landed.is_set():
            with trio.move_on_after(1):
                await landed.wait()
            if boots != self._boots:
                raise DriveError("the drive restarted")
        if not verdict[0]:
            raise DriveError(self.reason)

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
        await trio.sleep(self.faults.read_seconds * (0.5 + self._runtime.rng.random()))
        if self._state not in VOTING:
            raise DriveError(self.reason)
        if self.faults.reads_fail:
            raise self._bad(header, "input/output error")
        shard = self.platter.shards.get((header.data_id, header.position))
        if shard is None:
            raise ShardMissingError("missing")
        return shard

    def _bad(self, header: ShardHeader, reason: str) -> ShardCorruptError:
        self.note_bad_shard(header, reason)
        return ShardCorruptError(reason)

    async def stat_shard(self, data_id: DataId, position: int) -> int | None:
        """See Drive."""
        shard = self.platter.shards.get((data_id, position))
        return None if shard is None else sum(len(payload) for payload, _ in shard.blocks)

    def note_bad_shard(self, header: ShardHeader, reason: str) -> None:
        """See Drive."""
        self.platter.heal[header.data_id, header.position] = reason

    async def collect(self) -> None:
        """Remove superseded shards whose grace is over."""
        now = self._runtime.wall_ms()
        for row in [r for r in self.platter.rows if bucket_of(r) in self.platter.control.dead]:
            state = self.platter.rows.pop(row).register.state
            removed = {data_id for applied in state.ring for data_id in applied.removed}
            for data_id in removed | record_data(state):
                self.platter.trash[data_id] = now + self._grace_ms
        for data_id in [d for d, due in self.platter.trash.items() if due <= now]:
            del self.platter.trash[data_id]
            for position in range(32):
                self.platter.shards.pop((data_id, position), None)

    async def status(self) -> DriveStatus:
        """See Drive."""
        return DriveStatus(
            drive=self.drive_id, path="memory", set_id=self._set_id, position=self._position, state=self.state,
            reason=self.reason, usage=DriveUsage(total=1 << 40, free=1 << 39), heal_debt=len(self.platter.heal),
        )  # fmt: skip


class _MemoryStage:
    """See cluster.drives.drive.Stage."""

    def __init__(self, drive: MemoryDrive, header: ShardHeader) -> None:
        self._drive, self._header = drive, header
        self._blocks: list[tuple[bytes, bytes]] = []

    async def write(self, blocks: Sequence[Blob]) -> None:
        """See Stage."""
        await trio.lowlevel.checkpoint()
        if self._drive.faults.full:
            raise DriveFullError("full")
        if self._drive.state not in STAGING:
            raise DriveError(self._drive.reason)
        for block in blocks:
            payload = bytes(block)
            crc = block_crc(self._header.data_id, self._header.position, len(self._blocks), payload)
            self._blocks.append((payload, crc))

    async def close(self, digests: bytes) -> None:
        """See Stage."""
        await self._drive.keep_shard(
            self._header, StoredShard(self._blocks, digests, self._header.owner)
        )

    def abort(self) -> None:
        """See Stage."""
        self._blocks = []
