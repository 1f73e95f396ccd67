"""Three nodes with two MemoryDrives each as one 4+2 set, over the simulated network: crashes, partitions, clogs, clients."""

from random import Random

import trio

from cluster.core import Core
from cluster.drives.drive import DriveError
from cluster.drives.memory_drive import MemoryDrive
from cluster.erasure.codec import CODEC
from cluster.erasure.profile import Profile
from cluster.ids import ClusterId, DriveId, NodeId
from cluster.layout import Layout, Node
from cluster.topology.formation import form_sets
from cluster.transport.base import PeerDownError
from tests.sim.nasty import LossyFace, Nasty
from tests.sim.network import LinkSettings, SimNetwork, SimTransport
from tests.sim.oracle import Oracle
from tests.sim.run import Calendar, SimRuntime
from tests.sim.workload import Habits
from tests.sim.world import World, is_harmed

PROFILE = Profile(4, 2)
NODES = tuple(NodeId(number) for number in (1, 2, 3))
CLUSTER = ClusterId(b"c" * 16)
SPACE_SHARE = 0.1  # of the seeds look at space and equality in the end; in these no drive is harmed
FAULTS = (
    "crash", "crash", "isolate", "one-way", "one-way", "clog", "clog", "slow", "hung", "full",
    "harm", "harm", "harm", "clock", "late",
)  # fmt: skip
LASTING = ("fsync", "eio", "rot", "misdirect", "row", "row")
JUMPS_MS = (-20_000, -500, 500, 20_000)
MAX_SKEW_MS = (
    25_000  # to either side: of a peer that is a minute ahead nothing is taken (cluster.wire)
)
LINKS = {
    "calm": LinkSettings(),
    "lossy": LinkSettings(loss=0.1, jitter=0.01),
    "resetting": LinkSettings(reset=0.01, duplicate=0.05),
    "slow": LinkSettings(delay=0.02, jitter=0.05, bandwidth=2e6),
    "nasty": LinkSettings(loss=0.05, jitter=0.03, reset=0.01, duplicate=0.1, bandwidth=10e6),
}


class Process:
    """One life of a node: what it does after its death has no effect, though its tasks may still wait for deadlines."""

    def __init__(self, world: "ClusterWorld", node: NodeId, nursery: trio.Nursery) -> None:
        self.world, self.node = world, node
        self.died = trio.Event()
        self.scope = trio.CancelScope()
        self.runtime = SimRuntime(
            Random(world.rng.getrandbits(64)), offset_ms=world.rng.randint(-2000, 2000),
            drift=world.rng.choice([0, 0, 0.01, -0.01]), calendar=world.calendar,
        )  # fmt: skip
        self.own = {
            d.drive_id: LocalFace(d, self.died) for d in world.hosted if world.node_of(d) == node
        }
        self.core = Core(
            node, world.layout, own=lambda: self.own, transport=ProcessTransport(self), runtime=self.runtime,
            nursery=nursery, settings=world.settings,
        )  # fmt: skip
        self.store, self.peers = self.core.store, self.core.peers

    async def run(self) -> None:
        with self.scope:
            await self.core.agreement.open()
            await self.core.run()

    def die(self) -> None:
        self.died.set()
        self.scope.cancel()
        # Whoever waits in this life still has to be told that time is up.
        self.world._nursery.start_soon(self.core.table.run)
        self.world.network.crash(self.node)
        for drive in self.world.hosted:
            if self.world.node_of(drive) == self.node:
                drive.crash()


class ProcessTransport:
    """The network as one process sees it: gone with its death."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._transport = SimTransport(process.world.network, process.node)

    async def open_stream(self, peer):
        if self._process.died.is_set():
            raise PeerDownError("we are dead")
        return await self._transport.open_stream(peer)

    async def serve(self, handler):
        await self._transport.serve(handler)


class LocalFace:
    """A drive of the process's own node, gone with its death."""

    def __init__(self, drive: MemoryDrive, died: trio.Event) -> None:
        self._drive, self._died = drive, died

    def __getattr__(self, name):
        return getattr(self._drive, name)

    def submit(self, request, reply):
        if not self._died.is_set():
            self._drive.submit(request, lambda m: None if self._died.is_set() else reply(m))

    def open_stage(self, header, size_hint):
        self._check()
        return LocalStage(self, self._drive.open_stage(header, size_hint))

    async def read_blocks(self, header, first, lengths):
        self._check()
        return await self._drive.read_blocks(header, first, lengths)

    async def read_digests(self, header, stripes):
        self._check()
        return await self._drive.read_digests(header, stripes)

    def note_bad_shard(self, header, reason):
        if not self._died.is_set():
            self._drive.note_bad_shard(header, reason)

    def _check(self):
        if self._died.is_set():
            raise DriveError("we are dead")


class LocalStage:
    def __init__(self, face: LocalFace, stage) -> None:
        self._face, self._stage = face, stage

    async def write(self, blocks):
        self._face._check()
        await self._stage.write(blocks)

    async def close(self, digests):
        self._face._check()
        await self._stage.close(digests)

    def abort(self):
        self._stage.abort()


class ClusterWorld(World):
    """The nodes, their drives, the network, and what clients saw."""

    nodes = NODES  # that chaos knows, and clients
    shares = (0.0, 0.1, 0.1, 0.3)  # of what can be turned nasty
    layout_seconds = 5.0  # between two looks at the layout's register
    harms_drives = True  # in ways that last

    def __init__(self, rng: Random, nursery: trio.Nursery, trace, mutate=None) -> None:
        self.rng, self.trace, self._nursery = rng, trace, nursery
        self.calendar = Calendar()
        self.runtime = SimRuntime(Random(rng.getrandbits(64)), calendar=self.calendar)
        self.nasty = Nasty.draw(
            rng, round_seconds=1.0, hedge_seconds=0.05, grace_ms=5_000, shares=self.shares,
            layout_seconds=self.layout_seconds,
        )  # fmt: skip
        self.settings = self.nasty.core
        self.drives = [
            MemoryDrive(
                DriveId(bytes([i]) * 16), self.runtime, nursery, position=i, limits=self.nasty.limits,
                grace_ms=self.nasty.grace_ms, cache_bytes=self.nasty.cache_bytes,
            )
            for i in range(PROFILE.n)
        ]  # fmt: skip
        self.oracle = Oracle()
        watched = [
            self.oracle.watch(mutate(drive) if mutate else drive, drive) for drive in self.drives
        ]
        self.faces = [LossyFace(drive, rng, self.nasty.drop_replies) for drive in watched]
        self.hosted = list(self.faces)  # also those that have no place in the layout
        sets = form_sets(
            [(d.drive_id, self.node_of(d), 0, i) for i, d in enumerate(self.drives)], PROFILE
        )
        self.layout = Layout(
            epoch=1, cluster=CLUSTER, nodes=tuple(Node(node, f"n{node}") for node in self.nodes), sets=sets,
            system_set=0, k=PROFILE.k, m=PROFILE.m, codec=CODEC, block=self.nasty.block, chunk=self.nasty.chunk,
        )  # fmt: skip
        self.links = rng.choice(sorted(LINKS))
        self.network = SimNetwork(
            Random(rng.getrandbits(64)),
            nursery,
            LINKS[self.links],
            trace.say,
        )
        habits = Habits.draw(
            rng, PROFILE.k, self.nasty.block, self.nasty.chunk, (0, 0.001, 0.01, 0.1, 0.5)
        )
        self.clients = self.make_clients(rng, trace, habits)
        self.clients.acknowledged = self.oracle.acknowledged
        self.processes: dict[NodeId, Process] = {}
        for node in self.nodes:
            self.start(node)

    def node_of(self, drive) -> NodeId:
        return self.nodes[drive.drive_id[0] % len(self.nodes)]

    def start(self, node: NodeId) -> None:
        self.trace.say("start", node)
        self.processes[node] = Process(self, node, self._nursery)
        self._nursery.start_soon(self.processes[node].run)

    async def settle(self) -> None:
        """Until every node sees every other."""
        for process in self.processes.values():
            for peer in self.nodes:
                if peer != process.node:
                    with trio.fail_after(60):
                        await process.peers.node(peer).wait_up()

    # -- clients: each operation through any node

    async def client(self, _, name):
        """One client, whose every turn goes through another node."""
        for _ in range(self.clients.habits.turns):
            await trio.sleep(self.rng.choice(self.clients.habits.pauses))
            await self.through(self.pick(), name)

    async def live_through(self, *around) -> None:
        """All clients, with these tasks around them for as long; then everything is calm."""
        async with trio.open_nursery() as nursery:
            for task in around:
                nursery.start_soon(task)
            async with trio.open_nursery() as clients:
                for number in range(self.clients.habits.clients):
                    clients.start_soon(self.client, None, f"client-{number}")
            nursery.cancel_scope.cancel()
        self.calm()
        await self.settle()

    def pick(self) -> NodeId:
        """Whom a client asks next."""
        return self.rng.choice(self.nodes)

    async def through(self, node: NodeId, name: str) -> None:
        """One turn; when the node dies under it, the outcome of what it does is unknown."""
        process, done = self.processes[node], trio.Event()
        if process.died.is_set():
            return

        async def work():
            await self.clients.turn(process.store, f"{name}@{node}")
            done.set()

        async def until_dead():
            await process.died.wait()
            done.set()

        self._nursery.start_soon(work)
        self._nursery.start_soon(until_dead)
        await done.wait()

    # -- faults, one after the other or two at a time. What passes may take any number of drives; what is lost is lost to one,
    # for whatever was acknowledged has k + 1 shards.

    async def chaos(self):
        while True:
            await trio.sleep(self.rng.uniform(0.05, 2))
            fault = self.rng.choice(FAULTS)
            node = self.rng.choice(self.nodes)
            self.trace.say("fault", fault, node)
            match fault:
                case "crash":
                    await self.crash(node)
                case "late":
                    await self.come_back_late(node)
                case "isolate":
                    await self.isolate(node)
                case "one-way":
                    await self.one_way(node)
                case "clog":
                    await self.swizzle_clog()
                case "slow":
                    drive = self.rng.choice(self.drives)
                    drive.faults.commit_seconds = self.rng.choice([0.002, 0.02, 0.3])
                case "clock":
                    runtime, jump = self.processes[node].runtime, self.rng.choice(JUMPS_MS)
                    runtime.offset_ms = max(
                        -MAX_SKEW_MS, min(MAX_SKEW_MS, runtime.offset_ms + jump)
                    )
                case "hung" | "full":
                    drive = self.rng.choice(self.drives)
                    self.hurt(drive, fault)
                    await trio.sleep(self.rng.choice([0.1, 2, 8]))
                    drive.faults.hung = drive.faults.full = False
                case "harm" if self.harms_drives:
                    self.harm()

    def harm(self) -> None:
        """One drive fails for good, or loses something, unless another has. A row is written anew: then it is that one's turn again."""
        for drive in self.drives:
            if getattr(drive, "lost_row", False) and not drive.platter.index.corrupt:
                drive.lost_row = drive.damaged = False
        drive, what = self.rng.choice(self.drives), self.rng.choice(LASTING)
        if not any(is_harmed(other) for other in self.drives):
            self.trace.say("harm", what, drive.drive_id[0])
            self.hurt(drive, what)
            drive.lost_row = what == "row"

    def _how_long(self) -> float:
        """Shorter and longer than a ping, and than what a connection bears."""
        return self.rng.choice([0.05, 0.5, 2, 8])

    async def crash(self, node, seconds=None):
        if not self.processes[node].died.is_set():
            self.processes[node].die()
            await trio.sleep(self._how_long() if seconds is None else seconds)
            self.start(node)

    async def come_back_late(self, node):
        """After months, in which the others were used."""
        self._nursery.start_soon(self.crash, node, 4.0)
        await trio.sleep(self.rng.uniform(0.5, 3))
        self.calendar.leap(24 * 90)
        await trio.sleep(4)

    async def isolate(self, node):
        others = [other for other in self.nodes if other != node]
        for other in others:
            self.network.partition(node, other)
        await trio.sleep(self._how_long())
        for other in others:
            self.network.unblock(node, other)
            self.network.unblock(other, node)

    async def one_way(self, node):
        """Either nobody hears the node, or it hears nobody."""
        mute = self.rng.random() < 0.5
        pairs = [(node, other) if mute else (other, node) for other in self.nodes if other != node]
        for pair in pairs:
            self.network.block(*pair)
        await trio.sleep(self._how_long())
        for pair in pairs:
            self.network.unblock(*pair)

    async def swizzle_clog(self):
        """A random subset of links stops one by one, and goes on in another order."""
        pairs = [(one, other) for one in self.nodes for other in self.nodes if one != other]
        chosen = self.rng.sample(pairs, self.rng.randint(min(1, len(pairs)), len(pairs)))
        for pair in chosen:
            self.network.block(*pair)
            await trio.sleep(self.rng.uniform(0, 0.3))
        self.rng.shuffle(chosen)
        for pair in chosen:
            self.network.unblock(*pair)
            await trio.sleep(self.rng.uniform(0, 0.3))

    def calm(self):
        super().calm()
        self.network.settings = LinkSettings()
        self.network.heal()
        for node in self.nodes:
            if self.processes[node].died.is_set():
                self.start(node)


async def scenario(rng, trace, *, mutate=None, checks_space=False):
    """One seed: clients through every node and faults together, then calm, then the checks."""
    async with trio.open_nursery() as nursery:
        world = ClusterWorld(rng, nursery, trace, mutate)
        world.checks_space = checks_space or rng.random() < SPACE_SHARE
        # What only a repair can bring back would be missed.
        world.harms_drives = not world.checks_space
        trace.say("links", world.links)
        trace.say("nasty", *world.nasty.turned)
        with world.nasty.applied():
            await world.settle()
            faults = [world.chaos] * rng.choice([1, 1, 2])  # two at once: nothing is lost by that
            await world.live_through(*faults, world.collect, world.look, world.pass_days)
            await trio.sleep(4)
            await world.check(world.processes[rng.choice(world.nodes)].store)
            nursery.cancel_scope.cancel()
    return world


async def space_scenario(rng, trace):
    """The same; in the end nothing is left that nobody refers to, and all drives hold the same rows."""
    return await scenario(rng, trace, checks_space=True)
