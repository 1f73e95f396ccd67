"""The seam to the machine: wall clock, randomness, worker threads, events.

The real side is composed in `cli.serve`; the simulator's is a number, a seeded Random, an inline call and a list.
Protocol code reads no clock and starts no thread except through this object.
"""

from collections.abc import Awaitable, Callable
from random import Random
from typing import Protocol, TypeVar

T = TypeVar("T")


class Runtime(Protocol):
    """What protocol code may know of the machine it runs on."""

    @property
    def rng(self) -> Random:
        """Random numbers: SystemRandom, or seeded in the simulator."""
        ...

    def wall_ms(self) -> int:
        """Milliseconds since 1970 by the wall clock, which may jump."""
        ...

    def offload(self, work: Callable[[], T]) -> Awaitable[T]:
        """Run CPU-bound work, or work on no drive that is open, off the Trio thread (in line in the simulator)."""
        ...

    def emit(self, event: object) -> None:
        """Tell whoever listens (log, metrics, healing) that something happened. Never blocks, never raises."""
        ...
