"""Tombstones go when all drives hold them and they are old enough, and never come back."""

import trio
from msgspec.structs import replace

from cluster.healing.purge import Purged, purge
from cluster.healing.settings import HealingSettings, is_settled
from cluster.layout import SYSTEM
from cluster.register.records import BOTTOM
from tests.healing.world import world
from tests.topology.layouts import make_layout, seat

OLD_SECONDS = 16 * 60
AGE_MS = HealingSettings().purge_after_ms


async def run(w, own=0):
    return (await purge(w.copier, w.layout, w.drives[own], after_ms=AGE_MS)).rows


async def test_an_old_tombstone_is_forgotten_everywhere(autojump_clock):
    async with world() as w:
        await w.put()
        await w.put(b"other")
        await w.delete()
        await trio.sleep(OLD_SECONDS)
        assert await run(w) == 1
        for position in range(4):
            assert (await w.held(position)).register == BOTTOM
            assert (await w.held(position, b"other")).register.state.live
        assert await run(w) == 0
        await w.put()
        assert (await w.table.read(w.ref())).state.live


async def test_a_young_tombstone_stays(autojump_clock):
    async with world() as w:
        await w.put()
        await w.delete()
        await trio.sleep(14 * 60)
        assert await run(w) == 0
        assert (await w.held(0)).register != BOTTOM


async def test_nothing_is_forgotten_while_a_drive_is_silent_or_lacks_it(autojump_clock):
    async with world() as w:
        await w.put()
        with w.hung(3):
            done = await w.delete()
            await trio.sleep(OLD_SECONDS)
            assert await run(w) == 0
        assert (await w.held(3)).register.state.live
        assert await run(w) == 0  # it has the object still: what is forgotten now would come back
        assert (await w.held(0)).register.ballot == done.ballot
        assert (await w.held(3)).register.ballot == done.ballot  # but now it has the tombstone
        assert await run(w) == 1
        assert [(await w.held(position)).register for position in range(4)] == [BOTTOM] * 4


async def test_a_drive_that_missed_the_end_of_a_purge_is_purged_later(autojump_clock):
    async with world() as w:
        await w.put()
        await w.delete()
        await trio.sleep(OLD_SECONDS)
        submit = w.drives[3].submit

        def deaf_to_purge(request, reply):
            if type(request).__name__ != "Purge":
                submit(request, reply)

        w.drives[3].submit = deaf_to_purge
        assert await run(w) == 0
        w.drives[3].submit = submit
        assert (await w.held(0)).register == BOTTOM
        assert (await w.held(3)).register != BOTTOM
        # The others get it once more, and then it goes everywhere.
        assert await run(w, own=3) == 0
        assert await run(w, own=3) == 1
        assert [(await w.held(position)).register for position in range(4)] == [BOTTOM] * 4


async def test_nothing_is_forgotten_while_the_set_changes(autojump_clock):
    async with world() as w:
        await w.put()
        await w.delete()
        await trio.sleep(OLD_SECONDS)
        settled, positions = w.layout, w.layout.sets[0].positions
        learning = (replace(positions[0], learner=seat(9, 9)), *positions[1:])
        w.layout = replace(settled, sets=(replace(settled.sets[0], positions=learning),))
        assert await run(w) == 0
        assert (
            await purge(w.copier, replace(settled, epoch=2), w.drives[0], after_ms=AGE_MS)
            == Purged()
        )
        w.layout = settled
        assert await run(w) == 1


async def test_rounds_go_on_where_they_stopped(autojump_clock):
    async with world(rows=2) as w:
        for number in range(5):
            await w.put(b"%d" % number)
            await w.delete(b"%d" % number)
        await trio.sleep(OLD_SECONDS)
        cursor, rounds, gone = None, 0, 0
        while rounds == 0 or cursor is not None:
            done = await purge(w.copier, w.layout, w.drives[0], cursor, after_ms=AGE_MS)
            cursor, rounds, gone = done.next, rounds + 1, gone + done.rows
        assert (rounds, gone) == (3, 5)


def test_a_set_is_settled_when_its_members_are_all_that_hold_its_rows():
    layout = make_layout(4, 1, 2, 2)
    assert is_settled(layout, 0)
    assert is_settled(layout, SYSTEM)
    positions = layout.sets[0].positions
    rebuilding = (replace(positions[0], voting=False), *positions[1:])
    changing = replace(layout, sets=(replace(layout.sets[0], positions=rebuilding),))
    assert not is_settled(changing, 0)
    assert not is_settled(changing, SYSTEM)
    named = make_layout(4, 1, 2, 2, system=3)
    assert is_settled(named, SYSTEM)
    assert not is_settled(replace(named, system_next=named.system), SYSTEM)
