"""What the simulator found in the store, each as a scenario of its own."""

import pytest
import trio

from cluster.errors import ClusterError
from cluster.objects.model import PutRequest, Seal
from tests.sim.run import simulate
from tests.sim.single_node import SingleNode

pytestmark = pytest.mark.sim


def test_drives_that_break_under_a_body_fail_the_put_and_nothing_else():
    """The reader of the body, whose chunks nobody takes any more, has no say in why it failed."""

    async def main(rng, trace):
        async with trio.open_nursery() as nursery:
            world = SingleNode(rng, nursery, trace)
            store = world.coordinator(nursery)
            bucket = await store.create_bucket("sim", "1", b"")
            chunk = max(world.layout.chunk, world.layout.k * world.layout.block)

            class Source:
                size_hint, given = None, 0

                async def readinto(self, buffer):
                    for _ in range(rng.randrange(20)):
                        await trio.lowlevel.checkpoint()
                    self.given += len(buffer)
                    if self.given > 2 * chunk:
                        for drive in world.drives:
                            drive.fail("broken")
                    return len(buffer)

            seal = Seal(validator="v", attributes=b"")
            with pytest.raises(ClusterError):
                await store.put(bucket, b"key", PutRequest(source=Source(), seal=lambda _: seal))
            nursery.cancel_scope.cancel()

    for seed in range(20, 50):
        simulate(main, seed=seed)
