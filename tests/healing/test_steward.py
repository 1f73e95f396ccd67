"""Changes of the layout come to their end by themselves: a drive votes, a system set turns, and not before they may."""

import contextlib
from random import Random

import trio

from cluster.clock import HybridClock
from cluster.drives.drive import DriveState
from cluster.drives.memory_drive import MemoryDrive
from cluster.drives.roster import Roster
from cluster.healing.settings import HealingSettings
from cluster.healing.steward import Steward
from cluster.ids import NodeId
from cluster.layout import encode_layout
from cluster.membership.view import MembershipView
from cluster.metadata.commit import TableSettings
from cluster.metadata.table import Table
from cluster.topology.agreement import DOCUMENT, Agreement
from cluster.topology.changes import Place, replace_drive
from cluster.topology.system_changes import begin_system_change
from tests.sim.run import SimRuntime
from tests.topology.layouts import make_layout, seat

ME = NodeId(1)


class World:
    """One node with five drives: a 2+2 set, a system set of one, and a spare."""

    def __init__(self, nursery):
        runtime = SimRuntime(Random(1))
        layout = make_layout(1, 4, 2, 2, system=1)
        seats = [*(p.seat for p in layout.sets[0].positions), seat(1, 9)]
        self.drives = {
            s.drive: MemoryDrive(s.drive, runtime, nursery, position=min(i, 3))
            for i, s in enumerate(seats)
        }
        self.agreement = Agreement(layout, lambda: [d.layout for d in self.drives.values()])
        clock = HybridClock(runtime.wall_ms, 7)
        self.roster = Roster(ME, lambda: self.layout, lambda: self.drives, lambda _: None)
        self.table = Table(
            drives_of=self.roster.drives_of, layout=lambda: self.layout, clock=clock, runtime=runtime,
            settings=TableSettings(round_seconds=0.5),
        )  # fmt: skip
        nursery.start_soon(self.table.run)
        self.steward = Steward(
            ME, self.agreement, self.table, self.roster, MembershipView(ME), HealingSettings(round_seconds=0.5)
        )  # fmt: skip

    @property
    def layout(self):
        return self.agreement.current

    async def change(self, change):
        await self.agreement.propose(self.table, change)

    def control(self, one):
        return self.drives[one.drive].platter.index.control()


@contextlib.asynccontextmanager
async def world():
    async with trio.open_nursery() as nursery:
        made = World(nursery)
        await made.table.write_document(DOCUMENT, encode_layout(made.layout))
        yield made
        nursery.cancel_scope.cancel()


async def test_a_drive_takes_anothers_place_and_votes_when_it_knows_what_was_promised(
    autojump_clock,
):
    async with world() as w:
        place, old = Place(0, 3), w.layout.sets[0].positions[3].seat
        w.drives[old.drive].faults.hung = True
        await w.change(lambda layout: replace_drive(layout, place, seat(1, 9)))
        new = w.drives[seat(1, 9).drive]
        assert new.state is DriveState.REBUILDING
        # Rows of two would do; the ceilings have to be those of three.
        missing = w.layout.sets[0].positions[2].seat
        w.drives[missing.drive].faults.hung = True
        await w.steward.look()
        assert not w.layout.sets[0].positions[3].voting
        w.drives[missing.drive].faults.hung = False
        await w.steward.look()
        assert w.layout.sets[0].positions[3].voting
        assert new.state is DriveState.ACTIVE
        others = [w.control(p.seat).ceiling_ms for p in w.layout.sets[0].positions[:3]]
        assert w.control(seat(1, 9)).gc_floor.hlc >= min(others)


async def test_a_system_set_grows_to_its_end_and_forgets_no_promise(autojump_clock):
    async with world() as w:
        (old,) = w.layout.system
        await w.change(lambda layout: begin_system_change(layout, 3))
        promised = w.control(old).ceiling_ms
        for _ in range(2):
            await w.steward.look()
        assert len(w.layout.system) == 3
        assert w.layout.system_previous == ()
        for one in w.layout.system:
            assert one == old or w.control(one).gc_floor.hlc >= promised
        assert (await w.table.read_document(DOCUMENT))[0] == encode_layout(w.layout)
