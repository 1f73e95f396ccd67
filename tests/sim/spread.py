"""Several erasure sets over several nodes in virtual time: stores on every node, drives behind a network or beside them."""

from random import Random

import attrs
import trio

from cluster.core import Core, CoreSettings
from cluster.drives.drive import DriveError
from cluster.drives.memory_drive import MemoryDrive
from cluster.drives.remote_node import PeerSettings
from cluster.erasure.codec import CODEC
from cluster.erasure.profile import Profile
from cluster.healing.settings import HealingSettings
from cluster.ids import ClusterId, DriveId, NodeId
from cluster.layout import Layout, Node
from cluster.metadata.commit import TableSettings
from cluster.objects.away import AwaySettings
from cluster.objects.context import ObjectSettings
from cluster.register.acceptor import Limits
from cluster.topology.formation import form_sets
from cluster.transport.base import PeerDownError
from tests.sim.network import LinkSettings, SimNetwork
from tests.sim.run import SimRuntime

CLUSTER = ClusterId(b"c" * 16)
DRIVES_A_SET = 32  # numbers kept apart


@attrs.define(kw_only=True)
class Plan:
    """What a world is made of."""

    profile: Profile = attrs.field(factory=lambda: Profile(4, 2))
    nodes: int = 3
    sets: int = 1
    links: LinkSettings = attrs.field(factory=LinkSettings)
    objects: ObjectSettings = attrs.field(factory=ObjectSettings)
    table: TableSettings = attrs.field(factory=TableSettings)
    away: AwaySettings = attrs.field(factory=AwaySettings)
    healing: HealingSettings = attrs.field(factory=HealingSettings)
    limits: Limits = attrs.field(factory=Limits)
    grace_ms: int = 5_000


class Spread:
    """The nodes, their drives, and the network. Position p of every set is on node p modulo the nodes, plus one."""

    def __init__(self, rng: Random, nursery: trio.Nursery, plan: Plan, say=lambda *_: None) -> None:
        self.rng, self.nursery, self.plan, self.say = rng, nursery, plan, say
        self.nodes = [NodeId(number) for number in range(1, plan.nodes + 1)]
        self.runtime = SimRuntime(Random(rng.getrandbits(64)))
        self.bare = [
            [self._drive(set_id, position) for position in range(plan.profile.n)]
            for set_id in range(plan.sets)
        ]
        places = [
            (drive.drive_id, self.node_of(drive.drive_id), set_id, position)
            for set_id, drives in enumerate(self.bare)
            for position, drive in enumerate(drives)
        ]
        self.layout = Layout(
            epoch=1, cluster=CLUSTER, nodes=tuple(Node(node, f"n{node}") for node in self.nodes),
            sets=form_sets(places, plan.profile), system_set=0, k=plan.profile.k, m=plan.profile.m,
            codec=CODEC,
        )  # fmt: skip
        self.network = SimNetwork(Random(rng.getrandbits(64)), nursery, plan.links, say)
        self.lives: dict[NodeId, Life] = {}
        for node in self.nodes:
            self.start(node)

    def _drive(self, set_id: int, position: int) -> MemoryDrive:
        return MemoryDrive(
            DriveId(bytes([set_id * DRIVES_A_SET + position]) * 16), self.runtime, self.nursery,
            set_id=set_id, position=position, limits=self.plan.limits, grace_ms=self.plan.grace_ms,
        )  # fmt: skip

    def node_of(self, drive: DriveId) -> NodeId:
        return self.nodes[drive[0] % DRIVES_A_SET % len(self.nodes)]

    def drives_on(self, node: NodeId) -> list[MemoryDrive]:
        return [d for drives in self.bare for d in drives if self.node_of(d.drive_id) == node]

    def start(self, node: NodeId) -> "Life":
        self.say("start", node)
        self.lives[node] = Life(self, node)
        self.nursery.start_soon(self.lives[node].run)
        return self.lives[node]

    def crash(self, node: NodeId) -> None:
        """Process and power: what was pending on the node's drives is lost."""
        self.say("crash", node)
        self.lives[node].die()
        self.network.crash(node)
        for drive in self.drives_on(node):
            drive.crash()

    def cut_off(self, node: NodeId) -> None:
        self.say("cut off", node)
        for other in self.nodes:
            if other != node:
                self.network.partition(node, other)

    async def settle(self) -> None:
        """Until every node sees every other."""
        for life in self.lives.values():
            for peer in self.nodes:
                if peer != life.node:
                    with trio.fail_after(60):
                        await life.core.peers.node(peer).wait_up()


class Life:
    """One process of a node: what it does after its death has no effect, though its tasks may still wait for deadlines."""

    def __init__(self, world: Spread, node: NodeId) -> None:
        self.world, self.node = world, node
        self.died = trio.Event()
        self._scope = trio.CancelScope()
        rng, plan = world.rng, world.plan
        self.runtime = SimRuntime(Random(rng.getrandbits(64)), offset_ms=rng.randint(-500, 500))
        self._transport = world.network.transport(node)
        own = {drive.drive_id: Face(drive, self.died) for drive in world.drives_on(node)}
        self.core = Core(
            node, world.layout, own=lambda: own, transport=self, runtime=self.runtime,
            nursery=world.nursery,
            settings=CoreSettings(
                table=plan.table, objects=plan.objects, away=plan.away, healing=plan.healing,
                peers=PeerSettings(call_seconds=5.0, ping_seconds=0.5, ping_timeout_seconds=1.0),
            ),
        )  # fmt: skip
        self.store = self.core.store

    async def open_stream(self, peer):
        """The network, as a process sees it: gone with its death."""
        if self.died.is_set():
            raise PeerDownError("we are dead")
        return await self._transport.open_stream(peer)

    async def serve(self, handler):
        await self._transport.serve(handler)

    async def run(self) -> None:
        with self._scope:
            await self.core.agreement.open()
            await self.core.run()

    def die(self) -> None:
        self.died.set()
        self._scope.cancel()


class Face:
    """A drive of the process's own node, gone with its death."""

    def __init__(self, inner, died: trio.Event) -> None:
        self._inner, self._died = inner, died

    def __getattr__(self, name):
        if self._died.is_set():
            raise DriveError("we are dead")
        found = getattr(self._inner, name)
        return Face.stages(found, self._died) if name == "open_stage" else found

    @staticmethod
    def stages(open_stage, died):
        return lambda *args: Face(open_stage(*args), died)

    @property
    def state(self):
        return self._inner.state

    def submit(self, request, reply):
        if not self._died.is_set():
            self._inner.submit(request, lambda m: None if self._died.is_set() else reply(m))

    def note_bad_shard(self, header, reason):
        if not self._died.is_set():
            self._inner.note_bad_shard(header, reason)

    def abort(self):
        self._inner.abort()


def in_a_spread(plan: Plan, work, seed: int):
    """Run `work(world)` in virtual time, when every node sees every other."""

    async def main(rng, trace):
        async with trio.open_nursery() as nursery:
            world = Spread(rng, nursery, plan, trace.say)
            await world.settle()
            await work(world)
            nursery.cancel_scope.cancel()

    return main
