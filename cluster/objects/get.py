"""Reading a version: every block's CRC and every stripe's digest is checked before a byte leaves."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio

from cluster.erasure.geometry import Geometry
from cluster.errors import (
    ClusterError,
    DeleteMarkerError,
    NotFoundError,
    StaleBucketError,
    SupersededError,
    UnavailableError,
)
from cluster.metadata.table import Reading, RegisterRef
from cluster.objects.chunk_read import ChunkRead, Piece
from cluster.objects.context import Context
from cluster.register.mutations import find_version
from cluster.register.records import KeyState, Part, Version, decode_parts


def choose(state: KeyState, version_id: bytes | None) -> Version:
    """The current version (None), or the one of that id.

    Raises NotFoundError("key"), NotFoundError("version"), DeleteMarkerError.
    """
    found = state.head if version_id is None else find_version(state, version_id or None)
    if found is None:
        raise NotFoundError("key" if version_id is None else "version")
    if found.delete_marker:
        asked = version_id is not None
        raise DeleteMarkerError(found.version_id, found.mtime_ms, asked=asked)
    return found


class StoredObject:
    """One version of a key."""

    def __init__(
        self, context: Context, ref: RegisterRef, reading: Reading, version: Version
    ) -> None:
        self._context, self._ref, self.version = context, ref, version
        self._bodies = reading.bodies
        self._parts = version.parts if version.body is None else None

    async def fetch_inline(self) -> None:
        """Have an inline object's bytes, which a later write removes at once. Raises SupersededError."""
        body = self.version.body
        if body is not None and not body.count and body.id not in self._bodies:
            self._bodies = {body.id: await self._body()}

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
        pieces: list[Piece] = []
        offset = 0
        for part in await self.parts():
            low, high = max(start - offset, 0), min(stop - offset, part.size)
            if low < high:
                shape = Geometry(
                    size=part.size, k=part.k, block=part.block, chunk=self._context.layout().chunk
                )
                pieces += [
                    Piece(part, shape, run, low, high) for run in shape.chunks_for(low, high)
                ]
            offset += part.size
        reader = PartsReader(self._context, self._ref, pieces, b"")
        try:
            await reader.load_first()
        except UnavailableError:
            await self._require_current()
            raise
        return reader

    async def _require_current(self) -> None:
        """Bytes that cannot be read may have been superseded and removed since the record was read."""
        try:
            state = (await self._context.table.read(self._ref)).state
        except StaleBucketError:
            # The bucket may stand all the same: whoever gets the version again finds out.
            raise SupersededError("the bucket was fenced while the version was read") from None
        if not any(version.stamp == self.version.stamp for version in state.versions):
            raise SupersededError("the version was replaced or deleted while it was read")

    async def _body(self) -> bytes:
        body = self.version.body
        assert body is not None
        data = self._bodies.get(body.id)
        if data is None:
            data = await self._context.table.read_body(self._ref, body)
        if data is None:
            await self._require_current()
            raise UnavailableError("no drive that answers has the record's body")
        return data


class PartsReader:
    """Chunks in order, each verified. While one is sent the next is read, if the budget has room for both."""

    def __init__(
        self, context: Context, ref: RegisterRef, pieces: list[Piece], ready: bytes | memoryview
    ) -> None:
        self._context, self._ref = context, ref
        self._pieces = pieces[::-1]
        self._ready: list[memoryview] | None = [memoryview(ready)] if ready else None
        self._held = 0
        self._given: list[memoryview] = []
        self._ahead: _Ahead | None = None
        self._digests: tuple[bytes, bytes | None] = (b"", None)  # of which part

    async def load_first(self) -> None:
        """Verify the first chunk."""
        try:
            self._ready = await self._load_now()
        except BaseException:
            await self.aclose()
            raise

    async def next(self) -> Sequence[memoryview] | None:
        """The next verified buffers; None: the end."""
        if self._ready is not None:
            ready, self._ready = self._ready, None
        else:
            self._release()
            ahead, self._ahead = self._ahead, None
            if ahead is not None:
                self._held = ahead.size
                ready = await ahead.result()
            elif self._pieces:
                ready = await self._load_now()
            else:
                return None
        self._look_ahead()
        self._given = ready
        return ready

    async def aclose(self) -> None:
        """Give the buffers back."""
        self._ready = None
        self._pieces = []
        self._release()
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.scope.cancel()
            self._context.buffers.unreserve(ahead.size)

    def _release(self) -> None:
        self._given.clear()  # or whoever asked would hold them while the next waits for its turn
        held, self._held = self._held, 0
        if held:
            self._context.buffers.unreserve(held)

    async def _load_now(self) -> list[memoryview]:
        piece = self._pieces.pop()
        size = _held_bytes(piece)
        await self._context.buffers.reserve(size)
        self._held = size
        return await self._load(piece)

    def _look_ahead(self) -> None:
        if self._pieces and self._context.buffers.try_reserve(_held_bytes(self._pieces[-1])):
            piece = self._pieces.pop()
            self._ahead = _Ahead(_held_bytes(piece), partial(self._load, piece))
            self._context.nursery.start_soon(self._ahead.run)

    async def _load(self, piece: Piece) -> list[memoryview]:
        reading = ChunkRead(self._context, self._ref.row, piece)
        data_id = piece.part.data_id
        known = self._digests[1] if self._digests[0] == data_id else None
        stripes, digests = await reading.run(known)
        self._digests = (data_id, digests)
        buffers: list[memoryview] = []
        at = piece.shape.stripe_range(piece.run[0])[0]
        for blocks in stripes:
            for block in blocks:
                low, high = max(piece.low - at, 0), min(piece.high - at, len(block))
                if low < high:
                    buffers.append(block[low:high])
                at += len(block)
        return buffers


class _Ahead:
    """A chunk that is read before it is asked for."""

    def __init__(self, size: int, load: Callable[[], Awaitable[list[memoryview]]]) -> None:
        self.size = size
        self.scope = trio.CancelScope()
        self._load = load
        self._done = trio.Event()
        self._buffers: list[memoryview] = []
        self._error: ClusterError | None = None

    async def run(self) -> None:
        """In the server's nursery: the errors are for whoever asks for the chunk."""
        with self.scope:
            try:
                self._buffers = await self._load()
            except ClusterError as error:
                self._error = error
            self._done.set()

    async def result(self) -> list[memoryview]:
        """The chunk's buffers, or its error."""
        try:
            await self._done.wait()
        except trio.Cancelled:
            self.scope.cancel()
            raise
        if self._error is not None:
            raise self._error
        return self._buffers


def _held_bytes(piece: Piece) -> int:
    return piece.shape.stripe_range(piece.run[-1])[1] - piece.shape.stripe_range(piece.run[0])[0]
