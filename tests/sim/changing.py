"""The cluster while an operator changes it: drives are replaced, moved, nodes join, leave and come back, the system set changes.

The old drive of a replacement may be dead, or alive, on the far side of a partition or not. Repair of shards is done by hand
(mender.py), and one position at a time is without its data, so that whatever is lost is a bug.
"""

from itertools import count

import trio

from cluster.drives.memory_drive import MemoryDrive
from cluster.errors import ClusterError, ConfigError
from cluster.ids import DriveId, NodeId
from cluster.layout import SYSTEM, Node, Seat
from cluster.topology.changes import (
    Place,
    add_node,
    begin_move,
    cancel_move,
    complete_data,
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
CHANGES = ("replace", "replace", "move", "system", "cancel", "guest", "guest")


class ChangingWorld(ClusterWorld):
    """`drives` are those of the positions now, `hosted` all that there are."""

    checks_space = True
    harms_drives = False  # one after the other is lost as it is

    def __init__(self, rng, nursery, trace, mutate=None):
        self._homes = {}
        self.gone = set()  # the operator vouches for it
        self._ids = count(100)
        super().__init__(rng, nursery, trace, mutate)
        self.drives = list(self.hosted)
        self.oracle.members = lambda: self.drives
        self.oracle.system = self.system_drives
        # Where drives come and go, what each of them held before says nothing of the one in its place.
        self.clients.acknowledged = lambda row, stamp: None
        self.changes = []  # what the layout came to, by name
        self.cut_off = 0  # times that a drive was replaced while it lived on, behind a partition

    def node_of(self, drive):
        return self._homes.get(drive.drive_id) or super().node_of(drive)

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

    def add_drive(self, node, position):
        """An empty one."""
        drive_id = DriveId(next(self._ids).to_bytes(16, "big"))
        self._homes[drive_id] = node
        bare = MemoryDrive(
            drive_id, self.runtime, self._nursery, position=position, limits=self.nasty.limits,
            grace_ms=self.nasty.grace_ms, cache_bytes=self.nasty.cache_bytes,
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

    def follow(self, layout):
        """The drives that have the positions now."""
        by_id = {drive.drive_id: drive for drive in self.hosted}
        positions = layout.sets[0].positions
        self.drives = [
            by_id.get(p.drive, old) for p, old in zip(positions, self.drives, strict=True)
        ]

    def system_drives(self):
        """Those of the system set."""
        seats = roll_of(self.newest_layout, SYSTEM).seats
        return [d for d in self.hosted if d.drive_id in {seat.drive for seat in seats}]

    # -- the operator

    @property
    def newest_layout(self):
        return max((p.core.layout for p in self.processes.values()), key=lambda x: x.epoch)

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
            self.follow(layout)
            return layout
        return None

    @property
    def is_whole(self):
        """Whether nothing is owed and nothing under way: only then may a drive be lost for good."""
        positions = self.newest_layout.sets[0].positions
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
            layout = self.newest_layout
            self.follow(layout)
            place = Place(0, self.rng.randrange(layout.n))
            position = layout.sets[0].positions[place.position]
            left = left or self.rng.sample(CHANGES, len(CHANGES))
            what = left.pop()
            if what == "replace" and self.is_whole:
                await self.replace(place, position)
            elif what == "move" and self.is_whole:
                await self.move(place, position)
            elif what == "system":
                size = self.rng.choice([1, 3, 5])
                await self.change("system", lambda now, size=size: begin_system_change(now, size))
            elif what == "cancel":
                await self.change("cancel-system", cancel_system_change)
                await self.change("cancel-move", lambda now, place=place: cancel_move(now, place))
            elif what == "guest":
                await self.guest()

    async def replace(self, place, position):
        """The drive is dead, or only seems so; the new one is in its node, or in another."""
        old = self.drives[place.position]
        layout = self.newest_layout
        alone = [seats for seats in (layout.system, layout.system_next) if len(seats) == 1]
        # A system set of one drive survives nothing, which is the operator's choice.
        is_dead = self.rng.random() < 0.5 and all(s.drive != old.drive_id for (s,) in alone)
        self.trace.say("lost", place.position, "dead" if is_dead else "alive")
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
            size = len(layout.system)
            await self.change("free", lambda now: begin_system_change(now, size, avoid=[old]))
            return
        members = [node.node for node in layout.nodes]
        here = layout.sets[0].positions[place.position].node
        node = self.rng.choice([here, self.rng.choice(members)])
        new = self.add_drive(node, place.position)

        def change(now):
            if now.sets[0].positions[place.position].drive != old:
                raise ConfigError("it was replaced meanwhile")
            return replace_drive(now, place, Seat(new.drive_id, node), force=True)

        await self.change("replace", change)

    async def move(self, place, position):
        members = [node.node for node in self.newest_layout.nodes]
        node = self.rng.choice(members)
        new = self.add_drive(node, place.position)
        await self.change(
            "move", lambda now: begin_move(now, place, Seat(new.drive_id, node), force=True)
        )

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
            layout = self.newest_layout
            self.follow(layout)
            for process in self.processes.values():
                process.core.healing.steward.gone |= self.gone
            await mend(self)
            for number, position in enumerate(layout.sets[0].positions):
                place = Place(0, number)
                if all(position.drive != drive.drive_id for drive in self.hosted):
                    await self.put_another(place, position.drive)
                elif position.learner is not None:
                    await self.change("switch", lambda now, place=place: switch_move(now, place))
                elif position.voting and not position.data_complete:
                    await mend(self)
                    if not self.owes(self.drives[number]):
                        await self.change(
                            "complete", lambda now, place=place: complete_data(now, place)
                        )

    async def until_whole(self):
        """After the faults everything that was begun comes to its end."""
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
        owing = [p for p, drive in enumerate(self.drives) if self.owes(drive)]
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


async def scenario(rng, trace, *, mutate=None):
    """One seed: clients, faults and an operator together, then calm, then the checks."""
    async with trio.open_nursery() as nursery:
        world = ChangingWorld(rng, nursery, trace, mutate)
        trace.say("links", world.links)
        trace.say("nasty", *world.nasty.turned)
        with world.nasty.applied():
            await world.settle()
            await world.live_through(
                world.chaos, world.operate, world.finish, world.collect, world.look, world.pass_days
            )
            async with trio.open_nursery() as operator:
                operator.start_soon(world.finish)
                operator.start_soon(world.collect)
                await world.until_whole()
                operator.cancel_scope.cancel()
            await trio.sleep(4)
            await world.check(world.processes[rng.choice(NODES)].store)
            nursery.cancel_scope.cancel()
    return world
