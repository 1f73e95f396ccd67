"""A drive on a bench: opened, crashed, broken and asked, the same way whichever kind it is."""

import contextlib
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TypeVar

import apsw
import attrs
import trio

from cluster.clock import BALLOT_ZERO, Ballot
from cluster.drives.drive import Drive
from cluster.drives.file_ops import FileOps
from cluster.drives.format import carry_out, decide, finish, inspect
from cluster.drives.index import CHECKSUM_VFS, FILE
from cluster.drives.local_drive import LocalDrive, open_local_drive
from cluster.drives.memory_drive import MemoryDrive
from cluster.drives.settings import DriveSettings
from cluster.drives.shard_files import shard_path
from cluster.erasure.shard_format import HEADER_BYTES, ShardHeader
from cluster.ids import BucketId, DataId, DriveId, OpId, RowKey, UploadId
from cluster.register.acceptor import Limits
from cluster.register.keys import object_row
from cluster.register.messages import (
    Accept,
    Learn,
    Prepare,
    Query,
    Reply,
    Request,
)
from cluster.register.records import Applied, BodyId, BodyRef, KeyState, Part, Upload, Version
from cluster.runtime import Runtime
from tests.objects.local_store import ThreadRuntime

R = TypeVar("R", bound=object)
BUCKET = BucketId(bytes(range(16)))
ROW = object_row(BUCKET, b"key")
GRACE_MS = 1
BLOCK = 64 * 1024


class Tools(FileOps):
    """File functions, one of which fails on request."""

    failing = ""
    error = OSError(5, "input/output error")

    def append(self, fd, offset, buffers):
        if self.failing == "append":
            raise self.error
        return super().append(fd, offset, buffers)

    def sync_file(self, fd):
        if self.failing == "sync":
            raise self.error
        super().sync_file(fd)

    def read(self, fd, buffers, offset):
        if self.failing == "read":
            raise self.error
        return super().read(fd, buffers, offset)


class LocalBench:
    """A LocalDrive. A crash opens a copy of what was on disk at that moment."""

    def __init__(self, folder: Path, *, cache_bytes: int = 24 << 20) -> None:
        self.folder, self.cache_bytes = folder, cache_bytes
        self.root = folder / "0"
        self.runtime = ThreadRuntime()
        self.started_ms = self.runtime.wall_ms()
        self.tools = Tools()
        self.settings = DriveSettings(
            cache_bytes=cache_bytes, read_grace_ms=GRACE_MS, free_seconds=0.05,
            min_free_bytes=0, min_free_ratio=0.0, ballast_bytes=0,
            limits=Limits(ceiling_lease_ms=1000),
        )  # fmt: skip
        self.plan = decide(
            [inspect(self.root)],
            code=None,
            arrange=lambda _: ("1+0", [(0, 0)]),
            new_id=lambda: random.randbytes(16),
        )
        carry_out(self.plan, FileOps())
        finish(self.plan, FileOps())

    def fresh(self) -> "LocalBench":
        """Another one of the same kind."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        return LocalBench(folder, cache_bytes=self.cache_bytes)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[LocalDrive]:
        member = self.plan.seats[0].member
        async with open_local_drive(
            self.root, self.plan.cluster, member, self.runtime, settings=self.settings, files=self.tools
        ) as drive:  # fmt: skip
            self.drive = drive
            yield drive

    def crash(self) -> None:
        """What is opened next is what was durable now."""
        copy = self.root.with_name(str(int(self.root.name) + 1))
        # sqlite3's own shared memory file does not survive a power cut.
        shutil.copytree(self.root, copy, ignore=shutil.ignore_patterns("*-shm"))
        self.root = copy

    def fail_commits(self) -> None:
        def broken(_: object) -> None:
            raise apsw.IOError("disk I/O error")

        self.drive.folder.writer.apply = broken  # type: ignore[method-assign]

    def fill(self) -> None:
        self.tools.failing, self.tools.error = "append", OSError(28, "no space left on device")

    def rot_shard(self, header: ShardHeader) -> None:
        """Flip a bit of its first block."""
        path = shard_path(self.root, header.data_id, header.position)
        with path.open("r+b") as file:
            file.seek(HEADER_BYTES + 7)
            byte = file.read(1)
            file.seek(HEADER_BYTES + 7)
            file.write(bytes([byte[0] ^ 1]))

    def lose_shard(self, header: ShardHeader) -> None:
        shard_path(self.root, header.data_id, header.position).unlink()

    def rot_row(self, row: RowKey) -> None:
        """The row fails its checksum, though its page does not; the drive must not be open."""
        db = apsw.Connection(str(self.root / FILE), vfs=CHECKSUM_VFS)
        db.execute("UPDATE head SET crc=crc+1 WHERE row=?", (row,))
        assert db.changes() == 1
        db.close()


class MemoryBench:
    """A MemoryDrive."""

    def __init__(self, *, cache_bytes: int = 24 << 20, runtime: Runtime | None = None) -> None:
        self.cache_bytes = cache_bytes
        self.runtime = runtime if runtime is not None else ThreadRuntime(rng=random.Random(1))
        self.started_ms = self.runtime.wall_ms()
        self.drive: MemoryDrive | None = None

    def fresh(self) -> "MemoryBench":
        """Another one of the same kind."""
        return MemoryBench(cache_bytes=self.cache_bytes)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[MemoryDrive]:
        async with trio.open_nursery() as nursery:
            fresh = MemoryDrive(
                DriveId(bytes(16)), self.runtime, nursery, grace_ms=GRACE_MS,
                limits=Limits(ceiling_lease_ms=1000), cache_bytes=self.cache_bytes,
            )  # fmt: skip
            if self.drive is not None:
                fresh.platter = self.drive.platter
                fresh.crash()
            self.drive = fresh
            yield fresh
            nursery.cancel_scope.cancel()

    def crash(self) -> None:
        assert self.drive is not None
        self.drive.crash()

    def fail_commits(self) -> None:
        assert self.drive is not None
        self.drive.faults.fsync_fails = True

    def fill(self) -> None:
        assert self.drive is not None
        self.drive.faults.full = True

    def rot_shard(self, header: ShardHeader) -> None:
        assert self.drive is not None
        assert self.drive.platter.rot(self.runtime.rng)

    def lose_shard(self, header: ShardHeader) -> None:
        assert self.drive is not None
        del self.drive.platter.shards[header.data_id, header.position]

    def rot_row(self, row: RowKey) -> None:
        assert self.drive is not None
        assert row in self.drive.platter.index.rows
        self.drive.platter.index.corrupt.add(row)


Bench = LocalBench | MemoryBench


# -- asking


@attrs.define
class Answers:
    """Replies as they come."""

    replies: list[Reply] = attrs.field(factory=list)
    _more: trio.Event = attrs.field(factory=trio.Event)

    def __call__(self, reply: Reply) -> None:
        self.replies.append(reply)
        self._more.set()
        self._more = trio.Event()

    async def first(self) -> Reply:
        with trio.fail_after(5):
            while not self.replies:
                await self._more.wait()
        return self.replies[0]


async def ask(drive: Drive, request: Request) -> Reply:
    answers = Answers()
    drive.submit(request, answers)
    return await answers.first()


async def expect(drive: Drive, request: Request, kind: type[R]) -> R:
    reply = await ask(drive, request)
    assert isinstance(reply, kind), reply
    return reply


# -- saying


def at(bench: Bench, step: int, proposer: int = 1) -> Ballot:
    """A ballot near the wall clock; steps are minutes, so that a later step is above the ceiling of an earlier one."""
    return Ballot(bench.started_ms + step * 60_000, 0, proposer)


def prepare(ballot: Ballot, row: RowKey = ROW, *, epoch: int = 1, bucket_epoch: int = 1) -> Prepare:
    return Prepare(row=row, ballot=ballot, epoch=epoch, bucket_epoch=bucket_epoch)


def query(row: RowKey = ROW, *, bodies: bool = False, bucket_epoch: int = 1) -> Query:
    return Query(row=row, epoch=1, bucket_epoch=bucket_epoch, bodies=bodies)


def learn(ballot: Ballot, row: RowKey = ROW) -> Learn:
    return Learn(row=row, ballot=ballot)


def accept(
    ballot: Ballot,
    state: KeyState,
    row: RowKey = ROW,
    *,
    bodies: Mapping[BodyId, bytes] | None = None,
    base: Ballot = BALLOT_ZERO,
) -> Accept:
    return Accept(
        row=row, ballot=ballot, epoch=1, bucket_epoch=1, base=base, state=state, bodies=bodies or {}
    )


def version(
    ballot: Ballot, *, body: BodyRef | None = None, parts: tuple[Part, ...] = ()
) -> Version:
    return Version(
        version_id=None, delete_marker=False, stamp=ballot, op_hlc=ballot.hlc, size=4, validator="etag",
        attributes=b"", mtime_ms=1, body=body, parts=parts,
    )  # fmt: skip


def live(ballot: Ballot) -> KeyState:
    return KeyState(versions=(version(ballot),))


def inline(ballot: Ballot, body: BodyId, data: bytes) -> KeyState:
    return KeyState(
        versions=(version(ballot, body=BodyRef(id=body, size=len(data), digest=bytes(16))),)
    )


def tombstone(ballot: Ballot, removed: tuple[DataId, ...] = ()) -> KeyState:
    return KeyState(ring=(Applied(op_id=OpId(bytes(16)), ballot=ballot, removed=removed),))


def uploading(ballot: Ballot, upload: UploadId) -> KeyState:
    return KeyState(uploads=(Upload(upload_id=upload, created=ballot, attributes=b"", mtime_ms=1),))


def stored(ballot: Ballot, header: ShardHeader, *, staged: int = 1) -> KeyState:
    part = Part(
        number=1, size=4, validator="etag", attributes=b"", data_id=header.data_id, intro=ballot,
        codec=header.codec, set_id=0, k=header.k, m=header.m, block=BLOCK, staged=staged, digest_root=bytes(16),
    )  # fmt: skip
    return KeyState(versions=(version(ballot, parts=(part,)),))


def header(number: int = 1, ballot: Ballot | None = None) -> ShardHeader:
    """A shard of ROW; its data id is drawn at the ballot, or long ago."""
    hlc = ballot.hlc if ballot is not None else 0
    data_id = DataId(hlc.to_bytes(6, "big") + number.to_bytes(10, "big"))
    return ShardHeader(
        data_id=data_id, owner=ROW, position=0, k=1, m=0, block=BLOCK, codec="isa_l_rs_cauchy/8"
    )


async def stage(drive: Drive, shard: ShardHeader, blocks: list[bytes]) -> bytes:
    """Write a shard, block by block; its digests."""
    digests = random.Random(1).randbytes(16 * len(blocks))
    writing = drive.open_stage(shard, sum(map(len, blocks)))
    for block in blocks:
        await writing.write([block])
    await writing.close(digests)
    return digests
