"""Reading a version: every block's CRC and every stripe's digest is checked before a byte leaves."""

from collections.abc import Sequence
from functools import partial
from itertools import combinations, islice

import attrs
import trio

from cluster.drives.drive import Drive, DriveError, ShardMissingError
from cluster.erasure.codec import codec_for
from cluster.erasure.geometry import Geometry
from cluster.erasure.shard_format import ShardHeader, digest_root, stripe_digest
from cluster.errors import CorruptError, NotFoundError, UnavailableError
from cluster.metadata.table import Reading, RegisterRef
from cluster.objects.context import Context
from cluster.register.records import Part, decode_parts

MOST_COMBINATIONS = 500


class StoredObject:
    """One version of a key."""

    def __init__(self, context: Context, ref: RegisterRef, reading: Reading) -> None:
        live = reading.state.live
        if live is None:
            raise NotFoundError("key")
        self._context, self._ref, self.version = context, ref, live
        self._bodies = reading.bodies
        self._parts = live.parts if live.body is None else None

    async def parts(self) -> tuple[Part, ...]:
        """The part list, fetched if it lies beside the record."""
        if self._parts is None:
            body = self.version.body
            assert body is not None
            self._parts = decode_parts(await self._body()) if body.count else ()
        return self._parts

    async def open(self, start: int, stop: int) -> "PartsReader":
        """Read bytes start..stop-1."""
        version = self.version
        assert 0 <= start <= stop <= version.size
        if start == stop:
            return PartsReader(self._context, self._ref, [], b"")
        if version.body is not None and not version.body.count:
            inline = memoryview(await self._body())[start:stop]
            return PartsReader(self._context, self._ref, [], inline)
        pieces: list[_Piece] = []
        offset = 0
        for part in await self.parts():
            low, high = max(start - offset, 0), min(stop - offset, part.size)
            if low < high:
                shape = Geometry(
                    size=part.size, k=part.k, block=part.block, chunk=self._context.layout().chunk
                )
                pieces += [
                    _Piece(part, shape, run, low, high) for run in shape.chunks_for(low, high)
                ]
            offset += part.size
        reader = PartsReader(self._context, self._ref, pieces, b"")
        await reader.load_first()
        return reader

    async def _body(self) -> bytes:
        body = self.version.body
        assert body is not None
        data = self._bodies.get(body.id)
        if data is None:
            data = await self._context.table.read_body(self._ref, body)
        if data is None:
            raise UnavailableError("the object was superseded while it was read")
        return data


@attrs.frozen
class _Piece:
    """At most one chunk of one part, and which bytes of the part are wanted."""

    part: Part
    shape: Geometry
    run: range
    low: int
    high: int


class PartsReader:
    """Chunks in order, each verified."""

    def __init__(
        self, context: Context, ref: RegisterRef, pieces: list[_Piece], ready: bytes | memoryview
    ) -> None:
        self._context, self._ref = context, ref
        self._pieces = pieces[::-1]
        self._ready: list[memoryview] | None = [memoryview(ready)] if ready else None
        self._held = 0
        self._digests: tuple[bytes, bytes] = (b"", b"")

    async def load_first(self) -> None:
        """Verify the first chunk."""
        try:
            self._ready = await self._load()
        except BaseException:
            await self.aclose()
            raise

    async def next(self) -> Sequence[memoryview] | None:
        """The next verified buffers; None: the end."""
        if self._ready is not None:
            ready, self._ready = self._ready, None
            return ready
        self._release()
        return await self._load() if self._pieces else None

    async def aclose(self) -> None:
        """Give the buffers back."""
        self._ready = None
        self._pieces = []
        self._release()

    def _release(self) -> None:
        held, self._held = self._held, 0
        if held:
            self._context.buffers.unreserve(held)

    async def _load(self) -> list[memoryview]:
        piece = self._pieces.pop()
        first = piece.shape.stripe_range(piece.run[0])[0]
        size = piece.shape.stripe_range(piece.run[-1])[1] - first
        await self._context.buffers.reserve(size)
        self._held = size
        drives = self._context.drives_of(piece.part.set_id)
        reading = _ChunkRead(self._context, drives, self._ref, piece)
        if self._digests[0] != piece.part.data_id:
            self._digests = (piece.part.data_id, await reading.digests())
        stripes = await reading.run(self._digests[1])
        buffers: list[memoryview] = []
        at = first
        for blocks in stripes:
            for block in blocks:
                low, high = max(piece.low - at, 0), min(piece.high - at, len(block))
                if low < high:
                    buffers.append(block[low:high])
                at += len(block)
        return buffers


class _ChunkRead:
    """k shards of a chunk, data first; parity joins when one is missing, damaged or slow."""

    def __init__(
        self, context: Context, drives: Sequence[Drive], ref: RegisterRef, piece: _Piece
    ) -> None:
        self._context, self._drives, self._piece = context, drives, piece
        part = piece.part
        self._headers = [
            ShardHeader(
                data_id=part.data_id, owner=ref.row, position=position, k=part.k,
                m=part.m, block=part.block, codec=part.codec,
            )
            for position in range(part.k + part.m)
        ]  # fmt: skip
        self._lengths = piece.shape.block_lengths(piece.run.start, piece.run.stop)
        self._got: dict[int, Sequence[memoryview]] = {}
        self._left = [p for p in range(part.k + part.m) if part.staged >> p & 1]
        self._left += [p for p in range(part.k + part.m) if not part.staged >> p & 1]
        self._open = 0
        self._changed = trio.Event()

    async def digests(self) -> bytes:
        """The stripe digests of the part, as its record vouches for them."""
        part = self._piece.part
        for position in list(self._left):
            with trio.move_on_after(self._context.settings.stall_seconds):
                try:
                    found = await self._drives[position].read_digests(
                        self._headers[position], self._piece.shape.stripes
                    )
                except DriveError as error:
                    self._note(position, error)
                    continue
                if digest_root(found) == part.digest_root:
                    return found
                self._drives[position].note_bad_shard(self._headers[position], "digests differ")
        raise UnavailableError("no shard of the object can be read now")

    async def run(self, digests: bytes) -> list[list[memoryview]]:
        """Per stripe the verified plaintext, in pieces."""
        k = self._piece.part.k
        await self._gather(k)
        plain = await self._context.runtime.offload(
            lambda: self._assemble(digests, sorted(self._got)[:k])
        )
        if plain is not None:
            return plain
        await self._gather(len(self._headers))
        for chosen in islice(combinations(sorted(self._got), k), MOST_COMBINATIONS):
            choice = list(chosen)
            plain = await self._context.runtime.offload(partial(self._assemble, digests, choice))
            if plain is not None:
                await self._blame(choice)
                return plain
        raise CorruptError("the object's shards do not give its bytes")

    async def _gather(self, wanted: int) -> None:
        settings = self._context.settings
        patience = settings.hedge_seconds or settings.stall_seconds
        needed = self._piece.part.k
        async with trio.open_nursery() as nursery:
            while len(self._got) < wanted:
                while self._left and len(self._got) + self._open < wanted:
                    self._start(nursery)
                if not self._open:
                    break
                self._changed = trio.Event()
                with trio.move_on_after(patience) as late:
                    await self._changed.wait()
                if late.cancelled_caught:
                    if not self._left:
                        break
                    self._start(nursery)
            nursery.cancel_scope.cancel()
        self._open = 0
        if len(self._got) < needed:
            raise UnavailableError(f"{len(self._got)} of {needed} needed shards can be read")

    def _start(self, nursery: trio.Nursery) -> None:
        self._open += 1
        nursery.start_soon(self._read, self._left.pop(0))

    async def _read(self, position: int) -> None:
        try:
            self._got[position] = await self._drives[position].read_blocks(
                self._headers[position], self._piece.run.start, self._lengths
            )
        except DriveError as error:
            self._note(position, error)
        self._open -= 1
        self._changed.set()

    def _note(self, position: int, error: DriveError) -> None:
        if isinstance(error, ShardMissingError):
            self._drives[position].note_bad_shard(self._headers[position], "missing")
        if position in self._left:
            self._left.remove(position)

    def _assemble(self, digests: bytes, chosen: list[int]) -> list[list[memoryview]] | None:
        piece = self._piece
        part = piece.part
        codec = codec_for(part.k, part.m, part.codec)
        whole = chosen == list(range(part.k))
        stripes: list[list[memoryview]] = []
        for index, stripe in enumerate(piece.run):
            start, stop = piece.shape.stripe_range(stripe)
            blocks = {position: self._got[position][index] for position in chosen}
            if whole:
                joined = b"".join(blocks.values())
            else:
                joined = codec.decode(blocks, self._lengths[index])
            plain = memoryview(joined)[: stop - start]
            if stripe_digest(plain) != digests[16 * stripe : 16 * stripe + 16]:
                return None
            stripes.append([plain])
        return stripes

    async def _blame(self, chosen: list[int]) -> None:
        part = self._piece.part
        codec = codec_for(part.k, part.m, part.codec)
        for position in self._got:
            for index, length in enumerate(self._lengths):
                blocks = {p: self._got[p][index] for p in chosen}
                if codec.rebuild(blocks, length, [position])[0] != self._got[position][index]:
                    self._drives[position].note_bad_shard(self._headers[position], "wrong bytes")
                    break
