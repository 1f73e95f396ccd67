"""What a node says of all drives of the cluster, its own and the others'."""

from functools import partial

import pytest
import trio

from cluster.drives.drive import DriveState
from cluster.layout import SYSTEM
from cluster.topology.system_changes import begin_system_change
from tests.sim.cluster import NODES
from tests.sim.quiet import quiet_world
from tests.sim.run import simulate


def in_quiet_world(test):
    def run():
        async def main(rng, trace):
            async with quiet_world(rng, trace, delay=0.001, commit=0.001) as (world, _):
                await test(world, world.processes[NODES[0]].core)

        simulate(main, seed=1)

    run.__name__ = test.__name__
    return pytest.mark.sim(run)


@in_quiet_world
async def test_drives_of_all_nodes_are_shown_by_position(world, core):
    statuses = await core.drive_statuses()
    assert [status.drive for status in statuses] == [drive.drive_id for drive in world.drives]
    assert {status.state for status in statuses} == {DriveState.ACTIVE}
    assert core.quorum_lost() == ""


@in_quiet_world
async def test_those_of_a_node_that_is_down_are_missing(world, core):
    world.processes[NODES[1]].die()
    await trio.sleep(5)
    lost = [d for d in await core.drive_statuses() if d.state is DriveState.MISSING]
    assert {status.drive for status in lost} == {
        drive.drive_id for drive in world.drives if world.node_of(drive) == NODES[1]
    }
    assert all("node 2" in status.reason for status in lost)
    assert core.quorum_lost() == ""
    world.processes[NODES[2]].die()
    await trio.sleep(5)
    assert core.quorum_lost() == "set 0: read and write quorum lost (2 of 6 drives vote)"


@in_quiet_world
async def test_without_the_system_set_nothing_is_ready(world, core):
    """No bucket is found then, though every set is whole."""
    await core.agreement.propose(core.table, partial(begin_system_change, size=1))
    with trio.fail_after(30):
        while core.layout.system_set != SYSTEM or core.layout.system_previous:
            await core.agreement.wait_changed()
    assert core.quorum_lost() == ""
    (seat,) = core.layout.system
    drive = next(drive for drive in world.drives if drive.drive_id == seat.drive)
    drive.fail("broken")
    await trio.sleep(5)
    assert core.quorum_lost() == "the system set: read and write quorum lost (0 of 1 drives vote)"


@in_quiet_world
async def test_a_drive_that_does_not_answer_holds_up_no_other(world, core):
    async def hang():
        await trio.sleep_forever()

    world.drives[0].status = hang
    begun = trio.current_time()
    statuses = await core.drive_statuses()
    assert trio.current_time() - begun < 6
    assert [status.state for status in statuses].count(DriveState.MISSING) == 1
