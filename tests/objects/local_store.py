"""An ObjectStore over six LocalDrives in a folder, with real threads, and small helpers to call it."""

import contextlib
import hashlib
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import attrs
import trio

from cluster.clock import HybridClock
from cluster.drives.drive import Drive
from cluster.drives.file_ops import FileOps
from cluster.drives.format import carry_out, decide, finish, inspect
from cluster.drives.local_drive import LocalDrive, open_local_drive
from cluster.drives.settings import DriveSettings
from cluster.erasure.codec import CODEC
from cluster.ids import ClusterId, NodeId
from cluster.layout import ErasureSet, Layout, Position
from cluster.metadata.table import Table
from cluster.objects.context import ObjectSettings
from cluster.objects.model import Bucket, Object, PutRequest, Seal
from cluster.objects.store import ObjectStore
from cluster.register.mutations import Precondition

T = TypeVar("T")
DATA, PARITY = 4, 2
DRIVES = DATA + PARITY


@attrs.define
class ThreadRuntime:
    """The real machine, with events in a list."""

    rng: random.Random = attrs.field(factory=random.SystemRandom)
    events: list[object] = attrs.field(factory=list)

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def offload(self, work: Callable[[], T]) -> Awaitable[T]:
        return trio.to_thread.run_sync(work)

    def emit(self, event: object) -> None:
        self.events.append(event)


@attrs.frozen
class LocalStore:
    """A store and what it stands on."""

    store: ObjectStore
    drives: Sequence[LocalDrive]
    paths: Sequence[Path]
    runtime: ThreadRuntime
    table: Table

    @property
    def used(self) -> int:
        """Bytes of the buffer budget that are taken."""
        return self.store._context.buffers.used


def make_layout(cluster: ClusterId, drives: Sequence[Drive]) -> Layout:
    positions = tuple(Position(drive=drive.drive_id, node=NodeId(1)) for drive in drives)
    return Layout(
        epoch=1, cluster=cluster, nodes=(), sets=(ErasureSet(set_id=0, positions=positions),),
        system_set=0, k=DATA, m=PARITY, codec=CODEC,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def open_store(
    root: Path,
    *,
    settings: ObjectSettings | None = None,
    wrap: Callable[[int, Drive], Drive] = lambda _, drive: drive,
) -> AsyncIterator[LocalStore]:
    """Six folders below root, formatted where they are new; `wrap` puts something between store and drive."""
    runtime = ThreadRuntime()
    paths = [root / f"d{index}" for index in range(DRIVES)]
    plan = decide(
        [inspect(path) for path in paths],
        code=None,
        arrange=lambda count: (f"{DATA}+{PARITY}", [(0, index) for index in range(count)]),
        new_id=lambda: os.urandom(16),
    )
    carry_out(plan, FileOps())
    finish(plan, FileOps())
    async with contextlib.AsyncExitStack() as stack:
        drives = [
            await stack.enter_async_context(
                open_local_drive(
                    seat.path,
                    plan.cluster,
                    seat.member,
                    runtime,
                    settings=DriveSettings(min_free_bytes=0, min_free_ratio=0.0, ballast_bytes=0),
                )
            )
            for seat in plan.seats
        ]
        seen: list[Drive] = [wrap(index, drive) for index, drive in enumerate(drives)]
        layout = make_layout(plan.cluster, drives)
        clock = HybridClock(runtime.wall_ms, runtime.rng.getrandbits(64))
        table = Table(drives_of=lambda _: seen, layout=lambda: layout, clock=clock, runtime=runtime)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(table.run)
            store = ObjectStore(
                table=table, drives_of=lambda _: seen, layout=lambda: layout, clock=clock,
                runtime=runtime, node_id=NodeId(1), nursery=nursery, settings=settings,
            )  # fmt: skip
            local = LocalStore(store, drives, paths, runtime, table)
            yield local
            with trio.move_on_after(local.store._context.settings.straggler_feed_seconds + 1):
                while local.used:  # noqa: ASYNC110 - stragglers tell nobody when they are done
                    await trio.sleep(0.01)
            assert local.used == 0
            nursery.cancel_scope.cancel()


@attrs.define
class Bytes:
    """A source over bytes, handed out in pieces of `step`."""

    data: bytes
    step: int = 1 << 18
    at: int = 0

    @property
    def size_hint(self) -> int | None:
        return len(self.data)

    async def readinto(self, buffer: memoryview) -> int:
        await trio.lowlevel.checkpoint()
        piece = self.data[self.at : self.at + min(self.step, len(buffer))]
        buffer[: len(piece)] = piece
        self.at += len(piece)
        return len(piece)


def put_request(
    data: bytes, *, expect: tuple[Precondition, ...] = (), step: int = 1 << 18
) -> PutRequest:
    """A PUT of bytes whose validator is their MD5, as S3 does it."""
    md5 = hashlib.md5(usedforsecurity=False)

    def seal(size: int) -> Seal:
        assert size == len(data)
        return Seal(validator=md5.hexdigest(), attributes=b"attributes")

    return PutRequest(source=Bytes(data, step), digests=[md5], seal=seal, expect=expect)


async def read_range(found: Object, start: int, stop: int) -> bytes:
    reader = await found.open(start, stop)
    try:
        got = bytearray()
        while (buffers := await reader.next()) is not None:
            for buffer in buffers:
                got += buffer
        return bytes(got)
    finally:
        await reader.aclose()


async def read_all(store: ObjectStore, bucket: Bucket, key: bytes) -> bytes:
    found = await store.get(bucket, key)
    return await read_range(found, 0, found.version.size)


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)
