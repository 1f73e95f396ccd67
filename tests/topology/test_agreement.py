"""The layout goes from epoch to epoch on a register, durably, one change at a time, and never back."""

import contextlib
from random import Random

import pytest
import trio
from msgspec.structs import replace

from cluster.clock import HybridClock
from cluster.drives.memory_drive import MemoryDrive
from cluster.errors import QuorumError, UnavailableError
from cluster.ids import ClusterId, NodeId
from cluster.layout import LayoutError, Node, encode_layout
from cluster.metadata.commit import TableSettings
from cluster.metadata.table import Table
from cluster.topology.agreement import DOCUMENT, Agreement, LayoutConflictError, LayoutRacedError
from cluster.topology.changes import Place, add_node, replace_drive
from cluster.topology.refusals import DriveInUseError
from tests.sim.run import SimRuntime
from tests.topology.layouts import make_layout, seat

LAYOUT = make_layout(3, 1, 2, 1)
FOURTH, FIFTH = Node(NodeId(4), "n4:1"), Node(NodeId(5), "n5:1")


class World:
    """Three drives on three nodes; each node has its agreement and its table."""

    def __init__(self, nursery):
        self.runtime = SimRuntime(Random(1))
        self.drives = [
            MemoryDrive(p.drive, self.runtime, nursery, position=i)
            for i, p in enumerate(LAYOUT.sets[0].positions)
        ]
        self.nodes = [self.node(nursery, drive) for drive in self.drives]

    def node(self, nursery, drive):
        agreement = Agreement(LAYOUT, lambda: [drive.layout])
        clock = HybridClock(self.runtime.wall_ms, self.runtime.rng.getrandbits(64))
        table = Table(
            drives_of=lambda _: self.drives,
            layout=lambda: agreement.current,
            clock=clock,
            runtime=self.runtime,
            settings=TableSettings(round_seconds=0.5),
        )
        nursery.start_soon(table.run)
        return agreement, table

    async def tell_all(self, source):
        for agreement, _ in self.nodes:
            await agreement.adopt(source.encoded)


@contextlib.asynccontextmanager
async def world():
    async with trio.open_nursery() as nursery:
        made = World(nursery)
        _, table = made.nodes[0]
        await table.write_document(DOCUMENT, encode_layout(LAYOUT))
        yield made
        nursery.cancel_scope.cancel()


async def test_a_change_is_chosen_then_durable_then_in_force(autojump_clock):
    async with world() as w:
        (one, table), (two, other_table), (three, third_table) = w.nodes
        changed = await one.propose(table, lambda layout: add_node(layout, FOURTH))
        assert (one.current, one.current.epoch) == (changed, 2)
        assert w.drives[0].layout.data == one.encoded == encode_layout(changed)
        assert two.current == LAYOUT
        assert await two.refresh(other_table) == changed  # two drives still serve epoch 1
        assert w.drives[1].layout.data == one.encoded
        with pytest.raises(QuorumError):  # and now only one does
            await third_table.read_document(DOCUMENT)
        assert await three.adopt(one.encoded)
        assert await three.propose(third_table, lambda layout: add_node(layout, FIFTH))
        assert three.current.epoch == 3


async def test_of_two_changes_at_once_one_is_made(autojump_clock):
    async with world() as w:
        outcomes = []

        async def propose(agreement, table, node):
            try:
                outcomes.append(await agreement.propose(table, lambda x: add_node(x, node)))
            except (LayoutRacedError, UnavailableError) as error:
                outcomes.append(error)

        async with trio.open_nursery() as nursery:
            for (agreement, table), node in zip(w.nodes[:2], (FOURTH, FIFTH), strict=True):
                nursery.start_soon(propose, agreement, table, node)
        made = [o for o in outcomes if not isinstance(o, Exception)]
        assert len(made) == 1
        assert made[0].epoch == 2
        winner = max((a for a, _ in w.nodes), key=lambda a: a.current.epoch)
        await w.tell_all(winner)
        assert {a.current.epoch for a, _ in w.nodes} == {2}
        assert {a.encoded for a, _ in w.nodes} == {encode_layout(made[0])}


async def test_a_refused_change_changes_nothing(autojump_clock):
    async with world() as w:
        agreement, table = w.nodes[0]
        with pytest.raises(DriveInUseError):
            await agreement.propose(
                table, lambda layout: replace_drive(layout, Place(0, 0), seat(2, 0))
            )
        assert (await agreement.refresh(table), w.drives[0].layout.data) == (LAYOUT, b"")


async def test_a_layout_that_peers_tell_of_while_the_register_is_read_is_no_conflict(
    autojump_clock,
):
    """The answer is of before: that is no sign of a register that went back."""
    async with world() as w:
        (one, table), (two, other_table), _ = w.nodes

        class Slow:
            async def read_document(self, name):
                found = await other_table.read_document(name)
                await one.propose(table, lambda layout: add_node(layout, FOURTH))
                await two.adopt(one.encoded)
                return found

        assert (await two.refresh(Slow())).epoch == 2


async def test_a_layout_that_was_chosen_and_told_nobody_is_found(autojump_clock):
    async with world() as w:
        _, table = w.nodes[0]
        orphan = add_node(LAYOUT, FOURTH)  # its proposer died before it told anyone
        await table.write_document(DOCUMENT, encode_layout(orphan))
        agreement, other = w.nodes[1]
        with pytest.raises(
            UnavailableError
        ):  # it is found, and the other drives do not hold it yet
            await agreement.propose(other, lambda layout: add_node(layout, FIFTH))
        assert agreement.current == orphan
        await w.tell_all(agreement)
        changed = await agreement.propose(other, lambda layout: add_node(layout, FIFTH))
        assert [n.node for n in changed.nodes] == [1, 2, 3, 4, 5]


async def test_lower_epochs_are_left_alone_and_two_of_one_are_refused(autojump_clock):
    async with world() as w:
        agreement, table = w.nodes[0]
        await agreement.propose(table, lambda layout: add_node(layout, FOURTH))
        assert not await agreement.adopt(encode_layout(LAYOUT))
        assert agreement.current.epoch == 2
        for bad in (
            add_node(LAYOUT, FIFTH),
            replace(agreement.current, cluster=ClusterId(b"x" * 16)),
        ):
            with pytest.raises(LayoutConflictError):
                await agreement.adopt(encode_layout(bad))
        with pytest.raises(LayoutError):
            await agreement.adopt(b"junk")
        assert agreement.current.epoch == 2


async def test_a_start_takes_the_newest_copy_of_the_drives_and_mends_the_others(autojump_clock):
    async with world() as w:
        newer = encode_layout(add_node(LAYOUT, FOURTH))
        await w.drives[1].layout.keep(2, newer)
        await w.drives[0].layout.keep(1, b"damaged")
        w.drives[2].fail("gone")
        for drive in w.drives:
            drive.crash()
        assert [d.layout.epoch for d in w.drives] == [1, 2, 1]
        elsewhere = replace(LAYOUT, nodes=(Node(NodeId(9), "n9:1"), *LAYOUT.nodes))
        agreement = Agreement(elsewhere, lambda: [d.layout for d in w.drives[:2]])
        assert (await agreement.open()).epoch == 2  # what it was made with is no second layout
        assert [d.layout.data for d in w.drives] == [newer, newer, b""]
        assert [d.layout.epoch for d in w.drives] == [2, 2, 1]
        assert not await agreement.adopt(encode_layout(LAYOUT))


async def test_whoever_waits_is_told_when_it_is_durable(autojump_clock):
    async with world() as w:
        seen = []
        agreement, _ = w.nodes[0]
        data = encode_layout(add_node(LAYOUT, FOURTH))

        async def wait():
            await agreement.wait_for(2, seconds=10)
            seen.append((agreement.current.epoch, w.drives[0].layout.data))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            for _ in range(3):
                nursery.start_soon(agreement.adopt, data)
        assert seen == [(2, data)]


async def test_a_hung_drive_holds_nobody_up_and_is_told_when_it_comes_back(autojump_clock):
    async with world() as w:
        agreement, _ = w.nodes[0]
        w.drives[0].faults.commit_seconds = 60
        assert await agreement.adopt(encode_layout(add_node(LAYOUT, FOURTH)))
        assert (agreement.current.epoch, w.drives[0].layout.epoch) == (2, 1)
        w.drives[0].crash()  # what was asked of it may be lost
        w.drives[0].faults.commit_seconds = 0.002
        with trio.move_on_after(10):
            await agreement.tend()
        assert w.drives[0].layout.epoch == 2
        assert w.drives[0].layout.data == agreement.encoded


async def test_a_newer_layout_on_its_way_to_a_drive_is_not_overtaken(autojump_clock):
    async with world() as w:
        shelf = w.drives[0].layout
        async with trio.open_nursery() as nursery:
            for epoch in (2, 4, 3):
                nursery.start_soon(shelf.keep, epoch, b"%d" % epoch)
        w.drives[0].crash()
        assert w.drives[0].layout.epoch in {2, 4}
        await w.drives[0].layout.keep(4, b"4")
        w.drives[0].crash()
        assert (w.drives[0].layout.epoch, w.drives[0].layout.data) == (4, b"4")


async def test_whoever_is_cancelled_leaves_no_drive_ahead_of_its_node(autojump_clock):
    """Its drives would refuse what the node goes by, and nobody would fetch the newer one."""
    async with world() as w:
        one, _ = w.nodes[0]
        changed = add_node(LAYOUT, FOURTH)
        w.drives[0].faults.commit_seconds = 0.4
        with trio.move_on_after(0.001):
            await one.adopt(encode_layout(changed))
        await trio.sleep(1)
        assert one.current == changed
        assert w.drives[0].layout.epoch == changed.epoch
