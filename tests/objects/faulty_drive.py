"""A drive between the store and a real one that fails, fills up, hangs or delays on request."""

from collections.abc import Callable, Sequence
from typing import Literal

import attrs
import trio

from cluster.drives.drive import Drive, DriveError, DriveFullError, DriveState, DriveStatus, Stage
from cluster.erasure.shard_format import ShardHeader
from cluster.ids import DataId, DriveId
from cluster.register.away import Note
from cluster.register.messages import Accept, Failed, Fence, Reply, Request

Mode = Literal[
    "fine",
    "faulty",  # knows it: every verb fails, the state says so
    "gone",  # does not know it yet: every verb fails
    "full",  # knows it
    "filling",  # finds out when it writes
    "hung",  # nothing answers
    "broken-reads",
    "hung-reads",
    "hung-read",  # the next one, then all is fine
    "broken-stages",
    "hung-stages",
    "broken-accepts",
    "broken-fences",
]


@attrs.define(eq=False)
class FaultyDrive:
    """See Mode. `hold` is set to let go on what hangs."""

    inner: Drive
    mode: Mode = "fine"

    @property
    def drive_id(self) -> DriveId:
        return self.inner.drive_id

    @property
    def cost(self) -> float:
        return self.inner.cost

    @property
    def state(self) -> DriveState:
        match self.mode:
            case "faulty":
                return DriveState.FAULTY
            case "full":
                return DriveState.READONLY
            case _:
                return self.inner.state

    def submit(self, request: Request, reply: Callable[[Reply], None]) -> None:
        if (
            self.mode in ("faulty", "gone")
            or (self.mode == "broken-accepts" and isinstance(request, Accept))
            or (self.mode == "broken-fences" and isinstance(request, Fence))
        ):
            reply(Failed("faulty"))
        elif self.mode != "hung":
            self.inner.submit(request, reply)

    def open_stage(self, header: ShardHeader, size_hint: int) -> Stage:
        if self.mode == "faulty":
            raise DriveError("faulty")
        if self.mode == "full":
            raise DriveFullError("full")
        return _FaultyStage(self, self.inner.open_stage(header, size_hint))

    async def reading(self) -> None:
        if self.mode in ("faulty", "gone", "broken-reads"):
            raise DriveError("faulty")
        if self.mode in ("hung", "hung-reads", "hung-read"):
            self.mode = "fine" if self.mode == "hung-read" else self.mode
            await trio.sleep_forever()

    async def writing(self) -> None:
        if self.mode in ("faulty", "gone", "broken-stages"):
            raise DriveError("faulty")
        if self.mode == "filling":
            raise DriveFullError("full")
        if self.mode in ("hung", "hung-stages"):
            await trio.sleep_forever()

    async def read_blocks(
        self, header: ShardHeader, first: int, lengths: Sequence[int]
    ) -> Sequence[memoryview]:
        await self.reading()
        return await self.inner.read_blocks(header, first, lengths)

    async def read_digests(self, header: ShardHeader, stripes: int) -> bytes:
        await self.reading()
        return await self.inner.read_digests(header, stripes)

    async def stat_shard(self, data_id: DataId, position: int) -> int | None:
        await self.reading()
        return await self.inner.stat_shard(data_id, position)

    async def look(self, notes: Sequence[Note]) -> None:
        await self.writing()
        await self.inner.look(notes)

    def note_bad_shard(self, header: ShardHeader, reason: str) -> None:
        self.inner.note_bad_shard(header, reason)

    async def status(self) -> DriveStatus:
        return await self.inner.status()


@attrs.define(eq=False)
class _FaultyStage:
    drive: FaultyDrive
    inner: Stage

    async def write(self, blocks: Sequence[bytes | bytearray | memoryview]) -> None:
        await self.drive.writing()
        await self.inner.write(blocks)

    async def close(self, digests: bytes) -> None:
        await self.drive.writing()
        await self.inner.close(digests)

    def abort(self) -> None:
        self.inner.abort()
