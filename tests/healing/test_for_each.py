"""Work for many items at once, and again for those that were refused because there were many."""

import trio
import trio.lowlevel

from cluster.errors import UnavailableError
from cluster.healing.copying import for_each


async def test_what_is_refused_among_many_is_done_by_itself():
    busy, done = 0, []

    async def work(item):
        nonlocal busy
        if busy >= 2:
            raise UnavailableError("busy")
        busy += 1
        await trio.lowlevel.checkpoint()
        busy -= 1
        done.append(item)
        return True

    assert await for_each(range(10), 5, work) == 0
    assert sorted(done) == list(range(10))


async def test_what_fails_by_itself_ends_the_second_attempt():
    tried = []

    async def work(item):
        tried.append(item)
        return item not in {3, 4, 7}

    assert await for_each(range(10), 1, work) == 3
    assert tried == [*range(10), 3]
    assert await for_each([], 5, work) == 0
