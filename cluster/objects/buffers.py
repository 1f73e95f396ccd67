"""Buffers under one budget: whoever asks first is served first, and nobody waits while holding what others wait for."""

from collections import deque

import trio

_KEPT = 8  # free buffers kept per size


class BufferPool:
    """Hands out byte buffers whose sum never exceeds `budget` bytes."""

    def __init__(self, budget: int) -> None:
        self._left = budget
        self._budget = budget
        self._waiting: deque[tuple[int, trio.Event]] = deque()
        self._free: dict[int, list[bytearray]] = {}

    @property
    def used(self) -> int:
        """Bytes of the budget that are taken."""
        return self._budget - self._left

    async def acquire(self, size: int) -> memoryview:
        """A buffer; waits for its turn. Hold none while waiting."""
        await self.reserve(size)
        return self._take(size)

    def try_acquire(self, size: int) -> memoryview | None:
        """A buffer if there is room and nobody waits."""
        return self._take(size) if self.try_reserve(size) else None

    def release(self, buffer: memoryview) -> None:
        """Give a buffer back, with its share of the budget."""
        self.recycle(buffer)
        self.unreserve(len(buffer))

    def recycle(self, buffer: memoryview) -> None:
        """Give the buffer back, while its share of the budget stays taken."""
        kept = self._free.setdefault(len(buffer), [])
        if len(kept) < _KEPT and isinstance(buffer.obj, bytearray):
            kept.append(buffer.obj)

    async def reserve(self, size: int) -> None:
        """Take bytes of the budget without a buffer."""
        assert size <= self._budget
        if self.try_reserve(size):
            return
        turn = (size, trio.Event())
        self._waiting.append(turn)
        try:
            await turn[1].wait()
        except trio.Cancelled:
            if turn in self._waiting:
                self._waiting.remove(turn)
                self._serve()
            else:
                self.unreserve(size)
            raise

    def try_reserve(self, size: int) -> bool:
        """Take bytes of the budget if they are there and nobody waits."""
        if self._waiting or size > self._left:
            return False
        self._left -= size
        return True

    def unreserve(self, size: int) -> None:
        """Give bytes back."""
        self._left += size
        assert self._left <= self._budget
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._left:
            size, turn = self._waiting.popleft()
            self._left -= size
            turn.set()

    def _take(self, size: int) -> memoryview:
        kept = self._free.get(size)
        return memoryview(kept.pop() if kept else bytearray(size))


class Lease:
    """A share of the budget that several hold together: given back when the last lets go. The maker holds it too."""

    __slots__ = ("_holders", "_pool", "_size")

    def __init__(self, pool: BufferPool, size: int) -> None:
        self._pool, self._size, self._holders = pool, size, 1

    def hold(self) -> None:
        """One more holder."""
        self._holders += 1

    def release(self) -> None:
        """One holder less."""
        self._holders -= 1
        if not self._holders:
            self._pool.unreserve(self._size)
