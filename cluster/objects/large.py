"""A body in shards: the next chunk is collected while the one before is hashed, coded and written.

Drives that turn out to be broken when the first stripe is written (or the last, where that is the same) do not fail the
PUT: that stripe is still at hand, and is coded anew for fewer drives. Later losses cost redundancy down to D shards, then the
PUT.
"""

from collections.abc import Sequence
from functools import partial

import attrs
import trio

from cluster.clock import BALLOT_ZERO
from cluster.drives.drive import STAGING, Blob, Drive, DriveState
from cluster.erasure.codec import codec_for
from cluster.erasure.geometry import block_bytes
from cluster.erasure.shard_format import ShardHeader, digest_root, stripe_digest
from cluster.errors import QuorumError, StorageFullError
from cluster.metadata.table import RegisterRef
from cluster.objects.buffers import BufferPool, Lease
from cluster.objects.context import SMALL_WORK, Context
from cluster.objects.hashing import Hasher
from cluster.objects.model import PutRequest, Seal
from cluster.objects.source import fill
from cluster.objects.staging import Staging
from cluster.objects.together import together
from cluster.quorum import Quorum, adaptive_data_shards
from cluster.register.keys import owner_row
from cluster.register.records import Part


async def store_large(
    context: Context, ref: RegisterRef, request: PutRequest, head: bytearray, number: int
) -> tuple[Part, Seal]:
    """Make the shards of a body durable; `head` was read from the source already. Raises as Objects.put."""
    layout, drives = context.layout(), context.drives_of(ref.set_id)
    hasher = Hasher(context.runtime, request.digests)
    k = _data_shards(context, drives)
    size = k * layout.block
    first = await context.buffers.acquire(size)
    lease = Lease(context.buffers, size)
    try:
        first[: len(head)] = head
        filled = len(head) + await fill(request.source, first[len(head) :])
        last = filled < size
        await hasher.update(first[:filled])
        seal = request.seal(filled) if last else None
        lost: frozenset[int] = frozenset()
        rest = b""
        while True:
            body = _Body(context, ref, drives, k, lost, request)
            try:
                if seal is not None:
                    return await body.store_whole(first[:filled], number, seal), seal
                rest = await body.begin(first[:filled])
                break
            except (QuorumError, StorageFullError):
                lost |= body.lost
                fewer = adaptive_data_shards(layout.k, layout.m, len(drives) - len(lost))
                if fewer is None or fewer >= k:
                    raise
                k = fewer
    finally:
        lease.release()
        context.buffers.recycle(first)
    return await body.go_on(rest, filled, number, hasher)


def _data_shards(context: Context, drives: Sequence[Drive]) -> int:
    layout = context.layout()
    live = sum(drive.state in STAGING for drive in drives)
    k = adaptive_data_shards(layout.k, layout.m, live)
    if k is None:
        if any(drive.state is DriveState.READONLY for drive in drives):
            raise StorageFullError(f"{live} of {layout.n} drives have room")
        raise QuorumError(Quorum(layout.n).accept, live, "can take shards")
    return k


class _Body:
    """One attempt at one code."""

    def __init__(
        self,
        context: Context,
        ref: RegisterRef,
        drives: Sequence[Drive],
        k: int,
        lost: frozenset[int],
        request: PutRequest,
    ) -> None:
        layout = context.layout()
        self._context, self._request, self._set_id = context, request, ref.set_id
        self._header = ShardHeader(
            data_id=context.draw_data_id(), owner=owner_row(ref.row), position=0, k=k,
            m=layout.n - k, block=layout.block, codec=layout.codec,
        )  # fmt: skip
        self._codec = codec_for(k, layout.n - k, layout.codec)
        self._stripe = k * layout.block
        self._chunk = max(1, layout.chunk // self._stripe) * self._stripe
        self._digests: list[bytes] = []
        self._size = 0
        self._staging = Staging(context, drives, self._header, lost)

    @property
    def lost(self) -> frozenset[int]:
        """Positions that did not take part to the end."""
        return self._staging.lost

    async def store_whole(self, data: memoryview, number: int, seal: Seal) -> Part:
        """The whole body at once."""
        try:
            self._staging.open(len(data) // self._header.k + 1)
            await self._code(data)
            return await self._finish(number, seal, patient=False)
        except BaseException:
            self._staging.abort()
            raise

    async def begin(self, data: memoryview) -> bytes:
        """The first stripes, until enough drives have written them. Gives the bytes that do not fill a stripe."""
        hint = self._request.source.size_hint or 0
        whole = len(data) // self._stripe * self._stripe
        try:
            self._staging.open(hint // self._header.k + 1)
            await self._code(data[:whole])
            await self._staging.settle()
        except BaseException:
            self._staging.abort()
            raise
        return bytes(data[whole:])

    async def go_on(
        self, rest: bytes, hashed: int, number: int, hasher: Hasher
    ) -> tuple[Part, Seal]:
        """Everything behind the first stripes; `hashed` bytes from the start went through the hasher already."""
        try:
            send, receive = trio.open_memory_channel[_Chunk](0)
            skip = hashed - self._size
            await together(
                partial(self._collect, send, rest), partial(self._consume, receive, hasher, skip)
            )
            seal = self._request.seal(self._size)
            return await self._finish(number, seal, patient=True), seal
        except BaseException:
            self._staging.abort()
            raise

    async def _finish(self, number: int, seal: Seal, *, patient: bool) -> Part:
        settings, header = self._context.settings, self._header
        digests = b"".join(self._digests)
        patience = settings.stage_seconds if patient else settings.retry_seconds
        staged = await self._staging.close(digests, patience)
        return Part(
            number=number, size=self._size, validator=seal.validator,
            attributes=seal.attributes, data_id=header.data_id, intro=BALLOT_ZERO,
            codec=header.codec, set_id=self._set_id, k=header.k, m=header.m,
            block=header.block, staged=staged, digest_root=digest_root(digests),
        )  # fmt: skip

    async def _collect(self, send: "trio.MemorySendChannel[_Chunk]", rest: bytes) -> None:
        """Read the body into chunks; a client that is slow to fill one gets no more than a stripe to fill."""
        pool, settings = self._context.buffers, self._context.settings
        fast, last = True, False
        async with send:
            while not last:
                size = self._chunk if fast else self._stripe
                buffer = pool.try_acquire(size) if fast else None
                if buffer is None:
                    size = self._stripe
                    buffer = await pool.acquire(size)
                chunk = _Chunk(buffer, Lease(pool, size))
                try:
                    buffer[: len(rest)] = rest
                    began = trio.current_time()
                    got = await fill(self._request.source, buffer[len(rest) :])
                    fast = trio.current_time() - began < settings.fast_fill_seconds
                    chunk.filled = len(rest) + got
                    last = chunk.filled < size
                    rest = b""
                    if chunk.filled:
                        await send.send(chunk)
                    else:
                        chunk.drop(pool)
                except BaseException:
                    chunk.drop(pool)
                    raise

    async def _consume(
        self, receive: "trio.MemoryReceiveChannel[_Chunk]", hasher: Hasher, skip: int
    ) -> None:
        pool = self._context.buffers
        async with receive:
            async for chunk in receive:
                data = chunk.buffer[: chunk.filled]
                try:
                    await together(
                        partial(hasher.update, data[skip:]), partial(self._code, data, chunk.lease)
                    )
                finally:
                    chunk.drop(pool)
                skip = 0

    async def _code(self, data: memoryview, lease: Lease | None = None) -> None:
        """Code and queue whole stripes (the body's last may be cut)."""
        self._size += len(data)
        if len(data) <= SMALL_WORK:
            blocks = self._encode(data)
        else:
            blocks = await self._context.runtime.offload(partial(self._encode, data))
        await self._staging.write(blocks, lease)

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


@attrs.define(eq=False)
class _Chunk:
    """A filled buffer; its share of the budget is given back when the last drive has written what came of it."""

    buffer: memoryview
    lease: Lease
    filled: int = 0
    dropped: bool = False

    def drop(self, pool: BufferPool) -> None:
        """The buffer itself is not needed any more."""
        if not self.dropped:
            self.dropped = True
            pool.recycle(self.buffer)
            self.lease.release()
