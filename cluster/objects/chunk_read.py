"""One chunk of a body from any k of its n shards: each block's CRC and each stripe's digest is checked.

The nearest drives are asked first, those that have been slow last. One read that is late is joined by another, if the budget for
that allows; reads that stall are, whatever it costs.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import combinations, islice
from operator import itemgetter

import attrs
import trio
import xxhash

from cluster.drives.drive import DriveError, ShardMissingError
from cluster.drives.nearness import order
from cluster.erasure.codec import codec_for
from cluster.erasure.geometry import Geometry
from cluster.erasure.shard_format import DIGEST_BYTES, ShardHeader, digest_root
from cluster.errors import CorruptError, UnavailableError
from cluster.ids import RowKey
from cluster.objects.context import SMALL_WORK, Context
from cluster.register.records import Part

MOST_COMBINATIONS = 500
Plain = list[list[memoryview]]  # per stripe, its plaintext in pieces


@attrs.frozen
class Piece:
    """At most one chunk of one part, and which bytes of the part are wanted."""

    part: Part
    shape: Geometry
    run: range
    low: int
    high: int


class ChunkRead:
    """k shards, data first; parity joins when one is missing, damaged or slow."""

    def __init__(self, context: Context, owner: RowKey, piece: Piece) -> None:
        part = piece.part
        self._context, self._piece = context, piece
        self._drives = context.drives_of(part.set_id)
        self._headers = [
            ShardHeader(
                data_id=part.data_id, owner=owner, position=position, k=part.k, m=part.m,
                block=part.block, codec=part.codec,
            )
            for position in range(part.k + part.m)
        ]  # fmt: skip
        self._lengths = piece.shape.block_lengths(piece.run.start, piece.run.stop)
        self._got: dict[int, Sequence[memoryview]] = {}
        self._times = context.read_times
        self._left = self._by_nearness()  # positions whose blocks have not been asked for
        self._left_digests = list(self._left)
        self._open: set[int] = set()  # positions being asked for blocks, and for digests
        self._open_digests: set[int] = set()
        # A chunk that is the whole part proves itself: the record has the root over its digests.
        self._is_whole = piece.run == range(piece.shape.stripes)
        self._digests: bytes | None = None
        self._missing: list[int] = []
        self._changed = trio.Event()
        self._scopes: list[trio.CancelScope] = []

    def _by_nearness(self) -> list[int]:
        staged, drives, times = self._piece.part.staged, self._drives, self._times
        nearest = order(drives, range(len(drives)))
        if times.are_alike and staged == (1 << len(drives)) - 1:
            return list(nearest)
        now = trio.current_time()
        ranked = [(not staged >> p & 1, times.is_slow(drives[p].drive_id, now), p) for p in nearest]
        ranked.sort(key=itemgetter(0, 1))
        return [p for _, _, p in ranked]

    async def run(self, digests: bytes | None) -> tuple[Plain, bytes | None]:
        """The verified plaintext, and the part's stripe digests where they were needed or given.

        Raises UnavailableError, CorruptError.
        """
        self._digests = digests
        k = self._piece.part.k
        await self._gather(k)
        work = partial(self._assemble, sorted(self._got)[:k])
        small = sum(self._lengths) * k <= SMALL_WORK
        plain = work() if small else await self._context.runtime.offload(work)
        if plain is None:
            plain = await self._search()
        for position in self._missing:
            self._drives[position].note_bad_shard(self._headers[position], "missing")
        return plain, self._digests

    async def _search(self) -> Plain:
        """Some shard has wrong bytes with right CRCs: find k that give what the digests say."""
        await self._gather(len(self._headers))
        for chosen in islice(
            combinations(sorted(self._got), self._piece.part.k), MOST_COMBINATIONS
        ):
            choice = list(chosen)
            plain = await self._context.runtime.offload(partial(self._assemble, choice))
            if plain is not None:
                wrong = await self._context.runtime.offload(partial(self._find_wrong, choice))
                for position in wrong:
                    self._drives[position].note_bad_shard(self._headers[position], "wrong bytes")
                return plain
        raise CorruptError("the object's shards do not give its bytes")

    async def _gather(self, wanted: int) -> None:
        """Blocks of `wanted` positions, or of as many as can be had; at least k, and the digests."""
        settings, needed = self._context.settings, self._piece.part.k
        now = trio.current_time()
        give_up, hedge_at = now + settings.stage_seconds, now + self._times.delay
        try:
            self._start(wanted)
            while len(self._got) < wanted or self._lacks_digests:
                if not self._open and not (self._lacks_digests and self._open_digests):
                    break
                self._changed = trio.Event()
                stalled_at = trio.current_time() + settings.stall_seconds
                with trio.CancelScope(deadline=min(hedge_at, stalled_at)) as late:
                    await self._changed.wait()
                if late.cancelled_caught and hedge_at < stalled_at:
                    hedge_at = math.inf
                    self._hedge()
                elif late.cancelled_caught and not self._start_more():
                    enough = len(self._got) >= needed and not self._lacks_digests
                    if enough or trio.current_time() > give_up:
                        break
                self._start(wanted)
        finally:
            for scope in self._scopes:
                scope.cancel()
            self._scopes.clear()
            self._left += sorted(self._open)  # whoever gathers again may have more luck
            self._open.clear()
            self._open_digests.clear()
        if len(self._got) < needed or self._lacks_digests:
            raise UnavailableError(f"{len(self._got)} of {needed} needed shards can be read")

    @property
    def _lacks_digests(self) -> bool:
        return self._digests is None and not self._is_whole

    def _start(self, wanted: int) -> None:
        while self._left and len(self._got) + len(self._open) < wanted:
            self._start_blocks()
        if self._lacks_digests and not self._open_digests and self._left_digests:
            self._start_digests()

    def _start_more(self) -> bool:
        """What is late is joined by one more of its kind; False: there is none."""
        started = False
        if self._open and self._left:
            self._start_blocks()
            started = True
        if self._lacks_digests and self._left_digests:
            self._start_digests()
            started = True
        return started

    def _hedge(self) -> None:
        """One more of what is late, from another node than it comes from, if there is one."""
        if self._open and self._left:
            if self._times.try_double():
                self._start_blocks(self._elsewhere(self._left, self._open))
        elif self._lacks_digests and self._left_digests and self._times.try_double():
            self._start_digests(self._elsewhere(self._left_digests, self._open_digests))

    def _elsewhere(self, choices: list[int], asked: set[int]) -> int:
        seats = self._context.layout().erasure_set(self._piece.part.set_id).positions
        nodes = {seats[position].node for position in asked}
        return next((i for i, p in enumerate(choices) if seats[p].node not in nodes), 0)

    def _start_blocks(self, choice: int = 0) -> None:
        position = self._left.pop(choice)
        self._open.add(position)
        self._times.note_start()
        self._spawn(partial(self._read, position))

    def _start_digests(self, choice: int = 0) -> None:
        position = self._left_digests.pop(choice)
        self._open_digests.add(position)
        self._spawn(partial(self._read_digests, position))

    def _spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        # In the server's nursery: a read that hangs in a worker thread cannot be cancelled, and must not be waited for.
        scope = trio.CancelScope()
        self._scopes.append(scope)

        async def run() -> None:
            with scope:
                await work()

        self._context.nursery.start_soon(run)

    async def _read(self, position: int) -> None:
        drive, begun = self._drives[position], trio.current_time()
        try:
            self._got[position] = await drive.read_blocks(
                self._headers[position], self._piece.run.start, self._lengths
            )
            now = trio.current_time()
            self._times.note(drive.drive_id, now - begun, now)
        except trio.Cancelled:
            now = trio.current_time()
            self._times.note_given_up(drive.drive_id, now - begun, now)
            raise
        except ShardMissingError:
            self._missing.append(position)
        except DriveError:
            pass  # the drive has noted what is damaged
        self._open.discard(position)
        self._changed.set()

    async def _read_digests(self, position: int) -> None:
        header, part = self._headers[position], self._piece.part
        try:
            found = await self._drives[position].read_digests(header, self._piece.shape.stripes)
        except DriveError:
            found = None
        if found is not None and digest_root(found) == part.digest_root:
            self._digests = found
        elif found is not None:
            self._drives[position].note_bad_shard(header, "digests differ")
        self._open_digests.discard(position)
        self._changed.set()

    def _assemble(self, chosen: list[int]) -> Plain | None:
        piece, part = self._piece, self._piece.part
        codec = codec_for(part.k, part.m, part.codec)
        has_data = chosen == list(range(part.k))
        stripes: Plain = []
        found: list[bytes] = []
        for index, stripe in enumerate(piece.run):
            start, stop = piece.shape.stripe_range(stripe)
            if has_data:
                plain = _cut([self._got[position][index] for position in chosen], stop - start)
            else:
                blocks = {position: self._got[position][index] for position in chosen}
                joined = codec.decode(blocks, self._lengths[index])
                plain = [memoryview(joined)[: stop - start]]
            found.append(_digest(plain))
            stripes.append(plain)
        return stripes if self._is_right(b"".join(found)) else None

    def _is_right(self, found: bytes) -> bool:
        if self._digests is None:
            return digest_root(found) == self._piece.part.digest_root
        run = self._piece.run
        return found == self._digests[DIGEST_BYTES * run.start : DIGEST_BYTES * run.stop]

    def _find_wrong(self, chosen: list[int]) -> list[int]:
        part = self._piece.part
        codec = codec_for(part.k, part.m, part.codec)
        others = [position for position in self._got if position not in chosen]
        wrong: set[int] = set()
        for index, length in enumerate(self._lengths):
            blocks = {p: self._got[p][index] for p in chosen}
            rebuilt = codec.rebuild(blocks, length, others)
            wrong |= {
                p for p, data in zip(others, rebuilt, strict=True) if data != self._got[p][index]
            }
        return sorted(wrong)


def _cut(blocks: Sequence[memoryview], size: int) -> list[memoryview]:
    """The first `size` bytes: the last stripe's blocks are padded to equal length."""
    pieces: list[memoryview] = []
    for block in blocks:
        pieces.append(block[:size])
        size -= len(pieces[-1])
    return pieces


def _digest(pieces: Sequence[memoryview]) -> bytes:
    digest = xxhash.xxh3_128()
    for piece in pieces:
        digest.update(piece)
    return digest.digest()
