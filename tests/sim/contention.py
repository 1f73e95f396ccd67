"""Many writers of one key, through one node or through all: `python -m tests.sim.contention` prints what that comes to.

Virtual time: 0.5 ms from node to node, 3 ms for a commit, as in a rack with flash drives.
"""

from itertools import count

import attrs
import trio

from cluster.errors import ClusterError
from tests.sim.cluster import NODES
from tests.sim.content import put_request
from tests.sim.quiet import quiet_world
from tests.sim.run import simulate

SECONDS = 10


@attrs.define
class Contention:
    """What the writers of a run saw: seconds of each write that was acknowledged, and errors."""

    took: list[float] = attrs.field(factory=list)
    errors: list[str] = attrs.field(factory=list)

    def percentile(self, share):
        """Seconds."""
        return sorted(self.took)[int(len(self.took) * share)]


def contend(writers, nodes, *, seconds=SECONDS, seed=1):
    """PUT after PUT of one key by each writer, through these nodes in turn."""
    result = Contention()

    async def main(rng, trace):
        numbers = count(1)
        async with quiet_world(rng, trace, delay=0.0005, commit=0.003, read=0.0001) as found:
            world, bucket = found
            end = trio.current_time() + seconds

            async def write(store):
                while (begun := trio.current_time()) < end:
                    try:
                        await store.put(bucket, b"hot", put_request((next(numbers), 100), rng))
                        result.took.append(trio.current_time() - begun)
                    except ClusterError as error:
                        result.errors.append(type(error).__name__)
                        await trio.sleep(0.01)

            async with trio.open_nursery() as clients:
                for number in range(writers):
                    clients.start_soon(write, world.processes[nodes[number % len(nodes)]].store)

    simulate(main, seed=seed)
    return result


def main():
    """The table of docs/adr/0010."""
    print("writers  nodes  writes/s  p50 ms  p99 ms  max ms  errors")
    for writers in (1, 3, 6, 24):
        for nodes in (NODES[:1], NODES):
            seen = contend(writers, nodes)
            p50, p99, worst = (1000 * seen.percentile(p) for p in (0.5, 0.99, 0.99999))
            print(
                f"{writers:7} {len(nodes):6} {len(seen.took) / SECONDS:9.0f} {p50:7.1f} {p99:7.1f} "
                f"{worst:7.1f} {len(seen.errors):7}"
            )


if __name__ == "__main__":
    main()
