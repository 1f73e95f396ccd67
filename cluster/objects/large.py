"""A body in shards: the next chunk is collected while the one before is hashed, coded and written.

Drives that turn out to be broken or full when the first stripe is written (or the last, where that is the same) do not fail the
PUT: that stripe is still at hand, and goes to another set, or is coded anew for fewer drives. Later losses cost redundancy down to D shards, then the
PUT.
"""

from collections.abc import Callable
from functools import partial

import attrs
import trio

from cluster.clock import BALLOT_ZERO
from cluster.drives.drive import Blob
from cluster.erasure.codec import codec_for
from cluster.erasure.geometry import block_bytes
from cluster.erasure.shard_format import ShardHeader, digest_root, stripe_digest
from cluster.errors import QuorumError, StorageFullError
from cluster.metadata.table import RegisterRef
from cluster.metadata.together import together
from cluster.objects.buffers import Lease
from cluster.objects.context import SMALL_WORK, Context
from cluster.objects.data_sets import DataSets, Target
from cluster.objects.hashing import Hasher
from cluster.objects.model import PutRequest, Seal
from cluster.objects.source import fill
from cluster.objects.staging import Staging
from cluster.register.keys import owner_row
from cluster.register.records import Part

_STRIPES_UNDER_PRESSURE = 4  # one at a time would cost every drive a call for 64 KiB


async def store_large(
    context: Context,
    ref: RegisterRef,
    request: PutRequest,
    head: bytearray,
    number: int,
    *,
    on_closing: Callable[[], None],
) -> tuple[Part, Seal]:
    """Make the shards of a body durable; `head` was read from the source already. Raises as Objects.put.

    `on_closing` is called when all bytes are written and only their durability is waited for.
    """
    layout, sets = context.layout(), DataSets(context, ref.set_id)
    hasher = Hasher(context.runtime, request.digests)
    target = sets.first()
    lease = await context.buffers.lease(target.k * layout.block, layout.m * layout.block)
    first = lease.buffer
    try:
        first[: len(head)] = head
        filled = len(head) + await fill(request.source, first[len(head) :])
        last = filled < len(first)
        await hasher.update(first[:filled])
        seal = request.seal(filled) if last else None
        rest = b""
        while True:
            body = _Body(context, ref, target, request, on_closing)
            try:
                if seal is not None:
                    return await body.store_whole(lease, filled, number, seal), seal
                rest = await body.begin(lease, filled)
                break
            except (QuorumError, StorageFullError) as error:
                target = sets.after(target, body.lost, error)
    finally:
        lease.release()
    return await body.go_on(rest, filled, number, hasher)


class _Body:
    """One attempt at one set with one code."""

    def __init__(
        self,
        context: Context,
        ref: RegisterRef,
        target: Target,
        request: PutRequest,
        on_closing: Callable[[], None],
    ) -> None:
        layout, k = context.layout(), target.k
        self._on_closing = on_closing
        self._context, self._request, self._set_id = context, request, target.set_id
        self._header = ShardHeader(
            data_id=context.draw_data_id(), owner=owner_row(ref.row), position=0, k=k,
            m=layout.n - k, block=layout.block, codec=layout.codec,
            home=None if target.set_id == ref.set_id else ref.set_id,
        )  # fmt: skip
        self._codec = codec_for(k, layout.n - k, layout.codec)
        self._stripe = k * layout.block
        self._stripes_per_chunk = max(1, layout.chunk // self._stripe)
        self._digests: list[bytes] = []
        self._size = 0
        nodes = [position.node for position in layout.erasure_set(target.set_id).positions]
        self._staging = Staging(context, target.drives, nodes, self._header, target.avoid)

    @property
    def lost(self) -> frozenset[int]:
        """Positions that did not take part to the end."""
        return self._staging.lost

    async def store_whole(self, lease: Lease, filled: int, number: int, seal: Seal) -> Part:
        """The whole body at once."""
        try:
            self._staging.open(filled // self._header.k + 1)
            await self._code(lease, filled)
            return await self._finish(number, seal, patient=False)
        except BaseException:
            self._staging.abort()
            raise

    async def begin(self, lease: Lease, filled: int) -> bytes:
        """The first stripes, until enough drives have written them. Gives the bytes that do not fill a stripe."""
        hint = self._request.source.size_hint or 0
        whole = filled // self._stripe * self._stripe
        try:
            self._staging.open(hint // self._header.k + 1)
            await self._code(lease, whole)
            await self._staging.settle()
        except BaseException:
            self._staging.abort()
            raise
        return bytes(lease.buffer[whole:filled])

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
        self._on_closing()
        staged = await self._staging.close(digests, patience)
        return Part(
            number=number, size=self._size, validator=seal.validator,
            attributes=seal.attributes, data_id=header.data_id, intro=BALLOT_ZERO,
            codec=header.codec, set_id=self._set_id, k=header.k, m=header.m,
            block=header.block, staged=staged, digest_root=digest_root(digests),
        )  # fmt: skip

    async def _collect(self, send: "trio.MemorySendChannel[_Chunk]", rest: bytes) -> None:
        """Read the body into chunks; a client that is slow to fill one gets no more than a stripe to fill."""
        settings = self._context.settings
        fast, last = True, False
        async with send:
            while not last:
                lease = await self._lease(fast=fast)
                try:
                    buffer = lease.buffer
                    buffer[: len(rest)] = rest
                    began = trio.current_time()
                    filled = len(rest) + await fill(self._request.source, buffer[len(rest) :])
                    fast = trio.current_time() - began < settings.fast_fill_seconds
                    last = filled < len(buffer)
                    rest = b""
                    if filled:
                        await send.send(_Chunk(lease, filled))  # with the hold of its maker
                    else:
                        lease.release()
                except trio.BrokenResourceError:
                    lease.release()
                    return  # whoever took the chunks has failed, and says why
                except BaseException:
                    lease.release()
                    raise

    async def _lease(self, *, fast: bool) -> Lease:
        """A whole chunk if there is room at once; under pressure some stripes each, so that all get on."""
        pool, beside = self._context.buffers, self._header.m * self._header.block
        whole = self._stripes_per_chunk
        lease = pool.try_lease(whole * self._stripe, whole * beside) if fast else None
        if lease is not None:
            return lease
        stripes = min(whole, _STRIPES_UNDER_PRESSURE) if fast else 1
        return await pool.lease(stripes * self._stripe, stripes * beside)

    async def _consume(
        self, receive: "trio.MemoryReceiveChannel[_Chunk]", hasher: Hasher, skip: int
    ) -> None:
        async with receive:
            async for chunk in receive:
                data = chunk.lease.buffer[skip : chunk.filled]
                try:
                    await together(
                        partial(hasher.update, data), partial(self._code, chunk.lease, chunk.filled)
                    )
                finally:
                    chunk.lease.release()
                skip = 0

    async def _code(self, lease: Lease, filled: int) -> None:
        """Code and queue whole stripes (the body's last may be cut)."""
        data = lease.buffer[:filled]
        self._size += filled
        if filled <= SMALL_WORK:
            blocks = self._encode(data)
        else:
            blocks = await self._context.runtime.offload(partial(self._encode, data))
        await self._staging.write(blocks, lease)

    def _encode(self, data: memoryview) -> list[list[Blob]]:
        """Per position its blocks: those of data are parts of the buffer, a cut stripe's and parity are new."""
        k = self._header.k
        blocks: list[list[Blob]] = [[] for _ in range(self._codec.n)]
        for start in range(0, len(data), self._stripe):
            stripe = data[start : start + self._stripe]
            self._digests.append(stripe_digest(stripe))
            length = block_bytes(len(stripe), k)
            plain = bytes(stripe).ljust(length * k, b"\0")
            view = stripe if len(stripe) == len(plain) else memoryview(plain)
            for position in range(k):
                blocks[position].append(view[position * length : (position + 1) * length])
            for offset, parity in enumerate(self._codec.parity(plain)):
                blocks[k + offset].append(parity)
        return blocks


@attrs.frozen
class _Chunk:
    """A filled buffer, held for who receives it."""

    lease: Lease
    filled: int
