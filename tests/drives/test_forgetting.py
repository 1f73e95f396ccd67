"""A drive that opens with fewer commits than it has called durable is out: what it has forgotten may have been a vote."""

import copy

import trio

from cluster.clock import BALLOT_ZERO, Ballot
from cluster.drives.drive import CommitMark, DriveState
from cluster.drives.memory_drive import MemoryDrive
from cluster.register.keys import object_row
from cluster.register.messages import Accept, Accepted, Failed
from tests.contracts.benches import BUCKET, LocalBench, accept, ask, at, expect, live, query
from tests.sim.cluster import NODES
from tests.sim.content import put_request
from tests.sim.quiet import quiet_world
from tests.sim.run import simulate
from tests.transport.pair import ask as call, between_two_nodes


def put(number):
    """A register, written for the first time."""
    ballot = Ballot(number, 0, 1)
    return Accept(
        row=object_row(BUCKET, b"%d" % number), ballot=ballot, epoch=1, bucket_epoch=1, base=BALLOT_ZERO,
        state=live(ballot),
    )  # fmt: skip


async def write(bench, drive, count, life=1):
    """So many commits, at a ballot that is above what was promised in the life before."""
    ballot = at(bench, life)
    for number in range(count):
        row = object_row(BUCKET, b"%d" % number)
        await expect(drive, accept(ballot, live(ballot), row), Accepted)


async def test_a_drive_that_has_all_its_commits_stays(tmp_path):
    bench = LocalBench(tmp_path)
    async with bench.open() as drive:
        await write(bench, drive, 3)
        mark = drive.mark
        assert mark.durable >= 3
        bench.crash()
    async with bench.open() as drive:
        assert drive.mark.life != mark.life
        drive.confront(mark)
        await write(bench, drive, 3, life=2)
        drive.confront(drive.mark)
        drive.confront(CommitMark(mark.life, 0))
        assert drive.state is DriveState.ACTIVE


async def test_a_drive_that_has_lost_commits_is_out(tmp_path):
    bench = LocalBench(tmp_path)
    async with bench.open() as drive:
        await write(bench, drive, 2)
        bench.crash()  # a copy of what is there now is opened next
        await write(bench, drive, 5)
        mark = drive.mark
    async with bench.open() as drive:
        await write(bench, drive, 20, life=2)  # with more commits than there were, too
        drive.confront(mark)
        with trio.fail_after(5):
            await drive.left.wait()
        assert drive.state is DriveState.FAULTY
        assert "forgotten" in drive.reason
        assert await ask(drive, query()) == Failed(drive.reason)
        reason = drive.reason
    async with bench.open() as drive:  # whoever has witnessed it may be gone
        assert (drive.state, drive.reason) == (DriveState.FAULTY, reason)


@between_two_nodes()
async def test_a_peer_remembers_what_every_drive_has_committed(pair):
    forgetful, sound = pair.bare

    async def restart(**changes):
        """A process that dies and begins again, faster than it is missed."""
        for name, index in changes.items():
            {"forgetful": forgetful, "sound": sound}[name].platter.index = index
        for drive in pair.bare:
            drive.crash()
        await trio.sleep(2)

    early = copy.deepcopy(forgetful.platter.index)
    for drive in pair.drives:
        for number in range(1, 4):
            assert isinstance(await call(drive, put(number)), Accepted)
    await trio.sleep(2)
    await restart()
    assert [drive.state for drive in pair.drives] == [DriveState.ACTIVE] * 2
    await restart(forgetful=early)
    assert [drive.state for drive in pair.drives] == [DriveState.FAULTY, DriveState.ACTIVE]
    assert "forgotten" in forgetful.reason


@between_two_nodes()
async def test_a_drive_that_has_forgotten_is_told_so_in_every_life(pair):
    early = copy.deepcopy(pair.bare[0].platter.index)
    for number in range(1, 4):
        assert isinstance(await call(pair.drives[0], put(number)), Accepted)
    await trio.sleep(2)
    for life in range(2, 5):
        again = MemoryDrive(pair.bare[0].drive_id, pair.there, pair.nursery)
        again.platter.index = copy.deepcopy(early)
        for _ in range(life):
            again.crash()
        pair.bare[0] = again
        await trio.sleep(2)
        assert again.state is DriveState.FAULTY


def test_a_cluster_goes_on_without_a_drive_that_has_forgotten():
    async def main(rng, trace):
        async with quiet_world(rng, trace, delay=0.001, commit=0.001) as (world, bucket):
            drive = world.drives[0]
            early = copy.deepcopy(drive.platter.index)
            store = world.processes[NODES[1]].store
            for number in range(5):
                await store.put(bucket, b"%d" % number, put_request((number, 1), rng))
            await trio.sleep(2)
            node = world.node_of(drive)
            drive.platter.index = early
            world.processes[node].die()
            world.start(node)
            await trio.sleep(5)
            states = [drive.state for drive in world.drives]
            assert states == [DriveState.FAULTY] + [DriveState.ACTIVE] * 5
            for number in range(5):
                await store.get(bucket, b"%d" % number)
            await store.put(bucket, b"later", put_request((9, 1), rng))

    simulate(main, seed=1)
