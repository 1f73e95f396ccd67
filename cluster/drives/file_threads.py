"""File work of one drive in worker threads: bounded, watched, and given up when the drive is.

A system call on a dying disk may never return, and no thread can be stopped. So whoever waits for one can always be let go,
and the bound is the drive's own: threads that hang on one disk take none from the others.
"""

import itertools
from collections.abc import Callable
from typing import TypeVar

import trio

from cluster.drives.drive import DriveError

T = TypeVar("T")
THREADS = 8  # of one drive: enough for a disk to sort its requests


class FileThreads:
    """`run` is cancelled at once; the thread then ends by itself, or never does."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(THREADS)
        self._numbers = itertools.count()
        self._running: set[int] = set()  # changed by the threads, copied to be looked through
        self._seen: dict[int, float] = {}  # since when
        self._waiting: set[trio.CancelScope] = set()
        self._failed = ""

    async def run(self, work: Callable[[], T], *, may_take_long: bool = False) -> T:
        """Run `work` in a thread. Raises what it raises, and DriveError when the drive is given up meanwhile.

        What `may_take_long`, for its many system calls, is not watched.
        """
        number = next(self._numbers)

        def watched() -> T:
            self._running.add(number)
            try:
                return work()
            finally:
                self._running.discard(number)

        job = work if may_take_long else watched
        with trio.CancelScope() as scope:
            if self._failed:
                raise DriveError(self._failed)
            self._waiting.add(scope)
            try:
                return await trio.to_thread.run_sync(
                    job, abandon_on_cancel=True, limiter=self._limiter
                )
            finally:
                self._waiting.discard(scope)
        raise DriveError(self._failed)

    def longest(self, now: float) -> float:
        """Seconds for which the oldest work has been seen running: the answer of the first call is 0."""
        running = self._running.copy()
        self._seen = {number: self._seen.get(number, now) for number in running}
        return now - min(self._seen.values(), default=now)

    def fail(self, reason: str) -> None:
        """Let everybody go who waits; nothing more is begun."""
        self._failed = self._failed or reason
        for scope in tuple(self._waiting):
            scope.cancel()

    async def settle(self) -> None:
        """Wait for the threads that still run, those that nobody waits for included. Nothing can be run afterwards."""
        for _ in range(THREADS):
            await self._limiter.acquire_on_behalf_of(object())
