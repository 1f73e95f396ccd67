"""A MemoryDrive of another node: what is asked of it goes over frames, a network, a server, and back."""

import contextlib
import random
from collections.abc import AsyncIterator
from itertools import count

import trio

from cluster.clock import HybridClock
from cluster.drives.client import RemoteDrive
from cluster.drives.remote_node import Identity, PeerSettings, RemoteNode
from cluster.drives.server import DriveServer
from cluster.ids import ClusterId, NodeId
from tests.contracts.benches import MemoryBench
from tests.sim.network import LinkSettings, SimNetwork

CLUSTER = ClusterId(b"c" * 16)
HERE, THERE = NodeId(1), NodeId(2)


class RemoteBench(MemoryBench):
    """Faults are the MemoryDrive's; the verbs are asked of a RemoteDrive."""

    def fresh(self) -> "RemoteBench":
        return RemoteBench()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[RemoteDrive]:
        async with super().open() as drive, trio.open_nursery() as nursery:
            network = SimNetwork(random.Random(1), nursery, LinkSettings(delay=0, jitter=0.0005))
            server = DriveServer(
                cluster=CLUSTER, node=THERE, epoch=lambda: 1, drives=lambda: {drive.drive_id: drive},
                clock=HybridClock(self.runtime.wall_ms, 2), runtime=self.runtime,
            )  # fmt: skip
            nursery.start_soon(network.transport(THERE).serve, server.handle)
            await trio.testing.wait_all_tasks_blocked()
            node = RemoteNode(
                network.transport(HERE), THERE,
                me=Identity(cluster=CLUSTER, node=HERE, epoch=lambda: 1, start=1),
                clock=HybridClock(self.runtime.wall_ms, 1), runtime=self.runtime, numbers=count(),
                settings=PeerSettings(call_seconds=2.0, ping_seconds=0.1),
            )  # fmt: skip
            nursery.start_soon(node.run)
            with trio.fail_after(2):
                await node.wait_up()
            remote = RemoteDrive(node, drive.drive_id)
            remote.collect = drive.collect
            yield remote
            nursery.cancel_scope.cancel()
