"""Buckets as registers of the cluster; deleting one fences it first, so that no write slips in behind the look."""

import contextlib
from collections.abc import Sequence

import attrs
import msgspec

from cluster.clock import Ballot
from cluster.errors import (
    ExistsError,
    NotEmptyError,
    NotFoundError,
    PreconditionError,
    QuorumError,
    StaleBucketError,
    UnavailableError,
)
from cluster.ids import BucketId, RowKey
from cluster.layout import SYSTEM
from cluster.metadata.scan import Scanner, Span
from cluster.metadata.table import Table
from cluster.objects.context import Context
from cluster.objects.fencing import fence_set
from cluster.objects.model import Bucket, Versioning
from cluster.register.keys import object_row, successor, system_row
from cluster.register.messages import Fence
from cluster.register.mutations import Absent, DeleteVersion, HeadIs

_PREFIX = b"bucket/"
KNOWN_BUCKETS = 10_000
MAX_TRIES = 8


class BucketRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a bucket's register holds."""

    bucket_id: BucketId
    epoch: int
    deleting: bool
    generation: tuple[int, ...]
    created_ms: int
    owner: str
    attributes: bytes
    versioning: Versioning = Versioning.UNVERSIONED


class Buckets:
    """Create, find, list, change and delete."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: dict[str, tuple[Ballot, Bucket]] = {}  # by name: as of this ballot

    async def create(self, name: str, owner: str, attributes: bytes) -> Bucket:
        """Keys of the bucket will have their records on the sets of today that have room for any. Raises ExistsError."""
        runtime, table = self._context.runtime, self._context.table
        sets = tuple(s.set_id for s in self._context.layout().sets)
        roomy = tuple(set_id for set_id in sets if table.members_of(set_id).takes_records)
        record = BucketRecord(
            BucketId(runtime.rng.randbytes(16)), 1, False, roomy or sets, runtime.wall_ms(), owner,
            attributes,
        )  # fmt: skip
        try:
            await self._write(name, record, Absent())
        except PreconditionError:
            raise ExistsError(f"bucket {name} exists") from None
        return _bucket(name, record)

    async def get(self, name: str) -> Bucket:
        """Linearizable: the record's ballot is asked for each time, its content only when that has changed.

        Raises NotFoundError("bucket").
        """
        known = self._known.get(name)
        if known is not None:
            ref = self._context.table.system_ref(_PREFIX + name.encode())
            live = (await self._context.table.read(ref)).state.live
            if live is not None and live.stamp == known[0]:
                return known[1]
        for _ in range(MAX_TRIES):
            record, stamp = await self._find(name)
            if not record.deleting:
                bucket = _bucket(name, record)
                if len(self._known) >= KNOWN_BUCKETS:
                    self._known.clear()
                self._known[name] = (stamp, bucket)
                return bucket
            try:
                if await self._finish(name, record, stamp):
                    raise NotFoundError("bucket", name)
            except (PreconditionError, StaleBucketError):
                continue  # somebody else has finished it
        raise UnavailableError(f"bucket {name} is being deleted")

    async def renew(self, bucket: Bucket) -> Bucket:
        """The same bucket as it is now, at a higher epoch where a deletion was refused. Raises NotFoundError("bucket")."""
        found = await self.get(bucket.name)
        if found.bucket_id != bucket.bucket_id:
            raise NotFoundError("bucket", bucket.name)
        return found

    async def list(self) -> Sequence[Bucket]:
        """All buckets, by name."""
        buckets: list[Bucket] = []
        for name, stamp in await _names(self._context.table):
            known = self._known.get(name)
            if known is not None and known[0] == stamp:
                buckets.append(known[1])
                continue
            with contextlib.suppress(NotFoundError):
                buckets.append(await self.get(name))
        return buckets

    async def set_versioning(self, bucket: Bucket, versioning: Versioning) -> Bucket:
        """Change the mode of a bucket. Raises NotFoundError("bucket"), UnavailableError (repeat it).

        The record comes first, the fence before the answer: whoever is refused at the old epoch finds the new mode, and
        a crash between the two leaves nothing that requests could not get past. The fence is raised in any case: the
        change that is found here may be one whose fence is missing.
        """
        assert versioning is not Versioning.UNVERSIONED
        for _ in range(MAX_TRIES):
            await self.renew(bucket)  # finishes a deletion that it meets
            record, stamp = await self._find(bucket.name)
            if record.bucket_id != bucket.bucket_id or record.deleting:
                continue
            if record.versioning is not versioning:
                record = msgspec.structs.replace(
                    record, versioning=versioning, epoch=record.epoch + 1
                )
                try:
                    await self._write(bucket.name, record, HeadIs(stamp=stamp))
                except PreconditionError:
                    continue  # somebody else changes it, too
            fence = Fence(bucket=record.bucket_id, bucket_epoch=record.epoch)
            table = self._context.table
            for set_id in record.generation:
                await fence_set(table.members_of(set_id), fence, table.watch)
            return _bucket(bucket.name, record)
        raise UnavailableError(f"bucket {bucket.name} is being changed")

    async def delete(self, bucket: Bucket) -> None:
        """Raises NotEmptyError, NotFoundError("bucket")."""
        for _ in range(MAX_TRIES):
            record, stamp = await self._find(bucket.name)
            if record.bucket_id != bucket.bucket_id:
                raise NotFoundError("bucket", bucket.name)
            try:
                if not record.deleting:
                    record = msgspec.structs.replace(record, deleting=True)
                    stamp = await self._write(bucket.name, record, HeadIs(stamp=stamp))
                if await self._finish(bucket.name, record, stamp):
                    return
            except (PreconditionError, StaleBucketError):
                continue  # somebody else deletes it, too
            raise NotEmptyError(f"bucket {bucket.name} is not empty")
        raise UnavailableError(f"bucket {bucket.name} is being changed")

    async def _find(self, name: str) -> tuple[BucketRecord, Ballot]:
        found = await self._context.table.read_document(_PREFIX + name.encode())
        if found is None:
            self._known.pop(name, None)
            raise NotFoundError("bucket", name)
        return msgspec.msgpack.decode(found[0], type=BucketRecord), found[1].stamp

    async def _finish(self, name: str, record: BucketRecord, stamp: Ballot) -> bool:
        """Finish a deletion: True, it is gone; False, it is not empty and active again.

        Raises PreconditionError where somebody else has finished it, StaleBucketError where the next has begun, too.
        """
        table = self._context.table
        head = HeadIs(stamp=stamp)
        fence = Fence(bucket=record.bucket_id, bucket_epoch=record.epoch + 1)
        fenced = {
            set_id: await fence_set(table.members_of(set_id), fence, table.watch)
            for set_id in record.generation
        }
        # Any read quorum of fenced drives meets every accept quorum that a write at the old epoch can have had.
        if not await _is_empty(table.over(fenced), record):
            again = msgspec.structs.replace(record, deleting=False, epoch=record.epoch + 1)
            await self._write(name, again, head)
            return False
        ref = table.system_ref(_PREFIX + name.encode())
        await table.commit(ref, DeleteVersion(), expect=(head,))
        dead = attrs.evolve(fence, dead=True)
        for set_id in record.generation:
            with contextlib.suppress(QuorumError):  # a hint that its rows may be dropped
                await fence_set(table.members_of(set_id), dead, table.watch)
        return True

    async def _write(self, name: str, record: BucketRecord, expect: Absent | HeadIs) -> Ballot:
        done = await self._context.table.write_document(
            _PREFIX + name.encode(), msgspec.msgpack.encode(record), expect=(expect,)
        )
        assert done.stamp is not None
        return done.stamp


async def recorded_buckets(table: Table) -> set[BucketId]:
    """Of all that have a record now, though they may be under deletion. Raises QuorumError.

    A bucket that is none of these, and was fenced before this was asked, is gone: its record came first, and its id is
    not used again.
    """
    ids: set[BucketId] = set()
    for name, _ in await _names(table):
        found = await table.read_document(_PREFIX + name.encode())
        if found is not None:
            ids.add(msgspec.msgpack.decode(found[0], type=BucketRecord).bucket_id)
    return ids


async def _names(table: Table) -> list[tuple[str, Ballot | None]]:
    """Of all records, with their stamps; None: that is not known."""
    low = system_row(_PREFIX)
    high = successor(low)
    assert high is not None
    names: list[tuple[str, Ballot | None]] = []
    cursor: RowKey | None = low
    while cursor is not None:
        span = Span(start=cursor, stop=RowKey(high), bucket_epoch=0)
        found, cursor = await Scanner(table).scan([SYSTEM], span, 1000)
        for item in found:
            live = item.state.live if item.state is not None else None
            names.append((item.row[len(low) :].decode(), live.stamp if live is not None else None))
    return names


async def _is_empty(table: Table, record: BucketRecord) -> bool:
    low = object_row(record.bucket_id, b"")
    high = successor(low)
    assert high is not None
    cursor: RowKey | None = low
    while cursor is not None:
        span = Span(start=cursor, stop=RowKey(high), bucket_epoch=record.epoch + 1)
        found, cursor = await Scanner(table).scan(record.generation, span, 100, only_live=False)
        if any(item.state is not None and item.state.versions for item in found):
            return False
    return True


def _bucket(name: str, record: BucketRecord) -> Bucket:
    return Bucket(
        name=name, bucket_id=record.bucket_id, epoch=record.epoch, generation=record.generation,
        created_ms=record.created_ms, owner=record.owner, attributes=record.attributes,
        versioning=record.versioning,
    )  # fmt: skip
