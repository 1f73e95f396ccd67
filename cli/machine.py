"""The real side of cluster.runtime: clock, randomness, threads, and the log as the listener of events."""

import ctypes
import gc
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio

T = TypeVar("T")
_THREADS = 8  # for what needs the processor, mostly: drives have their own
_M_ARENA_MAX = -8  # <malloc.h>


def share_arenas() -> None:
    """Let all threads allocate from two heaps, where the C library is glibc.

    It gives every thread a heap of its own, which keeps what it held at its peak: a fifth of the node's memory.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 2)


def calm_collector() -> None:
    """Let the cycle collector run after tens of thousands of new objects instead of hundreds, and never over what was loaded.

    A page of a listing makes ten thousand objects, of which none is a cycle; looking for some took a fifth of its time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@contextmanager
def deadline(seconds: float, message: str) -> Iterator[None]:
    """End the process with status 1 where the block takes longer: a thread that hangs in the kernel cannot be waited for.

    Whatever was acknowledged is durable; the next start takes it up like after a crash.
    """

    def end() -> None:
        print(message, file=sys.stderr, flush=True)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Machine:
    """cluster.runtime.Runtime on this machine."""

    def __init__(self, listener: Callable[[object], None]) -> None:
        self.rng: random.Random = random.SystemRandom()
        self._listener = listener
        self._threads = trio.CapacityLimiter(_THREADS)

    def wall_ms(self) -> int:
        """See Runtime."""
        return time.time_ns() // 1_000_000

    async def offload(self, work: Callable[[], T]) -> T:
        """See Runtime."""
        return await trio.to_thread.run_sync(work, limiter=self._threads)

    def emit(self, event: object) -> None:
        """See Runtime."""
        self._listener(event)

    @staticmethod
    def now() -> float:
        """Seconds since 1970."""
        return time.time()
