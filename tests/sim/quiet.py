"""The cluster without faults, where every message, commit and read takes a given time: for what is counted and measured."""

import math
from contextlib import asynccontextmanager

import trio

from tests.sim.cluster import NODES, ClusterWorld
from tests.sim.network import LinkSettings


class QuietWorld(ClusterWorld):
    """All settings as usual, but that no node reads a register unasked."""

    shares = (0.0,)
    layout_seconds = math.inf


@asynccontextmanager
async def quiet_world(rng, trace, *, delay, commit, read=0.0):
    """A world whose nodes see each other, and a bucket. Seconds; what else happens takes no time at all."""
    async with trio.open_nursery() as nursery:
        world = QuietWorld(rng, nursery, trace)
        links = LinkSettings(delay=delay, jitter=0.0, bandwidth=1e15)
        world.network.settings = links
        for one in NODES:
            for other in NODES:
                world.network.link(one, other).settings = links
        for drive in world.drives:
            drive.faults.commit_seconds, drive.faults.read_seconds = commit, read
        await world.settle()
        bucket = await world.processes[NODES[0]].store.create_bucket("sim", "root", b"")
        await trio.sleep(2)  # whoever promised first has made its ceiling durable for a while
        yield world, bucket
        nursery.cancel_scope.cancel()
