"""What healing does from time to time: here, what nobody else would have told it to do."""

import contextlib

import trio
from msgspec.structs import replace

from cluster.healing.service import Healing
from cluster.healing.settings import HealingSettings
from cluster.layout import encode_layout
from cluster.membership.view import MembershipView
from cluster.topology.agreement import DOCUMENT, Agreement
from cluster.topology.changes import Place, replace_drive
from tests.healing.test_steward import ME, world
from tests.topology.layouts import seat


@contextlib.asynccontextmanager
async def healing_world():
    """The world of the steward with its healing at work, and the events that it tells of."""
    settings = HealingSettings(round_seconds=0.5, layout_seconds=7)
    async with world() as w, trio.open_nursery() as nursery:
        events = []
        healing = Healing(
            ME, w.agreement, w.table, w.roster, MembershipView(ME), lambda: w.drives, events.append,
            settings,
        )  # fmt: skip
        nursery.start_soon(healing.run)
        yield w, events
        nursery.cancel_scope.cancel()


async def test_a_layout_that_its_coordinator_took_along_when_it_died_comes_into_force(
    autojump_clock,
):
    async with healing_world() as (w, events):
        died = Agreement(w.layout, list)  # of a node none of whose drives is there any more
        chosen = await died.propose(
            w.table, lambda layout: replace_drive(layout, Place(0, 3), seat(1, 9))
        )
        await trio.sleep(6)
        assert w.layout.epoch == chosen.epoch - 1
        await trio.sleep(2)
        assert w.layout.epoch >= chosen.epoch
        assert w.layout.sets[0].positions[3].drive == seat(1, 9).drive
        assert events == []


async def test_a_register_that_contradicts_the_drives_is_reported_and_not_followed(autojump_clock):
    async with healing_world() as (w, events):
        before = w.layout
        other = replace(before, chunk=2 * before.chunk)
        await w.table.write_document(DOCUMENT, encode_layout(other))
        await trio.sleep(8)
        assert w.layout == before
        assert "two layouts" in events[0].reason
