"""Storing a body: small ones in the record, others as shards; then one compare-and-set."""

import trio
import xxhash
from msgspec.structs import replace

from cluster.clock import BALLOT_ZERO
from cluster.drives.drive import STAGING, Blob
from cluster.erasure.codec import codec_for
from cluster.erasure.geometry import block_bytes
from cluster.erasure.shard_format import ShardHeader, digest_root, stripe_digest
from cluster.errors import QuorumError
from cluster.ids import RowKey, UploadId
from cluster.metadata.table import RegisterRef
from cluster.objects.context import Context
from cluster.objects.model import Digest, PutRequest, Seal, Source
from cluster.objects.staging import Staging
from cluster.quorum import Quorum, adaptive_data_shards
from cluster.register.mutations import PutVersion
from cluster.register.records import INLINE_LIMIT, BodyId, BodyRef, Part, Version

SMALL_HASH = 64 * 1024  # hashing less than that costs less than a thread's wake-up


async def put_body(
    context: Context,
    ref: RegisterRef,
    request: PutRequest,
    *,
    number: int = 1,
    upload_id: UploadId | None = None,
    owner: RowKey | None = None,
) -> Version:
    """Store a body as the register's version. `number` and `upload_id` for a part. Raises as Objects.put."""
    first = bytearray(INLINE_LIMIT + 1)
    filled = await _fill(request.source, memoryview(first))
    if filled > INLINE_LIMIT or upload_id is not None:
        return await _Large(context, ref, request, number, upload_id, owner).run(first[:filled])
    data = bytes(memoryview(first)[:filled])
    for digest in request.digests:
        digest.update(data)
    seal = request.seal(filled)
    version = _version(context, seal, filled, upload_id)
    bodies = {}
    if data:
        body_id = BodyId(context.draw_data_id())
        bodies[body_id] = data
        body = BodyRef(id=body_id, size=filled, digest=xxhash.xxh3_128_digest(data))
        version = replace(version, body=body)
    done = await context.table.commit(
        ref, PutVersion(version=version), expect=request.expect, bodies=bodies
    )
    return done.state.versions[0]


def _version(context: Context, seal: Seal, size: int, upload_id: UploadId | None) -> Version:
    return Version(
        version_id=None, delete_marker=False, stamp=BALLOT_ZERO, op_hlc=0, size=size,
        validator=seal.validator, attributes=seal.attributes, mtime_ms=context.runtime.wall_ms(),
        upload_id=upload_id,
    )  # fmt: skip


async def _fill(source: Source, buffer: memoryview) -> int:
    filled = 0
    while filled < len(buffer):
        got = await source.readinto(buffer[filled:])
        if not got:
            break
        filled += got
    return filled


class _Large:
    """A body in shards: chunks are collected while the one before is hashed, coded and written."""

    def __init__(
        self,
        context: Context,
        ref: RegisterRef,
        request: PutRequest,
        number: int,
        upload_id: UploadId | None,
        owner: RowKey | None,
    ) -> None:
        self._context, self._ref, self._request = context, ref, request
        self._number, self._upload_id = number, upload_id
        layout = context.layout()
        drives = context.drives_of(ref.set_id)
        live = sum(drive.state in STAGING for drive in drives)
        k = adaptive_data_shards(layout.k, layout.m, live)
        if k is None:
            raise QuorumError(Quorum(layout.n).accept, live, "can take shards")
        self._header = ShardHeader(
            data_id=context.draw_data_id(), owner=owner if owner is not None else ref.row, position=0, k=k, m=layout.n - k,
            block=layout.block, codec=layout.codec,
        )  # fmt: skip
        self._codec = codec_for(k, layout.n - k, layout.codec)
        self._stripe = k * layout.block
        self._chunk = max(1, layout.chunk // self._stripe) * self._stripe
        self._staging = Staging(context, drives, self._header)
        self._digests: list[bytes] = []
        self._size = 0

    async def run(self, head: bytearray) -> Version:
        """The whole PUT."""
        request = self._request
        hint = request.source.size_hint or 0
        try:
            self._staging.open(hint // self._header.k + 1)
            await self._stream(head)
            seal = request.seal(self._size)
            staged = await self._staging.close(b"".join(self._digests))
        except BaseException:
            self._staging.abort()
            raise
        version = replace(
            _version(self._context, seal, self._size, self._upload_id),
            parts=(self._part(seal, staged),),
        )
        done = await self._context.table.commit(
            self._ref, PutVersion(version=version), expect=request.expect
        )
        return done.state.versions[0]

    def _part(self, seal: Seal, staged: int) -> Part:
        header = self._header
        return Part(
            number=self._number, size=self._size, validator=seal.validator,
            attributes=seal.attributes, data_id=header.data_id, intro=BALLOT_ZERO,
            codec=header.codec, set_id=self._ref.set_id, k=header.k, m=header.m,
            block=header.block, staged=staged, digest_root=digest_root(b"".join(self._digests)),
        )  # fmt: skip

    async def _stream(self, head: bytearray) -> None:
        pool = self._context.buffers
        small = True
        last = False
        while not last:
            size = self._stripe if small else self._chunk
            buffer = None if small else pool.try_acquire(size)
            if buffer is None:
                size = self._stripe
                buffer = await pool.acquire(size)
            try:
                buffer[: len(head)] = head
                filled = len(head) + await _fill(self._request.source, buffer[len(head) :])
                last = filled < size
                if filled:
                    await self._process(buffer[:filled])
            finally:
                pool.release(buffer)
            head = bytearray()
            small = False

    async def _process(self, data: memoryview) -> None:
        digests = self._request.digests
        self._size += len(data)
        if len(data) < SMALL_HASH:
            for digest in digests:
                digest.update(data)
            await self._staging.write(self._encode(data))
            return
        async with trio.open_nursery() as nursery:
            for digest in digests:
                nursery.start_soon(self._hash, digest, data)
            await self._staging.write(
                await self._context.runtime.offload(lambda: self._encode(data))
            )

    async def _hash(self, digest: Digest, data: memoryview) -> None:
        await self._context.runtime.offload(lambda: digest.update(data))

    def _encode(self, data: memoryview) -> list[list[Blob]]:
        k = self._header.k
        blocks: list[list[Blob]] = [[] for _ in range(self._codec.n)]
        for start in range(0, len(data), self._stripe):
            stripe = bytes(data[start : start + self._stripe])
            self._digests.append(stripe_digest(stripe))
            length = block_bytes(len(stripe), k)
            padded = stripe.ljust(length * k, b"\0")
            view = memoryview(padded)
            for position in range(k):
                blocks[position].append(view[position * length : (position + 1) * length])
            for offset, parity in enumerate(self._codec.parity(padded)):
                blocks[k + offset].append(parity)
        return blocks
