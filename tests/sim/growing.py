"""A cluster of one becomes three, with clients and faults all along; in the end the machine with which it began fails.

Two nodes join, a pool is added over all three, positions of the first set move out to the others, the system set spreads: in an
order that the seed draws, as far as one step does not need another.
"""

from collections import Counter
from functools import partial

import trio

from cluster.layout import Node, Seat
from cluster.topology.changes import Place, add_node, begin_move
from cluster.topology.system_changes import begin_system_change
from cluster.topology.tolerance import tolerates
from tests.sim import changing
from tests.sim.changing import ChangingWorld
from tests.sim.checkers import ViolationError
from tests.sim.cluster import NODES

FIRST = NODES[0]
SYSTEM_DRIVES = 3


class GrowingWorld(ChangingWorld):
    """One node with all drives of the one set at first."""

    nodes = (FIRST,)

    def __init__(self, rng, nursery, trace, mutate=None):
        super().__init__(rng, nursery, trace, mutate)
        self.clients.habits.pauses = (0, 0.1, 0.5, 1.5)  # it takes its time

    def first_node_of(self, drive):
        return FIRST

    async def operate(self):
        """It grows because it is full."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.fill)
            await self.grow()

    async def fill(self):
        """The first set is short of space again and again; what the pool has is used at once."""
        while True:
            await trio.sleep(self.rng.uniform(0.1, 3))
            drives = self.sets[0] if len(self.sets) > 1 else []
            for is_full in (True, False):
                for drive in drives:
                    drive.faults.full = is_full
                await trio.sleep(self.rng.choice([0.5, 2, 5] if is_full else [0.5, 2]))

    async def grow(self):
        """Whatever can be done next, until nothing is left to do."""
        while self.is_growing:
            await trio.sleep(self.rng.uniform(0.1, 1))
            await self.rng.choice([self.join, self.widen, self.spread, self.extend])()

    @property
    def is_growing(self):
        """Whether the loss of a node would still be the loss of the cluster."""
        layout = self.newest_layout
        return len(layout.sets) == 1 or tolerates(layout).write_nodes < 1

    async def join(self):
        """The next node. Clients ask it, and faults meet it, from when it is a member."""
        members = [node.node for node in self.newest_layout.nodes]
        self.nodes = tuple(members)
        left = [node for node in NODES if node not in members]
        if left:
            if left[0] not in self.processes:
                self.start(left[0])
            await self.change("join", lambda now: add_node(now, Node(left[0], f"n{left[0]}")))

    async def extend(self):
        """A pool over all three."""
        layout = self.newest_layout
        if len(layout.nodes) == len(NODES) and len(layout.sets) == 1 and self.is_whole:
            await self.pool()

    async def widen(self):
        """The system set, which is all of the first set as yet, comes to lie on three nodes."""
        on = {seat.node for seat in self.newest_layout.system_seats}
        if len(on) < len(self.newest_layout.nodes):
            await self.change("system", lambda now: begin_system_change(now, SYSTEM_DRIVES))

    async def spread(self):
        """One position of the first set moves to where the fewest are."""
        layout = self.newest_layout
        positions = layout.sets[0].positions
        count = Counter({node.node: 0 for node in layout.nodes})
        count.update(position.node for position in positions)
        (crowded, most), (roomy, fewest) = count.most_common()[0], count.most_common()[-1]
        if most - fewest < 2 or not self.is_whole:
            return
        number = self.rng.choice([i for i, p in enumerate(positions) if p.node == crowded])
        await self.take_out(Place(0, number), positions[number], roomy)

    async def take_out(self, place, position, node):
        if position.seat in self.newest_layout.system:
            avoid = [position.drive]
            begin = partial(begin_system_change, size=SYSTEM_DRIVES, avoid=avoid)
            await self.change("free", begin)
            return
        new = self.add_drive(node, place)
        await self.change("move", lambda now: begin_move(now, place, Seat(new.drive_id, node)))

    async def come_to_rest(self):
        """It has grown; and without the first node everything can be read and written."""
        with trio.move_on_after(120):
            async with trio.open_nursery() as operator:
                operator.start_soon(self.finish)
                operator.start_soon(self.collect)
                await self.grow()
                operator.cancel_scope.cancel()
        if self.is_growing:
            raise ViolationError(f"it does not grow: {self.newest_layout}")
        await super().come_to_rest()
        self.processes[FIRST].die()
        await self.use_everything(self.processes[NODES[1]].store)
        self.start(FIRST)
        await self.settle()


async def scenario(rng, trace):
    """One seed."""
    return await changing.scenario(rng, trace, make_world=GrowingWorld)
