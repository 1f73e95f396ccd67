"""What healing does from time to time: here, what nobody else would have told it to do."""

import trio

from cluster.healing.service import Healing
from cluster.healing.settings import HealingSettings
from cluster.membership.view import MembershipView
from cluster.topology.agreement import Agreement
from cluster.topology.changes import Place, replace_drive
from tests.healing.test_steward import ME, world
from tests.topology.layouts import seat


async def test_a_layout_that_its_coordinator_took_along_when_it_died_comes_into_force(
    autojump_clock,
):
    settings = HealingSettings(round_seconds=0.5, layout_seconds=7)
    async with world() as w, trio.open_nursery() as nursery:
        view = MembershipView(ME)
        healing = Healing(ME, w.agreement, w.table, w.roster, view, lambda: w.drives, settings)
        nursery.start_soon(healing.run)
        died = Agreement(w.layout, list)  # of a node none of whose drives is there any more
        chosen = await died.propose(
            w.table, lambda layout: replace_drive(layout, Place(0, 3), seat(1, 9))
        )
        await trio.sleep(6)
        assert w.layout.epoch == chosen.epoch - 1
        await trio.sleep(2)
        assert w.layout.epoch >= chosen.epoch
        assert w.layout.sets[0].positions[3].drive == seat(1, 9).drive
        nursery.cancel_scope.cancel()
