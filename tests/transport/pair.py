"""Two nodes in virtual time: one that asks, and one with two drives that answers."""

from itertools import count
from random import Random

import attrs
import trio

from cluster.clock import HybridClock
from cluster.drives.client import RemoteDrive
from cluster.drives.memory_drive import MemoryDrive
from cluster.drives.remote_node import Identity, RemoteNode
from cluster.drives.server import DriveServer
from cluster.ids import BucketId, ClusterId, DriveId, NodeId
from cluster.membership.messages import HeartbeatError
from cluster.register.keys import object_row
from cluster.register.messages import (
    Query,
)
from cluster.wire import MAX_AHEAD_MS
from tests.sim.network import SimNetwork
from tests.sim.run import SimRuntime, simulate

CLUSTER = ClusterId(b"c" * 16)
HERE, THERE = NodeId(1), NodeId(2)
ROW = object_row(BucketId(b"b" * 16), b"key")
QUERY = Query(row=ROW, epoch=1, bucket_epoch=0)


@attrs.define
class Pair:
    """A node that asks, and one with two drives that answers."""

    network: SimNetwork
    nursery: trio.Nursery
    bare: list[MemoryDrive]
    server: DriveServer
    node: RemoteNode
    drives: list[RemoteDrive]
    here: SimRuntime
    there: SimRuntime
    here_clock: HybridClock
    there_clock: HybridClock
    epochs: dict[NodeId, int]
    peer: "Peer"

    def caller(self, **changes):
        """A node like ours, but."""
        me = Identity(cluster=CLUSTER, node=HERE, epoch=lambda: self.epochs[HERE], start=2)
        return RemoteNode(
            self.network.transport(HERE), THERE, me=attrs.evolve(me, **changes),
            clock=self.here_clock, runtime=self.here, numbers=count(),
        )  # fmt: skip


def between_two_nodes(*, ahead_ms=0, links=None, settings=None, bounds=None):
    """A test in virtual time with a Pair whose asking node's wall clock is so far ahead."""

    def decorate(test):
        def run():
            async def main(rng, trace):
                async with trio.open_nursery() as nursery:
                    pair = open_pair(rng, nursery, ahead_ms, links, settings, bounds)
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.start_soon(pair.node.run)
                    if ahead_ms <= MAX_AHEAD_MS:
                        await pair.node.wait_up()
                    await test(pair)
                    nursery.cancel_scope.cancel()

            simulate(main, seed=1, limit=10_000)

        run.__name__ = test.__name__
        return run

    return decorate


def open_pair(rng, nursery, ahead_ms, links, settings, bounds):
    network = SimNetwork(rng, nursery, links)
    here, there = SimRuntime(Random(1), offset_ms=ahead_ms), SimRuntime(Random(2))
    here_clock, there_clock = HybridClock(here.wall_ms, 1), HybridClock(there.wall_ms, 2)
    epochs, peer = {HERE: 1, THERE: 1}, Peer()
    bare = [MemoryDrive(DriveId(bytes([i]) * 16), there, nursery, position=i) for i in range(2)]
    server = DriveServer(
        cluster=CLUSTER, node=THERE, epoch=lambda: epochs[THERE], runtime=there, clock=there_clock,
        drives=lambda: {drive.drive_id: drive for drive in bare}, settings=bounds,
        is_member=peer.members.__contains__, on_newer=peer.newer[THERE].add, on_gossip=peer.gossip,
    )  # fmt: skip
    nursery.start_soon(network.transport(THERE).serve, server.handle)
    node = RemoteNode(
        network.transport(HERE), THERE, clock=here_clock, runtime=here, numbers=count(), settings=settings,
        me=Identity(
            cluster=CLUSTER, node=HERE, epoch=lambda: epochs[HERE], start=1, on_newer=peer.newer[HERE].add
        ),
    )  # fmt: skip
    drives = [RemoteDrive(node, drive.drive_id, position=i) for i, drive in enumerate(bare)]
    return Pair(
        network,
        nursery,
        bare,
        server,
        node,
        drives,
        here,
        there,
        here_clock,
        there_clock,
        epochs,
        peer,
    )


@attrs.define
class Peer:
    """What the nodes are told beside calls, and what the answering one says."""

    members: set[NodeId] = attrs.field(factory=lambda: {HERE, THERE})
    newer: dict[NodeId, set[NodeId]] = attrs.field(factory=lambda: {HERE: set(), THERE: set()})
    heard: list[tuple[NodeId, bytes]] = attrs.field(factory=list)

    async def gossip(self, sender, data):
        self.heard.append((sender, data))
        if data == b"junk":
            raise HeartbeatError("junk")
        return b"answer"


class Answers(list):
    """Replies as they come."""

    def __init__(self):
        self.more = trio.Event()

    def __call__(self, reply):
        self.append(reply)
        self.more.set()

    async def first(self, seconds=10):
        with trio.fail_after(seconds):
            await self.more.wait()
        return self[0]


async def ask(drive, request=QUERY):
    answers = Answers()
    drive.submit(request, answers)
    return await answers.first()
