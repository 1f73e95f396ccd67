"""Everything that S3 may see of the cluster, composed."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

import trio

from cluster.clock import HybridClock
from cluster.drives.drive import Drive
from cluster.errors import SupersededError, UnavailableError
from cluster.ids import NodeId
from cluster.layout import Layout
from cluster.metadata.commit import refusal
from cluster.metadata.table import Table
from cluster.objects.buckets import Buckets
from cluster.objects.buffers import BufferPool
from cluster.objects.context import Context, ObjectSettings
from cluster.objects.delete import delete_object
from cluster.objects.free_space import FreeSpace
from cluster.objects.get import StoredObject, choose
from cluster.objects.listing import list_objects
from cluster.objects.listing_versions import list_versions
from cluster.objects.model import Bucket, Listing, Object, PutRequest, VersionListing, VersionPlace
from cluster.objects.multipart import Uploads
from cluster.objects.put import put_body
from cluster.objects.read_times import ReadTimes
from cluster.objects.standing import while_standing
from cluster.register.mutations import Precondition, check
from cluster.register.records import Version
from cluster.runtime import Runtime

Work = TypeVar("Work", bound=Callable[..., Awaitable[Any]])
MAX_READS = 4


class ObjectStore:
    """The `Objects` of a node. `nursery` lives as long as the server."""

    def __init__(
        self, *, table: Table, drives_of: Callable[[int], Sequence[Drive]],
        layout: Callable[[], Layout], clock: HybridClock, runtime: Runtime, node_id: NodeId,
        nursery: trio.Nursery, settings: ObjectSettings | None = None,
    ) -> None:  # fmt: skip
        chosen = settings if settings is not None else ObjectSettings()
        self._context = Context(
            table=table, drives_of=drives_of, layout=layout, clock=clock, runtime=runtime,
            node_id=node_id, nursery=nursery, settings=chosen,
            buffers=BufferPool(chosen.buffer_budget),
            read_times=ReadTimes(chosen.hedge_share, chosen.hedge_min_seconds),
            free_space=FreeSpace(),
        )  # fmt: skip
        buckets = Buckets(self._context)
        self._renew = buckets.renew
        self._uploads = Uploads(self._context, buckets.renew)
        self.create_bucket = buckets.create
        self.get_bucket = buckets.get
        self.list_buckets = buckets.list
        self.delete_bucket = buckets.delete
        self.set_versioning = buckets.set_versioning
        self.put_part = self._uploads.put_part
        self.create_upload = self._standing(self._uploads.create)
        self.get_upload = self._standing(self._uploads.get)
        self.list_parts = self._standing(self._uploads.list_parts)
        self.abort_upload = self._standing(self._uploads.abort)
        self.list_uploads = self._standing(self._uploads.list_open)
        self.complete_upload = self._standing(self._uploads.complete)
        self.get = self._standing(self._get)
        self.delete = self._standing(self._delete)
        self.list = self._standing(self._list)
        self.list_versions = self._standing(self._list_versions)
        self.check = self._standing(self._check)

    def _standing(self, work: Work) -> Work:
        """`work` on the bucket as it stands."""

        async def on(bucket: Bucket, *args: Any, **kwargs: Any) -> Any:
            return await while_standing(
                bucket, lambda standing: work(standing, *args, **kwargs), self._renew
            )

        return cast("Work", on)

    async def put(self, bucket: Bucket, key: bytes, request: PutRequest) -> Version:
        """Store a body."""
        ref = self._context.key_ref(bucket, key)
        return await put_body(self._context, ref, request, bucket=bucket, renew=self._renew)

    async def _get(self, bucket: Bucket, key: bytes, version_id: bytes | None = None) -> Object:
        """The current version, or the one of that id. Raises NotFoundError, DeleteMarkerError."""
        ref = self._context.key_ref(bucket, key)
        for _ in range(MAX_READS):
            reading = await self._context.table.read(ref, bodies=True)
            version = choose(reading.state, version_id)
            found = StoredObject(self._context, ref, reading, version)
            try:
                await found.fetch_inline()
            except SupersededError:
                continue
            return found
        raise UnavailableError("the object changes faster than it can be read")

    async def copy(
        self, source: Object, bucket: Bucket, key: bytes, request: PutRequest
    ) -> Version:
        """Store source's bytes anew: `request.source` reads them."""
        del source
        return await self.put(bucket, key, request)

    async def _delete(
        self,
        bucket: Bucket,
        key: bytes,
        expect: tuple[Precondition, ...] = (),
        *,
        version_id: bytes | None = None,
    ) -> Version | None:
        """Remove a version, or the object in the bucket's mode."""
        return await delete_object(self._context, bucket, key, expect, version_id)

    async def _check(self, bucket: Bucket, key: bytes, expect: tuple[Precondition, ...]) -> None:
        """Judge preconditions on the state as it is now."""
        state = (await self._context.table.read(self._context.key_ref(bucket, key))).state
        refused = check(expect, state)
        if refused is not None:
            raise refusal(refused)

    async def _list(
        self, bucket: Bucket, *, prefix: bytes, delimiter: bytes, start: bytes, limit: int
    ) -> Listing:
        """A page of live keys."""
        return await list_objects(
            self._context, bucket, prefix=prefix, delimiter=delimiter, start=start, limit=limit
        )

    async def _list_versions(
        self, bucket: Bucket, *, prefix: bytes, delimiter: bytes, start: VersionPlace, limit: int
    ) -> VersionListing:
        """A page of versions."""
        return await list_versions(
            self._context, bucket, prefix=prefix, delimiter=delimiter, start=start, limit=limit
        )
