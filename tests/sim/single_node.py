"""One node over MemoryDrives of a random code, in virtual time: faults by an atlas, several proposers, every checker afterwards."""

from random import Random

import trio

from cluster.clock import HybridClock
from cluster.drives.memory_drive import MemoryDrive
from cluster.erasure.codec import CODEC
from cluster.erasure.profile import Profile
from cluster.ids import ClusterId, DriveId, NodeId
from cluster.layout import Layout
from cluster.metadata.table import Table
from cluster.objects.store import ObjectStore
from cluster.quorum import Quorum
from cluster.topology.formation import form_sets
from tests.sim.nasty import LossyFace, Nasty
from tests.sim.oracle import Oracle
from tests.sim.run import Calendar, SimRuntime
from tests.sim.workload import Habits
from tests.sim.world import World, is_hurt

FAULTS = (
    "crash", "crash", "slow", "hung", "fsync", "eio", "rot", "misdirect", "full", "row", "clock",
)  # fmt: skip


class SingleNode(World):
    """The node, its drives, and what clients saw."""

    def __init__(self, rng: Random, nursery: trio.Nursery, trace, mutate=None):
        self.rng, self.trace = rng, trace
        self.calendar = Calendar()
        self.runtime = SimRuntime(Random(rng.getrandbits(64)), calendar=self.calendar)
        profile = rng.choice([Profile(4, 2), Profile(2, 1), Profile(2, 2), Profile(1, 1)])
        # The atlas: never more than m shards of a set, nor a drive that the accept quorum needs, at once.
        self.budget = min(profile.m, profile.n - Quorum(profile.n).accept)
        self.nasty = Nasty.draw(rng, round_seconds=0.5, hedge_seconds=0.02, grace_ms=1_000)
        self.drives = [
            MemoryDrive(
                DriveId(bytes([i]) * 16),
                self.runtime,
                nursery,
                position=i,
                limits=self.nasty.limits,
                grace_ms=self.nasty.grace_ms,
                cache_bytes=self.nasty.cache_bytes,
            )
            for i in range(profile.n)
        ]
        self.oracle = Oracle()
        watched = [
            self.oracle.watch(mutate(drive) if mutate else drive, drive) for drive in self.drives
        ]
        self.faces = [LossyFace(drive, rng, self.nasty.drop_replies) for drive in watched]
        sets = form_sets(
            [(d.drive_id, NodeId(1), 0, i) for i, d in enumerate(self.drives)], profile
        )
        self.layout = Layout(
            epoch=1, cluster=ClusterId(b"c" * 16), nodes=(), sets=sets, system_set=0, k=profile.k, m=profile.m, codec=CODEC,
            block=self.nasty.block, chunk=self.nasty.chunk,
        )  # fmt: skip
        self.clocks: list[SimRuntime] = []
        habits = Habits.draw(
            rng, profile.k, self.nasty.block, self.nasty.chunk, (0, 0.001, 0.01, 0.1)
        )
        self.clients = self.make_clients(rng, trace, habits)
        self.clients.acknowledged = self.oracle.acknowledged

    def coordinator(self, nursery):
        """A store of its own over the same drives: several proposers, as several nodes would be."""
        rng = self.rng
        runtime = SimRuntime(
            Random(rng.getrandbits(64)),
            offset_ms=rng.randint(-2000, 2000),
            drift=rng.choice([0, 0, 0.01, -0.01]),
            calendar=self.calendar,
        )
        self.clocks.append(runtime)
        clock = HybridClock(runtime.wall_ms, rng.getrandbits(64))
        table = Table(
            drives_of=lambda _: self.faces,
            layout=lambda: self.layout,
            clock=clock,
            runtime=runtime,
            settings=self.nasty.core.table,
        )
        nursery.start_soon(table.run)
        return ObjectStore(
            table=table, drives_of=lambda _: self.faces, layout=lambda: self.layout, clock=clock, runtime=runtime,
            node_id=NodeId(1), nursery=nursery, settings=self.nasty.core.objects,
        )  # fmt: skip

    async def client(self, store, name):
        """One client of one coordinator."""
        for _ in range(self.clients.habits.turns):
            await trio.sleep(self.rng.choice(self.clients.habits.pauses))
            await self.clients.turn(store, name)

    # -- faults: never more at once than the code and the quorums bear, so that any violation is a bug

    async def chaos(self):
        """One fault after the other."""
        while True:
            await trio.sleep(self.rng.uniform(0.01, 0.5))
            fault, drive = self.rng.choice(FAULTS), self.rng.choice(self.drives)
            if self.strike(fault, drive):
                self.trace.say("fault", fault, drive.drive_id[0])
            if self.rng.random() < 0.3:
                healed = self.rng.choice(self.drives)
                healed.faults.hung = healed.faults.full = False

    def strike(self, fault, drive):
        """One fault, if the budget allows. False: nothing was done."""
        rng = self.rng
        hurt = [d for d in self.drives if is_hurt(d) or self.owes(d)]
        if fault == "clock":
            rng.choice(self.clocks).offset_ms += rng.choice([-20_000, -500, 500, 20_000])
            return True
        if fault == "slow":
            drive.faults.commit_seconds = rng.choice([0.002, 0.02, 0.3])
            return True
        if len(hurt) >= self.budget or (drive in hurt and fault != "crash"):
            return False
        self.hurt(drive, fault)
        return True


async def scenario(rng, trace, *, mutate=None):
    """One seed: clients and faults together, then calm, then the checks."""
    async with trio.open_nursery() as nursery:
        world = SingleNode(rng, nursery, trace, mutate)
        trace.say("nasty", *world.nasty.turned)
        with world.nasty.applied():
            stores = [world.coordinator(nursery) for _ in range(rng.randint(1, 3))]
            async with trio.open_nursery() as around:
                around.start_soon(world.chaos)
                around.start_soon(world.collect)
                around.start_soon(world.look)
                around.start_soon(world.pass_days)
                async with trio.open_nursery() as clients:
                    for number in range(world.clients.habits.clients):
                        clients.start_soon(world.client, rng.choice(stores), f"client-{number}")
                around.cancel_scope.cancel()
            world.calm()
            await trio.sleep(2)
            await world.check(stores[0])
            nursery.cancel_scope.cancel()
    return world
