"""The one way into virtual time: same seed, same run.

Trio's scheduler shuffles each batch of runnable tasks with a private Random; re-seeding it (as hypothesis-trio does)
and running under a MockClock that jumps makes a run a function of its seed. Inside there is no thread, no socket and
no clock (seal.py sees to that): `SimRuntime.offload` runs in line and `wall_ms` is virtual.
"""

import hashlib
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, TypeVar

import attrs
import trio
import trio._core._run as trio_run
import trio.testing

from tests.sim.seal import sealed

T = TypeVar("T")
EPOCH_MS = 1_750_000_000_000


@attrs.define
class Calendar:
    """What all wall clocks of a world go by: days can pass at once, while whatever waits for seconds goes on waiting."""

    leapt_ms: int = 0

    def leap(self, hours: float) -> None:
        """Time passes for everybody's wall clock."""
        self.leapt_ms += int(hours * 3_600_000)


@attrs.define
class SimRuntime:
    """cluster.runtime.Runtime in virtual time: one node's clock with its offset and drift, a seeded Random, a list of events."""

    rng: Random
    offset_ms: int = 0
    events: list[object] = attrs.field(factory=list)
    drift: float = 0.0  # the share by which the clock runs fast
    calendar: Calendar = attrs.field(factory=Calendar)

    def wall_ms(self) -> int:
        gone = int(trio.current_time() * 1000 * (1 + self.drift))
        return EPOCH_MS + gone + self.offset_ms + self.calendar.leapt_ms

    async def offload(self, work: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        return work()

    def emit(self, event: object) -> None:
        self.events.append(event)


@attrs.define
class Trace:
    """What happened, in order, hashed: two runs of one seed must give one hash, and a person can read the lines."""

    lines: list[str] = attrs.field(factory=list)

    def say(self, *words: object) -> None:
        self.lines.append(f"{trio.current_time():9.3f}  " + " ".join(map(str, words)))

    @property
    def digest(self) -> str:
        return hashlib.blake2b("\n".join(self.lines).encode(), digest_size=16).hexdigest()


def simulate(
    main: Callable[[Random, Trace], Awaitable[Any]], *, seed: int, limit: float = 1_000.0
) -> Trace:
    """Run `main(rng, trace)` in virtual time, at most `limit` virtual seconds."""
    trace = Trace()

    async def bounded() -> None:
        with trio.fail_after(limit):
            with sealed():
                await main(Random(seed), trace)

    previous_state = trio_run._r.getstate()
    previous_switch = trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True
    trio_run._r.seed(seed)
    try:
        # An absolute start of 0: MockClock's own start is arbitrary but fixed by us, so traces carry equal times.
        trio.run(bounded, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = previous_switch
        trio_run._r.setstate(previous_state)
    return trace
