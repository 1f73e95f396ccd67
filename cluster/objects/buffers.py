"""Buffers under one budget: whoever asks first is served first, and nobody waits while holding what others wait for."""

from collections import deque
from collections.abc import Callable

import trio


class BufferPool:
    """Hands out byte buffers whose sum never exceeds `budget` bytes.

    Free ones are kept for the next: at most a quarter of the budget, and in it, but for the buffer that changes hands.
    """

    def __init__(self, budget: int) -> None:
        self._left = budget
        self._budget = budget
        self._waiting: deque[tuple[int, int, trio.Event]] = deque()
        self._free: dict[int, list[bytearray]] = {}
        self._kept = 0  # bytes of the free ones
        self._willing: dict[object, Callable[[], None]] = {}  # oldest first

    @property
    def used(self) -> int:
        """Bytes of the budget that are taken."""
        return self._budget - self._left

    async def lease(self, size: int, beside: int = 0) -> "Lease":
        """A buffer, and room for as many bytes beside it; waits for its turn. Hold none while waiting."""
        await self._reserve(size + beside, size)
        return Lease(self, self._take(size), beside)

    def try_lease(self, size: int, beside: int = 0) -> "Lease | None":
        """The same, if there is room and nobody waits."""
        taken = self._try_or_ask(size + beside, size)
        return Lease(self, self._take(size), beside) if taken else None

    def hold_until_asked(self, holder: object, let_go: Callable[[], None]) -> None:
        """Leases of `holder` are only good for something as long as nobody else needs them: then `let_go` is called, once.

        `forget` the holder when it holds none any more.
        """
        if self._waiting:
            let_go()
        else:
            self._willing[holder] = let_go

    def forget(self, holder: object) -> None:
        """The holder holds nothing that it could let go."""
        self._willing.pop(holder, None)

    def recycle(self, buffer: memoryview) -> None:
        """Keep a buffer for the next who asks; its share of the budget is given back apart."""
        assert isinstance(buffer.obj, bytearray)
        if self._kept + len(buffer) > self._budget // 4:
            return
        self._free.setdefault(len(buffer), []).append(buffer.obj)
        self._kept += len(buffer)

    async def reserve(self, size: int) -> None:
        """Take bytes of the budget without a buffer."""
        await self._reserve(size, 0)

    async def _reserve(self, size: int, reused: int) -> None:
        assert size <= self._budget
        if self._try_or_ask(size, reused):
            return
        turn = (size, reused, trio.Event())
        self._waiting.append(turn)
        try:
            await turn[2].wait()
        except trio.Cancelled:
            if turn in self._waiting:
                self._waiting.remove(turn)
                self._serve()
            else:
                self.unreserve(size)
            raise

    def try_reserve(self, size: int) -> bool:
        """Take bytes of the budget if they are there and nobody waits."""
        return self._try_reserve(size, 0)

    def _try_or_ask(self, size: int, reused: int) -> bool:
        """Take bytes of the budget; where they are not there, the oldest of those who can let go has to."""
        while not self._try_reserve(size, reused):
            if not self._willing:
                return False
            self._willing.pop(next(iter(self._willing)))()
        return True

    def _try_reserve(self, size: int, reused: int) -> bool:
        if self._waiting or size > self._left:
            return False
        self._spend(size, reused)
        return True

    def unreserve(self, size: int) -> None:
        """Give bytes back."""
        self._left += size
        assert self._left <= self._budget
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._left:
            size, reused, turn = self._waiting.popleft()
            self._spend(size, reused)
            turn.set()

    def _spend(self, size: int, reused: int) -> None:
        """Take bytes of the budget, and room from the free buffers, but for one of `reused` bytes: it is taken next."""
        self._left -= size
        while self._kept - reused > self._left:
            largest = max(self._free)
            self._kept -= len(self._free[largest].pop())
            if not self._free[largest]:
                del self._free[largest]

    def _take(self, size: int) -> memoryview:
        kept = self._free.get(size)
        if not kept:
            return memoryview(bytearray(size))
        self._kept -= size
        buffer = kept.pop()
        if not kept:
            del self._free[size]
        return memoryview(buffer)


class Lease:
    """A buffer that several hold together: it can be used again when the last lets go. The maker holds it too."""

    __slots__ = ("_beside", "_holders", "_pool", "_reusable", "buffer")

    def __init__(self, pool: BufferPool, buffer: memoryview, beside: int) -> None:
        self.buffer = buffer
        self._pool, self._beside = pool, beside
        self._holders, self._reusable = 1, True

    def hold(self) -> None:
        """One more holder."""
        self._holders += 1

    def release(self) -> None:
        """One holder less."""
        self._holders -= 1
        if not self._holders:
            if self._reusable:
                self._pool.recycle(self.buffer)
            self._pool.unreserve(len(self.buffer) + self._beside)

    def forfeit(self) -> None:
        """One holder less, who cannot stop reading: a write that hangs in a thread. The buffer is not used again."""
        self._reusable = False
        self.release()
