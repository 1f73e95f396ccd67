"""Buckets as registers of the cluster; deleting one fences it first, so that no write slips in behind the look."""

import msgspec
import trio

from cluster.drives.drive import Drive
from cluster.errors import ExistsError, NotEmptyError, NotFoundError, PreconditionError, QuorumError
from cluster.ids import BucketId, RowKey
from cluster.metadata.inquiry import ask_one
from cluster.metadata.scan import Scanner, Span
from cluster.objects.context import Context
from cluster.objects.model import Bucket
from cluster.quorum import Quorum
from cluster.register.keys import object_row, successor, system_row
from cluster.register.messages import Done, Fence
from cluster.register.mutations import Absent, DeleteCurrent, HeadIs
from cluster.register.records import Version

_PREFIX = b"bucket/"
FENCE_SECONDS = 5.0


class BucketRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a bucket's register holds."""

    bucket_id: BucketId
    epoch: int
    deleting: bool
    generation: tuple[int, ...]
    created_ms: int
    owner: str
    attributes: bytes


class Buckets:
    """Create, find, list and delete."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def create(self, name: str, owner: str, attributes: bytes) -> Bucket:
        """Raises ExistsError."""
        runtime = self._context.runtime
        record = BucketRecord(
            BucketId(runtime.rng.randbytes(16)), 1, False,
            tuple(s.set_id for s in self._context.layout().sets), runtime.wall_ms(), owner, attributes,
        )  # fmt: skip
        try:
            await self._write(name, record, Absent())
        except PreconditionError:
            raise ExistsError(f"bucket {name} exists") from None
        return _bucket(name, record)

    async def get(self, name: str) -> Bucket:
        """Linearizable. Raises NotFoundError("bucket")."""
        while True:
            found = await self._context.table.read_document(_PREFIX + name.encode())
            if found is None:
                raise NotFoundError("bucket", name)
            record = msgspec.msgpack.decode(found[0], type=BucketRecord)
            if not record.deleting:
                return _bucket(name, record)
            if await self._finish(name, record, found[1]):
                raise NotFoundError("bucket", name)

    async def list(self) -> list[Bucket]:
        """All buckets, by name."""
        low = system_row(_PREFIX)
        high = successor(low)
        assert high is not None
        buckets: list[Bucket] = []
        cursor: RowKey | None = low
        system = self._context.layout().system_set
        while cursor is not None:
            span = Span(start=cursor, stop=RowKey(high), bucket_epoch=0)
            found, cursor = await Scanner(self._context.table).scan([system], span, 1000)
            for item in found:
                try:
                    buckets.append(await self.get(item.row[len(low) :].decode()))
                except NotFoundError:
                    continue
        return buckets

    async def delete(self, bucket: Bucket) -> None:
        """Raises NotEmptyError, NotFoundError("bucket")."""
        found = await self._context.table.read_document(_PREFIX + bucket.name.encode())
        if found is None:
            raise NotFoundError("bucket", bucket.name)
        record = msgspec.msgpack.decode(found[0], type=BucketRecord)
        if record.bucket_id != bucket.bucket_id:
            raise NotFoundError("bucket", bucket.name)
        version = found[1]
        if not record.deleting:
            record = msgspec.structs.replace(record, deleting=True)
            version = await self._write(bucket.name, record, HeadIs(stamp=version.stamp))
        if not await self._finish(bucket.name, record, version):
            raise NotEmptyError(f"bucket {bucket.name} is not empty")

    async def _finish(self, name: str, record: BucketRecord, version: Version) -> bool:
        """Finish a deletion: True, it is gone; False, it is not empty and active again."""
        context = self._context
        head = HeadIs(stamp=version.stamp)
        for set_id in record.generation:
            await self._fence(set_id, record, dead=False)
        if await self._is_empty(record):
            ref = context.table.system_ref(_PREFIX + name.encode())
            await context.table.commit(ref, DeleteCurrent(), expect=(head,))
            return True
        again = msgspec.structs.replace(record, deleting=False, epoch=record.epoch + 1)
        await self._write(name, again, head)
        return False

    async def _fence(self, set_id: int, record: BucketRecord, *, dead: bool) -> None:
        drives = self._context.drives_of(set_id)
        fence = Fence(bucket=record.bucket_id, bucket_epoch=record.epoch + 1, dead=dead)
        done: list[Drive] = []

        async def one(drive: Drive) -> None:
            reply = await ask_one(drive, fence, self._context.table.watch, FENCE_SECONDS)
            if isinstance(reply, Done):
                done.append(drive)

        async with trio.open_nursery() as nursery:
            for drive in drives:
                nursery.start_soon(one, drive)
        needed = Quorum(len(drives)).accept
        if len(done) < needed:
            raise QuorumError(needed, len(done), "were fenced")

    async def _is_empty(self, record: BucketRecord) -> bool:
        low = object_row(record.bucket_id, b"")
        high = successor(low)
        assert high is not None
        cursor: RowKey | None = low
        while cursor is not None:
            span = Span(start=cursor, stop=RowKey(high), bucket_epoch=record.epoch + 1)
            found, cursor = await Scanner(self._context.table).scan(
                record.generation, span, 100, only_live=False
            )
            if any(item.state is not None and item.state.versions for item in found):
                return False
        return True

    async def _write(self, name: str, record: BucketRecord, expect: Absent | HeadIs) -> Version:
        done = await self._context.table.write_document(
            _PREFIX + name.encode(), msgspec.msgpack.encode(record), expect=(expect,)
        )
        return done.state.versions[0]


def _bucket(name: str, record: BucketRecord) -> Bucket:
    return Bucket(
        name=name, bucket_id=record.bucket_id, epoch=record.epoch, generation=record.generation,
        created_ms=record.created_ms, owner=record.owner, attributes=record.attributes,
    )  # fmt: skip
