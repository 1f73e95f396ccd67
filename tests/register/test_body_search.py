"""A body row comes from the nearest drive that has it; one that is late or has none costs a hedge at most."""

import pytest
import trio

from cluster.errors import CorruptError
from cluster.register.messages import ReadBody
from tests.healing.world import world

LIST = b"a list of parts" * 100
HEDGE = 0.1  # and some ticks


async def read(w):
    body = (await w.table.read(w.ref())).state.live.body
    started = trio.current_time()
    data = await w.table.read_body(w.ref(), body)
    return data, trio.current_time() - started


def asked(w):
    """Counts, for each drive, who is asked for a body from now on."""
    counts = [0] * len(w.drives)
    for position, drive in enumerate(w.drives):

        def submit(request, reply, position=position, submit=drive.submit):
            counts[position] += isinstance(request, ReadBody)
            submit(request, reply)

        drive.submit = submit
    return counts


def forget(w, *positions):
    """These drives do not have the body any more."""
    for position in positions:
        w.drives[position].crash()
        w.drives[position].platter.index._bodies.clear()


async def test_one_drive_is_asked_the_nearest(autojump_clock):
    async with world() as w:
        await w.put(listed=LIST)
        for position, drive in enumerate(w.drives):
            drive.cost = 0.1 / (1 + position)
        counts = asked(w)
        assert (await read(w))[0] == LIST
        assert counts == [0, 0, 0, 1]


async def test_silent_drives_cost_a_hedge_each(autojump_clock):
    async with world() as w:
        await w.put(listed=LIST)
        await trio.sleep(1)
        with w.hung(0):
            data, seconds = await read(w)
        assert data == LIST
        assert seconds < 2 * HEDGE


async def test_drives_without_it_cost_nothing(autojump_clock):
    async with world() as w:
        await w.put(listed=LIST)
        await trio.sleep(1)
        forget(w, 0, 1, 2)
        data, seconds = await read(w)
        assert data == LIST
        assert seconds < HEDGE


async def test_where_nobody_has_it_the_search_ends_at_once(autojump_clock):
    async with world() as w:
        await w.put(listed=LIST)
        await trio.sleep(1)
        forget(w, 0, 1, 2, 3)
        data, seconds = await read(w)
        assert data is None
        assert seconds < HEDGE


async def test_where_nobody_answers_the_search_ends_in_time(autojump_clock):
    async with world() as w:
        await w.put(listed=LIST)
        body = (await w.table.read(w.ref())).state.live.body
        with w.hung(0, 1, 2, 3), trio.fail_after(3):
            assert await w.table.read_body(w.ref(), body) is None


async def test_wrong_bytes_are_not_taken(autojump_clock):
    async with world() as w:
        await w.put(listed=LIST)
        await trio.sleep(1)
        for position in range(4):
            w.drives[position].crash()
            bodies = w.drives[position].platter.index._bodies
            if position:
                bodies.update(dict.fromkeys(bodies, b"other bytes"))
        assert (await read(w))[0] == LIST
        w.drives[0].platter.index._bodies.clear()
        w.drives[0].crash()
        with pytest.raises(CorruptError):
            await read(w)
