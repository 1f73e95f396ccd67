"""Storing a body: small ones in the record, others as shards; then one compare-and-set in the bucket's mode."""

from collections.abc import Awaitable, Callable
from functools import partial

import attrs
import xxhash
from msgspec.structs import replace

from cluster.clock import BALLOT_ZERO
from cluster.errors import UnavailableError
from cluster.ids import UploadId
from cluster.layout import Layout
from cluster.metadata.attempt import EarlyPrepare
from cluster.metadata.table import RegisterRef
from cluster.objects.context import Context
from cluster.objects.large import store_large
from cluster.objects.model import Bucket, PutRequest, Seal
from cluster.objects.source import fill
from cluster.objects.standing import while_standing
from cluster.quorum import durable_shards
from cluster.register.mutations import PutVersion, RoomForVersion
from cluster.register.proposer import Committed
from cluster.register.records import INLINE_LIMIT, BodyId, BodyRef, Part, Version


async def put_body(
    context: Context,
    ref: RegisterRef,
    request: PutRequest,
    *,
    bucket: Bucket,
    renew: Callable[[Bucket], Awaitable[Bucket]],
    number: int = 1,
    upload_id: UploadId | None = None,
) -> Version:
    """Store a body as the register's version. `number` and `upload_id` for a part. Raises as Objects.put.

    `renew` looks the bucket up again where it was fenced while the body came in: the body cannot be asked for again,
    and the mode may be another.
    """
    first = bytearray(INLINE_LIMIT + 1)
    filled = await fill(request.source, memoryview(first))
    begun = context.layout()  # under which the body is placed
    bodies: dict[BodyId, bytes] = {}
    body: BodyRef | None = None
    parts: tuple[Part, ...] = ()
    early: EarlyPrepare | None = None
    home = context.table.members_of(ref.set_id)
    home.require_room()
    # The reserve of a full drive is there so that objects can be deleted, not for small new ones.
    is_inside = filled <= INLINE_LIMIT and (not filled or home.takes_bodies)
    if upload_id is not None or not is_inside:
        staged = _StagedBody(context, ref)
        part, seal = await staged.store(request, first[:filled], number)
        size, parts, early = part.size, (part,), staged.early
    else:
        data = bytes(memoryview(first)[:filled])
        for digest in request.digests:
            digest.update(data)
        seal, size = request.seal(filled), filled
        if data:
            body_id = BodyId(context.draw_data_id())
            bodies[body_id] = data
            body = BodyRef(id=body_id, size=size, digest=xxhash.xxh3_128_digest(data))
    version = make_version(context, seal, size, body=body, parts=parts, upload_id=upload_id)

    async def commit(standing: Bucket) -> Version:
        nonlocal early
        promises, early = early, None  # of another fence they are worth nothing
        named = standing.names_versions and upload_id is None
        mutation = PutVersion(version=version, named=named)
        done = await context.table.commit(
            attrs.evolve(ref, bucket_epoch=standing.epoch),
            mutation,
            expect=(*request.expect, RoomForVersion()) if named else request.expect,
            bodies=bodies,
            early=promises,
            revise=partial(_revise, mutation, begun, context) if parts else None,
        )
        return committed_version(done, version, named=named)

    return await while_standing(bucket, commit, renew)


def _revise(mutation: PutVersion, begun: Layout, context: Context) -> PutVersion | None:
    """Leave out the shards on drives that lost their place since. Raises UnavailableError where too few are left."""
    layout = context.layout()
    if layout is begun:
        return None
    version = mutation.version
    parts = tuple(_still_held(part, begun, layout) for part in version.parts)
    return replace(mutation, version=replace(version, parts=parts))


def _still_held(part: Part, begun: Layout, layout: Layout) -> Part:
    before, now = (of.erasure_set(part.set_id).positions for of in (begun, layout))
    same = sum(1 << p for p in range(len(now)) if before[p].drive == now[p].drive)
    staged = part.staged & same
    if staged.bit_count() < durable_shards(part.k, part.k + part.m):
        raise UnavailableError("drives were replaced while the body was stored on them")
    return replace(part, staged=staged)


@attrs.define
class _StagedBody:
    """A body in shards, and the promises that are asked for while these become durable."""

    _context: Context
    _ref: RegisterRef
    early: EarlyPrepare | None = None

    async def store(self, request: PutRequest, head: bytearray, number: int) -> tuple[Part, Seal]:
        """See store_large."""
        try:
            return await store_large(
                self._context, self._ref, request, head, number, on_closing=self._prepare
            )
        except BaseException:
            self._close()
            raise

    def _prepare(self) -> None:
        self._close()  # of an attempt at another code
        self.early = self._context.table.prepare(self._ref)

    def _close(self) -> None:
        if self.early is not None:
            self.early.close()


def make_version(
    context: Context,
    seal: Seal,
    size: int,
    *,
    body: BodyRef | None,
    parts: tuple[Part, ...],
    upload_id: UploadId | None,
) -> Version:
    """A version that has yet to be committed."""
    return Version(
        version_id=None, delete_marker=False, stamp=BALLOT_ZERO, op_hlc=0, size=size,
        validator=seal.validator, attributes=seal.attributes, mtime_ms=context.runtime.wall_ms(),
        body=body, parts=parts, upload_id=upload_id,
    )  # fmt: skip


def committed_version(done: Committed, template: Version, *, named: bool) -> Version:
    """The version that this commit introduced, even where it was replaced or deleted already."""
    assert done.stamp is not None
    for version in done.state.versions:
        if version.stamp == done.stamp:
            return version
    return replace(template, stamp=done.stamp, version_id=done.stamp.pack() if named else None)
