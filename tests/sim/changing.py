"""The cluster while an operator changes it: drives are replaced and moved, nodes join, leave and come back, a pool is added, the
system set changes.

The old drive of a replacement may be dead, or alive, on the far side of a partition or not. Repair of shards is done by hand
(mender.py), and one position at a time is without its data, so that whatever is lost is a bug.
"""

from functools import partial
from itertools import count

import trio

from cluster.drives.memory_drive import MemoryDrive
from cluster.errors import ClusterError, ConfigError
from cluster.ids import DriveId, NodeId
from cluster.layout import SYSTEM, Node, Seat
from cluster.topology.changes import (
    Place,
    add_node,
    add_pool,
    begin_move,
    cancel_move,
    complete_data,
    position_at,
    remove_node,
    replace_drive,
    switch_move,
)
from cluster.topology.system_changes import begin_system_change, cancel_system_change
from cluster.votes import roll_of
from tests.sim.checkers import ViolationError
from tests.sim.cluster import NODES, ClusterWorld, LocalFace
from tests.sim.mender import mend

GUEST = NodeId(4)
CHANGES = ("replace", "replace", "move", "system", "cancel", "guest", "guest", "pool")
MOST_SETS = 2


class ChangingWorld(ClusterWorld):
    """`drives` are those of the positions now, of all sets; `hosted` all that there are."""

    checks_space = True
    harms_drives = False  # one after the other is lost as it is

    def __init__(self, rng, nursery, trace, mutate=None):
        self._homes = {}
        self.gone = set()  # the operator vouches for it
        self._ids = count(100)
        super().__init__(rng, nursery, trace, mutate)
        self.drives = list(self.hosted)
        self._sets, self._newest = [self.drives], self.layout
        self.oracle.sets = lambda: self.sets
        self.oracle.system = self.system_drives
        # Where drives come and go, what each of them held before says nothing of the one in its place.
        self.clients.acknowledged = lambda row, stamp: None
        self.changes = []  # what the layout came to, by name
        self.cut_off = 0  # times that a drive was replaced while it lived on, behind a partition

    def node_of(self, drive):
        return self._homes.get(drive.drive_id) or self.first_node_of(drive)

    def first_node_of(self, drive):
        """Of a drive that was there at the start."""
        return super().node_of(drive)

    async def settle(self):
        """Until every member sees every other."""
        with trio.fail_after(60):
            while not self.members_meet():  # noqa: ASYNC110 - a simulator may poll
                await trio.sleep(0.5)

    def members_meet(self):
        members = [node.node for node in self.newest_layout.nodes]
        return all(
            self.processes[one].peers.node(other).is_up
            for one in members
            for other in members
            if one != other
        )

    # -- drives come and go

    def add_drive(self, node, place):
        """An empty one."""
        drive_id = DriveId(next(self._ids).to_bytes(16, "big"))
        self._homes[drive_id] = node
        bare = MemoryDrive(
            drive_id, self.runtime, self._nursery, set_id=place.set_id, position=place.position,
            limits=self.nasty.limits, grace_ms=self.nasty.grace_ms, cache_bytes=self.nasty.cache_bytes,
        )  # fmt: skip
        drive = self.oracle.watch(bare, bare)
        self.hosted.append(drive)
        process = self.processes.get(node)
        if process is not None and not process.died.is_set():
            process.own = process.own | {drive_id: LocalFace(drive, process.died)}
        return drive

    def discard(self, drive):
        """It is pulled out, and was never seen again."""
        drive.vanish()
        self.hosted.remove(drive)
        self.oracle.forget(drive)
        process = self.processes.get(self.node_of(drive))
        if process is not None:
            process.own = {i: face for i, face in process.own.items() if i != drive.drive_id}

    @property
    def sets(self):
        """The drives that have the positions now; a lost one stands for its place until another has it."""
        self.follow()
        return self._sets

    def at(self, place):
        """The drive there."""
        return self.sets[place.set_id][place.position]

    def follow(self):
        """The newest layout, and the drives by it."""
        layout = self.newest_layout
        if layout is not self._newest:
            self._newest = layout
            by_id = {drive.drive_id: drive for drive in (*self.drives, *self.hosted)}
            self._sets = [[by_id[p.drive] for p in one.positions] for one in layout.sets]
            self.drives = [drive for drives in self._sets for drive in drives]
        return layout

    def system_drives(self):
        """Those of the system set."""
        seats = roll_of(self.newest_layout, SYSTEM).seats
        return [d for d in self.hosted if d.drive_id in {seat.drive for seat in seats}]

    # -- the operator

    @property
    def newest_layout(self):
        known = (process.core.layout for process in self.processes.values())
        return max((self._newest, *known), key=lambda layout: layout.epoch)

    async def change(self, what, change):
        """Ask some node for a change. The layout, or None where it was refused or came to nothing."""
        node = self.rng.choice(sorted(self.processes))
        process = self.processes[node]
        if process.died.is_set():
            return None
        with trio.move_on_after(10):
            try:
                layout = await process.core.agreement.propose(process.core.table, change)
            except ClusterError as error:
                self.trace.say("refused", what, type(error).__name__)
                return None
            self.trace.say("layout", layout.epoch, what)
            self.changes.append(what)
            self.follow()
            return layout
        return None

    @property
    def is_whole(self):
        """Whether nothing is owed and nothing under way: only then may a drive be lost for good."""
        positions = [p for one in self.newest_layout.sets for p in one.positions]
        present = {drive.drive_id for drive in self.hosted}
        settled = all(
            p.drive in present and p.voting and p.data_complete and p.learner is None
            for p in positions
        )
        return settled and not any(self.owes(drive) for drive in self.drives)

    async def operate(self):
        """Change after change, of every kind in turn."""
        left = []
        while True:
            await trio.sleep(self.rng.uniform(0.1, 1))
            layout = self.follow()
            place = Place(self.rng.randrange(len(layout.sets)), self.rng.randrange(layout.n))
            position = position_at(layout, place)
            left = left or self.rng.sample(CHANGES, len(CHANGES))
            what = left.pop()
            if what == "replace" and self.is_whole:
                await self.replace(place, position)
            elif what == "move" and self.is_whole:
                await self.move(place, position)
            elif what == "system":
                begin = partial(
                    begin_system_change, size=self.rng.choice([1, 3, 5]), avoid=self.lost
                )
                await self.change("system", begin)
            elif what == "cancel":
                await self.change("cancel-system", cancel_system_change)
                await self.change("cancel-move", lambda now, place=place: cancel_move(now, place))
            elif what == "guest":
                await self.guest()
            elif what == "pool" and self.is_whole and len(layout.sets) < MOST_SETS:
                await self.pool()

    @property
    def lost(self):
        """What has a place and is no more. A system set of these alone could never be left again."""
        hosted = {drive.drive_id for drive in self.hosted}
        return [drive.drive_id for drive in self.drives if drive.drive_id not in hosted]

    async def replace(self, place, position):
        """The drive is dead, or only seems so; the new one is in its node, or in another."""
        old = self.at(place)
        layout = self.newest_layout
        systems = layout.system, layout.system_next, layout.system_previous
        alone = [seats for seats in systems if len(seats) == 1]
        # A system set of one drive survives nothing, which is the operator's choice.
        is_dead = self.rng.random() < 0.5 and all(s.drive != old.drive_id for (s,) in alone)
        self.trace.say("lost", place, "dead" if is_dead else "alive")
        if is_dead:
            self.discard(old)
            self.gone.add(old.drive_id)
        elif self.rng.random() < 0.5:  # and lives on where nobody hears what becomes of its place
            node = self.node_of(old)
            self.trace.say("cut off", node)
            self.cut_off += 1
            self._nursery.start_soon(self.isolate, node)
        await self.put_another(place, old.drive_id)

    async def put_another(self, place, old):
        """Another drive at the place of this one."""
        layout = self.newest_layout
        if any(seat.drive == old for seat in layout.system_next):  # of which all have to come
            await self.change("cancel-system", cancel_system_change)
            return
        if any(seat.drive == old for seat in layout.system):
            size, avoid = len(layout.system), [old, *self.lost]
            await self.change("free", partial(begin_system_change, size=size, avoid=avoid))
            return
        members = [node.node for node in layout.nodes]
        here = position_at(layout, place).node
        node = self.rng.choice([here, self.rng.choice(members)])
        new = self.add_drive(node, place)

        def change(now):
            if position_at(now, place).drive != old:
                raise ConfigError("it was replaced meanwhile")
            return replace_drive(now, place, Seat(new.drive_id, node), force=True)

        await self.change("replace", change)

    async def move(self, place, position):
        members = [node.node for node in self.newest_layout.nodes]
        node = self.rng.choice(members)
        new = self.add_drive(node, place)
        await self.change(
            "move", lambda now: begin_move(now, place, Seat(new.drive_id, node), force=True)
        )

    async def pool(self):
        """A new set over new drives of all members, whose space is used at once."""
        layout = self.newest_layout
        members = [node.node for node in layout.nodes]
        drives_of = {node: [] for node in members}
        for position in range(layout.n):
            node = members[position % len(members)]
            new = self.add_drive(node, Place(len(layout.sets), position))
            drives_of[node].append(new.drive_id)
        await self.change("pool", lambda now: add_pool(now, "second", drives_of, force=True))

    async def guest(self):
        """A fourth node comes, and goes when it holds nothing; it may come back to where it is no member."""
        members = {node.node for node in self.newest_layout.nodes}
        if GUEST not in members:
            if GUEST not in self.processes:
                self.start(GUEST)
            await self.change("join", lambda now: add_node(now, Node(GUEST, "n4")))
        else:
            await self.change("leave", lambda now: remove_node(now, GUEST))

    async def finish(self):
        """What is begun is carried on: moves are switched, data is mended, and called complete."""
        while True:
            await trio.sleep(self.rng.uniform(0.2, 1))
            layout = self.follow()
            for process in self.processes.values():
                process.core.healing.steward.gone |= self.gone
            await mend(self)
            for place in places_of(layout):
                position = position_at(layout, place)
                if all(position.drive != drive.drive_id for drive in self.hosted):
                    await self.put_another(place, position.drive)
                elif position.learner is not None:
                    await self.change("switch", lambda now, place=place: switch_move(now, place))
                elif position.voting and not position.data_complete:
                    await mend(self)
                    if not self.owes(self.at(place)):
                        await self.change(
                            "complete", lambda now, place=place: complete_data(now, place)
                        )

    async def come_to_rest(self):
        """After the faults everything that was begun comes to its end."""
        async with trio.open_nursery() as operator:
            operator.start_soon(self.finish)
            operator.start_soon(self.collect)
            await self.until_whole()
            operator.cancel_scope.cancel()

    async def until_whole(self):
        with trio.move_on_after(120):
            while True:
                await mend(self)
                layout = self.newest_layout
                if self.is_whole and not (layout.system_next or layout.system_previous):
                    break
                await trio.sleep(0.5)
            while any(  # noqa: ASYNC110 - a simulator may poll
                face.layout.epoch != self.newest_layout.epoch
                for node in layout.nodes
                for face in self.processes[node.node].own.values()
            ):
                await trio.sleep(0.5)
            return
        owing = [place for place in places_of(self.newest_layout) if self.owes(self.at(place))]
        epochs = {
            node: [face.layout.epoch for face in process.own.values()]
            for node, process in self.processes.items()
        }
        raise ViolationError(
            f"the layout does not come to rest: {owing=}, {epochs=}, {self.newest_layout}"
        )

    def pick(self):
        """A node for a client: a guest that has left serves nothing, and must not pretend to."""
        return self.rng.choice(sorted(self.processes))


def places_of(layout):
    """All positions of all sets."""
    return [Place(one.set_id, number) for one in layout.sets for number in range(layout.n)]


async def scenario(rng, trace, *, mutate=None, make_world=ChangingWorld):
    """One seed: clients, faults and an operator together, then calm, then the checks."""
    async with trio.open_nursery() as nursery:
        world = make_world(rng, nursery, trace, mutate)
        trace.say("links", world.links)
        trace.say("nasty", *world.nasty.turned)
        with world.nasty.applied():
            await world.settle()
            await world.live_through(
                world.chaos, world.operate, world.finish, world.collect, world.look, world.pass_days
            )
            await world.come_to_rest()
            await trio.sleep(4)
            await world.check(world.processes[rng.choice(NODES)].store)
            nursery.cancel_scope.cancel()
    return world
